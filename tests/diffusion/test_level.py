"""Levels and estimates: the one line of the notation."""

import math

import pytest
import torch

from mezzotint.diffusion.level import Level, from_x0, half_log_snr, log_snr, mix, stack


def level(alpha: float, sigma: float) -> Level:
    return Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))


def test_the_invariant_defines_eps() -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = x.flip(0)
    estimate = from_x0(x, level(0.6, 0.8), x0)
    torch.testing.assert_close(estimate.eps, (x - 0.6 * x0) / 0.8)
    torch.testing.assert_close(mix(estimate.x0, estimate.eps, level(0.6, 0.8)), x)
    assert estimate.variance_mix is None


def test_eps_is_undefined_without_noise() -> None:
    with pytest.raises(ValueError, match="sigma = 0"):
        from_x0(torch.ones(1, 2), level(1, 0), torch.ones(1, 2))


def test_log_snr_is_finite_inside_and_infinite_at_the_ends() -> None:
    path = stack([level(0, 1), level(0.5, 0.25), level(1, 0)])
    assert log_snr(path).tolist() == [-math.inf, pytest.approx(2 * math.log(2)), math.inf]
    assert half_log_snr(path)[1].item() == pytest.approx(math.log(2))
    assert path.at(1) == (0.5, 0.25)
    assert path.at(slice(1, None)).alpha.tolist() == [0.5, 1.0]


def test_a_level_a_sample_broadcasts_over_the_sample() -> None:
    x = torch.ones(2, 3, 4, 5)
    wide = Level(torch.tensor([0.25, 0.5]), torch.tensor([1.0, 2.0])).to(x)
    assert wide.alpha.shape == (2, 1, 1, 1)
    mixed = mix(x, x, Level(torch.tensor([0.25, 0.5]), torch.tensor([1.0, 2.0])))
    assert mixed[0].unique().item() == 1.25
    assert mixed[1].unique().item() == 2.5


def test_a_shared_level_never_changes_the_dtype() -> None:
    x = torch.ones(2, 3)
    assert mix(x, x, level(0.6, 0.8)).dtype == torch.float32


def test_a_level_of_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 2"):
        Level(torch.ones(3), torch.ones(3)).to(torch.ones(2, 3))
