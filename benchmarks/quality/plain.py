"""Eyes that are no network: where edges run, and which colours lie where.

A model may have learnt from the very network that judges it; these eyes nothing has learnt from.
Histograms of oriented gradients (Dalal & Triggs 2005, §6, unsigned, cells of 8 × 8 pixels) of a
drawing's opacity and of its lightness on white, and its colours averaged down to 8 × 8.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from quality.features import CANONICAL, composite, thumbnails

_BINS = 8
_CELL = 8
_LIGHTNESS = (0.299, 0.587, 0.114)
_FAINT = 0.05  # an edge so weak counts as none


def _histograms(plane: Tensor) -> Tensor:
    """``(N, H, W)`` in [0, 1] → ``(N, 8 · H/8 · W/8)``: each cell's edges by direction."""
    padded = F.pad(plane[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = torch.hypot(dx, dy)
    place = torch.atan2(dy, dx) % math.pi / math.pi * _BINS  # 0 … 8, both ends the same direction
    low, share = place.floor(), place.frac()
    planes = torch.stack(
        [
            strength * ((low % _BINS == n) * (1 - share) + ((low + 1) % _BINS == n) * share)
            for n in range(_BINS)
        ],
        dim=1,
    )
    cells = F.avg_pool2d(planes, _CELL)  # (N, 8, H/8, W/8)
    around = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, stride=1, padding=1)
    return (cells / (around + (_FAINT / _CELL) ** 2).sqrt()).sqrt().flatten(1)


def plain(unit: Tensor) -> Tensor:
    """Canonical pictures ``(N, 4, 64, 64)`` in [0, 1] → what is seen of them, ``(N, 1280)``."""
    assert unit.shape[-1] == CANONICAL
    weights = torch.tensor(_LIGHTNESS).view(1, 3, 1, 1)
    lightness = (composite(unit, 1.0) * weights).sum(1)
    return torch.cat([_histograms(unit[:, 3]), _histograms(lightness), thumbnails(unit)], dim=1)
