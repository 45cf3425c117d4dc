"""10,000 files whose manifests a stranger changed: no crash, no hang, no memory.

What is watched is in `tests/hostile_credentials.py`.  It is a process of its own, so that an end of
the library's native code is a find too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import hostile_credentials
from hostile import report, summary

pytestmark = pytest.mark.slow

COUNT = 10_000


def test_hostile_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = report(hostile_credentials.__file__, COUNT, 1_000_000, tmp_path)
    with capsys.disabled():
        print(summary(seen))
    assert seen["failures"] == []
    assert sum(seen["states"].values()) == COUNT
    assert seen["states"]["refused"] + seen["states"]["invalid"] > COUNT // 2
