"""Files that a stranger changed to do harm: a sample of `tests/hostile.py`, and the worst ones.

The full run, of more than 20,000 files, is `pytest -m slow tests/slow/test_hostile.py`.
"""

from __future__ import annotations

import contextlib
import copyreg
import json
import shutil
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hostile
from mezzotint.checkpoints import limits
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.pickles import load_pickle
from mezzotint.checkpoints.source import describe, open_folder, read
from mezzotint.families import catalogue

SPARE = 128 << 20
"""Bytes beside twice its size that a file at every limit may take: what `checkpoints/limits.py`
promises."""


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_sample(tmp_path: Path) -> None:
    seen = hostile.run(300, 10_000, tmp_path / "x", watch=False)
    assert seen["failures"] == []
    assert set(seen["of each kind"].values()) == {50}
    assert 200 < seen["refused"] < 300  # some changes do no harm: both ways are seen


# --- at the limits ----------------------------------------------------------------------------


def _header(raw: bytes, data: bytes = b"") -> bytes:
    return len(raw).to_bytes(8, "little") + raw + data


def _many(count: int) -> bytes:
    name = "lora_unet_joint_blocks_{:0>80}.lora_A.x".format
    rows = ",".join(
        f'"{name(n)}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(count)
    )
    return _header(f"{{{rows}}}".encode())


def _archive(path: Path, code: bytes, packing: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + code + b".", packing)
        archive.writestr("x/data/0", bytes(4))


def _lying(path: Path) -> None:
    """A bomb of 32 MB whose directory says that it is not packed smaller."""
    _archive(path, b"N0" * (16 << 20), zipfile.ZIP_BZIP2)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):
        at = data.find(mark)
        data[at + offset + 4 : at + offset + 8] = data[at + offset : at + offset + 4]
    path.write_bytes(data)


WORST: dict[str, Callable[[Path], object]] = {
    "as many tensors as may be": lambda p: p.write_bytes(_many(limits.MAX_TENSORS)),
    "more": lambda p: p.write_bytes(_many(limits.MAX_TENSORS + 1)),
    "a header of one text": lambda p: p.write_bytes(
        _header(b'{"__metadata__":{"a":"' + "é💥".encode() * 2_700_000 + b'"}}')
    ),
    "a header of lists": lambda p: p.write_bytes(_header(b'{"a":[' + b"[]," * 3_000_000 + b"1]}")),
    "a header of brackets": lambda p: p.write_bytes(_header(b'{"a":' + b"[" * 8_000_000)),
    "quotes that never end": lambda p: p.write_bytes(_header(b'{"' + b'\\"' * 5_000_000)),
    "a number without end": lambda p: p.write_bytes(_header(b'{"a":' + b"9" * 8_000_000 + b"}")),
    "an array of GGUF": lambda p: p.write_bytes(
        b"GGUF"
        + struct.pack("<IQQQ", 3, 0, 1, 1)
        + b"a"
        + struct.pack("<IIQ", 9, 8, 1 << 20)
        + bytes(8 << 20)
    ),
    "fields of GGUF": lambda p: p.write_bytes(
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 60_000)
        + b"".join(struct.pack("<QII", 4, n, 4) + bytes(4) for n in range(60_000))
    ),
    "sets": lambda p: _archive(p, b"\x8f" * (16 << 20)),
    "tables": lambda p: _archive(p, b"}" * (16 << 20)),
    "marks": lambda p: _archive(p, b"(" * (16 << 20)),
    "remembered": lambda p: _archive(p, b"N" + b"\x94" * (16 << 20)),
    "one table, copied": lambda p: _archive(
        p,
        b"ccollections\nOrderedDict\nq\x00]("
        + b"".join(b"X\x05\x00\x00\x00%05dN\x86" % n for n in range(20_000))
        + b"e\x85q\x010]"
        + b"h\x00h\x01Ra" * 60_000,
    ),
    "arguments without end": lambda p: _archive(
        p, b"cx\ny\nq\x00(" + b"N" * 60_000 + b"tq\x01" + b"0h\x00h\x01R" * 45_000
    ),
    "texts": lambda p: _archive(
        p, b"".join(b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) for _ in range(16))
    ),
    "a text claimed": lambda p: _archive(p, b"\x8d" + struct.pack("<Q", 1 << 40)),
    "an array claimed": lambda p: _archive(p, b"\x96" + struct.pack("<Q", 1 << 33)),
    "a packed program": lambda p: _archive(p, b"N0" * (100 << 20), zipfile.ZIP_DEFLATED),
    "a packed program that lies": _lying,
    "long names in long names": lambda p: _archive(
        p,
        b"".join(b"}X" + struct.pack("<I", 500) + b"%0500d" % n for n in range(8))
        + b"}("
        + b"".join(b"X\x05\x00\x00\x00%05dN" % n for n in range(50_000))
        + b"u"
        + b"s" * 8,
    ),
}


