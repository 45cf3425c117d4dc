"""Stochastic samplers of higher order; ``samplers`` has the conventions and the table of all.

Two amounts of noise occur: ``ancestral``, ``c = eta sigma' sqrt(1 − e^−2h)``, and the exact one of
the reverse SDE, ``c = sigma' sqrt(1 − e^(−2 eta h))``; they agree at eta = 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Level
from mezzotint.diffusion.multistep import (
    bh1_moments,
    exponential_moments,
    lagrange_weights,
    midpoint_moments,
    places,
)
from mezzotint.diffusion.noise import Noise
from mezzotint.diffusion.steps import (
    Span,
    Step,
    ancestral,
    between,
    check_order,
    decay,
    diffused,
    half,
    heun_step,
    hold,
    spans,
    take,
    weighted,
)


def dpm2_ancestral(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """DPM2 down to ``sigma_down``, then noise up to ``sigma'`` (k-diffusion's DPM2 a)."""
    return _ancestral_midpoint(denoise, x, levels, conditioning, noise, eta, "eps")


def dpmpp_2s_ancestral(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1, r = 1/2) down, then noise up (k-diffusion).

    With eta = 0 it is DPM-Solver++(2S) itself.
    """
    return _ancestral_midpoint(denoise, x, levels, conditioning, noise, eta, "x0")


def _ancestral_midpoint(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    eta: float,
    quantity: Literal["eps", "x0"],
) -> Iterator[Step]:
    """Hold ``quantity`` at its value in the middle, in log-SNR, of the way to ``sigma_down``."""
    curve = between(levels)
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        c = ancestral(span, eta)
        held = estimate
        if not span.infinite:
            # sigma_down / alpha' = (sigma' / alpha') sqrt(1 − (c / sigma')^2)
            down = span.finish - 0.5 * math.log1p(-((c / float(span.end.sigma)) ** 2))
            middle = curve((span.begin + down) / 2)
            second = denoise(take(estimate, middle), middle, conditioning)
            value = second.eps if quantity == "eps" else second.x0
            held = hold(quantity, x, value, span.start)
        x = take(held, span.end, c, noise(span.index) if c else None)
        yield span.done(x, estimate)


