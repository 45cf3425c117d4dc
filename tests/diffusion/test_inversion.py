"""Inverting and sampling again returns the start; the noise found is that of the exact flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from analytic import CURVES, closed, dataset, gaussian, gaussian_flow, path
from torch import Tensor

from mezzotint.diffusion.inversion import ddim_inversion, heun_inversion
from mezzotint.diffusion.level import Conditioning, Denoiser, Level
from mezzotint.diffusion.samplers import Run, ddim, heun
from mezzotint.diffusion.steps import Step

Inversion = Callable[[Denoiser, Tensor, Level, Conditioning], Iterator[Step]]
NOTHING = Conditioning()
MEAN = torch.tensor([0.7, -0.3, 0.2], dtype=torch.float64)
_root = torch.tensor([[0.6, 0.1, 0.0], [-0.2, 0.4, 0.3], [0.1, 0.0, 0.9]], dtype=torch.float64)
COVARIANCE = _root @ _root.T
GAUSSIAN = gaussian(MEAN, COVARIANCE)
PAIRS: dict[str, tuple[Run, Inversion]] = {
    "ddim": (ddim, partial(ddim_inversion, iterations=20)),
    "heun": (heun, partial(heun_inversion, iterations=20)),
}
both = pytest.mark.parametrize("name", PAIRS)


def data() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return MEAN + torch.randn(5, 3, generator=generator, dtype=torch.float64) @ _root.T


def sampled(run: Run, denoise: Denoiser, x: Tensor, levels: Level) -> Tensor:
    def forbidden(index: int) -> Tensor:
        raise AssertionError("a deterministic sampler drew noise")

    return list(run(denoise, x, levels, NOTHING, forbidden))[-1].x


def inverted(run: Inversion, denoise: Denoiser, x: Tensor, levels: Level) -> Tensor:
    return list(run(denoise, x, levels, NOTHING))[-1].x


def from_pure_noise(levels: Level) -> Level:
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return Level(torch.cat([zero, levels.alpha]), torch.cat([one, levels.sigma]))


@both
@pytest.mark.parametrize("steps", [4, 12])
@pytest.mark.parametrize("curve", CURVES)
def test_there_and_back(name: str, curve: str, steps: int) -> None:
    """Through sigma = 0 at the data's end, to rounding error, however few the steps."""
    run, inversion = PAIRS[name]
    inversion = partial(inversion, iterations=60)
    levels = closed(path(curve, steps, -2.5, 2.5))
    start = inverted(inversion, GAUSSIAN, data(), levels)
    assert torch.allclose(sampled(run, GAUSSIAN, start, levels), data(), atol=1e-10)


@both
@pytest.mark.parametrize("curve", ["vp", "flow"])
def test_there_and_back_from_pure_noise(name: str, curve: str) -> None:
    run, inversion = PAIRS[name]
    levels = from_pure_noise(closed(path(curve, 12, -2.5, 2.5)))
    start = inverted(partial(inversion, iterations=60), GAUSSIAN, data(), levels)
    assert torch.allclose(sampled(run, GAUSSIAN, start, levels), data(), atol=1e-8)


@both
def test_a_finite_data_set_there_and_back(name: str) -> None:
    run, inversion = PAIRS[name]
    points = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 0.5, 1.0], [0.0, -1.5, -1.0]]).double()
    levels = path("vp", 20, -2.5, 1.5)
    denoise = dataset(points)
    x = sampled(run, denoise, data(), levels)
    start = inverted(partial(inversion, iterations=40), denoise, x, levels)
    assert torch.allclose(sampled(run, denoise, start, levels), x, atol=1e-8)


@both
def test_every_iteration_shrinks_the_error(name: str) -> None:
    run, inversion = PAIRS[name]
    levels = closed(path("vp", 20, -2.5, 2.5))
    errors: list[float] = []
    for iterations in (1, 2, 4, 8):
        start = inverted(partial(inversion, iterations=iterations), GAUSSIAN, data(), levels)
        errors.append(float((sampled(run, GAUSSIAN, start, levels) - data()).abs().max()))
    assert errors[0] < 0.3
    assert errors[1] < 0.3 * errors[0]
    assert errors[2] < 0.1 * errors[1]
    assert errors[3] < 1e-6


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("inversion", "order"),
    [
        (partial(ddim_inversion, iterations=1), 1),
        (partial(ddim_inversion, iterations=12), 1),
        (partial(heun_inversion, iterations=12), 2),
    ],
)
def test_order_of_the_noise_found(inversion: Inversion, order: int, curve: str) -> None:
    """Against the exact probability flow backward; halving the steps by 2^order."""
    errors: list[float] = []
    for n in (20, 40):
        levels = path(curve, n, -2.0, 1.5)
        x = data() * (levels.alpha[-1] ** 2 + levels.sigma[-1] ** 2).sqrt()
        exact = gaussian_flow(MEAN, COVARIANCE, x, levels.at(-1), levels.at(0))
        errors.append(float((inverted(inversion, GAUSSIAN, x, levels) - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_one_iteration_is_the_textbook_inversion() -> None:
    """x = (alpha / alpha') x' + (sigma − alpha sigma' / alpha') eps, eps at the noisier level."""
    levels = path("vp", 3, -1.0, 1.0)
    x = data()
    for step in ddim_inversion(GAUSSIAN, data(), levels, NOTHING, iterations=1):
        after, before = levels.at(4 - step.number), levels.at(3 - step.number)
        eps = GAUSSIAN(x, before, NOTHING).eps
        ratio = before.alpha / after.alpha
        x = ratio * x + (before.sigma - ratio * after.sigma) * eps
        assert torch.allclose(step.x, x, atol=1e-14)


@both
def test_every_model_gives_the_same(name: str) -> None:
    results: list[Tensor] = []
    for curve in CURVES:
        levels = closed(path(curve, 9, -2.5, 2.5))
        start = inverted(PAIRS[name][1], GAUSSIAN, data(), levels)
        results.append(start / levels.alpha[0])
    assert torch.allclose(results[0], results[1], rtol=1e-10, atol=1e-10)
    assert torch.allclose(results[0], results[2], rtol=1e-10, atol=1e-10)


@both
def test_steps_walk_backward_and_keep_their_input(name: str) -> None:
    levels = closed(path("flow", 5, -2.5, 2.5))
    x = data()
    steps = list(PAIRS[name][1](GAUSSIAN, x, levels, NOTHING))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(step.total == 6 for step in steps)
    assert [float(step.level.sigma) for step in steps] == levels.sigma[:-1].flip(0).tolist()
    assert torch.equal(x, data())


def test_misuse_is_an_error() -> None:
    levels = path("vp", 3, -1.0, 1.0)
    with pytest.raises(ValueError, match="at least one iteration, not 0"):
        inverted(partial(ddim_inversion, iterations=0), GAUSSIAN, data(), levels)
    backward = Level(levels.alpha.flip(0), levels.sigma.flip(0))
    with pytest.raises(ValueError, match="levels go from noise to data"):
        inverted(ddim_inversion, GAUSSIAN, data(), backward)
