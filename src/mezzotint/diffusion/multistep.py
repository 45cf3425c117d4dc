"""The weights of multistep solvers: Lagrange polynomials against an exponential.

Written in half log-SNR ``lambda``, an exponential integrator over one step of length ``h`` needs
the mean of a quantity ``F`` (x0 or eps) under the density ``exp(rate * lambda)``,

    mean(F) = ∫ exp(z v) F(v) dv / ∫ exp(z v) dv,      v = (lambda − lambda_start) / h in [0, 1],

with ``z = rate * h``.  Known at a few nodes ``v_j``, ``F`` is replaced by its interpolating
polynomial, and the mean becomes ``sum_j w_j F_j``.  The weights are those that reproduce the mean
of each power of ``v``; so a solver is its nodes and its *moments*:

| solver | F | moments of 1, v, v^2 … |
|---|---|---|
| Adams–Bashforth: LMS, iPNDM | eps | z = 0: 1, 1/2, 1/3 … |
| DEIS in log-rho | eps | exact, z = −h |
| DPM++ 2M, SDE midpoint, UniPC-2 (bh2) | x0 | 1, 1/2 |
| UniPC-2 (bh1), SA-Solver-2 | x0 | 1, z / (2 (1 − e^−z)) |
| DPM++ 2M SDE heun, UniPC-3, SA-Solver-3 | x0 | exact, z = h (1 + eta) |
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponential_moments(z: float, count: int) -> list[float]:
    """The means of ``1, v, …, v^(count − 1)`` under the density ``exp(z v)`` on [0, 1].

    These are ratios of the phi functions of exponential integrators (Hochbruck & Ostermann 2010),
    with no cancellation at small ``z``.

    Raises:
        ValueError: ``z`` is not finite.
    """
    if not math.isfinite(z):
        raise ValueError("a step of infinite length has no moments: take it at first order")
    if abs(z) < 1:  # the recursion divides by z: use the series of exp instead
        raw = [
            sum(z**k / (math.factorial(k) * (k + n + 1)) for k in range(20)) for n in range(count)
        ]
    else:  # integrate by parts; scaled by exp(−max(z, 0)) so that nothing overflows
        top, bottom = (1.0, math.exp(-z)) if z > 0 else (math.exp(z), 1.0)
        raw = [(top - bottom) / z]
        for n in range(1, count):
            raw.append((top - n * raw[-1]) / z)
    return [value / raw[0] for value in raw]


def midpoint_moments() -> list[float]:
    """``1, 1/2``: F at the middle of the step (DPM-Solver++ 2M, Lu et al. 2022b, algorithm 2)."""
    return [1.0, 0.5]


def bh1_moments(z: float) -> list[float]:
    """``1, z / (2 (1 − e^−z))``: UniPC's B(h) = h with its rho = 1/2 (Zhao et al. 2023)."""
    return [1.0, 0.5 if z == 0 else z / (-2 * math.expm1(-z))]


def lagrange_weights(places: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Weights ``w_j`` with ``sum_j w_j places_j^n = moments_n`` for each ``n < len(places)``.

    They integrate the Lagrange polynomial through the places against whatever has these moments.

    Raises:
        ValueError: two places coincide, or their number is not that of the moments.
    """
    if len(places) != len(moments) or len(set(places)) != len(places):
        raise ValueError(f"{len(places)} distinct nodes are needed for {len(moments)} moments")
    weights: list[float] = []
    for j, place in enumerate(places):
        basis = [1.0]  # coefficients of prod_k (v − v_k) / (v_j − v_k), lowest power first
        for k, other in enumerate(places):
            if k != j:
                shifted = [0.0, *basis]
                low = [*[-other * b for b in basis], 0.0]
                basis = [(s + b) / (place - other) for s, b in zip(shifted, low, strict=True)]
        weights.append(sum(b * m for b, m in zip(basis, moments, strict=True)))
    return weights


def places(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Where earlier ``nodes`` lie, in units of the step from ``start`` to ``end``.

    The step begins at 0 and ends at 1.  Nodes at infinity (the log-SNR of pure noise, the
    sigma / alpha of pure noise) are left out: the Lagrange weight of a node tends to 0 as it goes
    to infinity.  A step of infinite length keeps its first node alone, for the same reason.  Nodes
    come newest first, so those left out are the last ones.
    """
    length = end - start
    if not math.isfinite(length):
        return [0.0]
    return [(node - start) / length for node in nodes if math.isfinite(node)]
