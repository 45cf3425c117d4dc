"""Losses: published weights in closed form, the variational bound, level samplers, reports."""

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from mezzotint.diffusion import losses
from mezzotint.diffusion.level import Estimate, Level, log_snr, mix
from mezzotint.diffusion.losses import Weight
from mezzotint.diffusion.noise import uniform
from mezzotint.diffusion.prediction import ROWS, target
from mezzotint.diffusion.prediction import edm as edm_row
from mezzotint.diffusion.schedules import (
    Cosine,
    RectifiedFlow,
    Schedule,
    VarianceExploding,
    linear_beta,
    scaled_linear_beta,
)

GENERATOR = torch.Generator().manual_seed(0)
X0, EPS, GUESS = (
    torch.randn(5, 2, 3, 3, dtype=torch.float64, generator=GENERATOR) for _ in range(3)
)
U = torch.tensor([0.03, 0.2, 0.5, 0.8, 0.97], dtype=torch.float64)
VP = Cosine().level(U)
FLOW = RectifiedFlow().level(U)
SNR = (VP.alpha / VP.sigma) ** 2
WEIGHTS: dict[str, Weight] = {
    "min_snr": losses.min_snr(5.0),
    "p2": losses.p2(0.5, 1.0),
    "edm": losses.edm(0.5),
    "sigmoid": losses.sigmoid(-1.0),
    "flow_space": losses.flow_space(),
}


def squared(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).flatten(1).mean(1)


def test_unweighted_is_the_squared_error_of_the_output() -> None:
    for name in ("x0", "eps", "v", "flow"):
        found = losses.loss(ROWS[name], VP, GUESS, X0, EPS)
        torch.testing.assert_close(found, squared(GUESS, target(ROWS[name], X0, EPS, VP)))


@pytest.mark.parametrize("weight", list(WEIGHTS))
def test_a_weight_means_the_same_for_every_prediction(weight: str) -> None:
    """One and the same belief about x0, said in each prediction type, has one and the same loss."""
    for level in (VP, FLOW):
        x = mix(X0, EPS, level)
        wide = level.to(x)
        eps = (x - wide.alpha * GUESS) / wide.sigma
        found = [
            losses.loss(
                ROWS[name], level, target(ROWS[name], GUESS, eps, level), X0, EPS, WEIGHTS[weight]
            )
            for name in ("x0", "eps", "v", "flow")
        ]
        for other in found[1:]:
            torch.testing.assert_close(other, found[0])


@pytest.mark.parametrize(
    ("weight", "row", "expected"),
    [
        (losses.min_snr(5.0), "x0", SNR.clamp(max=5)),
        (losses.min_snr(5.0), "eps", SNR.clamp(max=5) / SNR),
        (losses.min_snr(5.0), "v", SNR.clamp(max=5) / (SNR + 1)),
        (losses.p2(0.5, 2.0), "eps", (2 + SNR) ** -0.5),
        (losses.sigmoid(1.0), "eps", torch.sigmoid(1 - SNR.log())),
        (losses.sigmoid(1.0), "v", torch.sigmoid(1 - SNR.log()) * VP.alpha**2),
    ],
)
def test_published_weights(weight: Weight, row: str, expected: Tensor) -> None:
    torch.testing.assert_close(weight(ROWS[row], VP), expected)


def test_edm_weight_is_one_on_its_own_output() -> None:
    level = VarianceExploding().level(U)
    found = losses.edm(0.7)(edm_row(0.7), level)
    torch.testing.assert_close(found, torch.ones_like(found))
    expected = (level.sigma**2 + 0.49) / (level.sigma * 0.7) ** 2
    torch.testing.assert_close(losses.edm(0.7)(ROWS["x0"], level), expected)


def test_flow_space_is_the_clipped_velocity_loss() -> None:
    x = mix(X0, EPS, FLOW)
    time = FLOW.sigma.clamp(min=0.05).view(-1, 1, 1, 1)
    expected = squared((x - GUESS) / time, (x - X0) / time)
    found = losses.loss(ROWS["x0"], FLOW, GUESS, X0, EPS, losses.flow_space(0.05))
    torch.testing.assert_close(found, expected)
    assert bool((FLOW.sigma < 0.05).any())  # the clip was in play


def test_weights_at_the_ends() -> None:
    noise = Level(torch.zeros(1), torch.ones(1))
    for name in ("min_snr", "p2", "flow_space", "sigmoid"):
        assert bool(WEIGHTS[name](ROWS["v"], noise).isfinite().all())
    zero = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="weight is not finite"):
        losses.loss(ROWS["eps"], noise, zero, zero, zero, losses.min_snr())
    with pytest.raises(ValueError, match="split a learned variance off"):
        losses.loss(ROWS["v"], noise, torch.zeros(1, 2), zero, zero)