def _taken(action: Callable[[Path], object], path: Path) -> float:
    """The processor time that reading a file takes."""
    began = time.process_time()
    try:
        action(path)
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    return time.process_time() - began


@pytest.mark.parametrize("name", WORST)
def test_the_worst_of_each_kind(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    WORST[name](path)
    for action in (describe, read, inspect, catalogue.identify):
        taken = _taken(action, path)
        if taken >= hostile.SECONDS:  # once more: who works beside makes it seem longer
            taken = min(taken, _taken(action, path), _taken(action, path))
            assert taken < hostile.seconds(), action
    tracemalloc.start()
    with contextlib.suppress(CheckpointError):
        inspect(path)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2 * path.stat().st_size + SPARE


def test_an_archive_whose_files_overlap(tmp_path: Path) -> None:
    """One storage of the file's bytes, listed many times, would be a bomb that is not packed."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(300), "b": torch.ones(300)}, path)
    data = bytearray(path.read_bytes())
    places = [at for at in range(len(data)) if data[at : at + 4] == b"PK\1\2"]
    first = next(at for at in places if b"/data/0" in data[at : at + 90])
    second = next(at for at in places if b"/data/1" in data[at : at + 90])
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="two files in it overlap"):
        load_pickle(path)


def test_names_that_a_library_gave_numbers_are_not_looked_up(tmp_path: Path) -> None:
    """Pickle's extension registry leads around any table of allowed names."""
    copyreg.add_extension("posix", "system", 77)
    try:
        _archive(tmp_path / "x.pt", b"\x82M" + b"X\x02\x00\x00\x00ls\x85R")
        with pytest.raises(CheckpointError, match="an instruction that PyTorch never writes"):
            load_pickle(tmp_path / "x.pt")
    finally:
        copyreg.remove_extension("posix", "system", 77)


# --- links ------------------------------------------------------------------------------------


def _folder(path: Path, index: str = "model_index.json") -> Path:
    (path / "unet").mkdir(parents=True)
    document = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "x"]}
    (path / index).write_text(json.dumps(document))
    (path / "unet/config.json").write_text("{}")
    save(path / "unet/diffusion_pytorch_model.safetensors", {"a": torch.zeros(1)}, {})
    return path


@pytest.mark.parametrize(
    "place", ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
)
def test_links_out_of_a_folder_are_not_followed(place: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    (folder / place).rename(tmp_path / "mine")
    (folder / place).symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError, match=f"{place}: is a link out of its folder: put the"):
        inspect(folder)
    (folder / place).unlink()
    (tmp_path / "mine").rename(folder / "inside")
    (folder / place).symlink_to(folder / "inside")
    inspect(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)  # the user's own
    inspect(link)


def test_a_part_that_is_a_link_elsewhere(tmp_path: Path) -> None:
    folder, other = _folder(tmp_path / "model"), _folder(tmp_path / "other")
    shutil.rmtree(folder / "unet")
    (folder / "unet").symlink_to(other / "unet")
    with pytest.raises(CheckpointError, match="is a link out of its folder"):
        open_folder(folder)


def test_the_cache_of_hugging_face_is_links(tmp_path: Path) -> None:
    snapshot = _folder(tmp_path / "models--a--b/snapshots/0123")
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir()
    for number, file in enumerate([p for p in snapshot.rglob("*") if p.is_file()]):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    assert inspect(snapshot).kind == "StableDiffusionPipeline"


def test_shards_are_beside_their_index(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    save(tmp_path / "mine.safetensors", {"a": torch.zeros(1)}, {})
    (folder / "s.safetensors").symlink_to(tmp_path / "mine.safetensors")
    index = folder / "model.safetensors.index.json"
    for shard, message in (
        ("s.safetensors", "is a link out of its folder"),
        ("../mine.safetensors", "places 'a' outside its folder"),
        (str(tmp_path / "mine.safetensors"), "places 'a' outside its folder"),
        ("..", "is a link out of its folder"),
    ):
        index.write_text(json.dumps({"weight_map": {"a": shard}}))
        for action in (describe, read):
            with pytest.raises(CheckpointError, match=message):
                action(index)
