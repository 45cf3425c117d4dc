"""Where the way of a sample begins, and what is known of where it ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.diffusion.level import Level
from mezzotint.diffusion.noise import Noise, between, stream
from mezzotint.engine.request import Known, Request, Vary
from mezzotint.families.model import Model
from mezzotint.provenance.keys import MarkKey, payload, seed_hash
from mezzotint.provenance.noise_mark import NoiseMark, marked


def noise_of(
    seed: int, vary: Vary | None, name: str, like: Tensor, key: MarkKey | None = None
) -> Noise:
    """A stream of noise for a seed: its own, or of a variation the varied seed's led towards it.

    key: of the watermark that each seed's own noise carries; its payload is the seed's, so that
        a seed has the same noise whatever is asked for.
    """
    own = stream([seed], name, like)
    if key is not None:
        own = carrying(own, NoiseMark(payload(key, seed_hash(seed)), key.secret), name)
    if vary is None:
        return own
    varied = noise_of(vary.seed, vary.of, name, like, key)
    return lambda index: between(varied(index), own(index), vary.amount)


def carrying(noise: Noise, mark: NoiseMark, name: str) -> Noise:
    """A stream of noise that carries a mark, in every draw by another pattern."""
    return lambda index: marked(noise(index), mark, name, index)


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
