"""What all samplers share: the path cut into steps, the first-order step, held quantities.

**The first-order step** is one line,

    x' = alpha' x0 + sqrt(sigma'^2 − c^2) eps + c z,        z ~ N(0, I),

and the samplers of first order differ only in ``c``.  **A solver of higher order** holds one
quantity ``F = p x0 + q eps`` (a prediction row: x0, eps or flow) at a better mean value than the
last one: solve ``x = alpha x0 + sigma eps`` with that ``F`` and take the same line.  None of this
depends on how the model scales its levels: x / alpha is the same for all with equal log-SNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level
from mezzotint.diffusion.prediction import ROWS, solve, target


class Step(NamedTuple):
    """What a sampler yields after each step.

    number: from 1 to ``total``
    level: where ``x`` stands now
    estimate: what the denoiser believed at the start of this step, for the ``x`` given to it
    """

    number: int
    total: int
    level: Level
    x: Tensor
    estimate: Estimate


@dataclass(frozen=True)
class Span:
    """One step of a path, from a level to a cleaner (or, inverting, a noisier) one.

    decay: ``e^−h = (alpha sigma') / (alpha' sigma)``, 0 where the step starts at alpha = 0 or
        ends at sigma = 0
    """

    index: int  # from 0
    total: int
    start: Level
    end: Level
    decay: float

    @property
    def begin(self) -> float:
        """Half log-SNR at the start; −inf at pure noise."""
        return half(self.start)

    @property
    def finish(self) -> float:
        """Half log-SNR at the end; +inf at clean data."""
        return half(self.end)

    @property
    def length(self) -> float:
        """``h``, the length of the step in half log-SNR."""
        return self.finish - self.begin

    @property
    def infinite(self) -> bool:
        """Whether the step is of infinite length in log-SNR; solvers take it at first order."""
        return self.decay == 0

    def done(self, x: Tensor, estimate: Estimate) -> Step:
        return Step(self.index + 1, self.total, self.end, x, estimate)


def half(level: Level) -> float:
    """``lambda = log(alpha / sigma)`` of one level, as a number."""
    alpha, sigma = float(level.alpha), float(level.sigma)
    if alpha == 0:
        return -math.inf
    return math.inf if sigma == 0 else math.log(alpha / sigma)


def decay(start: Level, end: Level) -> float:
    """``e^−h`` as a ratio, finite at both ends of the path."""
    return float(start.alpha * end.sigma) / float(end.alpha * start.sigma)


def spans(levels: Level) -> Iterator[Span]:
    """The steps of a path of shape ``(N + 1,)`` from noise to data.

    Raises:
        ValueError: the path has no step, or its log-SNR does not rise at every step.
    """
    if levels.alpha.ndim != 1 or levels.alpha.shape != levels.sigma.shape or len(levels.alpha) < 2:
        raise ValueError(
            f"a sampler needs a path of at least two levels, not of shape "
            f"{tuple(levels.alpha.shape)}"
        )
    ahead = levels.alpha[:-1] * levels.sigma[1:] < levels.alpha[1:] * levels.sigma[:-1]
    if not bool(ahead.all()):
        number = int((~ahead).nonzero()[0, 0]) + 1
        raise ValueError(
            f"levels go from noise to data: the log-SNR does not rise at step {number}; "
            "reverse the path or drop repeated levels"
        )
    total = len(levels.alpha) - 1
    for i in range(total):
        start, end = levels.at(i), levels.at(i + 1)
        yield Span(i, total, start, end, decay(start, end))


def take(estimate: Estimate, end: Level, c: float = 0.0, z: Tensor | None = None) -> Tensor:
    """The first-order step ``alpha' x0 + sqrt(sigma'^2 − c^2) eps + c z``; no ``z``, no last term.

    It is the generalized DDIM step (Song et al. 2020, eq. 12, where c is its sigma_t).
    """
    alpha, sigma = float(end.alpha), float(end.sigma)
    if sigma == 0:
        return alpha * estimate.x0
    kept = math.sqrt(max(sigma**2 - c**2, 0.0))
    x = torch.add(alpha * estimate.x0, estimate.eps, alpha=kept)
    return x if z is None else torch.add(x, z, alpha=c)


def ancestral(span: Span, eta: float) -> float:
    """``c = eta sigma' sqrt(1 − e^−2h)``: for eta = 1 the variance of q(x' | x, x0).

    One number under many names: DDIM's sigma_t(eta) (Song et al. 2020, eq. 16), DDPM's
    beta-tilde (Ho et al. 2020, eq. 7), k-diffusion's sigma_up.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} lies outside [0, 1]: 0 adds no noise, 1 that of DDPM")
    return eta * float(span.end.sigma) * math.sqrt(1 - span.decay**2)


