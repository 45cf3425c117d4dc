"""Data sets: every kind of source, what is selected, and what is said of bad files."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint.modalities import dataset as module
from mezzotint.modalities.dataset import DatasetError, open_dataset
from mezzotint.modalities.image import ImageError, to_tensor


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def picture(number: int = 0, size: tuple[int, int] = (12, 10)) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 4))
    return Image.fromarray(values.astype(np.uint8))


def put(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(number)
    if path.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
        image = image.convert("RGB")
    image.save(path)


def archive(
    path: Path, rows: Sequence[Mapping[str, Any]], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.jsonl", "\n".join(json.dumps(row) for row in rows))
        for number, row in enumerate(rows):
            encoded = io.BytesIO()
            picture(number).save(encoded, "WEBP", lossless=True)
            file.writestr(row["file"], encoded.getvalue())
    return path


# --- sources ----------------------------------------------------------------------------------


def test_a_folder_with_captions(root: Path) -> None:
    names = ["b.jpg", "a.PNG", "sub/c.webp", "sub/d.bmp", "e.tif", "f.gif", ".hidden.png"]
    for name in names:
        put(root / name)
    (root / "a.txt").write_text("a red fox\n\n a fox \n")
    data = open_dataset(root, "rgb")
    assert [item.name for item in data.items] == [
        "a.PNG", "b.jpg", "e.tif", "f.gif", "sub/c.webp", "sub/d.bmp",
    ]  # fmt: skip
    assert data.items[0].captions == ("a red fox", "a fox")
    assert data.items[1].captions == ()
    assert {item.label for item in data.items} == {None}
    assert len(data) == 6
    assert data.licence is None


def test_class_folders(root: Path) -> None:
    for number, name in enumerate(["dog/1.png", "cat/1.png", "cat/more/2.png"]):
        put(root / name, number)
    data = open_dataset(str(root), "rgba")
    assert data.classes == ("cat", "dog")
    assert [item.label for item in data.items] == ["cat", "cat", "dog"]


def test_metadata_in_a_folder(root: Path) -> None:
    put(root / "x" / "1.png")
    put(root / "2.png")
    put(root / "unnamed.png")
    rows = [
        {"file_name": "x/1.png", "text": "one", "label": "n", "weight": 0.5, "license": "MIT"},
        {"file": "2.png", "captions": ["two", "2"], "licence": "CC0-1.0 OR MIT", "style": "flat"},
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    data = open_dataset(root, "rgba")
    assert [(i.name, i.captions, i.label, i.weight) for i in data.items] == [
        ("x/1.png", ("one",), "n", 0.5),
        ("2.png", ("two", "2"), None, 1.0),
    ]
    assert data.licence == "(CC0-1.0 OR MIT) AND MIT"


def test_an_archive_with_splits_and_sets(root: Path) -> None:
    rows = [
        {
            "file": f"pictures/{n}.webp",
            "captions": [f"number {n}"],
            "split": "heldout" if n % 4 == 0 else "train",
            "set": "odd" if n % 2 else "even",
        }
        for n in range(8)
    ]
    path = archive(root / "a.zip", rows)
    assert len(open_dataset(path, "rgba")) == 8
    assert len(open_dataset(path, "rgba", split="train")) == 6
    assert len(open_dataset(path, "rgba", split="train", sets=["even"])) == 2
    data = open_dataset(path, "rgba", split="heldout")
    assert [item.captions for item in data.items] == [("number 0",), ("number 4",)]
    assert torch.equal(data.picture(1, None), to_tensor(picture(4), "rgba"))


# --- pictures ---------------------------------------------------------------------------------


def test_sizes(root: Path) -> None:
    put(root / "a.png")
    data = open_dataset(root, "rgba")
    assert data.picture(0, None).shape == (4, 10, 12)
    assert torch.equal(data.picture(0, None), to_tensor(picture(), "rgba"))
    for size in (4, 10, 32):
        tensor = data.picture(0, size)
        assert tensor.shape == (4, size, size)
        assert tensor.dtype == torch.float32
        assert bool((tensor[:3] <= tensor[3:]).all())
        assert -1 <= float(tensor.min()) <= float(tensor.max()) <= 1
    assert open_dataset(root, "grey", size=6).picture(0, None).shape == (1, 6, 6)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        open_dataset(root, "grey", size=0)


def test_reading_in_threads_and_after_pickling(root: Path) -> None:
    path = archive(root / "a.zip", [{"file": f"{n}.webp"} for n in range(16)])
    data = open_dataset(path, "rgba")
    expected = [to_tensor(picture(n), "rgba") for n in range(16)]
    again = pickle.loads(pickle.dumps(data))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: again.picture(n % 16, None), range(64)))
    assert all(torch.equal(tensor, expected[n % 16]) for n, tensor in enumerate(found))


def test_a_picture_that_changes_later_is_an_error(root: Path) -> None:
    put(root / "a.png")
    folder = open_dataset(root, "rgb")
    (root / "a.png").unlink()
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: no such file"):
        folder.picture(0, None)
    path = archive(root / "a.zip", [{"file": "1.webp"}])
    zipped = open_dataset(path, "rgb")
    content = bytearray(path.read_bytes())
    content[content.index(b"WEBPVP8L") + 30] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"1\.webp: is damaged: its bytes do not match"):
        zipped.picture(0, None)


# --- what is refused --------------------------------------------------------------------------


def refused(path: Path, **options: Any) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        open_dataset(path, "rgba", **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def test_bad_files_are_listed_and_skipped_by_consent_only(root: Path) -> None:
    put(root / "good.png")
    (root / "empty.png").touch()
    (root / "text.jpg").write_text("hello")
    (root / "odd: name.png").write_bytes((root / "good.png").read_bytes()[:300])
    Image.new("RGB", (2, 9)).save(root / "tiny.png")
    Image.new("RGBA", (9, 9)).save(root / "clear.png")
    put(root / "mute.png")
    (root / "mute.txt").write_text(" \n")
    error = refused(root)
    reasons = dict(
        line.rsplit(": ", 1) if "damaged" not in line else (line, "") for line in error.bad
    )
    assert len(error.bad) == 6
    assert reasons["empty.png"] == "the file is empty"
    assert reasons["text.jpg"] == "is no picture of a known format"
    assert reasons["tiny.png"] == "2x9 is too small"
    assert reasons["clear.png"] == "is wholly transparent"
    assert reasons["mute.txt"] == "the caption is empty"
    assert "6 bad files" in str(error) and "and 1 more" in str(error)
    data = open_dataset(root, "rgba", skip_bad=True)
    assert [item.name for item in data.items] == ["good.png"]
    assert data.bad == error.bad
    assert len(open_dataset(root, "rgb", skip_bad=True)) == 2  # clear.png is white then


def test_no_good_picture_at_all(root: Path) -> None:
    (root / "empty.png").touch()
    assert "1 bad file (" in str(refused(root, skip_bad=True))


def test_an_empty_folder_and_what_is_no_data_set(root: Path, tmp_path: Path) -> None:
    (root / "notes.pdf").touch()
    assert "no pictures here" in str(refused(root))
    assert "no such file or folder" in str(refused(tmp_path / "nowhere"))
    assert "a folder of pictures or a prepared .zip" in str(refused(root / "notes.pdf"))


def test_bad_archives(root: Path) -> None:
    path = archive(root / "a.zip", [{"file": "1.webp"}])
    content = path.read_bytes()
    for bad in (b"", b"nonsense", content[: len(content) // 2]):
        path.write_bytes(bad)
        assert "not a readable zip" in str(refused(path))
    packed = archive(root / "b.zip", [{"file": "1.webp"}], zipfile.ZIP_DEFLATED)
    assert "zip -0" in str(refused(packed))
    damaged = bytearray(content)
    damaged[damaged.index(b"WEBPVP8L") + 30] ^= 1
    path.write_bytes(damaged)
    assert "checksum" in str(refused(path))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting property name"),
        ("[1]", "no JSON object"),
        ('{"text": "a"}', "names no 'file'"),
        ('{"file": "b.png"}', "b.png is not there"),
        ('{"file": "../a.png"}', "../a.png is not there"),
        ('{"file": "a.png", "captions": ["x", ""]}', "captions must be texts"),
        ('{"file": "a.png", "captions": 3}', "captions must be texts"),
        ('{"file": "a.png", "weight": 0}', "weight must be a number above 0"),
        ('{"file": "a.png", "weight": true}', "weight must be a number above 0"),
        ('{"file": "a.png", "label": 3}', "'label' must be a text"),
        ('{"file": "a.png"}\n{"file": "a.png"}', "line 2: a.png was named before"),
    ],
)
def test_bad_metadata(line: str, reason: str, root: Path) -> None:
    put(root / "a.png")
    (root / "metadata.jsonl").write_text(line)
    error = refused(root)
    assert len(error.bad) == 1
    assert reason in error.bad[0]


def test_unknown_splits_and_sets_name_the_known(root: Path) -> None:
    rows = [{"file": "1.webp", "set": "noto"}, {"file": "2.webp", "split": "heldout"}]
    path = archive(root / "a.zip", rows)
    assert "it has heldout (1), train (1)" in str(refused(path, split="test"))
    assert "nearest: noto" in str(refused(path, sets=["nota"]))
    assert "no set" in str(refused(path, split="heldout", sets=["noto"]))
    assert "leaves no pictures" in str(refused(path, sets=[]))


# --- what is remembered -----------------------------------------------------------------------


def test_a_checked_data_set_is_not_checked_again_until_it_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.png")
    looked: list[str] = []
    flaw = module._flaw

    def counted(files: Any, name: str, channels: Any) -> str | None:
        looked.append(name)
        return flaw(files, name, channels)

    monkeypatch.setattr(module, "_flaw", counted)
    open_dataset(root, "rgb")
    open_dataset(root, "rgb")
    assert looked == ["a.png"]
    open_dataset(root, "rgba")  # looks for other flaws
    put(root / "b.png")
    open_dataset(root, "rgb")
    assert sorted(looked) == ["a.png", "a.png", "a.png", "b.png"]
    (root / "a.png").write_bytes(b"broken")
    refused(root)


def test_without_a_place_to_remember_it_still_works(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.png")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "a.png"))
    assert len(open_dataset(root, "rgb")) == 1
