"""Edits as data: what a request must know so that `generate` extends or repaints a picture."""

from __future__ import annotations

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
