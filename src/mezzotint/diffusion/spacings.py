"""Spacings: which noise levels a sampler visits.

A spacing takes a schedule and a number of steps and gives the path, a :class:`Level` of shape
``(steps + 1,)`` in float64, from noise to data, ending with ``sigma = 0``.  A spacing with
parameters is made by a function, and :data:`SPACINGS` has each by name with its usual ones.

Some spacings are ramps over a noise coordinate.  It is ``r = sigma / alpha`` where the schedule
ends at a finite r (variance exploding, tables), as in k-diffusion.  Where the schedule ends in
pure noise it is ``s = sigma / (alpha + sigma)``, the sigma of rectified flow, so these paths too
begin in pure noise.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mezzotint.diffusion.level import Level
from mezzotint.diffusion.schedules import RectifiedFlow, Schedule, scaled_linear_beta
from mezzotint.diffusion.spacing_tables import ALIGN_YOUR_STEPS, GITS, GITS_GRID

Spacing = Callable[[Schedule, int], Level]
"""``(schedule, steps) -> path (steps + 1,)``, float64, from noise to data."""


def _check(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"sampling takes at least one step, not {steps}")


def _to_data(level: Level) -> Level:
    """The path that visits ``level (N,)`` and then data."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return Level(torch.cat([level.alpha, one]), torch.cat([level.sigma, zero]))


def _discrete(schedule: Schedule, index: Tensor) -> Level:
    """The path over the steps ``index`` of the schedule (0 … knots − 1), then data."""
    return _to_data(schedule.level((index + 1) / schedule.knots))


def _whole(schedule: Schedule, number: Tensor) -> Tensor:
    """Rounded to whole steps (ties to even, as diffusers does) where only those were trained."""
    return number.round() if schedule.discrete else number


def _check_discrete(schedule: Schedule, steps: int) -> None:
    _check(steps)
    if steps > schedule.knots:
        raise ValueError(
            f"{steps} steps out of the schedule's {schedule.knots}: take at most {schedule.knots}"
        )


def _float_range(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64)


