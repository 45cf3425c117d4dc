"""The Python front door makes of pictures what the command line makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mezzotint.apps import cli
from mezzotint.apps.python import Maker
from mezzotint.engine.request import RequestError


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--image", "in.png"], {"image": "in.png"}),
        (["--image", "in.png", "--strength", "0.9"], {"image": "in.png", "strength": 0.9}),
        (["--image", "in.png", "--mask", "mask.png"], {"image": "in.png", "mask": "mask.png"}),
        (
            ["--image", "in.png", "--mask", "mask.png", "--size", "8x12"],
            {"image": "in.png", "mask": "mask.png", "size": (12, 8)},
        ),
        (["--image", "in.png", "--expand", "left=4"], {"image": "in.png", "expand": (4, 0, 0, 0)}),
        (["--image", "in.png", "--expand", "3:1"], {"image": "in.png", "expand": (3, 1)}),
    ],
)
def test_the_same_bits(
    here: Path, model: Path, options: list[str], told: dict[str, object]
) -> None:
    values = np.random.default_rng(5).integers(0, 256, (8, 12, 4)).astype(np.uint8)
    Image.fromarray(values).save("in.png")
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[:, 6:] = 255
    Image.fromarray(mask).save("mask.png")
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model), "-o", "out.png"]
    assert cli.main([*wish, *options]) == 0
    maker = Maker.load(str(model))
    with Image.open("out.png") as typed:
        made = maker.generate("fox", seed=3, **told)  # type: ignore[arg-type]
        assert made.size == typed.size and made.tobytes() == typed.tobytes()
    opened = {
        name: Image.open(value) if name in ("image", "mask") else value  # type: ignore[arg-type]
        for name, value in told.items()
    }
    again = maker.generate("fox", seed=3, **opened)  # type: ignore[arg-type]
    assert again.tobytes() == made.tobytes()
    assert maker.generate("fox", seed=3).tobytes() != made.tobytes()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"strength": 0.5}, "are for a picture: image="),
        ({"mask": "in.png"}, "are for a picture: image="),
        ({"image": "in.png", "expand": (1, 1), "size": (8, 8)}, "leave mask and size out"),
        ({"reference": "in.png"}, "tiny is told of no reference"),
        ({"image": "in.png", "strength": 2.0}, "strength must lie"),
    ],
)
def test_what_does_not_apply_is_an_error(
    here: Path, model: Path, told: dict[str, object], message: str
) -> None:
    Image.new("RGBA", (8, 8), "red").save("in.png")
    with pytest.raises(RequestError, match=message):
        Maker.load(str(model)).generate("fox", **told)  # type: ignore[arg-type]


def test_a_file_carries_what_the_command_lines_carries(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGBA", (8, 8), "red").save("in.png")
    maker = Maker.load(str(model))
    made = maker.generate("fox", seed=3, output="out/fox.png")
    maker.generate("fox", seed=3, image="in.png", strength=0.5, output="edited.webp")
    maker.generate("fox", seed=3, image=Image.open("in.png"), output=here / "held.png")
    Path("out/tiny.safetensors").write_bytes(model.read_bytes())
    with Image.open("out/fox.png") as stored:
        assert stored.tobytes() == made.tobytes()
    capsys.readouterr()
    assert cli.main(["verify", "out/fox.png", "edited.webp", "--in", "out"]) == 0
    assert cli.main(["credentials", "out/fox.png", "edited.webp", "held.png"]) == 0
    said = capsys.readouterr().out
    assert "edited.webp: as it was signed" in said and "in.png (edited)" in said
    assert "picture.png (edited)" in said
    assert cli.main(["verify", "held.png", "--in", "out"]) == 1
    assert "a picture in memory, with which held.png was made" in capsys.readouterr().out
    before = Path("out/fox.png").read_bytes()
    for bad in ("out/fox.xyz", "out"):
        with pytest.raises(ValueError, match="cannot write"):
            maker.generate("fox", output=bad)
    assert Path("out/fox.png").read_bytes() == before
