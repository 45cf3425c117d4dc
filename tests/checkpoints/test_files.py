"""Safetensors: round trips against the reference library, and one line for every kind of damage."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from mezzotint import files as atomic
from mezzotint.checkpoints import files
from mezzotint.checkpoints.files import (
    CheckpointError,
    build_unfilled,
    load,
    load_into,
    read_header,
    save,
)


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with this header (an object, or bytes as they are) and these bytes of weights."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + data)
    return path


def entry(start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 5, generator=generator),
        "a.half": torch.randn(7, generator=generator).half(),
        "a.brain": torch.randn(2, 2, generator=generator).bfloat16(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "flags": torch.tensor([True, False, True]),
        "rows": torch.arange(-3, 3, dtype=torch.int8).view(2, 3).t(),  # not contiguous
        "empty": torch.zeros(0, 4),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
    }


def error(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(CheckpointError):
        load(path)
    return str(caught.value)


# --- round trips ------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_and_the_reference_agrees(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, tensors(), {"who": "me", "note": "ä\n✓"})
    state, metadata = load(path)
    theirs = safetensors.torch.load_file(path)
    assert metadata == {"who": "me", "note": "ä\n✓"}
    assert state.keys() == tensors().keys() == theirs.keys()
    for name, tensor in tensors().items():
        for other in (state[name], theirs[name]):
            assert other.dtype == tensor.dtype
            assert other.shape == tensor.shape
            assert torch.equal(other.float(), tensor.float())


def test_reads_what_the_reference_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors().items()}, path)
    state, metadata = load(path)
    assert metadata == {}
    assert torch.equal(state["b.weight"], tensors()["b.weight"])


def test_the_header_tells_shapes_and_types(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, tensors(), {"who": "me"})
    header = read_header(path)
    assert header.tensors["b.weight"].dtype == "F32"
    assert header.tensors["b.weight"].shape == (3, 5)
    assert header.metadata == {"who": "me"}
    assert header.size == path.stat().st_size


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    save(one, tensors(), {"a": "1", "b": "2"})
    save(two, dict(reversed(tensors().items())), {"b": "2", "a": "1"})
    assert one.read_bytes() == two.read_bytes()
    header = read_header(one)
    length = int.from_bytes(one.read_bytes()[:8], "little")
    for name, tensor in tensors().items():  # aligned, so that mapping needs no copy
        assert (8 + length + header.tensors[name].start) % tensor.element_size() == 0


def test_loaded_tensors_are_mapped_and_writing_to_them_spares_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"a": torch.zeros(4_000_000)}, {})
    before = path.read_bytes()
    state, _ = load(path)
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(path) in mapped.read_text()
    state["a"].fill_(1)
    assert path.read_bytes() == before


# --- damage -----------------------------------------------------------------------------------


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "no such file (nearest: model.safetensors)" in error(tmp_path / "modle.safetensors")
    assert "is empty (0 bytes)" in error(tmp_path / "model.safetensors")
    assert "is a folder" in error(tmp_path)
    assert "no such file" in error(tmp_path / "none" / "a")


def test_truncated_anywhere(tmp_path: Path) -> None:
    path, cut = tmp_path / "a.safetensors", tmp_path / "cut.safetensors"
    save(path, tensors(), {})
    whole = path.read_bytes()
    for length in [*range(1, 40), *range(40, len(whole), 7), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        message = error(cut)
        assert "cut short" in message or "too few" in message, (length, message)
    cut.write_bytes(whole + b"\0\0")
    assert "2 bytes at its end belong to no tensor" in error(cut)


def test_other_kinds_of_file_are_named(tmp_path: Path) -> None:
    picture, archive = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({}))
    for content, what in (
        (picture.getvalue(), "a PNG picture"),
        (archive.getvalue(), "a zip archive, perhaps a PyTorch pickle"),
        (pickle.dumps({"state_dict": {}}, protocol=2), "a pickle"),
        (pickle.dumps({"state_dict": {}}, protocol=4), "a pickle"),
        (b"GGUF" + bytes(40), "a GGUF file"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "a JPEG picture"),
        (b"RIFF\x10\0\0\0WEBP" + bytes(40), "a RIFF file"),
        (b"<!DOCTYPE html><html>" + bytes(40), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (bytes(4) + b"ftypisom" + bytes(30), "an MP4"),
    ):
        path = tmp_path / "a.safetensors"
        path.write_bytes(content)
        assert f"looks like {what}" in error(path)


def test_malformed_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"hello, this is plain text")
    assert "no JSON header" in error(path)
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "over the limit" in error(path)
    assert "not valid JSON" in error(raw(path, b'{"a": '))
    assert "not valid JSON" in error(raw(path, b'{"a":' * 5000))
    assert "not valid JSON" in error(raw(path, b'{"\xff": 1}'))
    assert "'a' comes twice" in error(raw(path, b'{"a": 1, "a": 2}'))
    assert "metadata is not a table of text" in error(raw(path, {"__metadata__": {"a": 1}}))
    assert "needs exactly dtype" in error(raw(path, {"a": {"dtype": "F32"}}))
    assert "unknown type 'F3' (nearest: F32)" in error(raw(path, {"a": entry(0, 4, "F3")}))
    assert "impossible shape" in error(raw(path, {"a": entry(0, 4, shape=(-1,))}))
    assert "impossible range" in error(raw(path, {"a": entry(4, 0)}))
    assert "needs 8 bytes, its range has 4" in error(raw(path, {"a": entry(0, 4, shape=(2,))}))
    assert "control characters" in error(raw(path, {"a\x1b[2J": entry(0, 4)}, bytes(4)))


def test_overlaps_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "overlap" in error(raw(path, {"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)))
    assert "overlap" in error(raw(path, {"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)))
    assert "4 bytes before tensor 'b' belong to no tensor" in error(
        raw(path, {"a": entry(0, 4), "b": entry(8, 12)}, bytes(12))
    )


def test_a_type_that_torch_lacks_is_an_error_of_load_only(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.safetensors", {"a": entry(0, 2, "F4", (4,))}, bytes(2))
    assert read_header(path).tensors["a"].dtype == "F4"
    with pytest.raises(CheckpointError, match="type F4: torch has none"):
        load(path)


# --- writing ----------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save(path, tensors(), {})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(atomic.WriteError, match="no space left on the disk"):
        save(path, {"a": torch.zeros(1)}, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_cannot_be_stored_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match=r"'a' of type torch\.complex128 cannot be stored"):
        save(path, {"a": torch.zeros(1, dtype=torch.complex128)}, {})
    with pytest.raises(CheckpointError, match="metadata 'steps' must be text, not int"):
        save(path, {}, {"steps": 3})  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match="is reserved"):
        save(path, {"__metadata__": torch.zeros(1)}, {})
    assert not path.exists()


# --- into a network ---------------------------------------------------------------------------


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_load_into_copies_and_keeps_the_networks_type() -> None:
    source, target = network(), network().double()
    load_into(target, source.state_dict(), "x")
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert b.dtype == torch.float64
        assert torch.equal(a.double(), b)


def test_load_into_names_all_that_differs_and_copies_nothing() -> None:
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = dict(network().state_dict())
    state["0.wieght"] = state.pop("0.weight")
    state["1.weight"] = torch.zeros(1, 4)
    with pytest.raises(CheckpointError) as caught:
        load_into(target, state, "a.safetensors")
    message = str(caught.value)
    assert message.startswith("a.safetensors does not fit Sequential: ")
    assert "1 missing: 0.weight (nearest: 0.wieght)" in message
    assert "1 unexpected: 0.wieght (nearest: 0.weight)" in message
    assert "1 of another shape: 1.weight ([1, 4] in the file, [1, 3] here)" in message
    assert "\n" not in message
    assert all(torch.equal(before[n], v) for n, v in target.state_dict().items())


def test_long_lists_are_counted() -> None:
    with pytest.raises(CheckpointError, match=r"4 missing: .* and 1 more; 9 unexpected: .* 6 more"):
        load_into(network(), {f"other.{i}": torch.zeros(1) for i in range(9)}, "a")


def test_build_unfilled_draws_nothing_and_takes_all_weights() -> None:
    source = network()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    target = build_unfilled(network)
    assert torch.equal(torch.random.get_rng_state(), before)
    load_into(target, source.state_dict(), "x", assign=True)
    x = torch.randn(5, 2)
    assert torch.equal(target(x), source(x))


def test_build_unfilled_still_makes_buffers() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.empty(3).fill_(2.0), persistent=False)

    assert torch.equal(build_unfilled(Buffered).table, torch.full((3,), 2.0))


def test_every_type_of_the_format_maps_to_one_of_torch() -> None:
    for bits, dtype in files._DTYPES.values():
        assert dtype is None or torch.empty(0, dtype=dtype).element_size() * 8 == bits


@pytest.mark.parametrize("length", [640, 896, 19280])
def test_no_length_of_a_header_makes_it_another_kind_of_file(length: int, tmp_path: Path) -> None:
    """640 is 80 02 00 … in the file, as a pickle begins; 19280 is 50 4b, "PK"."""
    path = tmp_path / "a.safetensors"
    for room in range(length - 200, length):
        save(path, {"a": torch.zeros(2)}, {"note": "x" * room})
        if int.from_bytes(path.read_bytes()[:8], "little") == length:
            break
    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    assert load(path)[0]["a"].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [[10**4000, 10**4000], [1] * 65, [2**63]])
def test_a_shape_beyond_all_sizes_is_refused_at_once(shape: list[int], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError):
        read_header(path)
