"""Noise schedules: how ``alpha`` and ``sigma`` go from data (t = 0) to noise (t = 1).

A schedule is data with a few functions.  ``level`` gives the noise level at a time, ``time`` is
its inverse, and ``normalize`` brings a level of any scaling onto the schedule's own curve at the
same log-SNR.  The curve is ``alpha^2 + sigma^2 = 1`` (variance preserving), ``alpha = 1``
(variance exploding) or ``alpha + sigma = 1`` (rectified flow); ``r = sigma / alpha`` is the noise
ratio, the ``sigma`` of k-diffusion.

Every function keeps the shape, device and dtype of its argument and is exact at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mezzotint.diffusion.level import Level


class Schedule(Protocol):
    """A map between time and noise level.  Times lie in [0, 1] and may have any shape."""

    discrete: ClassVar[bool]
    """Whether the knots alone were trained, so that discrete spacings round to them."""

    @property
    def knots(self) -> int:
        """N of the discrete levels at t = 1/N, 2/N, … 1 in which discrete spacings count."""
        ...

    def level(self, t: Tensor) -> Level:
        """The noise level at time ``t``."""
        ...

    def time(self, level: Level) -> Tensor:
        """The time at which the schedule has the log-SNR of ``level``; inverse of ``level``."""
        ...

    def normalize(self, level: Level) -> Level:
        """The level with the same log-SNR on this schedule's curve."""
        ...


def _preserve_variance(level: Level) -> Level:
    norm = torch.hypot(level.alpha, level.sigma)
    return Level(level.alpha / norm, level.sigma / norm)


@dataclass(frozen=True)
class RectifiedFlow:
    """Rectified flow, ``alpha = 1 − t'``, ``sigma = t'`` (Liu et al. 2023), with a time shift.

    ``t' = shift t / (1 + (shift − 1) t)`` multiplies the noise ratio by ``shift`` (Esser et al.
    2024, "Scaling rectified flow transformers", eq. 23 with shift = sqrt(m / n)).
    """

    shift: float = 1.0
    knots: int = 1000
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise ValueError(f"a flow shift is a positive number, not {self.shift}")

    def level(self, t: Tensor) -> Level:
        # (1 − t) + shift t equals shift at t = 1 without rounding; 1 + (shift − 1) t need not.
        total = (1 - t) + self.shift * t
        return Level((1 - t) / total, self.shift * t / total)

    def time(self, level: Level) -> Tensor:
        return level.sigma / (level.sigma + self.shift * level.alpha)

    def normalize(self, level: Level) -> Level:
        total = level.alpha + level.sigma
        return Level(level.alpha / total, level.sigma / total)


