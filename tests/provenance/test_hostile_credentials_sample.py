"""Some hundred files whose manifests a stranger changed; 10,000 are in tests/slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hostile_credentials


def test_a_sample(tmp_path: Path) -> None:
    """In a process of its own: native code could end it."""
    done = subprocess.run(
        [sys.executable, hostile_credentials.__file__, "300", "0", tmp_path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert seen["failures"] == [] and sum(seen["states"].values()) == 300
    assert seen["states"]["refused"] > 50 and seen["states"]["invalid"] > 50