def diffused(span: Span, eta: float) -> float:
    """``c = sigma' sqrt(1 − e^(−2 eta h))``: exact noise of the reverse SDE of strength eta.

    SDE-DPM-Solver++ (Lu et al. 2022b, appendix) for eta = 1, SA-Solver (Xue et al. 2023)
    for eta = tau^2.  Equal to :func:`ancestral` at eta = 0 and 1.
    """
    if eta < 0:
        raise ValueError(f"eta = {eta} is negative: 0 adds no noise, 1 that of the reverse SDE")
    return float(span.end.sigma) * math.sqrt(1 - span.decay ** (2 * eta))


def hold(quantity: str, x: Tensor, value: Tensor, level: Level) -> Estimate:
    """The estimate in which ``quantity`` (a name of ``ROWS``) has the given value at ``x``."""
    return solve(ROWS[quantity], x, value, level)


def read(quantity: str, estimate: Estimate, level: Level) -> Tensor:
    """The value of ``quantity`` (a name of ``ROWS``) in an estimate."""
    if quantity == "eps":
        return estimate.eps
    return target(ROWS[quantity], estimate.x0, estimate.eps, level)


def time_of(quantity: str, level: Level) -> float:
    """The time in which ``dx = quantity d(time)`` is the probability-flow ODE.

    For ``eps`` it is ``sigma / alpha`` with x scaled to alpha = 1 (Karras et al. 2022, eq. 1;
    infinite at pure noise); for ``flow`` it is ``sigma / (alpha + sigma)`` with x scaled to
    alpha + sigma = 1 (rectified flow's t, finite at both ends).

    Raises:
        ValueError: ``quantity`` is neither.
    """
    alpha, sigma = float(level.alpha), float(level.sigma)
    if quantity == "eps":
        return sigma / alpha if alpha else math.inf
    if quantity == "flow":
        return sigma / (alpha + sigma)
    raise ValueError(f"unknown integrand {quantity!r}: eps (sigma / alpha) or flow")


def at_time(quantity: str, value: float) -> float:
    """The half log-SNR where :func:`time_of` has this value."""
    return -math.log(value) if quantity == "eps" else math.log((1 - value) / value)


def weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """``sum_j w_j F_j``; values beyond the last weight (nodes at infinity) have no part."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=False):
        total = torch.add(total, value, alpha=weight)
    return total


def heun_step(
    denoise: Denoiser,
    x: Tensor,
    start: Level,
    end: Level,
    conditioning: Conditioning,
    integrand: str,
) -> tuple[Tensor, Estimate]:
    """The trapezoidal rule with an Euler step for its far end, and the estimate at ``start``.

    Plain Euler where the integrand's time is infinite (alpha = 0) or sigma' = 0.
    """
    estimate = denoise(x, start, conditioning)
    guess = take(estimate, end)
    if math.isinf(time_of(integrand, start)) or end.sigma == 0:
        return guess, estimate
    second = denoise(guess, end, conditioning)
    mean = (read(integrand, estimate, start) + read(integrand, second, end)) / 2
    return take(hold(integrand, x, mean, start), end), estimate


def check_order(name: str, order: int, highest: int) -> None:
    """Raises ValueError unless ``order`` is an order of the solver ``name``."""
    if order not in range(1, highest + 1):
        raise ValueError(f"{name} has the orders 1 to {highest}, not {order}")


def between(levels: Level) -> Callable[[float], Level]:
    """The curve a path lies on, as ``lambda -> Level``, for steps with a level in between.

    Three curves are known, from all levels of the path: variance exploding (constant alpha),
    variance preserving (alpha^2 + sigma^2 = 1) and rectified flow (alpha + sigma = 1).

    Raises:
        ValueError: the path lies on none of them.
    """
    alpha, sigma = levels.alpha.double(), levels.sigma.double()

    def place(scale: Callable[[Tensor], Tensor]) -> Callable[[float], Level]:
        def level(value: float) -> Level:
            log_ratio = torch.tensor(value, dtype=torch.float64)
            a = scale(log_ratio)
            return Level(a, a * torch.exp(-log_ratio))

        return level

    def near(values: Tensor, constant: Tensor | float) -> bool:
        return bool(((values - constant).abs() <= 1e-6 * constant).all())

    if near(alpha, alpha[0]):
        return place(lambda _: alpha[0].cpu())
    if near(alpha + sigma, 1.0):
        return place(torch.sigmoid)
    if near(alpha**2 + sigma**2, 1.0):
        return place(lambda value: torch.sigmoid(2 * value).sqrt())
    raise ValueError(
        "this sampler needs a level between two of the path, and the path is neither variance "
        "exploding, variance preserving nor rectified flow: take a multistep sampler instead"
    )
