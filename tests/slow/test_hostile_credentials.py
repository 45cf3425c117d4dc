"""10,000 files whose manifests a stranger changed: no crash, no hang, no memory.

What is watched is in `tests/hostile_credentials.py`.  It is a process of its own, so that an end of
the library's native code is a find too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hostile_credentials

pytestmark = pytest.mark.slow

COUNT = 10_000


def test_hostile_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, hostile_credentials.__file__, str(COUNT), "1000000", tmp_path],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {seen[name]}" for name in seen if name != "failures"))
    assert seen["failures"] == []
    assert sum(seen["states"].values()) == COUNT
    assert seen["states"]["refused"] + seen["states"]["invalid"] > COUNT // 2