def test_a_half_precision_output_is_compared_in_the_precision_of_the_data() -> None:
    found = losses.loss(ROWS["v"], VP, GUESS.bfloat16(), X0.float(), EPS.float())
    assert found.dtype == torch.float32


# Level samplers

MANY = uniform(0, "levels", 0, (40_000,))


def test_uniform_times() -> None:
    level = losses.uniform(RectifiedFlow())(MANY)
    assert torch.equal(level.sigma, RectifiedFlow().level(MANY).sigma)


def test_discrete_steps_are_equally_likely_and_exact() -> None:
    table = linear_beta()
    steps = losses.steps_of(table, MANY)
    assert (int(steps.min()), int(steps.max())) == (0, 999)
    counts = torch.bincount(steps, minlength=1000).double()
    assert ((counts - 40) ** 2 / 40).sum().item() < 1200  # chi-squared of 999 degrees
    level = losses.discrete(table)(MANY.float())
    assert level.alpha.dtype == torch.float32
    assert bool(torch.isin(level.alpha, table.alphas_cumprod.sqrt().float()).all())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.8), (-0.5, 1.5)])
def test_logit_normal_times(mean: float, std: float) -> None:
    logit = losses.logit_normal(RectifiedFlow(), mean, std)(MANY).sigma.logit()
    assert logit.mean().item() == pytest.approx(mean, abs=5 * std / 200)
    assert logit.std().item() == pytest.approx(std, rel=0.03)
    assert scipy.stats.kstest((logit - mean) / std, "norm").pvalue > 1e-3


@pytest.mark.parametrize("schedule", [VarianceExploding(), scaled_linear_beta(), RectifiedFlow()])
def test_edm_lognormal_ratios(schedule: Schedule) -> None:
    level = losses.edm_lognormal(schedule, -1.2, 1.2)(MANY)
    log_ratio = -log_snr(level) / 2
    assert scipy.stats.kstest((log_ratio + 1.2) / 1.2, "norm").pvalue > 1e-3
    again = schedule.normalize(level)
    torch.testing.assert_close(again.sigma, level.sigma)


def test_stratified_fills_every_stratum_once() -> None:
    index = torch.arange(16, 48)
    u = losses.stratified(MANY[:32], index, 32)
    assert torch.equal((u.sort().values * 32).floor(), torch.arange(32).double())
    alone = losses.stratified(MANY[5:6], index[5:6], 32)
    assert torch.equal(alone, u[5:6])  # a sample does not know its batch


# The variational bound


def test_gaussian_kl_equals_torch_distributions() -> None:
    a = torch.distributions.Normal(X0, (EPS / 4).exp())
    b = torch.distributions.Normal(GUESS, (X0 / 4).exp())
    expected = torch.distributions.kl_divergence(a, b)
    found = losses.gaussian_kl(X0, EPS / 2, GUESS, X0 / 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("mean", "scale"), [(0.0, 0.5), (0.93, 0.02), (-1.0, 0.003), (3.0, 0.1), (0.1, 1e-3)]
)
def test_discretized_likelihood_sums_to_one(mean: float, scale: float) -> None:
    data = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).requires_grad_(False)
    center = torch.full_like(data, mean).requires_grad_(True)
    log_var = torch.full_like(data, 2 * math.log(scale))
    found = losses.discretized_gaussian_log_likelihood(data, center, log_var)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-9)
    found.sum().backward()
    assert center.grad is not None
    assert bool(center.grad.isfinite().all())


def test_discretized_likelihood_equals_the_difference_of_the_cdf() -> None:
    data = torch.arange(1, 255, dtype=torch.float64) / 127.5 - 1
    normal = torch.distributions.Normal(torch.tensor(0.2).double(), torch.tensor(0.3).double())
    expected = (normal.cdf(data + 1 / 255) - normal.cdf(data - 1 / 255)).log()
    mean = torch.full_like(data, normal.loc.item())
    log_var = torch.full_like(data, 2 * math.log(normal.scale.item()))
    found = losses.discretized_gaussian_log_likelihood(data, mean, log_var)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_posterior_is_ddpms() -> None:
    table, step = linear_beta(), torch.tensor([1, 10, 200, 700, 999])
    level, previous = table.knot(step), table.knot(step - 1)
    abar, before = level.alpha**2, previous.alpha**2
    beta = 1 - abar / before
    first = (before.sqrt() * beta / (1 - abar)).view(-1, 1, 1, 1)
    second = ((1 - beta).sqrt() * (1 - before) / (1 - abar)).view(-1, 1, 1, 1)
    found = losses.posterior(GUESS, X0, level, previous)
    torch.testing.assert_close(found, first * X0 + second * GUESS, rtol=1e-9, atol=1e-9)


