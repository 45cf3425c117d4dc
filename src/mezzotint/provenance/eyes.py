"""What is seen of a picture without any network: where edges run, and which colours lie where.

Histograms of oriented gradients (Dalal & Triggs 2005, §6, unsigned, cells of 8 × 8 pixels) of a
drawing's opacity and of its lightness on white, and its colours averaged down to 8 × 8.  The second
judge of the quality report sees by these; nothing has learnt from them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 64
"""Pixels that a picture is brought to."""
WIDTH = 1280
_BINS, _CELL, _THUMBNAIL = 8, 8, 8
_LIGHTNESS = (0.299, 0.587, 0.114)
_FAINT = 0.05  # an edge so weak counts as none


def canonical(pictures: Tensor) -> Tensor:
    """Premultiplied RGBA ``(N, 4, H, W)`` in [−1, 1] → ``(N, 4, 64, 64)`` in [0, 1].

    Colour above alpha is cut off, as it is when a picture is saved.  What is not square is laid in
    the middle of a transparent square; shrunk by averaging.

    Raises:
        ValueError: another number of channels.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 4:
        raise ValueError(f"pictures must be (N, 4, H, W), not {tuple(pictures.shape)}")
    unit = pictures.float().add(1).div(2).clamp(0, 1)
    unit = torch.cat([torch.minimum(unit[:, :3], unit[:, 3:]), unit[:, 3:]], dim=1)
    height, width = unit.shape[-2:]
    edge = max(height, width)
    left, top = (edge - width) // 2, (edge - height) // 2
    if height != width:
        unit = F.pad(unit, (left, edge - width - left, top, edge - height - top))
    if edge > EDGE:
        return F.interpolate(unit, size=(EDGE, EDGE), mode="area")
    if edge < EDGE:
        return F.interpolate(unit, size=(EDGE, EDGE), mode="bilinear", align_corners=False)
    return unit


def _histograms(plane: Tensor) -> Tensor:
    """``(N, H, W)`` in [0, 1] → ``(N, 8 · H/8 · W/8)``: each cell's edges by direction."""
    padded = F.pad(plane[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = torch.hypot(dx, dy)
    place = torch.atan2(dy, dx) % math.pi / math.pi * _BINS  # 0 … 8, both ends the same direction
    low, share = place.floor()[:, None], place.frac()[:, None]
    bins = torch.arange(_BINS).view(-1, 1, 1)
    shares = (low % _BINS == bins) * (1 - share) + ((low + 1) % _BINS == bins) * share
    cells = F.avg_pool2d(strength[:, None] * shares, _CELL)  # (N, 8, H/8, W/8)
    around = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, stride=1, padding=1)
    return (cells / (around + (_FAINT / _CELL) ** 2).sqrt()).sqrt().flatten(1)


def seen(unit: Tensor) -> Tensor:
    """Canonical pictures ``(N, 4, 64, 64)`` in [0, 1] → what is seen of them, ``(N, 1280)``."""
    weights = torch.tensor(_LIGHTNESS).view(1, 3, 1, 1)
    on_white = unit[:, :3] + (1 - unit[:, 3:])
    lightness = (on_white * weights).sum(1)
    layout = F.interpolate(unit, size=(_THUMBNAIL, _THUMBNAIL), mode="area").flatten(1)
    both = _histograms(torch.cat([unit[:, 3], lightness])).chunk(2)
    return torch.cat([*both, layout], dim=1)
