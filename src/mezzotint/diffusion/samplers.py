"""Samplers: generators over levels, each written once for every kind of model.

Every sampler is ``(denoise, x, levels, conditioning, noise) -> Iterator[Step]``: ``x (B, …)``
stands at ``levels.at(0)``, the path ``levels (N + 1,)`` goes from noise to data and may start at
alpha = 0 and end at sigma = 0.  All state is local.  Sampler options are keyword-only.

Conventions that hold for all of them:

- Step i (from 0) draws ``noise(i)``; samplers that inject noise twice a step draw ``noise(2 i)``
  and ``noise(2 i + 1)``.  Nothing is drawn where nothing is added (the last step to sigma = 0).
- A step that starts at alpha = 0 or ends at sigma = 0 is infinitely long in log-SNR and is taken
  at first order, which is finite there; what was learned at alpha = 0 then drops out of higher
  orders (its Lagrange weight tends to 0).  LMS, iPNDM, Heun and DPM2 with ``integrand="flow"``
  work in the flow's own time, which is finite at alpha = 0, and need no such care there.
- Results do not depend on the scale of the levels: with equal log-SNR and noise x / alpha is the
  same for variance-exploding, variance-preserving and rectified-flow levels.  "Euler", "Heun",
  "LMS" … mean the Euler, Heun, LMS of k-diffusion, in sigma / alpha.  For rectified-flow models
  other tools run Heun, DPM2, LMS and iPNDM in t instead: that is ``integrand="flow"``.

To add a sampler: write one function and one row of ``SAMPLERS``; the equivalence matrix in the
tests picks it up by itself.  Stochastic solvers of higher order are in ``samplers_sde``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mezzotint.diffusion import samplers_sde as sde
from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level
from mezzotint.diffusion.multistep import exponential_moments, lagrange_weights, places
from mezzotint.diffusion.noise import Noise
from mezzotint.diffusion.steps import (
    Span,
    Step,
    ancestral,
    at_time,
    between,
    check_order,
    heun_step,
    hold,
    read,
    spans,
    take,
    time_of,
    weighted,
)

Run = Callable[[Denoiser, Tensor, Level, Conditioning, Noise], Iterator[Step]]
"""A sampler as everyone may call it; its own options are keyword-only with defaults."""

Integrand = Literal["eps", "flow"]


# --- First order: all the same line, they differ in c ---------------------------------------------


def euler(
    denoise: Denoiser, x: Tensor, levels: Level, conditioning: Conditioning, noise: Noise
) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without 6–8).

    ``x' = alpha' x0 + sigma' eps``: the same in every parametrization, and the same as DDIM with
    eta = 0 and the first order of DPM++, DEIS, UniPC, LMS.
    """
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        x = take(estimate, span.end)
        yield span.done(x, estimate)


