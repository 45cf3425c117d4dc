"""Checkpoints are whole or not there; a damaged one is named, never passed over."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mezzotint.engine import state
from mezzotint.engine.state import Checkpoint, TrainError
from mezzotint.files import WriteError


def _checkpoint(step: int) -> Checkpoint:
    tensors = {
        "network/a": torch.arange(6.0).view(2, 3) + step,
        "adam.step/a": torch.tensor(float(step)),
        "window": torch.ones(3, dtype=torch.float64),
    }
    return Checkpoint(step, 8 * step, 1.5, "name = 'ü'", "abc", tensors)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert state.newest(tmp_path, cleans=True) is None
    path = state.write(tmp_path, _checkpoint(3))
    found = state.newest(tmp_path, cleans=True)
    assert found is not None
    expected = _checkpoint(3)
    assert replace(found, tensors={}) == replace(expected, tensors={})
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].shape == tensor.shape
    assert path.parent == tmp_path / "checkpoints"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        state.write(tmp_path, _checkpoint(step))
    assert [p.stem for p in state.checkpoints(tmp_path)] == ["step-00000010", "step-00000011"]


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "header"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    state.write(tmp_path, _checkpoint(1))
    path = state.write(tmp_path, _checkpoint(2))
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[-5] ^= 1
    elif damage == "header":
        place = data.index(b'step\\": 2')
        data[place + 8 : place + 9] = b"3"
    path.write_bytes(data[: {"cut": -9, "empty": 0}.get(damage, len(data))])
    with pytest.raises(TrainError) as error:
        state.newest(tmp_path, cleans=True)
    text = str(error.value)
    assert str(path) in text and "delete it to go back to step-00000001" in text
    assert "\n" not in text
    path.unlink()
    found = state.newest(tmp_path, cleans=True)
    assert found is not None and found.step == 1


def test_a_damaged_only_checkpoint(tmp_path: Path) -> None:
    path = state.write(tmp_path, _checkpoint(1))
    path.write_bytes(b"")
    with pytest.raises(TrainError, match="delete it to start the run again"):
        state.newest(tmp_path, cleans=True)


def test_a_full_disk_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        state.write(tmp_path, _checkpoint(step))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="no space left on the disk"):
            state.write(tmp_path, _checkpoint(3))
    found = state.newest(tmp_path, cleans=True)
    assert found is not None and found.step == 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    path = state.write(tmp_path, _checkpoint(1))
    leftover = path.with_name(".step-00000002.safetensors.0a0a0a0a.mezzotint-part")
    leftover.write_bytes(b"half")
    assert state.newest(tmp_path, cleans=False) is not None and leftover.exists()
    assert state.newest(tmp_path, cleans=True) is not None and not leftover.exists()


def test_the_digest_depends_on_all() -> None:
    tensors = _checkpoint(1).tensors
    base = state.digest("a", tensors)
    assert state.digest("a", dict(reversed(tensors.items()))) == base
    others = [
        state.digest("b", tensors),
        state.digest("a", tensors | {"network/a": tensors["network/a"].view(3, 2)}),
        state.digest("a", {("x" if n == "window" else n): t for n, t in tensors.items()}),
        state.digest("a", tensors | {"window": torch.zeros(3, dtype=torch.float64)}),
    ]
    assert len({base, *others}) == 5
