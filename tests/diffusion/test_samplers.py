"""Every sampler of the table against closed forms; a new row is tested here by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from analytic import CURVES, closed, constant, dataset, gaussian, gaussian_flow, path, through
from torch import Tensor

from mezzotint.diffusion import samplers as s
from mezzotint.diffusion import samplers_sde as sde
from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level, from_x0
from mezzotint.diffusion.multistep import bh1_moments, exponential_moments, lagrange_weights
from mezzotint.diffusion.noise import stream
from mezzotint.diffusion.prediction import ROWS
from mezzotint.diffusion.samplers import SAMPLERS, Run, find
from mezzotint.diffusion.steps import Step

NOTHING = Conditioning()
MODELS = {"edm": "ve", "vp-eps": "vp", "vp-v": "vp", "flow": "flow"}  # each with its levels
DETERMINISTIC: dict[str, Run] = {name: row.run for name, row in SAMPLERS.items()} | {
    "euler_ancestral": partial(s.euler_ancestral, eta=0.0),
    "dpm2_ancestral": partial(sde.dpm2_ancestral, eta=0.0),
    "dpmpp_2s_ancestral": partial(sde.dpmpp_2s_ancestral, eta=0.0),
    "dpmpp_sde": partial(sde.dpmpp_sde, eta=0.0),
    "dpmpp_2m_sde": partial(sde.dpmpp_2m_sde, eta=0.0),
    "dpmpp_3m_sde": partial(sde.dpmpp_3m_sde, eta=0.0),
    "sa_solver": partial(sde.sa_solver, tau=lambda level: 0.0),
    "edm_stochastic": partial(sde.edm_stochastic, s_churn=0.0),
    "tcd": partial(s.tcd, gamma=0.0),
}
"""Every sampler, without its noise where an option takes it away."""
QUIET = [
    name for name, row in SAMPLERS.items() if not row.stochastic or DETERMINISTIC[name] != row.run
]
"""Those that follow the probability-flow ODE.  A new deterministic sampler is among them by
itself; a stochastic one joins with its quiet form above."""

MEAN = torch.tensor([0.7, -0.3, 0.2], dtype=torch.float64)
_root = torch.tensor([[0.6, 0.1, 0.0], [-0.2, 0.4, 0.3], [0.1, 0.0, 0.9]], dtype=torch.float64)
COVARIANCE = _root @ _root.T
GAUSSIAN = gaussian(MEAN, COVARIANCE)


def normal(index: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + index)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def draw(index: int) -> Tensor:
    return normal(index, 4, 3)


def forbidden(index: int) -> Tensor:
    raise AssertionError(f"a deterministic sampler drew noise {index}")


def last(run: Run, denoise: Denoiser, x: Tensor, levels: Level, noise=draw) -> Tensor:
    return list(run(denoise, x, levels, NOTHING, noise))[-1].x


def model(name: str, denoise: Denoiser) -> Denoiser:
    row = name.removeprefix("vp-")
    return through(ROWS[row], denoise)


# --- The equivalence matrix -----------------------------------------------------------------------


def scaled(run: Run, denoise: Denoiser, levels: Level, u: Tensor) -> Tensor:
    """x / alpha after every step, from x / alpha = ``u``."""
    steps = run(denoise, u * levels.alpha[0], levels, NOTHING, draw)
    return torch.stack([step.x / step.level.alpha for step in steps])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("steps", [1, 9])
def test_every_model_gives_the_same(name: str, kind: str, steps: int) -> None:
    u = MEAN + math.exp(3) * normal(0, 4, 3)
    run = SAMPLERS[name].run
    expected = scaled(run, GAUSSIAN, closed(path("ve", steps, -3, 3)), u)
    levels = closed(path(MODELS[kind], steps, -3, 3))
    found = scaled(run, model(kind, GAUSSIAN), levels, u)
    assert found.shape[0] == steps + 1
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_paths_from_pure_noise_to_clean_data(name: str) -> None:
    """alpha = 0 at the start is finite, and flow and v models still agree."""
    x = normal(0, 4, 3)  # at alpha = 0, sigma = 1
    results: list[Tensor] = []
    for kind in ("vp-v", "flow"):
        inner = closed(path(MODELS[kind], 8, -2.5, 3))
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        levels = Level(torch.cat([zero, inner.alpha]), torch.cat([one, inner.sigma]))
        run = SAMPLERS[name].run
        steps = list(run(model(kind, GAUSSIAN), x, levels, NOTHING, draw))
        assert all(bool(step.x.isfinite().all()) for step in steps)
        results.append(torch.stack([step.x / step.level.alpha for step in steps]))
    assert torch.allclose(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("run", [s.heun, s.dpm2, s.lms, s.ipndm])
def test_flow_time_is_finite_at_pure_noise(run: Run) -> None:
    """With integrand="flow" second order holds from alpha = 0 on, where "eps" starts with Euler."""
    errors: dict[str, list[float]] = {"flow": [], "eps": []}
    for integrand, found in errors.items():
        for n in (40, 80):
            t = torch.linspace(1, 0.1, n + 1, dtype=torch.float64)
            levels = Level(1 - t, t)
            x = normal(0, 4, 3)
            exact = gaussian_flow(MEAN, COVARIANCE, x, levels.at(0), levels.at(-1))
            result = last(partial(run, integrand=integrand), GAUSSIAN, x, levels, forbidden)
            found.append(float((result - exact).abs().max()))
    assert errors["flow"][1] < errors["eps"][1]
    assert math.log2(errors["flow"][0] / errors["flow"][1]) > 1.8


# --- Order of accuracy ----------------------------------------------------------------------------


def slope(run: Run, denoise: Denoiser, curve: str, grade: float) -> float:
    """The order: minus the slope of log error over log steps, against the exact flow."""
    counts = [32, 64, 128]
    errors: list[float] = []
    for n in counts:
        levels = path(curve, n, -2.0, 1.5, grade)
        start = levels.at(0)
        x = draw(0) * (start.alpha**2 + start.sigma**2).sqrt()
        exact = gaussian_flow(MEAN, COVARIANCE, x, start, levels.at(-1))
        error = (last(run, denoise, x, levels, forbidden) - exact) / levels.alpha[-1]
        errors.append(float(error.square().mean().sqrt()))
    logs = torch.tensor([[math.log(n), math.log(e)] for n, e in zip(counts, errors, strict=True)])
    centred = logs - logs.mean(0)
    return -float((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())


def grade(order: int) -> float:
    """Orders above 2 start with lower ones: short first steps keep those from showing."""
    return 3.0 if order > 2 else 1.0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", QUIET)
def test_order(name: str, kind: str) -> None:
    order = SAMPLERS[name].order
    run = DETERMINISTIC[name]
    found = slope(run, model(kind, GAUSSIAN), MODELS[kind], grade(order))
    assert found == pytest.approx(order, abs=0.25)


OPTIONS: dict[str, tuple[int, Run]] = {
    "heun flow": (2, partial(s.heun, integrand="flow")),
    "dpm2 flow": (2, partial(s.dpm2, integrand="flow")),
    "lms 1": (1, partial(s.lms, order=1)),
    "lms 2": (2, partial(s.lms, order=2)),
    "lms 3": (3, partial(s.lms, order=3)),
    "lms 3 flow": (3, partial(s.lms, order=3, integrand="flow")),
    "deis 1": (1, partial(s.deis, order=1)),
    "deis 2": (2, partial(s.deis, order=2)),
    "dpm++ 2m heun": (2, partial(sde.dpmpp_2m_sde, eta=0.0, variant="heun")),
    "dpm++ 3m exact": (3, partial(sde.dpmpp_3m_sde, eta=0.0, exact=True)),
    "unipc 1": (2, partial(s.unipc, order=1)),
    "unipc 2 bh1": (3, partial(s.unipc, order=2, variant="bh1")),
    "unipc 3": (4, partial(s.unipc, order=3)),
    "sa 3": (3, partial(sde.sa_solver, tau=lambda _: 0.0, predictor_order=3, corrector_order=0)),
    "sa 3 4": (4, partial(sde.sa_solver, tau=lambda _: 0.0, predictor_order=3, corrector_order=4)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_order_of_options(name: str) -> None:
    order, run = OPTIONS[name]
    assert slope(run, GAUSSIAN, "vp", grade(order)) == pytest.approx(order, abs=0.3)


def test_ipndm_is_of_its_order_on_equal_steps() -> None:
    """Fixed Adams–Bashforth weights integrate a given eps(sigma) at order 4 on equal steps.

    eps begins flat, so that the low-order first steps are exact.
    """

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        eps = (2 - level.sigma) ** 6 * torch.ones_like(x)
        return Estimate(x - level.sigma * eps, eps)

    exact = -(1.0**7) / 7  # the integral of (2 − sigma)^6 from 2 down to 1
    errors: list[float] = []
    for n in (40, 80):
        sigma = torch.linspace(2, 1, n + 1, dtype=torch.float64)
        levels = Level(torch.ones_like(sigma), sigma)
        x = last(s.ipndm, denoise, torch.zeros(1, 1, dtype=torch.float64), levels)
        errors.append(abs(float(x) - exact))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


# --- Samplers that are one another ----------------------------------------------------------------

SAME: dict[str, tuple[Run, Run]] = {
    "ddim, euler": (s.ddim, s.euler),
    "deis 1": (partial(s.deis, order=1), s.euler),
    "lms 1": (partial(s.lms, order=1), s.euler),
    "lms 1 flow": (partial(s.lms, order=1, integrand="flow"), s.euler),
    "ipndm 1": (partial(s.ipndm, order=1), s.euler),
    "tcd 0": (partial(s.tcd, gamma=0.0), s.euler),
    "tcd 1": (partial(s.tcd, gamma=1.0), s.lcm),
    "sa 1": (
        partial(sde.sa_solver, tau=lambda _: 0.0, predictor_order=1, corrector_order=0),
        s.euler,
    ),
    "sde 1": (
        partial(sde.sa_solver, tau=lambda _: 1.0, predictor_order=1, corrector_order=0),
        s.ddpm,
    ),
    "ddim 1, ddpm": (partial(s.ddim, eta=1.0), s.ddpm),
    "euler a, ddpm": (s.euler_ancestral, s.ddpm),
    "unipc bh1, sa without noise": (
        partial(s.unipc, order=2, variant="bh1"),
        partial(sde.sa_solver, tau=lambda _: 0.0, predictor_order=2, corrector_order=3),
    ),
    "2s, sde": (
        partial(sde.dpmpp_2s_ancestral, eta=0.0),
        partial(sde.dpmpp_sde, eta=0.0),
    ),
    "dpm2 a 0": (partial(sde.dpm2_ancestral, eta=0.0), s.dpm2),
    "edm without churn": (partial(sde.edm_stochastic, s_churn=0.0), s.heun),
}


@pytest.mark.parametrize("pair", SAME)
def test_equal_samplers(pair: str) -> None:
    levels = closed(path("vp", 9, -3, 3))
    x = normal(0, 4, 3)
    for step, other in zip(
        SAME[pair][0](GAUSSIAN, x, levels, NOTHING, draw),
        SAME[pair][1](GAUSSIAN, x, levels, NOTHING, draw),
        strict=True,
    ):
        assert torch.allclose(step.x, other.x, rtol=1e-12, atol=1e-12)


# --- Closed forms of data -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_point_of_data_is_reached(name: str) -> None:
    point = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    for curve in CURVES:
        levels = closed(path(curve, 6, -3, 3))
        x = last(SAMPLERS[name].run, constant(point), normal(0, 4, 3), levels)
        assert torch.allclose(x, point.expand(4, 3), atol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_finite_data_set_is_reached(name: str) -> None:
    points = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 0.5, 1.0], [0.0, -1.5, -1.0]]).double()
    levels = closed(path("flow", 25, -3, 4))
    x = last(SAMPLERS[name].run, dataset(points), normal(0, 4, 3), levels)
    assert float(torch.cdist(x, points).min(1).values.max()) < 0.05


def marginals(run: Run, data_variance: float, levels: Level) -> Tensor:
    """The exact variance after each step for data N(0, v): a linear problem, so its noises add.

    Row 0 carries the start's standard deviation, row i + 1 only noise i as a unit impulse.
    """
    zero = torch.zeros(1, dtype=torch.float64)
    denoise = gaussian(zero, torch.full((1, 1), data_variance, dtype=torch.float64))
    rows = 2 * len(levels.alpha) + 1
    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[0] = (levels.alpha[0] ** 2 * data_variance + levels.sigma[0] ** 2).sqrt()

    def impulse(index: int) -> Tensor:
        z = torch.zeros(rows, 1, dtype=torch.float64)
        z[index + 1] = 1
        return z

    steps = run(denoise, x, levels, NOTHING, impulse)
    return torch.stack([step.x.square().sum() for step in steps])


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_point_of_data_keeps_the_variance_exactly(name: str, curve: str) -> None:
    """With data of variance 0 the noise of every level is exact: it is sigma^2 after each step."""
    run = SAMPLERS[name].run
    if name == "edm_stochastic":
        run = partial(sde.edm_stochastic, s_noise=1.0)  # the paper's 1.003 adds on purpose
    levels = path(curve, 10, -2, 2)
    assert torch.allclose(marginals(run, 0.0, levels), levels.sigma[1:] ** 2, rtol=1e-10)


VARIANCE: dict[str, tuple[int, Run]] = {
    "ddpm": (1, s.ddpm),
    "ddim 1": (1, partial(s.ddim, eta=1.0)),
    "euler_ancestral": (1, s.euler_ancestral),
    "dpm2_ancestral": (2, sde.dpm2_ancestral),
    "dpmpp_2s_ancestral": (2, sde.dpmpp_2s_ancestral),
    "dpmpp_sde": (2, sde.dpmpp_sde),
    "dpmpp_sde 0.5": (2, partial(sde.dpmpp_sde, eta=0.5)),
    "dpmpp_2m_sde": (2, sde.dpmpp_2m_sde),
    "dpmpp_2m_sde heun": (2, partial(sde.dpmpp_2m_sde, variant="heun")),
    "dpmpp_3m_sde": (2, sde.dpmpp_3m_sde),
    "sa_solver": (2, partial(sde.sa_solver, tau=lambda _: 1.0)),
}


@pytest.mark.parametrize("name", VARIANCE)
def test_variance_of_gaussian_data_converges(name: str) -> None:
    """alpha^2 v + sigma^2 is reached at the sampler's order, from impulses, without chance."""
    order, run = VARIANCE[name]
    errors: list[float] = []
    for n in (80, 160):
        levels = path("vp", n, -2, 1.5)
        exact = levels.alpha[-1] ** 2 * 0.25 + levels.sigma[-1] ** 2
        errors.append(abs(float(marginals(run, 0.25, levels)[-1] / exact - 1)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("curve", CURVES)
def test_first_order_variance_is_the_recursion(eta: float, curve: str) -> None:
    """v' = (alpha' k + kept e)^2 v + c^2 with the gains k, e of x0 and eps, in plain numbers."""
    levels = path(curve, 10, -2, 2)
    alpha, sigma = levels.alpha.tolist(), levels.sigma.tolist()
    variance = alpha[0] ** 2 * 0.25 + sigma[0] ** 2
    found = marginals(partial(s.ddim, eta=eta), 0.25, levels)
    for i in range(10):
        total = alpha[i] ** 2 * 0.25 + sigma[i] ** 2
        ratio = sigma[i + 1] ** 2 * alpha[i] ** 2 / (sigma[i] ** 2 * alpha[i + 1] ** 2)
        c2 = eta**2 * sigma[i + 1] ** 2 * (1 - ratio)
        gain = alpha[i + 1] * alpha[i] * 0.25 / total
        gain += math.sqrt(sigma[i + 1] ** 2 - c2) * sigma[i] / total
        variance = gain**2 * variance + c2
        assert float(found[i]) == pytest.approx(variance, rel=1e-10)


def test_learned_variance_interpolates_in_the_logarithm() -> None:
    """v = 0 is beta-tilde, v = 1 is beta, v = 1/2 their geometric mean (Improved DDPM, eq. 15)."""
    levels = path("vp", 1, -1, 0)
    alpha, sigma = levels.alpha.tolist(), levels.sigma.tolist()
    beta = 1 - (alpha[0] / alpha[1]) ** 2  # variance preserving: Ho et al. 2020, eq. 2
    tilde = beta * sigma[1] ** 2 / sigma[0] ** 2

    def deviation(mix: float | None, **options: str) -> float:
        def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
            estimate = GAUSSIAN(x, level, conditioning)
            learned = None if mix is None else torch.full_like(x, mix)
            return estimate._replace(variance_mix=learned)

        x = normal(0, 4, 3)
        run = partial(s.ddpm, **options)
        noisy = last(run, denoise, x, levels, lambda i: torch.ones_like(x))
        still = last(run, denoise, x, levels, lambda i: torch.zeros_like(x))
        return float((noisy - still).mean())

    assert deviation(None) == pytest.approx(math.sqrt(tilde))
    assert deviation(None, variance="large") == pytest.approx(math.sqrt(beta))
    assert deviation(0.0) == pytest.approx(math.sqrt(tilde))
    assert deviation(1.0) == pytest.approx(math.sqrt(beta))
    assert deviation(0.5) == pytest.approx((tilde * beta) ** 0.25)


def test_tcd_inner_levels() -> None:
    """The inner level that multiplies sigma / alpha by 1 − gamma is what gamma means."""
    levels = closed(path("vp", 6, -3, 3))
    ratio = 0.6 * levels.sigma[1:] / levels.alpha[1:]
    inner = Level(1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt())
    x = normal(0, 4, 3)
    by_gamma = last(partial(s.tcd, gamma=0.4), GAUSSIAN, x, levels)
    assert torch.allclose(last(partial(s.tcd, inner=inner), GAUSSIAN, x, levels), by_gamma)


# --- What every sampler promises ------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_numbered_and_inputs_kept(name: str) -> None:
    levels = closed(path("flow", 5, -3, 3))
    x = normal(0, 4, 3)
    before, alpha, sigma = x.clone(), levels.alpha.clone(), levels.sigma.clone()
    steps: list[Step] = list(SAMPLERS[name].run(GAUSSIAN, x, levels, NOTHING, draw))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(step.total == 6 for step in steps)
    assert [float(step.level.sigma) for step in steps] == levels.sigma[1:].tolist()
    assert torch.equal(x, before)
    assert torch.equal(levels.alpha, alpha) and torch.equal(levels.sigma, sigma)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_tells_the_truth(name: str) -> None:
    """Calls of the denoiser in a step, and whether noise is drawn."""
    calls: list[Level] = []
    drawn: list[int] = []

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        calls.append(level)
        assert float(level.sigma) > 0
        return GAUSSIAN(x, level, conditioning)

    def noise(index: int) -> Tensor:
        drawn.append(index)
        return draw(index)

    sampler = SAMPLERS[name]
    levels = closed(path("vp", 6, -3, 3))
    steps = sampler.run(denoise, normal(0, 4, 3), levels, NOTHING, noise)
    assert not calls, "a generator must not start before it is asked"
    next(steps)
    assert len(calls) == sampler.evaluations
    list(steps)
    assert bool(drawn) == sampler.stochastic
    assert drawn == sorted(set(drawn)), "a draw is used once"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_does_not_know_its_batch(name: str) -> None:
    """Bit for bit the same alone, in a batch of 3, and in another order."""

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        alpha, sigma = float(level.alpha), float(level.sigma)
        return from_x0(x, level, torch.tanh(x * alpha) / (1 + sigma))

    levels = closed(path("flow", 8, -3, 3))

    def sample(seeds: list[int]) -> Tensor:
        like = torch.empty(len(seeds), 2, 5, 5)
        start = stream(seeds, "start", like)(0)
        return last(SAMPLERS[name].run, denoise, start, levels, stream(seeds, "step", like))

    together = sample([7, 8, 9])
    assert torch.equal(sample([8])[0], together[1])
    assert torch.equal(sample([9, 7])[0], together[2])


@pytest.mark.parametrize("name", SAMPLERS)
def test_dtype_and_shape_are_kept(name: str) -> None:
    levels = closed(path("vp", 4, -3, 3))
    x = normal(0, 2, 3, 4, 4).float()
    point = torch.zeros(3, 4, 4)
    noise: Callable[[int], Tensor] = lambda i: normal(i, 2, 3, 4, 4).float()  # noqa: E731
    x = last(SAMPLERS[name].run, constant(point), x, levels, noise)
    assert x.dtype == torch.float32 and x.shape == (2, 3, 4, 4)


# --- Weights --------------------------------------------------------------------------------------


def test_adams_bashforth_weights() -> None:
    found = lagrange_weights([0.0, -1.0, -2.0, -3.0], exponential_moments(0.0, 4))
    assert found == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24], rel=1e-13)


