"""Prediction types as rows of a 2×2 system, and the step from a network to a denoiser.

A network's output is ``F = p * x0 + q * eps``.  With ``x = alpha * x0 + sigma * eps`` that is

    | alpha  sigma | | x0  |   | x |
    | p      q     | | eps | = | F |,      determinant  alpha * q − sigma * p,

so one solve turns any prediction type into an :class:`Estimate`, and the same row is the
training target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level

Row = Callable[[Level], tuple[Tensor, Tensor]]
"""``level -> (p, q)`` with ``F = p * x0 + q * eps``."""


def _x0(level: Level) -> tuple[Tensor, Tensor]:
    return torch.ones_like(level.alpha), torch.zeros_like(level.sigma)


def _eps(level: Level) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(level.alpha), torch.ones_like(level.sigma)


def _v(level: Level) -> tuple[Tensor, Tensor]:
    return -level.sigma, level.alpha


def _flow(level: Level) -> tuple[Tensor, Tensor]:
    return -torch.ones_like(level.alpha), torch.ones_like(level.sigma)


def edm(sigma_data: float) -> Row:
    """The row of EDM's F (Karras et al. 2022, eq. 7 and table 1), for ``alpha = 1``.

    With ``r = sqrt(sigma^2 + sigma_data^2)``: ``p = sigma / (sigma_data r)``,
    ``q = −sigma_data / r``, which is ``(x0 − c_skip x) / c_out``.
    """

    def row(level: Level) -> tuple[Tensor, Tensor]:
        if not bool((level.alpha == 1).all()):
            raise ValueError("the edm prediction is defined for alpha = 1 (variance exploding)")
        r = (level.sigma**2 + sigma_data**2).sqrt()
        return level.sigma / (sigma_data * r), -sigma_data / r

    return row


def edm_v(sigma_data: float) -> Row:
    """The negative of :func:`edm`'s row; with sigma_data = 1 it is v of the variance-preserving
    level of the same log-SNR."""
    positive = edm(sigma_data)

    def row(level: Level) -> tuple[Tensor, Tensor]:
        p, q = positive(level)
        return -p, -q

    return row


ROWS: dict[str, Row] = {
    "x0": _x0,
    "eps": _eps,
    "v": _v,
    "flow": _flow,
    "edm": edm(0.5),
    "edm_v": edm_v(1.0),
}
"""Each prediction type by name (``edm`` with sigma_data = 0.5, ``edm_v`` with 1)."""


def target(row: Row, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What the network should output, ``F = p * x0 + q * eps``; ``x0`` and ``eps`` ``(B, …)``."""
    p, q = Level(*row(level)).to(x0)
    return p * x0 + q * eps


def solve(row: Row, x: Tensor, output: Tensor, level: Level) -> Estimate:
    """Solve ``x = alpha x0 + sigma eps`` and ``F = p x0 + q eps`` for ``(x0, eps)``.

    Raises:
        ValueError: the determinant ``alpha q − sigma p`` is 0, so this prediction says nothing at
            this level (``eps`` at alpha = 0, ``x0`` at sigma = 0).
    """
    p, q = row(level)
    if not bool((level.alpha * q - level.sigma * p != 0).all()):
        raise ValueError(
            "the prediction type is undefined at this noise level (alpha q - sigma p = 0): an eps "
            "prediction cannot start from pure noise, an x0 prediction cannot end at sigma = 0"
        )
    (alpha, sigma), (p, q) = level.to(x), Level(p, q).to(x)
    det = alpha * q - sigma * p
    return Estimate((q / det) * x - (sigma / det) * output, (alpha / det) * output - (p / det) * x)


@dataclass(frozen=True)
class Parameterization:
    """What a model declares beside its network: all that lies between ``Level`` and its inputs.

    row: the prediction type
    c_in: ``level -> factor`` of the input (1 for VP and flow models, EDM's ``c_in`` else)
    c_noise: ``level -> time`` in the network's own units (0…999, sigma, log-SNR / 4, …)
    learned_variance: the network gives twice the channels, the second half being Improved
        DDPM's ``v`` scaled to [−1, 1]
    """

    row: Row
    c_in: Callable[[Level], Tensor]
    c_noise: Callable[[Level], Tensor]
    learned_variance: bool = False


def unit(level: Level) -> Tensor:
    """``c_in = 1``."""
    return torch.ones_like(level.alpha)


def preconditioned(row: Row, sigma_data: float) -> Parameterization:
    """EDM's inputs (Karras et al. 2022, table 1): ``c_in = 1 / sqrt(sigma^2 + sigma_data^2)`` and
    ``c_noise = ln(sigma) / 4``."""

    def c_in(level: Level) -> Tensor:
        return 1 / (level.sigma**2 + sigma_data**2).sqrt()

    def c_noise(level: Level) -> Tensor:
        return level.sigma.log() / 4

    return Parameterization(row, c_in, c_noise)


Network = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""``(x (B, C, *spatial), time (B,), conditioning) -> F``, of the shape of ``x`` (twice the
channels with a learned variance)."""


def denoiser(network: Network, parameterization: Parameterization) -> Denoiser:
    """The denoiser of a network: scale in, call, solve out.

    The prediction is solved in float32 (or wider) whatever the network computes in: near the
    ends of the path the solve divides by small numbers.

    One level for all is a number by the processor's leave, and goes to a GPU with the kernel that
    fills the batch: a copy would wait until the GPU has done all that came before.
    """

    def told(level: Level, x: Tensor) -> Tensor:
        time = parameterization.c_noise(level)
        if time.ndim == 0 and time.device.type == "cpu":
            return x.new_full(x.shape[:1], float(time))
        return time.to(x).expand(x.shape[0])

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        time = told(level, x)  # (B,)
        scaled = x * Level(parameterization.c_in(level), level.sigma).to(x).alpha
        output = network(scaled.to(x.dtype), time, conditioning).to(x.dtype)
        if not parameterization.learned_variance:
            return solve(parameterization.row, x, output, level)
        output, mix = output.chunk(2, dim=1)
        return solve(parameterization.row, x, output, level)._replace(variance_mix=(mix + 1) / 2)

    return denoise