def dpmpp_sde(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver++ on the reverse SDE, single-step, r = 1/2 (k-diffusion's DPM++ SDE).

    The noise z1 = ``noise(2 i)`` of the half step is part of that of the whole step, as in one
    Brownian motion over r = sigma / alpha: ``z = (sqrt(r − r_m) z1 + sqrt(r_m − r') z2) /
    sqrt(r − r')`` with z2 = ``noise(2 i + 1)``.  Independent draws would cost the variance of the
    result an order of accuracy.
    """
    curve = between(levels)
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        if span.infinite:
            c = ancestral(span, eta)
            x = take(estimate, span.end, c, noise(2 * span.index) if c else None)
            yield span.done(x, estimate)
            continue
        middle = curve((span.begin + span.finish) / 2)
        q = decay(span.start, middle)  # of either half step
        first = Span(span.index, span.total, span.start, middle, q)
        z1 = z = None
        if eta:
            z1, z2 = noise(2 * span.index), noise(2 * span.index + 1)
            z = torch.add(z1, z2, alpha=math.sqrt(q)) / math.sqrt(1 + q)  # r_m = q r, r' = q r_m
        second = denoise(take(estimate, middle, ancestral(first, eta), z1), middle, conditioning)
        x = take(hold("x0", x, second.x0, span.start), span.end, ancestral(span, eta), z)
        yield span.done(x, estimate)


# --- Multistep on x0, with the noise of the reverse SDE -------------------------------------------

Nodes = list[tuple[float, Tensor]]  # (half log-SNR, x0), newest first
Moments = Callable[[int, float], list[float]]  # (number of nodes, z) -> moments


def exponential_step(
    x: Tensor,
    span: Span,
    nodes: Nodes,
    moments: Moments,
    eta: float = 0.0,
    z: Tensor | None = None,
) -> Tensor:
    """``x'`` with x0 replaced by its mean under ``exp((1 + eta) lambda)`` over the step.

    Lu et al. 2022b (appendix), Gonzalez et al. 2023 and Xue et al. 2023 in one line: the
    first-order step with ``c = sigma' sqrt(1 − e^(−2 eta h))`` and the mean of x0.
    """
    where = places([node for node, _ in nodes], span.begin, span.finish)
    weights = [1.0]
    if len(where) > 1:
        weights = lagrange_weights(where, moments(len(where), (1 + eta) * span.length))
    x0 = weighted(weights, [value for _, value in nodes])
    return take(hold("x0", x, x0, span.start), span.end, diffused(span, eta), z)


def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 1.0,
    variant: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b, appendix, and k-diffusion).

    x0 is linear in log-SNR: taken at the middle of the step ("midpoint") or integrated exactly
    ("heun").  With eta = 0 it is DPM-Solver++(2M).
    """
    if variant not in ("midpoint", "heun"):
        raise ValueError(f"unknown variant {variant!r} of DPM++ 2M SDE: midpoint or heun")

    def moments(count: int, z: float) -> list[float]:
        return midpoint_moments() if variant == "midpoint" else exponential_moments(z, count)

    return _multistep_sde(denoise, x, levels, conditioning, noise, 2, moments, eta, False)


def dpmpp_3m_sde(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 1.0,
    exact: bool = False,
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M) (k-diffusion): x0 a parabola in log-SNR.

    The code the field runs gives the second difference half the weight of the exact integral,
    which makes the solver one of order 2; ``exact=True`` gives it the whole weight and order 3.
    ``lower_order_final`` lets the order fall to 1 towards the last step.
    """

    def moments(count: int, z: float) -> list[float]:
        means = exponential_moments(z, count)
        return means if exact or count < 3 else [*means[:2], means[2] / 2]

    return _multistep_sde(
        denoise, x, levels, conditioning, noise, 3, moments, eta, lower_order_final
    )


def _multistep_sde(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    order: int,
    moments: Moments,
    eta: float,
    lower_order_final: bool,
) -> Iterator[Step]:
    nodes: Nodes = []
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        nodes = [(span.begin, estimate.x0), *nodes][:order]
        recent = nodes[: span.total - span.index] if lower_order_final else nodes
        z = noise(span.index) if diffused(span, eta) else None
        x = exponential_step(x, span, recent, moments, eta, z)
        yield span.done(x, estimate)


class Orders(NamedTuple):
    """predictor: its number of nodes; corrector: its own, with the new one (0: no corrector)."""

    predictor: int
    corrector: int
    lower_order_final: bool


def predictor_corrector(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    orders: Orders,
    eta: Callable[[Level], float],
    variant: Literal["bh1", "bh2"],
) -> Iterator[Step]:
    """Predict with the nodes so far; once the new level is evaluated, repeat the step with it.

    UniPC (eta = 0) and SA-Solver (eta = tau^2) share it.  With two nodes both simplify the mean of
    v to that of ``variant``.  ``eta`` is that of the level at which a step starts.
    """

    def moments(count: int, z: float) -> list[float]:
        if count == 2:
            return bh1_moments(z) if variant == "bh1" else midpoint_moments()
        return exponential_moments(z, count)

    nodes: Nodes = []
    last: tuple[Tensor, Span, float, Tensor | None] | None = None
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        node = (span.begin, estimate.x0)
        left = span.total - span.index if orders.lower_order_final else span.total
        if last is not None and orders.corrector:
            before, step, strength, drawn = last
            known = nodes[: min(orders.corrector - 1, left + 1)]
            x = exponential_step(before, step, [*known, node], moments, strength, drawn)
        nodes = [node, *nodes][: max(orders.predictor, orders.corrector - 1)]
        strength = eta(span.start)
        z = noise(span.index) if diffused(span, strength) else None
        last = (x, span, strength, z)
        x = exponential_step(x, span, nodes[: min(orders.predictor, left)], moments, strength, z)
        yield span.done(x, estimate)


def middle_tau(level: Level) -> float:
    """1 for 0.05 ≤ sigma / alpha ≤ 1, else 0 (Xue et al. 2023: noise in the middle)."""
    return 1.0 if 0.05 * level.alpha <= level.sigma <= level.alpha else 0.0


def sa_solver(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    predictor_order: int = 2,
    corrector_order: int = 2,
    tau: Callable[[Level], float] = middle_tau,
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """SA-Solver (Xue et al. 2023, algorithm 1): stochastic Adams predictor and corrector.

    ``tau`` is the strength of the noise of a step that starts at a level: 0 is the ODE, 1 the
    reverse SDE.  ``corrector_order`` counts the nodes of the corrector with the new one; 0 leaves
    it out.  Of two nodes the paper's code simplifies the weights as UniPC's B(h) = h does.
    """
    check_order("sa_solver's predictor", predictor_order, 4)
    if corrector_order:
        check_order("sa_solver's corrector", corrector_order, 4)
    orders = Orders(predictor_order, corrector_order, lower_order_final)
    return predictor_corrector(
        denoise, x, levels, conditioning, noise, orders, lambda level: tau(level) ** 2, "bh1"
    )


# --- Churn ----------------------------------------------------------------------------------------


def edm_stochastic(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    s_churn: float = 40.0,
    s_tmin: float = 0.05,
    s_tmax: float = 50.0,
    s_noise: float = 1.003,
) -> Iterator[Step]:
    """EDM's stochastic sampler (Karras et al. 2022, algorithm 2): add noise, then a Heun step.

    In each step with sigma / alpha in [s_tmin, s_tmax] it rises by the factor ``1 + min(s_churn /
    N, sqrt(2) − 1)`` first.  The defaults are the paper's for ImageNet-64 (table 5).  At
    alpha = 0 there is nothing to add noise to.
    """
    curve = between(levels)
    for span in spans(levels):
        ratio = float(span.start.sigma) / float(span.start.alpha) if span.start.alpha else math.inf
        gamma = min(s_churn / span.total, math.sqrt(2) - 1) if s_tmin <= ratio <= s_tmax else 0.0
        start = span.start
        if gamma > 0 and math.isfinite(ratio):
            start = curve(half(span.start) - math.log1p(gamma))
            scale = float(start.alpha) / float(span.start.alpha)
            added = s_noise * float(start.alpha) * ratio * math.sqrt((1 + gamma) ** 2 - 1)
            x = torch.add(scale * x, noise(span.index), alpha=added)
        x, estimate = heun_step(denoise, x, start, span.end, conditioning, "eps")
        yield span.done(x, estimate)