def test_learned_variance_equals_diffusers() -> None:
    table, scheduler = linear_beta(), DDPMScheduler(variance_type="learned_range")
    for step in (1, 10, 200, 999):
        v = torch.linspace(-1, 1, 5)
        expected = scheduler._get_variance(step, v, "learned_range")
        found = losses.learned_log_variance(table, torch.full((5,), step), (v + 1) / 2)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    # at the first step beta-tilde is 0: the second step's stands in
    ends = losses.learned_log_variance(table, torch.tensor([0, 1]), torch.zeros(2))
    assert ends[0].item() == ends[1].item()


STEP = torch.tensor([0, 1, 10, 300, 999])


def test_the_bound_is_zero_for_the_true_posterior() -> None:
    table = linear_beta()
    x = mix(X0, EPS, table.knot(STEP))
    bound = losses.variational_bound(table, STEP, x, X0, Estimate(X0, EPS, torch.zeros_like(X0)))
    torch.testing.assert_close(bound[1:], torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="learned variance"):
        losses.variational_bound(table, STEP, x, X0, Estimate(X0, EPS))


def test_the_bound_of_an_eps_error_is_the_papers() -> None:
    # With the variance beta-tilde: beta^2 / (2 tilde (1 − beta) (1 − abar)) |eps − eps'|^2
    table = linear_beta()
    level, previous = table.knot(STEP), table.knot(STEP - 1)
    x = mix(X0, EPS, level)
    wide = level.to(x)
    guess = Estimate((x - wide.sigma * GUESS) / wide.alpha, GUESS, torch.zeros_like(X0))
    beta = 1 - (level.alpha / previous.alpha) ** 2
    tilde = beta * (previous.sigma / level.sigma) ** 2
    weight = beta**2 / (2 * tilde * (1 - beta) * level.sigma**2)
    expected = weight * squared(EPS, GUESS) / math.log(2)
    found = losses.variational_bound(table, STEP, x, X0, guess)
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-6, atol=0)


def test_hybrid_trains_the_mean_by_l_simple_and_the_variance_by_the_bound() -> None:
    table = linear_beta()
    output = torch.cat([GUESS, X0.tanh()], dim=1).requires_grad_(True)
    found = losses.hybrid(ROWS["eps"], table, STEP, output, X0, EPS)
    (gradient,) = torch.autograd.grad(found.sum(), output)
    prediction = GUESS.clone().requires_grad_(True)
    simple = losses.loss(ROWS["eps"], table.knot(STEP), prediction, X0, EPS)
    (alone,) = torch.autograd.grad(simple.sum(), prediction)
    torch.testing.assert_close(gradient[:, :2], alone)
    assert bool((gradient[:, 2:] != 0).any())
    without = losses.hybrid(ROWS["eps"], table, STEP, output, X0, EPS, vlb_weight=0.0)
    torch.testing.assert_close(without, simple)
    x = mix(X0, EPS, table.knot(STEP))
    wide = table.knot(STEP).to(x)
    guess = Estimate((x - wide.sigma * GUESS) / wide.alpha, GUESS, (X0.tanh() + 1) / 2)
    bound = losses.variational_bound(table, STEP, x, X0, guess)
    torch.testing.assert_close(found - simple, bound, rtol=1e-6, atol=1e-9)  # 0.001 * 1000 steps


# Reports


def test_a_level_report_sorts_and_adds_up() -> None:
    edges = torch.tensor([-2.0, 0, 2, 4])
    where = torch.tensor([-math.inf, -1.0, 0.0, 1.0, 3.9, math.inf])
    values = torch.arange(6.0)
    report = losses.level_report(where, values, edges)
    assert report.samples.tolist() == [2, 2, 2]
    assert report.mean().tolist() == [0.5, 2.5, 4.5]
    halves = losses.level_report(where[:2], values[:2], edges).add(
        losses.level_report(where[2:], values[2:], edges)
    )
    assert torch.equal(halves.total, report.total)
    assert torch.equal(halves.samples, report.samples)
    empty = losses.level_report(where[:1], values[:1], edges).mean()
    assert empty.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda edges: losses.level_report(U, U, edges.flip(0)), "rising"),
        (lambda edges: losses.level_report(U, U, edges[:1]), "two rising"),
        (
            lambda edges: losses.level_report(U, U, edges).add(
                losses.level_report(U, U, 2 * edges)
            ),
            "different bins",
        ),
    ],
)
def test_report_misuse_is_named(misuse: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse(torch.tensor([0.0, 0.5, 1.0]))
