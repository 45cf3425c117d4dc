"""Where on the way from data to noise a sample stands, and what a denoiser believes there.

Everything in this room obeys one line,

    x = alpha * x0 + sigma * eps,        eps ~ N(0, I),

with ``t = 0`` data and ``t = 1`` noise.  ``alpha`` is the *amplitude* of the signal: the
``alphas_cumprod`` of other libraries is ``alpha ** 2``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """A noise level, or several: ``x = alpha * x0 + sigma * eps``.

    Both tensors have one shape: ``()`` for one level shared by a batch, ``(B,)`` for one level a
    sample, ``(N + 1,)`` for the path of a sampler.  Sampling keeps them in float64 on the CPU:
    a zero-dimensional float64 factor costs nothing and never changes the dtype of ``x``.
    """

    alpha: Tensor
    sigma: Tensor

    def at(self, index: int | slice | Tensor) -> Level:
        """The levels at ``index`` of a path."""
        return Level(self.alpha[index], self.sigma[index])

    def to(self, x: Tensor) -> Level:
        """These levels shaped ``(B, 1, …)`` to multiply ``x`` of shape ``(B, …)``.

        A zero-dimensional level is returned as it is; a level a sample takes the device and
        dtype of ``x``.

        Raises:
            ValueError: the level has neither no dimension nor the batch size of ``x``.
        """
        if self.alpha.ndim == 0:
            return self
        if self.alpha.shape != x.shape[:1]:
            raise ValueError(
                f"a level of shape {tuple(self.alpha.shape)} does not fit a batch of "
                f"{x.shape[0]}: give one level for all or one a sample"
            )
        shape = (-1,) + (1,) * (x.ndim - 1)
        return Level(self.alpha.to(x).view(shape), self.sigma.to(x).view(shape))


def stack(levels: list[Level]) -> Level:
    """Join single levels into a path of shape ``(N,)``."""
    return Level(torch.stack([a for a, _ in levels]), torch.stack([s for _, s in levels]))


def log_snr(level: Level) -> Tensor:
    """``log(alpha^2 / sigma^2)``: +inf at data, −inf at pure noise (Kingma et al. 2021, eq. 3)."""
    return 2 * (level.alpha.log() - level.sigma.log())


def half_log_snr(level: Level) -> Tensor:
    """``lambda = log(alpha / sigma)``, the time of DPM-Solver (Lu et al. 2022, §2)."""
    return level.alpha.log() - level.sigma.log()


class Estimate(NamedTuple):
    """What a denoiser believes of ``x``: the data ``x0`` and the noise ``eps`` in it.

    Invariant: ``x = alpha * x0 + sigma * eps`` holds exactly (to rounding) for the ``x`` that it
    was made from.  Every guidance and every constraint keeps it.  ``variance_mix`` is the extra
    output of a network with learned variance: the ``v`` in [0, 1] of Improved DDPM (Nichol &
    Dhariwal 2021, eq. 15) that mixes the log variances beta and beta-tilde; None elsewhere.
    """

    x0: Tensor
    eps: Tensor
    variance_mix: Tensor | None = None


def from_x0(x: Tensor, level: Level, x0: Tensor) -> Estimate:
    """The estimate that believes in ``x0``; the invariant gives its ``eps``.

    Raises:
        ValueError: ``sigma`` is 0, where any ``eps`` would do.
    """
    alpha, sigma = level.to(x)
    if not bool((sigma != 0).all()):
        raise ValueError("eps is undefined at sigma = 0: there is no noise left to estimate")
    return Estimate(x0, (x - alpha * x0) / sigma)


def mix(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``alpha * x0 + sigma * eps``: the forward process, and the deterministic step."""
    alpha, sigma = level.to(x0)
    return alpha * x0 + sigma * eps


class Tokens(NamedTuple):
    """A sequence with its padding: ``values (B, N, C)``, ``mask (B, N)`` True where real.

    ``ids (B, N, D)`` are position ids for networks whose rotary embedding reads them.
    """

    values: Tensor
    mask: Tensor | None = None
    ids: Tensor | None = None


class Conditioning(NamedTuple):
    """What a denoiser is told beside ``x`` and the level: five closed slots, all optional.

    vector: ``(B, C)`` pooled text, class embedding, size, …
    context: tokens for cross-attention
    tokens: tokens joined into the network's own sequence
    concat: ``(B, C, *spatial)`` extra input channels
    residuals: one tensor a residual port of the network, None where nothing is added (control)
    """

    vector: Tensor | None = None
    context: Tokens | None = None
    tokens: Tokens | None = None
    concat: Tensor | None = None
    residuals: tuple[Tensor | None, ...] | None = None


Denoiser = Callable[[Tensor, Level, Conditioning], Estimate]
"""``(x, level, conditioning) -> Estimate``: a network with its prediction type solved away, or
any guidance around one."""
