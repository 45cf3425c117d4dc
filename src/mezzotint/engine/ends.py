"""Where the way of a sample begins, and what is known of where it ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.diffusion.level import Level
from mezzotint.diffusion.noise import batch, between
from mezzotint.engine.request import Known, Request
from mezzotint.families.model import Model


def first_noise(request: Request, number: int, shape: tuple[int, ...]) -> Tensor:
    """The noise at the start of sample ``number``, ``(1, *shape)``."""
    own = batch([request.seeds[number]], "start", 0, shape)
    if request.vary is None:
        return own
    return between(batch([request.vary.seed], "start", 0, shape), own, request.vary.amount)


def start(model: Model, request: Request, path: Level, eps: Tensor) -> Tensor:
    """``x`` at the first level of the path: the start image noised, or noise alone.

    Noise alone has the variance ``alpha^2 + sigma^2`` that data of unit variance would have
    there: what a model trained on a schedule with alpha > 0 at t = 1 has seen.
    """
    alpha, sigma = path.at(0)
    if request.start is None:
        return torch.hypot(alpha, sigma) * eps
    media = request.start.media[None].to(eps.device)
    x0 = media if request.start.coded else model.codec.encode(media)
    return alpha * x0 + sigma * eps


_MAX_POOL = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


def coarse_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A media mask ``(1, *spatial)`` at the resolution of ``x0``: new wherever any of it is."""
    return _MAX_POOL[len(shape) - 1](mask[None], shape[1:])


def kept(result: Tensor, known: Known) -> Tensor:
    """The known values, exactly, where the mask is 0; a soft mask blends."""
    blended = torch.lerp(known.media, result, known.mask)
    return torch.where(known.mask == 0, known.media, blended)
