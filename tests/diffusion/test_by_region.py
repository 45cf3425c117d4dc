"""Estimates blended by masks: the closed form of Gaussians, the invariant, what is evaluated."""

from __future__ import annotations

import pytest
import torch
from test_guidance import COND, LEVELS, X, every_level, holds
from test_guidance import gaussian as bent
from torch import Tensor

from mezzotint.diffusion.guidance import classifier_free, with_conditioning
from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level, from_x0
from mezzotint.diffusion.regions import by_region
from mezzotint.diffusion.samplers import find
from mezzotint.diffusion.two_guidances import text_and_image

LEFT = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
LEFT[..., :2] = 1
SOFT = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def normal(mean: float) -> Denoiser:
    """The exact denoiser of N(mean, 1), element by element."""

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        alpha, sigma = level.to(x)
        return from_x0(x, level, (alpha * x + sigma**2 * mean) / (alpha**2 + sigma**2))

    return denoise


def never(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
    raise AssertionError("called")


@every_level
def test_the_invariant_is_kept(where: str) -> None:
    level = LEVELS[where]
    rest = (1 - SOFT) * LEFT
    parts = [(bent(), SOFT), (bent(0.4), rest), (bent(-1.0), 1 - SOFT - rest)]
    estimate = by_region(parts)(X, level, COND)
    holds(X, level, estimate)
    each = [denoise(X, level, COND) for denoise, _ in parts]
    wanted = sum(weight * one.x0 for (_, weight), one in zip(parts, each, strict=True))
    torch.testing.assert_close(estimate.x0, wanted)
    assert estimate.variance_mix is not None


def test_a_region_over_all_is_that_denoiser_and_nothing_else_is_evaluated() -> None:
    one = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    found = by_region([(never, one * 0), (bent(), one)])(X, LEVELS["vp"], COND)
    plain = bent()(X, LEVELS["vp"], COND)
    assert torch.equal(found.x0, plain.x0) and torch.equal(found.eps, plain.eps)


def test_where_a_weight_is_one_the_estimate_is_that_parts_to_the_last_bit() -> None:
    found = by_region([(bent(), LEFT), (bent(0.4), 1 - LEFT)])(X, LEVELS["flow"], COND)
    one, other = (bent(shift)(X, LEVELS["flow"], COND) for shift in (0.0, 0.4))
    assert torch.equal(found.x0[..., :2], one.x0[..., :2])
    assert torch.equal(found.x0[..., 2:], other.x0[..., 2:])


def test_disjoint_regions_of_normal_data_walk_apart() -> None:
    """Along the probability flow ``(x − alpha m) / sqrt(alpha^2 + sigma^2)`` stays what it is, m
    the mean of the region that an element is in."""
    u = torch.linspace(1, 0, 201, dtype=torch.float64)
    path = Level(torch.cos(u * 1.5), torch.sin(u * 1.5))
    denoise = by_region([(normal(2.0), LEFT), (normal(-3.0), 1 - LEFT)])
    x = X
    for step in find("ddim").run(denoise, X, path, Conditioning(), lambda _: X):
        x = step.x
    mean = 2 * LEFT - 3 * (1 - LEFT)
    wanted = path.alpha[-1] * mean + (X - path.alpha[0] * mean)  # here the root is 1
    torch.testing.assert_close(x, wanted, atol=2e-2, rtol=0)


@pytest.mark.parametrize("weights", [(LEFT, LEFT), (LEFT,), (), (LEFT * 2, 1 - 2 * LEFT)])
def test_weights_that_are_no_mean_are_refused(weights: tuple[Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        by_region([(bent(), weight) for weight in weights])


def test_guided_the_negative_is_evaluated_once() -> None:
    """The linear rule of the mean is the mean of the linear rules."""
    told = [Conditioning(vector=COND.vector + shift) for shift in (0.0, 0.5)]  # type: ignore[operator]
    none = Conditioning(vector=COND.vector * 0)  # type: ignore[operator]
    calls: list[Tensor | None] = []

    def counted(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        calls.append(conditioning.vector)
        return bent()(x, level, conditioning)

    level, masks = LEVELS["vp"], (LEFT, 1 - LEFT)
    parts = [(with_conditioning(counted, c), m) for c, m in zip(told, masks, strict=True)]
    found = classifier_free(counted, none, 3.0, strong=by_region(parts))(X, level, Conditioning())
    assert len(calls) == 3
    apart = [classifier_free(bent(), none, 3.0)(X, level, c) for c in told]
    wanted = sum(m * one.x0 for m, one in zip(masks, apart, strict=True))
    torch.testing.assert_close(found.x0, wanted)
    both = text_and_image(bent(), none, told[1], 3.0, 2.0, strong=by_region(parts))
    apart = [text_and_image(bent(), none, told[1], 3.0, 2.0)(X, level, c) for c in told]
    wanted = sum(m * one.x0 for m, one in zip(masks, apart, strict=True))
    torch.testing.assert_close(both(X, level, Conditioning()).x0, wanted)
