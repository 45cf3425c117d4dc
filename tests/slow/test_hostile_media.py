"""10,000 changed files for each reader of metadata: no crash, no hang, no memory.

What is made and watched is in `tests/hostile_media.py`; each part is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import hostile_media

pytestmark = pytest.mark.slow

PARTS, EACH = 10, 10_000
"""A tenth of the files is of each kind; what no program writes is the last tenth."""


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_media(part: int, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, hostile_media.__file__, str(EACH), str(10**6 + part * EACH)],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {seen[name]}" for name in seen if name != "failures"))
    assert seen["failures"] == []
    assert min(seen["of each kind"].values()) >= 10_000 / PARTS
    assert EACH // 4 < seen["refused"] < EACH
