"""More than 20,000 files that a stranger changed: no crash, no hang, no memory, no code that runs.

What is watched is in `tests/hostile.py`, the files in `tests/hostile_files.py`.  Each part of the
run is a process of its own, so that a crash of the interpreter is a find too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import hostile
from hostile import report, summary

pytestmark = pytest.mark.slow

PARTS, EACH = 4, 6000
"""A sixth of the files is of each kind: safetensors, GGUF, both pickles, shards, folders."""


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_files(part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = report(hostile.__file__, EACH, 10**6 + part * EACH, tmp_path / "x")
    with capsys.disabled():
        print(summary(seen))
    assert seen["failures"] == []
    assert seen["files"] == EACH and set(seen["of each kind"].values()) == {EACH // 6}
    assert seen["refused"] > EACH // 2
