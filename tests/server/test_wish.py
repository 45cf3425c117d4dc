"""What may be asked for: understood or refused before anything looks at a disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mezzotint.apps.server import wish
from mezzotint.apps.server.wish import WishError

ID = "ab" * 16


def test_a_wish_is_a_recipes_options() -> None:
    found = wish.read(
        {"prompt": "a fox", "count": 4, "seed": 7, "cfg_zero_star": True, "lora": "ink:0.8"}
        | {"image": ID, "strength": 0.5, "format": "webp", "negative": None}
    )
    assert found.options == {
        "prompt": "a fox",
        "seed": "7",
        "cfg-zero-star": True,
        "lora": ["ink:0.8"],
        "image": ID,
        "strength": "0.5",
    }
    assert (found.count, found.format, found.pictures) == (4, "webp", (ID,))


def test_pictures_are_prompts_by_their_ids() -> None:
    other = "cd" * 32
    found = wish.read({"prompt": "", "image-prompt": [f"{ID}:0.7", other]})
    assert found.options["image-prompt"] == [f"{ID}:0.7", other]
    assert found.pictures == (ID, other)


def test_a_seed_is_drawn_once() -> None:
    seeds = {wish.read({"prompt": "a fox"}).options["seed"] for _ in range(4)}
    assert len(seeds) == 4  # and is in the job, so whoever runs it makes the same


def test_the_pixels_of_a_size_are_known_of_an_aspect_not() -> None:
    assert wish.read({"prompt": "", "size": "128x64"}).pixels == 8192
    assert wish.read({"prompt": "", "size": "16:9"}).pixels is None


@pytest.mark.parametrize(
    ("body", "field", "why"),
    [
        ({}, "prompt", "a prompt is needed"),
        ({"prompt": 3.5, "sead": 1}, "sead", "did you mean seed"),
        ({"prompt": ["a"]}, "prompt", "must be a text or a number"),
        ({"prompt": "a\x00b"}, "prompt", "not to be seen"),
        ({"prompt": "a" * 10_001}, "prompt", "10,001 characters"),
        ({"prompt": "", "size": "big"}, "size", "is no size"),
        ({"prompt": "", "count": 65}, "count", "at most 64"),
        ({"prompt": "", "seed": 2**64}, "seed", "0 to 2\\^64"),
        ({"prompt": "", "apg": "yes"}, "apg", "must be true"),
        ({"prompt": "", "format": "gif"}, "format", "one of png"),
        ({"prompt": "", "output": "/etc/passwd"}, "output", "no field 'output'"),
        ({"prompt": "", "mark-key": "x"}, "mark-key", "no field"),
        ({"prompt": "", "watermark": "none"}, "watermark", "no field"),
        ({"prompt": "", "lora": ["a"] * 65}, "lora", "at most 64"),
    ],
)
def test_refused(body: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(WishError, match=why) as caught:
        wish.read(body)
    assert caught.value.field == field and "\n" not in str(caught.value)


_PATHS = ("../a", "/etc/passwd", "a/b", "..", "C:\\a", "~/a\\b", ".hidden", "")


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "{}") for name in ("model", "refiner", "image", "mask", "reference", "embedding")),
        *(("lora", "{}:0.8"), ("image-prompt", "{}:0.5"), ("embedding", "{}=word")),
        *(("control", "{}=x.png"), ("control", f"net={{}}/{ID},canny"), ("region", "{}/m=a fox")),
    ],
)
def test_no_path_reaches_a_disk(
    name: str, form: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[object] = []
    with monkeypatch.context() as patch:
        for asks in ("stat", "exists", "open", "is_file"):
            patch.setattr(Path, asks, lambda *given, **_: touched.append(given))
        with pytest.raises(WishError):
            wish.read({"prompt": "a fox", name: form.format(path)})
    assert touched == []


def test_no_torch_in_the_server() -> None:
    """Its memory is for pictures: what computes is loaded by workers alone."""
    code = (
        "import sys; from mezzotint.apps.server import application, wish;"
        "wish.read({'prompt': 'a', 'region': '0,0,1,1=b', 'size': '16:9', 'lora': 'a:1'});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
