"""GGUF: what the `gguf` package writes is read, and what a stranger writes does no harm."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed, load_gguf, read_gguf_header

gguf = pytest.importorskip("gguf")
KINDS = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")


def write(path: Path) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "sdxl")
    writer.add_string("general.name", "a fox")
    writer.add_array("some.list", [1, 2, 3])
    writer.add_array("some.words", ["a", "b"])
    written: dict[str, np.ndarray] = {}
    for name, dtype in (("f32", np.float32), ("f16", np.float16)):
        written[name] = numbers.normal(size=(3, 5)).astype(dtype)
        writer.add_tensor(name, written[name])
    for kind in KINDS:
        written[kind] = numbers.normal(size=(4, 64)).astype(np.float32)
        packed = gguf.quants.quantize(written[kind], gguf.GGMLQuantizationType[kind])
        writer.add_tensor(kind, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    folded = numbers.normal(size=(8, 2, 4, 4)).astype(np.float32)
    writer.add_array("comfy.gguf.orig_shape.conv", list(folded.shape))
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("conv", gguf.quants.quantize(folded.reshape(8, 32), kind), raw_dtype=kind)
    written["conv"] = folded
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write(tmp_path / "x.gguf")
    tensors, metadata = load_gguf(tmp_path / "x.gguf")
    assert tensors.keys() == written.keys()
    assert metadata["general.name"] == "a fox" and metadata["some.list"] == [1, 2, 3]
    assert metadata["some.words"] == ["a", "b"]
    for name, numbers in written.items():
        found, wanted = tensors[name], torch.from_numpy(numbers)
        assert tuple(found.shape) == tuple(wanted.shape)
        if isinstance(found, torch.Tensor):
            assert torch.equal(found, wanted)
        else:
            error = (found.unpack() - wanted).norm() / wanted.norm()
            assert error < (0.1 if "4" in name else 0.06 if "5" in name else 0.01)
    packed = tensors["Q8_0"]
    assert isinstance(packed, Packed) and packed.unpack(torch.bfloat16).dtype == torch.bfloat16


def test_damaged_headers_are_errors_of_one_line(tmp_path: Path) -> None:
    write(tmp_path / "x.gguf")
    whole = (tmp_path / "x.gguf").read_bytes()
    head = len(whole) - sum(e.size for e in read_gguf_header(tmp_path / "x.gguf").tensors.values())
    path, dice = tmp_path / "y.gguf", random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(head)
            data[place : place + 8] = dice.choice(
                [bytes(8), b"\xff" * 8, dice.randbytes(8), (2**40).to_bytes(8, "little")]
            )
        path.write_bytes(data)
        try:
            load_gguf(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
    for keep in (0, 3, 4, 20, head // 2, head, len(whole) - 64):
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError):
            load_gguf(path)


def test_claims_beyond_the_file_are_refused_at_once(tmp_path: Path) -> None:
    start = b"GGUF" + (3).to_bytes(4, "little")
    huge = (2**60).to_bytes(8, "little")
    path = tmp_path / "x.gguf"
    path.write_bytes(start + huge + bytes(8))
    with pytest.raises(CheckpointError, match="claims 1152921504606846976 tensors"):
        read_gguf_header(path)
    path.write_bytes(start + bytes(8) + (1).to_bytes(8, "little") + huge + bytes(64))
    with pytest.raises(CheckpointError, match="claims a text"):
        read_gguf_header(path)
    path.write_bytes(b"GGUF" + (1).to_bytes(4, "little") + bytes(16))
    with pytest.raises(CheckpointError, match="version 1 is not known"):
        read_gguf_header(path)


@pytest.mark.parametrize("own", [["a", "b"], [-8, -128]])
def test_a_shape_of_its_own_must_be_one(own: list[object], tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "sdxl")
    writer.add_array("comfy.gguf.orig_shape.a", own)
    writer.add_tensor("a", np.zeros((8, 128), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_gguf_header(path).tensors["a"].shape == (8, 128)
