"""Edits as data: what a request must know so that `generate` extends or repaints a picture."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.engine.request import Known, RequestError


def expand(image: Tensor, left: int, top: int, right: int, bottom: int) -> Known:
    """Outpainting: the picture on a larger canvas, everything new outside it.

    Args:
        image: ``(C, H, W)``; the other arguments: elements to add at each side, ≥ 0.
    Returns:
        what is known: ``media (C, top + H + bottom, left + W + right)``, the mask 1 in the frame.
    Raises:
        RequestError: a negative side, or nothing to add.
    """
    sides = (left, right, top, bottom)
    if min(sides) < 0 or not any(sides):
        raise RequestError("expand by 0 or more on each side, and by more than 0 on one of them")
    mask = F.pad(torch.zeros(1, *image.shape[1:]), sides, value=1.0)
    return Known(F.pad(image[None], sides, mode="replicate")[0], mask)


def near_aspect(
    like: tuple[int, int], area_of: tuple[int, ...], multiple: int, step: int = 16
) -> tuple[int, int]:
    """The size with the aspect of one and about the area of another, ``(height, width)``.

    Args:
        multiple, step: each side is a multiple of both.
    """
    step = math.lcm(multiple, step)
    factor = math.sqrt(math.prod(area_of) / math.prod(like))
    height, width = (max(step, round(edge * factor / step) * step) for edge in like)
    return height, width


def sides_to(
    size: tuple[int, int], aspect: tuple[int, int], multiple: int
) -> tuple[int, int, int, int]:
    """What to add at the left, top, right and bottom of a picture so that it has an aspect.

    The picture stays in the middle, and the shorter way is taken; each side of the whole is a
    multiple, so the aspect may differ by that much.

    Args:
        size: ``(height, width)``; aspect: width to height, as 16:9 is written.

    Raises:
        RequestError: it has this aspect already.
    """
    height, width = size
    wide, high = aspect
    whole = (max(height, width * high / wide), max(width, height * wide / high))
    new = [
        max(round(edge / multiple), -(-old // multiple)) * multiple
        for edge, old in zip(whole, size, strict=True)
    ]
    down, across = new[0] - height, new[1] - width
    if not down and not across:
        raise RequestError(f"the picture has the aspect {wide}:{high} already: nothing to expand")
    return (across // 2, down // 2, across - across // 2, down - down // 2)