def leading(offset: int = 0) -> Spacing:
    """Every ``N // steps``-th training step from ``offset`` on (Lin et al. 2024, table 2).

    It never visits the noisiest step.  ``offset`` shifts all steps towards noise, as the
    ``steps_offset`` of diffusers.  On a continuous schedule the same times are taken.
    """

    def path(schedule: Schedule, steps: int) -> Level:
        _check_discrete(schedule, steps)
        index = _float_range(steps).flip(0) * (schedule.knots // steps) + offset
        if offset < 0 or float(index[0]) > schedule.knots - 1:
            raise ValueError(f"an offset of {offset} leaves the schedule's {schedule.knots} steps")
        return _discrete(schedule, index)

    return path


def trailing(schedule: Schedule, steps: int) -> Level:
    """Steps ``N, N − N / steps, …`` counted from the noisiest (Lin et al. 2024, table 2).

    On a continuous schedule that is ``t = 1, 1 − 1 / steps, …, 0``.
    """
    _check_discrete(schedule, steps)
    number = (steps - _float_range(steps)) * (schedule.knots / steps)  # counted from 1
    return _discrete(schedule, _whole(schedule, number) - 1)


def thinned(original: int = 50) -> Spacing:
    """Evenly chosen ones of the ``original`` trailing steps that a consistency model was distilled
    on, from the noisiest on, each rounded towards noise (Luo et al. 2023, "LCM", §4.4).

    Raises:
        ValueError: more steps than were distilled.
    """

    def path(schedule: Schedule, steps: int) -> Level:
        _check_discrete(schedule, steps)
        if steps > original:
            raise ValueError(f"{steps} steps out of {original} distilled ones: take fewer")
        chosen = (_float_range(steps) * original / steps).floor()  # 0 is the noisiest
        number = (original - chosen) * (schedule.knots / original)  # counted from 1
        return _discrete(schedule, _whole(schedule, number) - 1)

    return path


def _even(schedule: Schedule, steps: int, first: float) -> Level:
    """Steps spread evenly from the last down to number ``first``, which may be a fraction."""
    _check_discrete(schedule, steps)
    last = schedule.knots - 1
    index = _whole(schedule, torch.linspace(first, last, steps, dtype=torch.float64)).flip(0)
    # One step starts at noise, not at data.
    return _discrete(schedule, index if steps > 1 else torch.full_like(index, last))


def linspace(schedule: Schedule, steps: int) -> Level:
    """Steps spread evenly over the training steps, both ends visited (Nichol & Dhariwal 2021)."""
    return _even(schedule, steps, 0)


def linspace_sigma(schedule: Schedule, steps: int) -> Level:
    """As linspace, but down to the time t that equals ``sigma`` of rectified flow at its last.

    On a shifted flow it ends earlier: the shift is applied twice to the last step.  So the
    reference code of Esser et al. (2024) counts, and diffusers' Euler for flows by default.
    """
    alpha, sigma = schedule.level(torch.tensor(1 / schedule.knots, dtype=torch.float64))
    return _even(schedule, steps, max(float(sigma / (alpha + sigma)) * schedule.knots - 1, 0))


def shifted(shift: float) -> Spacing:
    """Uniform times moved towards noise, ``t' = shift t / (1 + (shift − 1) t)``.

    On ``RectifiedFlow()`` it is the path of the same schedule with that shift (Esser et al. 2024,
    eq. 23; :func:`~mezzotint.diffusion.schedules.resolution_shift`).
    """
    clock = RectifiedFlow(shift)

    def path(schedule: Schedule, steps: int) -> Level:
        _check(steps)
        t = 1 - _float_range(steps) / steps
        return _to_data(schedule.level(clock.level(t).sigma))

    return path


def _pure(schedule: Schedule) -> bool:
    """Whether the schedule ends in pure noise."""
    return float(schedule.level(torch.ones((), dtype=torch.float64)).alpha) == 0


def _coordinates(schedule: Schedule) -> tuple[float, float]:
    """The noise coordinate at the first knot and at the last."""
    t = torch.tensor([1 / schedule.knots, 1.0], dtype=torch.float64)
    alpha, sigma = schedule.level(t)
    value = sigma / (alpha + sigma if _pure(schedule) else alpha)
    return float(value[0]), float(value[1])


def _at_coordinate(schedule: Schedule, value: Tensor) -> Level:
    alpha = 1 - value if _pure(schedule) else torch.ones_like(value)
    return _to_data(schedule.normalize(Level(alpha, value)))


def _ramp(steps: int) -> Tensor:
    """From 0 at noise to 1 at the first knot."""
    _check(steps)
    return torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else _float_range(1)


def karras(rho: float = 7.0) -> Spacing:
    """Steps uniform in ``noise^(1 / rho)`` (Karras et al. 2022, eq. 5)."""
    if rho <= 0:
        raise ValueError(f"rho is positive, not {rho}")

    def path(schedule: Schedule, steps: int) -> Level:
        ramp = _ramp(steps)
        low, high = (value ** (1 / rho) for value in _coordinates(schedule))
        return _at_coordinate(
            schedule, torch.lerp(_like(ramp, high), _like(ramp, low), ramp) ** rho
        )

    return path


def exponential(schedule: Schedule, steps: int) -> Level:
    """Steps uniform in the logarithm of the noise coordinate."""
    ramp = _ramp(steps)
    low, high = (math.log(value) for value in _coordinates(schedule))
    return _at_coordinate(schedule, torch.lerp(_like(ramp, high), _like(ramp, low), ramp).exp())


def uniform_logsnr(schedule: Schedule, steps: int) -> Level:
    """Steps uniform in log-SNR (Lu et al. 2022, DPM-Solver).

    From the last knot to the first.  Where the last is pure noise (log-SNR −inf) the path starts
    at ``t = 1 − 1 / knots`` instead, close to noise but not in it.
    """
    ramp = _ramp(steps)
    end = 1 - 1 / schedule.knots if _pure(schedule) else 1.0
    t = torch.tensor([end, 1 / schedule.knots], dtype=torch.float64)
    alpha, sigma = schedule.level(t)
    high, low = (sigma / alpha).log().unbind()
    ratio = (high + (low - high) * ramp).exp()
    return _to_data(schedule.normalize(Level(torch.ones_like(ratio), ratio)))


def _like(ramp: Tensor, value: float) -> Tensor:
    return torch.full_like(ramp, value)


def _beta_fraction(a: float, b: float, x: Tensor) -> Tensor:
    """The continued fraction of the incomplete beta function, by Lentz's method.

    Converges fast for ``x < (a + 1) / (a + b + 2)`` (NIST DLMF 8.17.22).
    """
    tiny = 1e-300
    c = torch.ones_like(x)
    d = 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            value = value * c * d
        if bool(((c * d - 1).abs() < 1e-15).all()):
            break
    return value


def _away_from_zero(x: Tensor, tiny: float) -> Tensor:
    return torch.where(x.abs() < tiny, torch.full_like(x, tiny), x)


def beta_cdf(a: float, b: float, angle: Tensor) -> Tensor:
    """The regularized incomplete beta function ``I_x(a, b)`` at ``x = sin(angle)^2``, float64.

    The angle, in [0, pi / 2], keeps the digits of both x and 1 − x.
    """
    x, y = angle.sin() ** 2, angle.cos() ** 2
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    tiny = torch.finfo(torch.float64).tiny
    front = (a * x.clamp(min=tiny).log() + b * y.clamp(min=tiny).log() - log_beta).exp()
    lower = x < (a + 1) / (a + b + 2)
    # I_x(a, b) = 1 − I_(1 − x)(b, a): each half by the fraction that converges there.
    safe_x, safe_y = torch.where(lower, x, 0.0), torch.where(lower, 0.0, y)
    low = front * _beta_fraction(a, b, safe_x) / a
    high = 1 - front * _beta_fraction(b, a, safe_y) / b
    return torch.where(x == 0, 0.0, torch.where(y == 0, 1.0, torch.where(lower, low, high)))


def beta_quantile(a: float, b: float, p: Tensor) -> Tensor:
    """The x with ``I_x(a, b) = p``, to about 1e-15, for ``p`` in [0, 1] of any shape.

    Newton's method on the angle (where the density is nearly flat), kept inside a bracket that
    bisection narrows.

    Raises:
        ValueError: a or b is not positive.
    """
    if a <= 0 or b <= 0:
        raise ValueError(f"a beta distribution has positive parameters, not {a} and {b}")
    p = p.double()
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    low, high = torch.zeros_like(p), torch.full_like(p, math.pi / 2)
    angle = p * (math.pi / 2)
    for _ in range(100):
        error = beta_cdf(a, b, angle) - p
        low, high = torch.where(error < 0, angle, low), torch.where(error > 0, angle, high)
        sine, cosine = angle.sin(), angle.cos().clamp(min=1e-300)
        log_density = (2 * a - 1) * sine.clamp(min=1e-300).log() + (2 * b - 1) * cosine.log()
        newton = angle - error / (2 * (log_density - log_beta).exp())
        inside = (newton > low) & (newton < high)
        step = torch.where(inside, newton, (low + high) / 2)
        step = torch.where(error == 0, angle, step)
        done = bool(((step - angle).abs() <= 1e-15).all())
        angle = step
        if done:
            break
    x = angle.sin() ** 2
    return torch.where(p <= 0, 0.0, torch.where(p >= 1, 1.0, x))


def beta(a: float = 0.6, b: float = 0.6) -> Spacing:
    """Training steps at the quantiles of a Beta distribution (Lee et al. 2024, "Beta sampling is
    all you need"): ``index = (N − 1) F^-1(1 − i / steps)``, dense at both ends for a, b < 1.

    The quantiles are not rounded to whole steps, so no two coincide.
    """

    def path(schedule: Schedule, steps: int) -> Level:
        _check(steps)
        quantile = beta_quantile(a, b, 1 - _float_range(steps) / steps)
        return _to_data(schedule.level((quantile * (schedule.knots - 1) + 1) / schedule.knots))

    return path


def beta_sigmas(a: float = 0.6, b: float = 0.6) -> Spacing:
    """Quantiles of a Beta distribution over the noise coordinate itself, as diffusers has them."""

    def path(schedule: Schedule, steps: int) -> Level:
        low, high = _coordinates(schedule)
        quantile = beta_quantile(a, b, 1 - _ramp(steps))
        return _at_coordinate(schedule, low + (high - low) * quantile)

    return path


def _at_ratios(schedule: Schedule, ratios: Tensor) -> Level:
    """The path over given noise ratios.

    Raises:
        ValueError: they begin beyond the noisiest level that the schedule was trained at (1 %
            is allowed: published tables are rounded).
    """
    alpha, sigma = schedule.level(torch.ones((), dtype=torch.float64))
    if float(ratios[0] * alpha) > 1.01 * float(sigma):
        raise ValueError(
            f"this list of levels begins at sigma / alpha = {float(ratios[0]):.4g}, but the "
            f"schedule ends at {float(sigma / alpha):.4g}: take a spacing made for the schedule"
        )
    return _to_data(schedule.normalize(Level(torch.ones_like(ratios), ratios)))


def _interpolated(ratios: Tensor, schedule: Schedule, steps: int) -> Level:
    """The path over a published table (its last entry standing for data), for any step count.

    Log-linear over the position in the table, as its authors advise.
    """
    logs = ratios.log()
    if steps + 1 != len(logs):
        where = torch.linspace(0, len(logs) - 1, steps + 1, dtype=torch.float64)
        low = where.long().clamp(max=len(logs) - 2)
        logs = torch.lerp(logs[low], logs[low + 1], where - low)
    return _at_ratios(schedule, logs[:-1].exp())


def align_your_steps(table: str = "latent") -> Spacing:
    """The optimized ten-step tables of Align Your Steps (Sabour et al. 2024), by name.

    "latent" for models like Stable Diffusion 1.5, "latent_xl" for its XL, "video" for Stable
    Video Diffusion.  Other step counts are interpolated log-linearly.

    Raises:
        ValueError: no such table.
    """
    if table not in ALIGN_YOUR_STEPS:
        raise ValueError(_unknown("Align Your Steps table", table, list(ALIGN_YOUR_STEPS)))
    ratios = torch.tensor(ALIGN_YOUR_STEPS[table], dtype=torch.float64)

    def path(schedule: Schedule, steps: int) -> Level:
        _check(steps)
        return _interpolated(ratios, schedule, steps)

    return path


def gits(coefficient: float = 1.2) -> Spacing:
    """The tables of GITS (Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion
    sampling") for latent models with the scaled-linear schedule.

    A small coefficient spends steps at high noise, a large one near data.  Tables exist for 2 to
    20 steps; more are interpolated log-linearly.

    Raises:
        ValueError: a coefficient other than 0.80, 0.85, … 1.50.
    """
    rows = GITS.get(round(coefficient, 2))
    if rows is None:
        raise ValueError(
            f"no GITS table for the coefficient {coefficient}: take 0.80, 0.85, … 1.50"
        )

    def path(schedule: Schedule, steps: int) -> Level:
        _check(steps)
        row = (0, GITS_GRID) if steps == 1 else rows[min(steps, 20) - 2]
        table = scaled_linear_beta()
        index = (table.knots - 1) * (1 - torch.tensor(row, dtype=torch.float64) / GITS_GRID)
        alpha, sigma = table.level((index + 1) / table.knots)
        return _interpolated(sigma / alpha, schedule, steps)

    return path


Unit = Literal["time", "index", "ratio", "flow_sigma"]


def custom(values: Sequence[float], unit: Unit) -> Spacing:
    """A user's own list, from noise to data; data at its end is added where it is missing.

    unit: "time" t in [0, 1]; "index" the training step 0 … N − 1 (the ``timesteps`` of other
        programs; −1 is data); "ratio" sigma / alpha (the ``sigmas`` of k-diffusion and of
        diffusers' Euler); "flow_sigma" the sigma of rectified flow in [0, 1].

    Raises:
        ValueError: values that do not fall, or leave their range; in the path, a step count that
            is not the list's.
    """
    given = torch.tensor(list(values), dtype=torch.float64)
    least = -1.0 if unit == "index" else 0.0
    if len(given) == 0 or not bool(given.isfinite().all()) or not bool((given.diff() < 0).all()):
        raise ValueError("a list of noise levels falls from noise to data, without repeats")
    if float(given[-1]) < least:
        raise ValueError(f"a {unit} of {float(given[-1])} lies below data ({least:g})")
    given = given[:-1] if float(given[-1]) == least else given

    def path(schedule: Schedule, steps: int) -> Level:
        if steps != len(given):
            raise ValueError(f"the list of noise levels has {len(given)} steps, not {steps}")
        largest = {"index": schedule.knots - 1.0, "ratio": math.inf}.get(unit, 1.0)
        if float(given[0]) > largest:
            raise ValueError(f"a {unit} of {float(given[0])} lies beyond noise ({largest:g})")
        match unit:
            case "time":
                return _to_data(schedule.level(given))
            case "index":
                return _to_data(schedule.level((given + 1) / schedule.knots))
            case "ratio":
                return _at_ratios(schedule, given)
            case "flow_sigma":
                return _to_data(schedule.normalize(Level(1 - given, given)))

    return path


def truncate(path: Level, strength: float) -> Level:
    """The last ``int(steps * strength)`` steps of a path: where image-to-image starts.

    Noise the picture to the first level of the result.  Strength 1 keeps the whole path.

    Raises:
        ValueError: a strength outside (0, 1], or one that leaves no step.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength lies above 0 and up to 1, not {strength}")
    steps = len(path.alpha) - 1
    # 50 * 0.58 is 28.999999999999996 in floating point, and means 29.
    keep = math.floor(steps * strength + 1e-9)
    if keep == 0:
        raise ValueError(
            f"strength {strength} leaves none of {steps} steps: take at least {1 / steps:.3g}"
        )
    return path.at(slice(steps - keep, None))


SPACINGS: dict[str, Spacing] = {
    "leading": leading(),
    "trailing": trailing,
    "lcm": thinned(),
    "linspace": linspace,
    "linspace_sigma": linspace_sigma,
    "karras": karras(),
    "exponential": exponential,
    "uniform_logsnr": uniform_logsnr,
    "beta": beta(),
    "beta_sigmas": beta_sigmas(),
    "shifted": shifted(3.0),
    "align_your_steps": align_your_steps("latent"),
    "align_your_steps_xl": align_your_steps("latent_xl"),
    "align_your_steps_video": align_your_steps("video"),
    "gits": gits(),
}
"""Each spacing by name, with its usual parameters."""


def _unknown(what: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or sorted(names)
    return f"no {what} named {name!r}: did you mean {', '.join(near)}?"


def find(name: str) -> Spacing:
    """The spacing of that name.

    Raises:
        ValueError: no such spacing; the message has the nearest names.
    """
    if name not in SPACINGS:
        raise ValueError(_unknown("spacing", name, list(SPACINGS)))
    return SPACINGS[name]
