"""Sizes by aspect: the nearest one that a family was trained on, else its usual area.

Sizes are ``(height, width)``; an aspect is width to height, as ``16:9`` is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

Size = tuple[int, ...]


class Aspect(NamedTuple):
    """Width to height."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}:{self.height}"


WORDS = {
    "square": Aspect(1, 1),
    "portrait": Aspect(2, 3),
    "landscape": Aspect(3, 2),
    "tall": Aspect(9, 16),
    "wide": Aspect(16, 9),
}
MOST = 4
"""How many times as long as the other a side may be where no sizes are known."""
_NEAR = 1.2  # how far the aspect of a size may be from the wanted one


def read_aspect(text: str) -> Aspect | None:
    """``W:H`` or one of WORDS; None for anything else."""
    text = text.strip().lower()
    if (match := re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", text)) is not None:
        return Aspect(int(match[1]), int(match[2]))
    return WORDS.get(text)


def aspect_of(text: str) -> Aspect:
    """As :func:`read_aspect`.

    Raises:
        ValueError: it is none.
    """
    if (found := read_aspect(text)) is None:
        raise ValueError(f"{text!r} is no aspect: give one such as 16:9, or {', '.join(WORDS)}")
    return found


def both_ways(*upright: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Sizes and their transposes, each once, from the tallest to the widest."""
    every = {*upright, *((width, height) for height, width in upright)}
    return tuple(sorted(every, key=lambda size: (size[1] / size[0], size[1])))


def written(size: Size) -> str:
    """A size as people write it: width first."""
    return "x".join(str(edge) for edge in reversed(size))


def sized(aspect: Aspect, usual: Size, trained: Sequence[Size], multiple: int) -> tuple[int, int]:
    """The size of an aspect: of the trained ones the nearest by ratio, else about the usual area
    with each side rounded to a multiple.

    Raises:
        ValueError: no trained size is near this aspect, or it is beyond ``MOST`` to 1.
    """
    wanted = aspect.width / aspect.height

    def off(size: Size) -> float:
        return abs(math.log(size[1] / size[0] / wanted))

    if trained:
        height, width = min(trained, key=off)
        if off((height, width)) > math.log(_NEAR):
            raise ValueError(
                f"no size of this model is near {aspect}: there are "
                f"{', '.join(written(size) for size in trained)}; or give --size WxH"
            )
        return height, width
    if not 1 / MOST <= wanted <= MOST:
        raise ValueError(
            f"{aspect} is beyond {MOST}:1: give an aspect from 1:{MOST} to {MOST}:1, or --size WxH"
        )
    factor = math.sqrt(math.prod(usual) / (aspect.width * aspect.height))
    height, width = (
        max(multiple, round(edge * factor / multiple) * multiple)
        for edge in (aspect.height, aspect.width)
    )
    return height, width
