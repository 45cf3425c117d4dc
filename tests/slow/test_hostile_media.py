"""10,000 changed files for each reader of metadata: no crash, no hang, no memory.

What is made and watched is in `tests/hostile_media.py`; each part is a process of its own.
"""

from __future__ import annotations

import pytest

import hostile_media
from hostile import report, summary

pytestmark = pytest.mark.slow

PARTS, EACH = 10, 10_000
"""A tenth of the files is of each kind; what no program writes is the last tenth."""


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_media(part: int, capsys: pytest.CaptureFixture[str]) -> None:
    seen = report(hostile_media.__file__, EACH, 10**6 + part * EACH)
    with capsys.disabled():
        print(summary(seen))
    assert seen["failures"] == []
    assert min(seen["of each kind"].values()) >= 10_000 / PARTS
    assert EACH // 4 < seen["refused"] < EACH
