"""Several conditionings, each with a part of the picture: their estimates blended by masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level


def by_region(parts: Sequence[tuple[Denoiser, Tensor]]) -> Denoiser:
    """``x0 = sum_i m_i x0_i``, ``eps = sum_i m_i eps_i`` with ``sum_i m_i = 1`` at every element.

    The weighted mean of estimates of one ``x`` (Bar-Tal et al. 2023, "MultiDiffusion", arXiv
    2302.08113, eq. 5, for windows that are each the whole picture); as the weights add up to 1 it
    keeps ``x = alpha x0 + sigma eps``.  Where one weight is 1 the estimate is that part's, to the
    last bit, and so is all of it with one part.

    Args:
        parts: denoisers, each with its weights, which broadcast to ``x (B, C, *spatial)``.  A part
            whose weights are 0 everywhere is not evaluated.

    Raises:
        ValueError: the weights do not add up to 1, or one is negative.
    """
    total = sum(weight for _, weight in parts)
    whole = isinstance(total, Tensor) and bool(((total - 1).abs() < 1e-5).all())
    if not whole or any(bool((weight < 0).any()) for _, weight in parts):
        raise ValueError("the weights of regions must be 0 or more, and add up to 1 everywhere")
    seen = [(denoise, weight) for denoise, weight in parts if bool((weight != 0).any())]
    if len(seen) == 1:
        return seen[0][0]

    def blended(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        x0, eps = torch.zeros_like(x), torch.zeros_like(x)
        mixes: list[Tensor | None] = []
        for denoise, weight in seen:
            found, share = denoise(x, level, conditioning), weight.to(x)
            x0, eps = x0 + share * found.x0, eps + share * found.eps
            mixes.append(None if found.variance_mix is None else share * found.variance_mix)
        known = [mix for mix in mixes if mix is not None]
        mix = torch.stack(known).sum(0) if len(known) == len(mixes) else None
        return Estimate(x0, eps, mix)

    return blended