@pytest.mark.parametrize("z", [-40.0, -3.0, -1.0, -0.999, -1e-9, 0.0, 1e-3, 0.999, 1.0, 5.0, 800.0])
def test_exponential_moments(z: float) -> None:
    """Against Gauss–Legendre quadrature of the same means, where that is exact enough."""
    found = exponential_moments(z, 4)
    nodes, weights = (torch.tensor(a, dtype=torch.float64) for a in _gauss_legendre(200))
    v = (nodes + 1) / 2
    density = weights * torch.exp(z * v - max(z, 0.0))
    expected = [float((density * v**n).sum() / density.sum()) for n in range(4)]
    assert found == pytest.approx(expected, rel=1e-9)


def _gauss_legendre(count: int) -> tuple[list[float], list[float]]:
    """Nodes and weights by Golub and Welsch: eigenvalues of the Jacobi matrix."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return values.tolist(), (2 * vectors[0] ** 2).tolist()


def test_bh1_tends_to_the_midpoint() -> None:
    assert bh1_moments(0.0) == [1.0, 0.5]
    assert bh1_moments(1e-9)[1] == pytest.approx(0.5)


# --- Errors ---------------------------------------------------------------------------------------


def test_an_unknown_sampler_is_named_with_its_neighbours() -> None:
    with pytest.raises(ValueError, match=r"unknown sampler 'dpmpp2m': did you mean .*dpmpp_2m"):
        find("dpmpp2m")
    with pytest.raises(ValueError, match="there are ddpm, ddim"):
        find("§§§")
    assert find("euler") is SAMPLERS["euler"]


VP = path("vp", 4, -2, 2)
BACKWARD = Level(VP.alpha.flip(0), VP.sigma.flip(0))
ODD = Level(VP.alpha * torch.tensor([1, 2, 1, 2, 1.0]), VP.sigma * torch.tensor([1, 2, 1, 2, 1.0]))
WRONG: dict[str, tuple[Run, Level, str]] = {
    "no path": (s.euler, VP.at(0), "at least two levels"),
    "one level": (s.euler, VP.at(slice(0, 1)), "at least two levels"),
    "backward": (s.euler, BACKWARD, "log-SNR does not rise at step 1"),
    "repeated": (s.euler, VP.at(torch.tensor([0, 1, 1, 2])), "does not rise at step 2"),
    "nan": (s.euler, Level(VP.alpha * math.nan, VP.sigma), "does not rise"),
    "no curve": (s.dpm2, ODD, "neither variance exploding"),
    "eta": (partial(s.ddim, eta=1.5), VP, "eta = 1.5"),
    "negative eta": (partial(sde.dpmpp_2m_sde, eta=-1.0), VP, "eta = -1.0"),
    "lms order": (partial(s.lms, order=5), VP, "lms has the orders 1 to 4, not 5"),
    "ipndm order": (partial(s.ipndm, order=0), VP, "ipndm has the orders"),
    "deis order": (partial(s.deis, order=4), VP, "deis has the orders"),
    "unipc order": (partial(s.unipc, order=4), VP, "unipc has the orders"),
    "sa order": (partial(sde.sa_solver, predictor_order=5), VP, "predictor has the orders"),
    "sa corrector": (partial(sde.sa_solver, corrector_order=5), VP, "corrector has the orders"),
    "unipc variant": (partial(s.unipc, variant="bh3"), VP, "unknown variant 'bh3'"),
    "2m variant": (partial(sde.dpmpp_2m_sde, variant="x"), VP, "unknown variant 'x'"),
    "variance": (partial(s.ddpm, variance="x"), VP, "unknown variance 'x'"),
    "integrand": (partial(s.lms, integrand="v"), VP, "unknown integrand 'v'"),
    "gamma": (partial(s.tcd, gamma=2.0), VP, "gamma = 2.0"),
    "gamma and inner": (partial(s.tcd, gamma=0.3, inner=VP), VP, "give one of them"),
    "inner": (partial(s.tcd, inner=VP), VP, "one inner level a step: 4"),
    "noisy inner": (partial(s.tcd, inner=VP.at(slice(0, 4))), VP, "must not be noisier"),
}


@pytest.mark.parametrize("case", WRONG)
def test_misuse_is_an_error(case: str) -> None:
    run, levels, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        last(run, GAUSSIAN, normal(0, 4, 3), levels)


def test_weights_refuse_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="distinct nodes"):
        lagrange_weights([0.0, 0.0], [1.0, 0.5])
    with pytest.raises(ValueError, match="infinite length"):
        exponential_moments(math.inf, 2)
