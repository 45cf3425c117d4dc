"""A sample of `tests/hostile_media.py`; the full run is `pytest -m slow tests/slow`."""

from __future__ import annotations

import hostile_media


def test_a_sample() -> None:
    seen = hostile_media.run(500, 10_000, watch=False)
    assert seen["failures"] == []
    assert set(seen["of each kind"]) == set(hostile_media.metadata.KINDS)
    assert 100 < seen["refused"] < 500  # some changes do no harm: both ways are seen