def resolution_shift(
    tokens: int,
    base_tokens: int = 256,
    max_tokens: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """The shift of a picture of ``tokens`` tokens: ``exp(mu)``, ``mu`` linear in the tokens.

    ``mu`` goes through (base_tokens, base_shift) and (max_tokens, max_shift) and on beyond them,
    as in the reference code of FLUX.1.  Use it as ``RectifiedFlow(resolution_shift(tokens))``.
    """
    if tokens <= 0:
        raise ValueError(f"a picture has a positive number of tokens, not {tokens}")
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return math.exp(base_shift + slope * (tokens - base_tokens))


@dataclass(frozen=True)
class Cosine:
    """Continuous cosine, variance preserving: ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``.

    The schedule of Nichol & Dhariwal (2021, eq. 17) with s = 0, as in Salimans & Ho (2022, §2).
    """

    knots: int = 1000
    discrete: ClassVar[bool] = False

    def level(self, t: Tensor) -> Level:
        # sin(pi (1 − t) / 2) is exactly 0 at t = 1; the cosine is not.
        return Level((math.pi / 2 * (1 - t)).sin(), (math.pi / 2 * t).sin())

    def time(self, level: Level) -> Tensor:
        return torch.atan2(level.sigma, level.alpha) * (2 / math.pi)

    def normalize(self, level: Level) -> Level:
        return _preserve_variance(level)


@dataclass(frozen=True)
class VarianceExploding:
    """Variance exploding, ``alpha = 1``, ``sigma`` from 0 to ``sigma_max`` (Karras et al. 2022).

    From t = 1/knots (where sigma = sigma_min) to 1 ``sigma^(1 / rho)`` is linear in t, as in
    EDM's eq. 5; ``rho = inf`` makes it geometric, as in NCSN (Song & Ermon 2019).  Below, sigma
    goes linearly to 0, so that the schedule is continuous and has an inverse everywhere.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    knots: int = 1000
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, not {self.sigma_min} and {self.sigma_max}"
            )
        if self.rho <= 0 or self.knots < 2:
            raise ValueError("need rho > 0 and at least two knots")

    def level(self, t: Tensor) -> Level:
        first = 1 / self.knots
        ramp = ((t - first) / (1 - first)).clamp(0, 1)
        if math.isinf(self.rho):
            sigma = self.sigma_min * (ramp * math.log(self.sigma_max / self.sigma_min)).exp()
        else:
            low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
            sigma = torch.lerp(torch.full_like(t, low), torch.full_like(t, high), ramp) ** self.rho
        sigma = torch.where(t < first, self.sigma_min * self.knots * t, sigma)
        sigma = torch.where(t >= 1, torch.full_like(t, self.sigma_max), sigma)
        return Level(torch.ones_like(sigma), sigma)

    def time(self, level: Level) -> Tensor:
        ratio = level.sigma / level.alpha
        inside = ratio.clamp(self.sigma_min, self.sigma_max)
        if math.isinf(self.rho):
            ramp = (inside / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)
        else:
            low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
            ramp = (inside ** (1 / self.rho) - low) / (high - low)
        first = 1 / self.knots
        below = ratio / self.sigma_min * first
        return torch.where(ratio < self.sigma_min, below, first + ramp.clamp(0, 1) * (1 - first))

    def normalize(self, level: Level) -> Level:
        if not bool((level.alpha != 0).all()):
            raise ValueError("a variance-exploding schedule has no level of pure noise (alpha = 0)")
        return Level(torch.ones_like(level.alpha), level.sigma / level.alpha)


@dataclass(frozen=True, eq=False)
class Table:
    """A variance-preserving schedule given at N discrete steps, made continuous.

    ``alphas_cumprod[i] = alpha^2`` at the knot ``t_i = (i + 1) / N``.  Between knots ``log r`` is
    linear in t (as k-diffusion interpolates log sigma over the step index).  Below the first knot
    r goes linearly to 0, so ``level(0) = (1, 0)``.  Where the last knot is pure noise (zero
    terminal SNR), 1 / r goes linearly to 0 over the last interval, the mirror of the first.

    Raises:
        ValueError: the table is not a falling sequence in (0, 1); only the last may be 0.
    """

    alphas_cumprod: Tensor  # (N,) float64
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        table = self.alphas_cumprod.detach().to("cpu", torch.float64)
        if table.ndim != 1 or len(table) < 2:
            raise ValueError("a noise table is one row of at least two steps")
        inside = bool((table[:-1] > 0).all() and (table < 1).all() and table[-1] >= 0)
        if not inside or not bool((table.diff() < 0).all()):
            raise ValueError(
                "alphas_cumprod must fall from below 1 towards 0 (only the last may be 0): check "
                "that the table holds alphas_cumprod and not betas, first step first"
            )
        object.__setattr__(self, "alphas_cumprod", table)

    @property
    def knots(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def _log_ratio(self) -> Tensor:
        """log r at the knots with r > 0 finite; a terminal knot of pure noise is left out."""
        table = self.alphas_cumprod
        table = table[:-1] if float(table[-1]) == 0 else table
        return (torch.log1p(-table) - table.log()) / 2

    def level(self, t: Tensor) -> Level:
        knots = self._log_ratio.to(t)
        last = len(knots) - 1
        index = (t * self.knots - 1).clamp(-1, self.knots - 1)
        low = index.floor().clamp(0, max(last - 1, 0)).long()
        high = (low + 1).clamp(max=last)
        ratio = torch.lerp(knots[low], knots[high], (index - low).clamp(0, 1)).exp()
        ratio = torch.where(index < 0, knots[0].exp() * (index + 1), ratio)
        # (index − last) > 0 only in the last interval of a zero-terminal-SNR table.
        beyond = (index - last).clamp(min=0)
        return _preserve_variance(Level(1 - beyond, ratio))

    def time(self, level: Level) -> Tensor:
        return (self.index(level) + 1) / self.knots

    def index(self, level: Level) -> Tensor:
        """The fractional step ``N t − 1`` of a level: the time that networks of such tables take.

        −1 at data, 0 at the first knot, N − 1 at the last; use it as ``c_noise``.
        """
        knots = self._log_ratio.to(level.alpha)
        last = len(knots) - 1
        first, end = knots[0].exp(), knots[-1].exp()
        value = (level.sigma.log() - level.alpha.log()).clamp(knots[0], knots[-1])
        low = (torch.searchsorted(knots, value, right=True) - 1).clamp(0, max(last - 1, 0))
        high = (low + 1).clamp(max=last)
        step = (knots[high] - knots[low]).clamp(min=torch.finfo(knots.dtype).tiny)
        index = low + (value - knots[low]) / step
        index = torch.where(
            level.sigma < first * level.alpha, level.sigma / (level.alpha * first) - 1, index
        )
        if last == self.knots - 1:
            return index
        beyond = 1 - end * level.alpha / level.sigma.clamp(min=torch.finfo(knots.dtype).tiny)
        return torch.where(level.sigma > end * level.alpha, last + beyond, index)

    def knot(self, index: Tensor) -> Level:
        """The level of step ``index`` (integers, −1 for data), exactly as tabulated.

        Raises:
            IndexError: an index outside −1 … N − 1.
        """
        if bool((index < -1).any()) or bool((index >= self.knots).any()):
            raise IndexError(f"this table has the steps 0 to {self.knots - 1} (and −1 for data)")
        table = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod])
        value = table.to(index.device)[index + 1]
        return Level(value.sqrt(), (1 - value).sqrt())

    def normalize(self, level: Level) -> Level:
        return _preserve_variance(level)


def _float64(values: Tensor | Sequence[float]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def from_alphas(alphas_cumprod: Tensor | Sequence[float]) -> Table:
    """The table of given ``alphas_cumprod`` (``alpha^2`` in our notation), first step first."""
    return Table(_float64(alphas_cumprod))


def from_betas(betas: Tensor | Sequence[float]) -> Table:
    """The table of given betas: ``alpha_i^2 = prod_(j ≤ i) (1 − beta_j)`` (Ho et al. 2020, eq. 4).

    Raises:
        ValueError: a beta outside (0, 1], or one of 1 before the last.
    """
    values = _float64(betas)
    if not bool(((values > 0) & (values <= 1)).all()):
        raise ValueError("betas lie in (0, 1]: check that the table holds betas and not alphas")
    return Table(torch.cumprod(1 - values, dim=0))


def linear_beta(start: float = 1e-4, end: float = 0.02, steps: int = 1000) -> Table:
    """Betas linear from ``start`` to ``end`` (Ho et al. 2020, §4)."""
    return from_betas(torch.linspace(start, end, steps, dtype=torch.float64))


def scaled_linear_beta(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Table:
    """Square roots of the betas linear from ``start`` to ``end``: latent diffusion's table."""
    return from_betas(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2)


def cosine(s: float = 0.008, max_beta: float = 0.999, steps: int = 1000) -> Table:
    """The cosine table with clipped betas (Nichol & Dhariwal 2021, eq. 17)."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alpha_bar = ((t + s) / (1 + s) * (math.pi / 2)).cos() ** 2
    return from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))


def zero_terminal_snr(table: Table) -> Table:
    """The table shifted and scaled so that its last step is pure noise, its first unchanged.

    Lin et al. (2024), "Common diffusion noise schedules and sample steps are flawed", alg. 1.
    The last alpha is exactly 0; an eps prediction cannot start there, a v prediction can.
    """
    alpha = table.alphas_cumprod.sqrt()
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    return Table(alpha**2)
