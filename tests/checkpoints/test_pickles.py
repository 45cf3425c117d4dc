"""PyTorch's pickles: their tensors come out, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.pickles import load_pickle


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(6, 5)
    return {
        "a.weight": torch.randn(3, 4),
        "half": torch.randn(7).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "whole": whole,
        "view": whole.t()[1:3],  # shares its storage and is not contiguous
        "number": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
        "ids": torch.arange(5),
    }


class Trainer:
    """Something that a training program leaves beside its weights."""

    def __init__(self) -> None:
        self.history = [1, 2, 3]


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("nest", ["", "state_dict"])
def test_every_tensor_comes_out(tmp_path: Path, new: bool, nest: str) -> None:
    path, wanted = tmp_path / "x.ckpt", tensors()
    document: object = wanted
    if nest:
        document = {"epoch": 3, nest: OrderedDict(wanted), "callbacks": {"t": Trainer()}}
    torch.save(document, path, _use_new_zipfile_serialization=new)
    found = load_pickle(path)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert all(found[name].dtype == wanted[name].dtype for name in wanted)
    found["a.weight"].zero_()  # in memory, never in the file
    assert torch.equal(load_pickle(path)["a.weight"], wanted["a.weight"])


def test_parameters_are_tensors(tmp_path: Path) -> None:
    torch.save({"w": nn.Parameter(torch.ones(3))}, tmp_path / "x.pt")
    assert torch.equal(load_pickle(tmp_path / "x.pt")["w"], torch.ones(3))


class Evil:
    """Unpickled by Python itself, it would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_runs(tmp_path: Path, new: bool) -> None:
    path, trap = tmp_path / "x.ckpt", tmp_path / "trap"
    document = {"state_dict": {"w": torch.ones(2)}, "extra": Evil(trap)}
    torch.save(document, path, _use_new_zipfile_serialization=new)
    assert load_pickle(path).keys() == {"w"}
    assert not trap.exists()
    with path.with_suffix(".pkl").open("wb") as file:
        pickle.dump(Evil(trap), file)
    with pytest.raises(CheckpointError, match="not one of PyTorch's"):
        load_pickle(path.with_suffix(".pkl"))
    assert not trap.exists()


def test_names_that_look_harmless_run_neither(tmp_path: Path) -> None:
    """Not even what lies in the modules that the known names come from."""

    class Loader:
        def __reduce__(self) -> tuple[object, ...]:
            return torch.hub.load, ("somebody/code", "model")

    torch.save({"w": torch.ones(1), "x": Loader()}, tmp_path / "x.pt")
    assert load_pickle(tmp_path / "x.pt").keys() == {"w"}


@pytest.mark.parametrize("new", [True, False])
def test_damaged_files(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "x.ckpt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for keep in (0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError) as error:
            load_pickle(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_view_beyond_its_storage(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "x.pt")
    raw = (tmp_path / "x.pt").read_bytes()
    # The shape (4,) in the pickle: K\x04\x85; ask for more numbers than there are.
    assert raw.count(b"K\x04\x85") == 1
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry).replace(b"K\x04\x85", b"K\x99\x85"))
    with pytest.raises(CheckpointError, match="'w' reaches beyond its storage"):
        load_pickle(tmp_path / "y.pt")


def test_no_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="there are no tensors in it"):
        load_pickle(tmp_path / "x.pt")


# --- programs that do their worst with what is within reach -----------------------------------

_STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
)
_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE + b"K\x00K\x01\x85K\x01\x85\x89)tR"


def program(path: Path, code: bytes) -> Path:
    """A PyTorch file whose pickle is ``code``; storage 0 has one number."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + code + b".")
        archive.writestr("x/data/0", bytes(4))
    return path


def test_the_harmless_program_reads(tmp_path: Path) -> None:
    found = load_pickle(program(tmp_path / "x.pt", b"}X\x01\x00\x00\x00a" + _TENSOR + b"s"))
    assert found["a"].tolist() == [0]


@pytest.mark.parametrize(
    "code",
    [
        # BUILD on a tensor, on its storage, on a function that the reader lends
        b"}X\x01\x00\x00\x00a" + _TENSOR + b"}X\x06\x00\x00\x00offsetJ\xfb\xff\xff\xffsbs",
        b"}X\x01\x00\x00\x00a" + _STORAGE + b"}X\x05\x00\x00\x00dtypeK\x01sbs",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b",
        # 2 G numbers over a storage of one
        b"}X\x01\x00\x00\x00a"
        + _TENSOR.replace(b"K\x01\x85K\x01\x85", b"J\xff\xff\xff\x7f\x85K\x00\x85")
        + b"s",
    ],
)
def test_what_the_reader_lends_cannot_be_changed(code: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_pickle(program(tmp_path / "x.pt", code))
    assert load_pickle(program(tmp_path / "y.pt", b"}X\x01\x00\x00\x00a" + _TENSOR + b"s"))


def test_a_number_in_a_program_is_no_order_for_memory(tmp_path: Path) -> None:
    code = b"}r\xff\xff\xff\x7fX\x01\x00\x00\x00a" + _TENSOR + b"s"  # LONG_BINPUT 2147483647
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_pickle(program(tmp_path / "x.pt", code))["a"].tolist() == [0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_tables_that_name_each_other_a_hundred_times_are_visited_once(tmp_path: Path) -> None:
    table: dict[str, object] = {"a": torch.zeros(1)}
    for _ in range(8):
        table = {f"k{n}": table for n in range(100)}
    torch.save(table, tmp_path / "x.pt")
    assert len(load_pickle(tmp_path / "x.pt")) == 1


@pytest.mark.parametrize("place", range(0, 90, 3))
def test_damage_anywhere_in_the_archives_directory(place: int, tmp_path: Path) -> None:
    path = program(tmp_path / "x.pt", b"}X\x01\x00\x00\x00a" + _TENSOR + b"s")
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + place % 46] ^= 0xFF
    path.write_bytes(data)
    try:
        load_pickle(path)
    except CheckpointError as error:
        assert "\n" not in str(error)
