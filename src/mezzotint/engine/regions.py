"""Prompts for parts of a picture: where each is told, and how much of every place it has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.engine.request import Region, RequestError

_AVERAGE_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def box(size: tuple[int, int], left: float, top: float, right: float, bottom: float) -> Tensor:
    """The mask ``(1, H, W)`` of a box whose sides are shares of the width and the height.

    A pixel that lies in it partly is so much in it.

    Raises:
        RequestError: the box is empty, or not within the picture.
    """
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise RequestError(
            f"a region's box {left:g},{top:g},{right:g},{bottom:g} must have 0 <= left < right <= "
            "1 and 0 <= top < bottom <= 1: shares of the width and the height"
        )

    def covered(edge: int, low: float, high: float) -> Tensor:
        places = torch.arange(edge, dtype=torch.float64)
        inside = (places + 1).clamp(max=high * edge) - places.clamp(min=low * edge)
        return inside.clamp(0, 1)

    height, width = size
    return (covered(height, top, bottom)[:, None] * covered(width, left, right)).float()[None]


def feathered(mask: Tensor, share: float) -> Tensor:
    """A mask ``(1, H, W)`` whose edges fade linearly over a share of its shorter side.

    The mean over a square so wide; beyond the border the mask goes on as it is there.

    Raises:
        RequestError: the share does not lie in [0, 1].
    """
    if not 0 <= share <= 1:
        raise RequestError(f"a region's edge fades over 0 to 1 of the shorter side, not {share:g}")
    around = round(share * min(mask.shape[1:]) / 2)
    if around == 0:
        return mask
    padded = F.pad(mask[None], (around,) * 4, mode="replicate")
    down = F.avg_pool2d(padded, (2 * around + 1, 1), stride=1)
    return F.avg_pool2d(down, (1, 2 * around + 1), stride=1)[0].clamp(0, 1)


def check_regions(regions: Sequence[Region]) -> None:
    """Raise RequestError for a region that is nowhere, or whose strength is none."""
    for number, region in enumerate(regions, start=1):
        if not 0 < region.strength <= 1:
            raise RequestError(
                f"the strength of region {number} must lie in (0, 1], not {region.strength:g}: it "
                "is the share that it takes from the prompt"
            )
        low, high = float(region.mask.min()), float(region.mask.max())
        if not (0 <= low <= high <= 1):
            raise RequestError(f"the mask of region {number} must lie in 0 to 1")
        if high == 0:
            raise RequestError(
                f"the mask of region {number} is black everywhere: make white where "
                f"{region.prompt!r} is to be"
            )


def check_masks(regions: Sequence[Region], size: tuple[int, ...]) -> None:
    """Raise RequestError for a mask of another size than the picture's."""
    for number, region in enumerate(regions, start=1):
        if tuple(region.mask.shape) != (1, *size):
            raise RequestError(
                f"the mask of region {number} has shape {tuple(region.mask.shape)}, this request "
                f"needs {(1, *size)}"
            )


def shares(regions: Sequence[Region], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """How much of each element of ``x0`` the prompt and each region have: they add up to 1.

    A region has its strength times its mask, ``a_i``; where those of several add up to more than
    1, each has ``a_i / sum a``.  The prompt has what is left.

    Args:
        shape: of ``x0``, ``(C, *spatial)``: the masks are averaged over its elements.

    Returns:
        ``(1, 1, *spatial)`` each, the prompt's first.
    """
    spatial = shape[1:]
    if not regions:
        return (torch.ones(1, 1, *spatial),)
    pool = _AVERAGE_POOL[len(spatial)]
    asked = torch.stack([pool(r.mask[None].double(), spatial) * r.strength for r in regions])
    taken = asked / asked.sum(0).clamp(min=1)
    left = (1 - taken.sum(0)).clamp(min=0)
    # What rounding leaves of a place that is all a region's is not worth an evaluation.
    left = torch.where(left < 1e-6, 0, left)
    return (left.float(), *taken.float())
