"""Some hundred files whose manifests a stranger changed; 10,000 are in tests/slow."""

from __future__ import annotations

from pathlib import Path

import hostile_credentials
from hostile import report


def test_a_sample(tmp_path: Path) -> None:
    """In a process of its own: native code could end it."""
    seen = report(hostile_credentials.__file__, 300, 0, tmp_path, timeout=600)
    assert seen["failures"] == [] and sum(seen["states"].values()) == 300
    assert seen["states"]["refused"] > 50 and seen["states"]["invalid"] > 50
