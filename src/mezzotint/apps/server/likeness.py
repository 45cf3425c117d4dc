"""Pictures that look like another one, found without any network.

What is seen of a picture (:mod:`mezzotint.provenance.eyes`: edges and colours) is brought to 64
numbers of length one by the principal components of the drawings that `icons` learnt from
(:func:`mezzotint.families.ledger.described`).  A worker does that when it keeps a picture; here
they are kept as integers of 16 bits and compared by their cosine.  It is all whole numbers, so the
order of two pictures is the same in every answer, and pages of one search fit together.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Sequence
from operator import mul
from typing import Any, NamedTuple

WIDTH = 64
_UNIT = 32767
_FORM = struct.Struct(f"<{WIDTH}h")


class Found(NamedTuple):
    """A row by its number and its likeness: 1 for what looks the same; of two the larger first,
    and of equals the newer."""

    likeness: float
    number: int


def packed(numbers: Sequence[float]) -> bytes:
    """Numbers of length one as they are kept: 128 bytes."""
    return _FORM.pack(*(round(number * _UNIT) for number in numbers))


def likeness(one: Sequence[int], other: Sequence[int]) -> float:
    """The cosine of two."""
    return sum(map(mul, one, other)) / _UNIT**2


def nearest(
    rows: Iterable[Any], like: bytes, limit: int, after: Found | None = None
) -> list[Found]:
    """The rows (number, what is seen) that are most like another one, the most alike first.

    after: the last one of the page before.
    """
    wanted = _FORM.unpack(like)
    seen = (Found(likeness(wanted, _FORM.unpack(each)), number) for number, each in rows)
    return heapq.nlargest(limit, (each for each in seen if after is None or each < after))