def ddim(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM (Song et al. 2020, eq. 12 and 16): ``c = eta sigma' sqrt(1 − e^−2h)``.

    ``eta`` in [0, 1]: 0 deterministic, 1 the ancestral sampling of DDPM.
    """
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        c = ancestral(span, eta)
        x = take(estimate, span.end, c, noise(span.index) if c else None)
        yield span.done(x, estimate)


def euler_ancestral(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """Euler down to ``sigma_down``, then noise up to ``sigma'`` (k-diffusion's Euler a).

    With ``sigma_up = c`` of :func:`ddim` the two are one sampler with other defaults.  For
    rectified flow it is the reverse SDE at the same log-SNR, so eta = 1 means the same there;
    tools that define ``sigma_down = sigma' (1 + eta (sigma' / sigma − 1))`` in the flow's t add
    another amount of noise under the same name.
    """
    return ddim(denoise, x, levels, conditioning, noise, eta=eta)


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    variance: Literal["small", "large"] = "small",
) -> Iterator[Step]:
    """Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2), over any levels.

    The mean is that of q(x' | x, x0).  The variance is beta-tilde = ``sigma'^2 (1 − e^−2h)``
    ("small"), or beta = ``sigma^2 (1 − e^−2h)`` ("large"; Ho et al. 2020, §3.2), or, when the
    estimate carries a ``variance_mix`` v, ``exp(v log beta + (1 − v) log beta-tilde)``
    (Nichol & Dhariwal 2021, eq. 15).  beta depends on how a model scales its levels; it is the
    paper's for variance-preserving ones.
    """
    if variance not in ("small", "large"):
        raise ValueError(f"unknown variance {variance!r}: small (beta-tilde) or large (beta)")
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        c = ancestral(span, 1.0)
        x = take(estimate, span.end, c)
        if c:
            x = x + _posterior_deviation(span, estimate, variance) * noise(span.index)
        yield span.done(x, estimate)


def _posterior_deviation(span: Span, estimate: Estimate, variance: str) -> float | Tensor:
    common = math.sqrt(1 - span.decay**2)
    before, after = float(span.start.sigma), float(span.end.sigma)
    if estimate.variance_mix is None:
        return common * (after if variance == "small" else before)
    return common * after * (estimate.variance_mix * math.log(before / after)).exp()


def lcm(
    denoise: Denoiser, x: Tensor, levels: Level, conditioning: Conditioning, noise: Noise
) -> Iterator[Step]:
    """Multistep consistency sampling: ``x' = alpha' x0 + sigma' z``, so ``c = sigma'``.

    Song et al. 2023, algorithm 1; Luo et al. 2023 (LCM).  The boundary scaling
    c_skip, c_out of a consistency model belongs to its denoiser.
    """
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        c = float(span.end.sigma)
        x = take(estimate, span.end, c, noise(span.index) if c else None)
        yield span.done(x, estimate)


def tcd(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    gamma: float | None = None,
    inner: Level | None = None,
) -> Iterator[Step]:
    """Strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024).

    Each step goes deterministically to an inner level s, cleaner than the next one, and is noised
    back to the next: ``c^2 = sigma'^2 − (alpha' sigma_s / alpha_s)^2``.  In the paper
    ``s = (1 − gamma) t'`` in the model's own time, which levels do not know: give those levels as
    ``inner (N,)``, or ``gamma`` (0.3 by default), which then multiplies sigma / alpha instead:
    ``c = sigma' sqrt(1 − (1 − gamma)^2)``.  gamma 0 is DDIM, 1 is :func:`lcm`.
    """
    _check_tcd(levels, gamma, inner)
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        alpha, sigma = float(span.end.alpha), float(span.end.sigma)
        kept = sigma * (1 - (0.3 if gamma is None else gamma))
        if inner is not None:
            kept = alpha * float(inner.sigma[span.index]) / float(inner.alpha[span.index])
        c = math.sqrt(max(sigma**2 - kept**2, 0.0))
        x = take(estimate, span.end, c, noise(span.index) if c else None)
        yield span.done(x, estimate)


def _check_tcd(levels: Level, gamma: float | None, inner: Level | None) -> None:
    if gamma is not None and inner is not None:
        raise ValueError("gamma and inner both say where TCD's inner levels lie: give one of them")
    if gamma is not None and not 0 <= gamma <= 1:
        raise ValueError(f"gamma = {gamma} lies outside [0, 1]: 0 is DDIM, 1 is LCM")
    if inner is None:
        return
    if inner.alpha.shape != levels.alpha[1:].shape:
        raise ValueError(f"TCD needs one inner level a step: {len(levels.alpha) - 1}")
    if bool((inner.sigma * levels.alpha[1:] > inner.alpha * levels.sigma[1:]).any()):
        raise ValueError("TCD's inner levels must not be noisier than the next level of the path")


# --- One step, two evaluations --------------------------------------------------------------------


def heun(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    integrand: Integrand = "eps",
) -> Iterator[Step]:
    """Heun's second-order method (Karras et al. 2022, algorithm 1).

    The mean of the integrand at both ends of an Euler step; plain Euler where the end is
    sigma = 0, and where the start is alpha = 0 unless ``integrand="flow"``.
    """
    for span in spans(levels):
        x, estimate = heun_step(denoise, x, span.start, span.end, conditioning, integrand)
        yield span.done(x, estimate)


def dpm2(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    integrand: Integrand = "eps",
) -> Iterator[Step]:
    """DPM-Solver-2 as the field runs it: the midpoint method, at the geometric mean of the times.

    k-diffusion's DPM2, which equals Lu et al. 2022, algorithm 1.
    """
    curve = between(levels)
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        start, end = time_of(integrand, span.start), time_of(integrand, span.end)
        if math.isinf(start) or end == 0:
            x = take(estimate, span.end)
        else:
            middle = curve(at_time(integrand, math.sqrt(start * end)))
            second = denoise(take(estimate, middle), middle, conditioning)
            value = read(integrand, second, middle)
            x = take(hold(integrand, x, value, span.start), span.end)
        yield span.done(x, estimate)


# --- Multistep: one evaluation a step, with a memory ----------------------------------------------


def lms(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    order: int = 4,
    integrand: Integrand = "eps",
) -> Iterator[Step]:
    """Linear multistep (Adams–Bashforth) in sigma / alpha, with exact weights for uneven steps.

    k-diffusion's LMS; the rho-AB variant of DEIS (Zhang & Chen 2022).  ``order`` from 1 on.
    """
    check_order("lms", order, 4)
    history: list[tuple[float, Tensor]] = []  # (time, integrand), newest first
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        start, end = time_of(integrand, span.start), time_of(integrand, span.end)
        history = [(start, read(integrand, estimate, span.start)), *history][:order]
        nodes = places([node for node, _ in history], start, end)
        weights = lagrange_weights(nodes, exponential_moments(0.0, len(nodes)))
        x = _hold_weighted(x, span, estimate, integrand, weights, history)
        yield span.done(x, estimate)


def ipndm(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    order: int = 4,
    integrand: Integrand = "eps",
) -> Iterator[Step]:
    """iPNDM (Zhang & Chen 2022, appendix): Adams–Bashforth weights as if all steps were equal.

    Started by lower orders instead of PNDM's Runge–Kutta steps (Liu et al. 2022).  Of
    order ``order`` where steps are equal in sigma / alpha, of order 2 on other smooth paths.
    """
    check_order("ipndm", order, 4)
    history: list[tuple[float, Tensor]] = []
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        history = [(0.0, read(integrand, estimate, span.start)), *history][:order]
        nodes = [-float(j) for j in range(len(history))]
        weights = lagrange_weights(nodes, exponential_moments(0.0, len(nodes)))
        x = _hold_weighted(x, span, estimate, integrand, weights, history)
        yield span.done(x, estimate)


def deis(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    order: int = 3,
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """DEIS multistep (Zhang & Chen 2022, §3): eps a polynomial in log rho, integrated exactly.

    rho = sigma / alpha, so log rho = −lambda: the form the field runs ("log-rho").  ``order`` 1 to
    3; ``lower_order_final`` lets the order fall to 1 towards the last step.
    """
    check_order("deis", order, 3)
    history: list[tuple[float, Tensor]] = []
    for span in spans(levels):
        estimate = denoise(x, span.start, conditioning)
        history = [(span.begin, estimate.eps), *history][:order]
        recent = history[: span.total - span.index] if lower_order_final else history
        nodes = places([node for node, _ in recent], span.begin, span.finish)
        z = -span.length if len(nodes) > 1 else 0.0
        weights = lagrange_weights(nodes, exponential_moments(z, len(nodes)))
        x = _hold_weighted(x, span, estimate, "eps", weights, recent)
        yield span.done(x, estimate)


def _hold_weighted(
    x: Tensor,
    span: Span,
    estimate: Estimate,
    quantity: str,
    weights: list[float],
    history: list[tuple[float, Tensor]],
) -> Tensor:
    """The step with the weighted mean of a quantity; with one weight the estimate as it is."""
    if len(weights) == 1:
        return take(estimate, span.end)
    value = weighted(weights, [value for _, value in history])
    return take(hold(quantity, x, value, span.start), span.end)


def dpmpp_2m(
    denoise: Denoiser, x: Tensor, levels: Level, conditioning: Conditioning, noise: Noise
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): x0 taken at the middle of the step."""
    return sde.dpmpp_2m_sde(denoise, x, levels, conditioning, noise, eta=0.0)


