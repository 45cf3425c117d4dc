"""Training losses: which levels to train at, how much each counts, and what is measured.

A level sampler turns a uniform number in (0, 1) into a level, so a counter-based stream makes the
levels of a run reproducible.  A weight is the factor on the squared error of the network's output
``F``.  At fixed x an error of F is one of x0 or of eps, ``dF = −(det / sigma) dx0 =
(det / alpha) deps`` with ``det = alpha q − sigma p``; so each published weight is written once, in
the error it was published for, and holds for every prediction type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.diffusion.level import Estimate, Level
from mezzotint.diffusion.prediction import Row, solve, target
from mezzotint.diffusion.schedules import Schedule, Table

LevelSampler = Callable[[Tensor], Level]
"""``u (B,)`` uniform in (0, 1) -> a level a sample."""


def _normal_quantile(u: Tensor) -> Tensor:
    return torch.special.ndtri(u)  # pyright: ignore - torch has no types for it


def _log_normal_cdf(z: Tensor) -> Tensor:
    return torch.special.log_ndtr(z)  # pyright: ignore - nor for this


def uniform(schedule: Schedule) -> LevelSampler:
    """Times uniform in (0, 1)."""
    return schedule.level


def discrete(table: Table) -> LevelSampler:
    """The steps of a table, each equally likely (Ho et al. 2020, alg. 1)."""

    def sample(u: Tensor) -> Level:
        level = table.knot(steps_of(table, u))
        return Level(level.alpha.to(u), level.sigma.to(u))

    return sample


def steps_of(table: Table, u: Tensor) -> Tensor:
    """The step 0 … N − 1 (int64) that a uniform number stands for."""
    return (u * table.knots).long().clamp(max=table.knots - 1)


def logit_normal(schedule: Schedule, mean: float = 0.0, std: float = 1.0) -> LevelSampler:
    """Times with ``logit(t) ~ N(mean, std^2)`` (Esser et al. 2024, eq. 19).

    Time runs from data to noise, so a positive mean favours noise.  Papers whose time runs the
    other way have −mean here ("Back to Basics", 2025, has −0.8 and 0.8: mean = 0.8, std = 0.8).
    """
    return lambda u: schedule.level((mean + std * _normal_quantile(u)).sigmoid())


def edm_lognormal(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> LevelSampler:
    """Noise ratios with ``log(sigma / alpha) ~ N(mean, std^2)`` (Karras et al. 2022, table 1)."""

    def sample(u: Tensor) -> Level:
        ratio = (mean + std * _normal_quantile(u)).exp()
        return schedule.normalize(Level(torch.ones_like(ratio), ratio))

    return sample


def stratified(u: Tensor, index: Tensor, strata: int) -> Tensor:
    """Uniform numbers spread over strata: sample ``index`` falls into stratum ``index % strata``.

    Over ``strata`` consecutive samples each stratum holds one, which lowers the variance of the
    loss (the low-discrepancy sampler of Kingma et al. 2021).  The draw of a sample depends on its
    own number only.
    """
    return (index % strata + u) / strata


Weight = Callable[[Row, Level], Tensor]
"""``(row, level) -> factor`` on the squared error of ``F``."""


def _snr(level: Level) -> Tensor:
    return (level.alpha / level.sigma) ** 2


def _of_x0(weight: Callable[[Level], Tensor]) -> Weight:
    """A weight on the squared error of x0, made one on that of F: times ``(sigma / det)^2``."""

    def factor(row: Row, level: Level) -> Tensor:
        p, q = row(level)
        return weight(level) * (level.sigma / (level.alpha * q - level.sigma * p)) ** 2

    return factor


def _of_eps(weight: Callable[[Level], Tensor]) -> Weight:
    """A weight on the squared error of eps, made one on that of F: times ``(alpha / det)^2``."""

    def factor(row: Row, level: Level) -> Tensor:
        p, q = row(level)
        return weight(level) * (level.alpha / (level.alpha * q - level.sigma * p)) ** 2

    return factor


def unweighted(row: Row, level: Level) -> Tensor:
    """The plain squared error of F."""
    return torch.ones_like(level.alpha)


def min_snr(gamma: float = 5.0) -> Weight:
    """``min(SNR, gamma)`` on the error of x0 (Hang et al. 2023)."""
    return _of_x0(lambda level: _snr(level).clamp(max=gamma))


def p2(gamma: float = 1.0, k: float = 1.0) -> Weight:
    """``1 / (k + SNR)^gamma`` on the error of eps (Choi et al. 2022)."""
    return _of_eps(lambda level: (k + _snr(level)) ** -gamma)


def edm(sigma_data: float = 0.5) -> Weight:
    """``(r^2 + sigma_data^2) / (r sigma_data)^2`` on the error of x0, ``r = sigma / alpha``.

    Karras et al. (2022, table 1); it makes the weight on EDM's own F equal to 1.
    """
    return _of_x0(lambda level: sigma_data**-2 + _snr(level))


def sigmoid(bias: float = 0.0) -> Weight:
    """``sigmoid(bias − log SNR)`` on the error of eps (Kingma & Gao 2023; Hoogeboom 2024)."""
    return _of_eps(lambda level: torch.sigmoid(bias - 2 * (level.alpha.log() - level.sigma.log())))


def flow_space(clip: float = 0.05) -> Weight:
    """The error of the velocity ``v = (x − x0) / sigma``: ``1 / max(sigma, clip)^2`` on x0's.

    For a network that predicts x0 and is trained on v (Li & He 2025, "Back to Basics: Let
    Denoising Generative Models Denoise"): the division explodes near data, so the paper clips
    the denominator at 0.05.
    """
    return _of_x0(lambda level: level.sigma.clamp(min=clip) ** -2)


def loss(
    row: Row,
    level: Level,
    output: Tensor,
    x0: Tensor,
    eps: Tensor,
    weight: Weight = unweighted,
) -> Tensor:
    """``w(level) * mean((F − (p x0 + q eps))^2)`` for each sample.

    Args:
        row: the prediction type.
        level: one level a sample, ``(B,)``.
        output: the network's F, ``(B, …)``; the error is taken in the dtype of ``x0``.
        x0, eps: the data and the noise that made ``x``.
        weight: of the level.

    Returns:
        ``(B,)`` in the dtype of ``x0``.

    Raises:
        ValueError: a weight that is not finite, where this prediction type is undefined.
    """
    if output.shape != x0.shape:
        raise ValueError(
            f"the network gave {tuple(output.shape)} for data of {tuple(x0.shape)}: a prediction "
            "has the shape of the data (split a learned variance off first)"
        )
    factor = weight(row, level)
    if not bool(factor.isfinite().all()):
        raise ValueError(
            "a loss weight is not finite: this prediction type or weight is undefined at a "
            "sampled level (alpha or sigma is 0 there)"
        )
    error = (output.to(x0.dtype) - target(row, x0, eps, level)) ** 2
    return factor.to(x0) * error.flatten(1).mean(1)


def gaussian_kl(mean: Tensor, log_var: Tensor, mean_q: Tensor, log_var_q: Tensor) -> Tensor:
    """``KL(N(mean, e^log_var) || N(mean_q, e^log_var_q))`` for each element, in nats."""
    ratio = (log_var - log_var_q).exp() + (mean - mean_q) ** 2 * (-log_var_q).exp()
    return (ratio - 1 + log_var_q - log_var) / 2


def discretized_gaussian_log_likelihood(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log probability, in nats, of 8-bit data scaled to [−1, 1] under a Gaussian.

    The mass of the bin ``x0 ± 1/255``; the outermost bins reach to infinity (Ho et al. 2020,
    eq. 13).  Taken from the nearer tail, so that far bins do not cancel to 0.
    """
    scale = (-log_var / 2).exp()
    # Mirror every bin into the lower half: there differences of the normal CDF keep their digits.
    centred = x0 - mean
    side = torch.where(centred > 0, -1.0, 1.0).to(x0)
    low = (centred * side - 1 / 255) * scale
    high = (centred * side + 1 / 255) * scale
    edge = x0 * side
    low = torch.where(edge < -0.999, torch.full_like(low, -math.inf), low)
    high = torch.where(edge > 0.999, torch.full_like(high, math.inf), high)
    log_high, log_low = _log_normal_cdf(high), _log_normal_cdf(low)
    return log_high + torch.log1p(-(log_low - log_high).exp().clamp(max=1 - 1e-7))


def posterior(x: Tensor, x0: Tensor, level: Level, previous: Level) -> Tensor:
    """Mean of ``q(x_s | x_t, x0)``, s the previous level (Ho et al. 2020, eq. 7).

    ``(alpha_ts sigma_s^2 / sigma_t^2) x + (alpha_s sigma_ts^2 / sigma_t^2) x0`` with
    ``alpha_ts = alpha_t / alpha_s`` and ``sigma_ts^2 = sigma_t^2 − alpha_ts^2 sigma_s^2``.
    """
    ratio = level.alpha / previous.alpha
    share = (previous.sigma / level.sigma) ** 2
    pair = Level(ratio * share, previous.alpha * (1 - ratio**2 * share)).to(x)
    return pair.alpha * x + pair.sigma * x0


def learned_log_variance(table: Table, step: Tensor, mix: Tensor) -> Tensor:
    """``mix log beta + (1 − mix) log beta-tilde`` (Nichol & Dhariwal 2021, eq. 15).

    beta-tilde is 0 at the first step; as in the paper's code the second step's stands in.
    """
    level, previous = table.knot(step), table.knot(step - 1)
    second = step.clamp(min=1)
    upper, lower = table.knot(second), table.knot(second - 1)
    log_beta = (1 - (level.alpha / previous.alpha) ** 2).log()
    log_tilde = (1 - (upper.alpha / lower.alpha) ** 2).log() + 2 * (lower.sigma / upper.sigma).log()
    pair = Level(log_beta, log_tilde).to(mix)
    return mix * pair.alpha + (1 - mix) * pair.sigma


def variational_bound(
    table: Table, step: Tensor, x: Tensor, x0: Tensor, estimate: Estimate
) -> Tensor:
    """One term ``L_t`` of the variational bound in bits per dimension, ``(B,)``.

    ``KL(q(x_s | x_t, x0) || p(x_s | x_t))``, and at the first step the discretized Gaussian's
    ``−log p(x0 | x_t)`` (Nichol & Dhariwal 2021, eq. 4–7).

    Args:
        step: ``(B,)`` int64 steps of the table.
        estimate: with ``variance_mix``; its gradient is the caller's choice.
    """
    if estimate.variance_mix is None:
        raise ValueError("the variational bound needs a network with learned variance")
    level, previous = table.knot(step), table.knot(step - 1)
    mean = posterior(x, estimate.x0, level, previous)
    log_var = learned_log_variance(table, step, estimate.variance_mix)
    true_mean = posterior(x, x0, level, previous)
    true_log_var = learned_log_variance(table, step, torch.zeros_like(x))
    kl = gaussian_kl(true_mean, true_log_var, mean, log_var).flatten(1).mean(1)
    nll = -discretized_gaussian_log_likelihood(x0, mean, log_var).flatten(1).mean(1)
    return torch.where(step == 0, nll, kl) / math.log(2)


def hybrid(
    row: Row,
    table: Table,
    step: Tensor,
    output: Tensor,
    x0: Tensor,
    eps: Tensor,
    weight: Weight = unweighted,
    vlb_weight: float = 0.001,
) -> Tensor:
    """``L_simple + 0.001 L_vlb`` of Improved DDPM (Nichol & Dhariwal 2021, eq. 16), ``(B,)``.

    ``L_vlb`` trains the variance only: its mean is detached.  The sum over the N steps is
    estimated as N times the sampled term.

    Args:
        step: ``(B,)`` int64 steps of the table.
        output: ``(B, 2 C, …)``: F, and the variance ``v`` in [−1, 1].
        x0, eps: ``(B, C, …)``; 8-bit data scaled to [−1, 1].
    """
    level = table.knot(step)
    prediction, mix = output.to(x0.dtype).chunk(2, dim=1)
    wide = level.to(x0)
    x = wide.alpha * x0 + wide.sigma * eps
    estimate = solve(row, x, prediction.detach(), level)
    estimate = estimate._replace(variance_mix=(mix + 1) / 2)
    bound = variational_bound(table, step, x, x0, estimate) * table.knots
    return loss(row, level, prediction, x0, eps, weight) + vlb_weight * bound


class LevelReport(NamedTuple):
    """Losses by bins of a coordinate (log-SNR or t): sums that add up over batches and processes.

    edges: ``(K + 1,)`` rising; total (of the losses), samples (their number): ``(K,)`` float64.
    """

    edges: Tensor
    total: Tensor
    samples: Tensor

    def mean(self) -> Tensor:
        """Mean loss of each bin, nan where a bin is empty."""
        return self.total / self.samples

    def add(self, other: LevelReport) -> LevelReport:
        """Both reports' samples together.

        Raises:
            ValueError: the bins differ.
        """
        if not torch.equal(self.edges, other.edges):
            raise ValueError("level reports with different bins cannot be added")
        return LevelReport(self.edges, self.total + other.total, self.samples + other.samples)


def level_report(coordinate: Tensor, losses: Tensor, edges: Tensor) -> LevelReport:
    """Sort per-sample losses ``(B,)`` into bins of a coordinate ``(B,)``.

    A value outside the edges counts in the nearest bin, so nothing is lost (log-SNR is infinite at
    the ends).

    Raises:
        ValueError: fewer than two edges, or edges that do not rise.
    """
    edges = edges.detach().to("cpu", torch.float64)
    if edges.ndim != 1 or len(edges) < 2 or not bool((edges.diff() > 0).all()):
        raise ValueError("bin edges must be at least two rising numbers")
    where = coordinate.detach().to("cpu", torch.float64)
    bins = torch.bucketize(where, edges, right=True).sub(1).clamp(0, len(edges) - 2)
    zeros = torch.zeros(len(edges) - 1, dtype=torch.float64)
    values = losses.detach().to("cpu", torch.float64)
    return LevelReport(
        edges, zeros.index_add(0, bins, values), zeros.index_add(0, bins, torch.ones_like(values))
    )
