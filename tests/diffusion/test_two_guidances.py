"""Guidance by text and picture: the paper's sum, the invariant, one call or three."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mezzotint.diffusion.guidance import Contrast, rescale
from mezzotint.diffusion.level import Conditioning, Estimate, Level
from mezzotint.diffusion.two_guidances import text_and_image

LEVEL = Level(torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64))
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(2, 4, generator=GENERATOR, dtype=torch.float64)


def told(text: float, picture: float | None) -> Conditioning:
    concat = None if picture is None else torch.full((1, 1), picture, dtype=torch.float64)
    return Conditioning(vector=torch.full((1, 1), text, dtype=torch.float64), concat=concat)


class Counting:
    """eps is a nonlinear function of x and of what is told."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        self.calls += 1
        assert conditioning.vector is not None
        picture = 0.0 if conditioning.concat is None else conditioning.concat
        eps = torch.sin(x + 2 * conditioning.vector) + torch.cos(x * picture)
        alpha, sigma = level.to(x)
        return Estimate((x - sigma * eps) / alpha, eps)


def test_it_is_the_papers_sum() -> None:
    denoise = Counting()
    both, picture, neither = told(1.0, 2.0), told(0.0, 2.0), told(0.0, 0.0)
    found = text_and_image(denoise, picture, neither, 7.5, 1.5)(X, LEVEL, both)
    assert denoise.calls == 1
    e, e_i, e_0 = (denoise(X, LEVEL, one).eps for one in (both, picture, neither))
    expected = e_0 + 1.5 * (e_i - e_0) + 7.5 * (e - e_i)
    torch.testing.assert_close(found.eps, expected, rtol=1e-12, atol=1e-12)
    back = LEVEL.alpha * found.x0 + LEVEL.sigma * found.eps
    torch.testing.assert_close(back, X, rtol=1e-12, atol=1e-12)


def test_scales_of_one_are_off() -> None:
    denoise = Counting()
    both = told(1.0, 2.0)
    guided = text_and_image(denoise, told(0.0, 2.0), told(0.0, 0.0), 1.0, 1.0)(X, LEVEL, both)
    torch.testing.assert_close(guided.eps, denoise(X, LEVEL, both).eps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("each", [False, True])
def test_different_slots_are_called_apart(each: bool) -> None:
    """And a level a sample is as good as one for all."""
    level = Level(*(part.expand(2) for part in LEVEL)) if each else LEVEL
    denoise = Counting()
    one = text_and_image(denoise, told(0.0, 2.0), told(0.0, 0.0), 3.0, 2.0)
    together = one(X, level, told(1.0, 2.0))
    assert denoise.calls == 1
    lacking = told(0.0, None)  # cos(0) too: the same by other slots
    apart = text_and_image(denoise, told(0.0, 2.0), lacking, 3.0, 2.0)(X, level, told(1.0, 2.0))
    assert denoise.calls == 4
    torch.testing.assert_close(apart.eps, together.eps, rtol=1e-12, atol=1e-12)


def test_rules_and_contrasts_go_with_it() -> None:
    """The rule is of the text's guidance; a contrast adds its own displacement."""
    denoise, weak = Counting(), Counting()
    both, picture, neither = told(1.0, 2.0), told(0.0, 2.0), told(0.0, 0.0)

    def other(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        return weak(x + 0.1, level, told(0.5, 1.0))

    contrasts = [Contrast(other, 1.5)]
    plain, contrasted, rescaled = (
        text_and_image(denoise, picture, neither, 3.0, 2.0, *more)(X, LEVEL, both).eps
        for more in ((), (rescale(0.0), contrasts), (rescale(0.7),))
    )
    gap = denoise(X, LEVEL, both).eps - other(X, LEVEL, both).eps
    torch.testing.assert_close(contrasted, plain + 0.5 * gap, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(rescaled, plain)