def unipc(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    noise: Noise,
    *,
    order: int = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """UniPC-p (Zhao et al. 2023, algorithms 1 and 2): predictor and corrector share evaluations.

    Predicts x0.  Of order p + 1 = ``order`` + 1 through the corrector.  ``variant`` is B(h) = h
    or e^h − 1, which matters only in the simplified UniP-2 and UniC-1; higher orders solve for the
    exact weights, in which B(h) cancels.  The yielded ``x`` is the predicted one; it is corrected
    by the evaluation of the next step.
    """
    check_order("unipc", order, 3)
    if variant not in ("bh1", "bh2"):
        raise ValueError(f"unknown variant {variant!r} of UniPC: bh1 or bh2")
    orders = sde.Orders(order, order + 1, lower_order_final)
    return sde.predictor_corrector(
        denoise, x, levels, conditioning, noise, orders, lambda _: 0.0, variant
    )


# --- The table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampler:
    """What is known of a sampler.

    order: of accuracy of its deterministic part (noise strength 0), on smooth paths and with its
        first low-order steps resolved
    stochastic: whether it adds noise with its default options
    evaluations: calls of the denoiser a step
    """

    name: str
    run: Run
    order: int
    stochastic: bool
    evaluations: int
    summary: str


def _table(*rows: Sampler) -> dict[str, Sampler]:
    return {row.name: row for row in rows}


# fmt: off
SAMPLERS: dict[str, Sampler] = _table(
    Sampler("ddpm", ddpm, 1, True, 1, "ancestral sampling, learned variance too (Ho 2020)"),
    Sampler("ddim", ddim, 1, False, 1, "first order with adjustable noise eta (Song 2020)"),
    Sampler("euler", euler, 1, False, 1, "Euler's method (Karras 2022)"),
    Sampler("euler_ancestral", euler_ancestral, 1, True, 1, "Euler down, noise up (k-diffusion)"),
    Sampler("heun", heun, 2, False, 2, "Heun's method (Karras 2022, algorithm 1)"),
    Sampler("dpm2", dpm2, 2, False, 2, "DPM-Solver-2, midpoint (Lu 2022, k-diffusion)"),
    Sampler("dpm2_ancestral", sde.dpm2_ancestral, 2, True, 2, "DPM2 down, noise up (k-diffusion)"),
    Sampler("dpmpp_2s_ancestral", sde.dpmpp_2s_ancestral, 2, True, 2,
            "DPM-Solver++(2S) down, noise up (Lu 2022b, k-diffusion)"),
    Sampler("dpmpp_2m", dpmpp_2m, 2, False, 1, "DPM-Solver++(2M), a good default (Lu 2022b)"),
    Sampler("dpmpp_sde", sde.dpmpp_sde, 2, True, 2, "DPM-Solver++, stochastic (k-diffusion)"),
    Sampler("dpmpp_2m_sde", sde.dpmpp_2m_sde, 2, True, 1, "SDE-DPM-Solver++(2M) (Lu 2022b)"),
    Sampler("dpmpp_3m_sde", sde.dpmpp_3m_sde, 2, True, 1, "SDE-DPM-Solver++(3M) (k-diffusion)"),
    Sampler("deis", deis, 3, False, 1, "exponential integrator in log rho (Zhang & Chen 2022)"),
    Sampler("unipc", unipc, 3, False, 1, "unified predictor-corrector (Zhao 2023)"),
    Sampler("lms", lms, 4, False, 1, "linear multistep in sigma (k-diffusion)"),
    Sampler("ipndm", ipndm, 2, False, 1, "multistep with fixed weights (Zhang & Chen 2022)"),
    Sampler("sa_solver", sde.sa_solver, 2, True, 1, "stochastic Adams (Xue 2023)"),
    Sampler("edm_stochastic", sde.edm_stochastic, 2, True, 2, "churn, then Heun (Karras 2022)"),
    Sampler("lcm", lcm, 1, True, 1, "multistep consistency sampling (Song 2023, Luo 2023)"),
    Sampler("tcd", tcd, 1, True, 1, "trajectory consistency sampling (Zheng 2024)"),
)
# fmt: on
"""Every sampler by name."""


def find(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
        ValueError: there is none of that name; the message names the closest.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    close = difflib.get_close_matches(name, SAMPLERS, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(SAMPLERS)}"
    raise ValueError(f"unknown sampler {name!r}: {hint}")
