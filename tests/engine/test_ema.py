"""The power-function average: its definition, its width, and any other width afterwards."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.engine import ema


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.10, 0.15, 0.25])
def test_gamma_gives_the_width_by_definition(sigma_rel: float) -> None:
    """Standard deviation of the density (g + 1) tau^g on [0, 1], by its moments."""
    gamma = ema.gamma_of(sigma_rel)
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert math.sqrt(square - mean**2) == pytest.approx(sigma_rel, rel=1e-9)


def test_gamma_of_the_paper() -> None:
    """Karras et al. (2024) quote sigma_rel = 0.05 as gamma = 16.97 and 0.10 as 6.94."""
    assert ema.gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert ema.gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("wrong", [0.0, -0.1, 0.3, math.nan])
def test_impossible_widths(wrong: float) -> None:
    with pytest.raises(ValueError, match="relative width"):
        ema.gamma_of(wrong)


def test_update_is_the_closed_form() -> None:
    """theta(tau) = tau on step i being i: the sum of i (i^(g+1) − (i − 1)^(g+1)) / t^(g+1)."""
    gamma, steps = 3.7, 40
    average = torch.full((2, 3), 99.0, dtype=torch.float64)  # what it starts from leaves no trace
    for i in range(1, steps + 1):
        ema.update([average], [torch.full((2, 3), float(i), dtype=torch.float64)], i, gamma)
    expected = sum(
        i * (i ** (gamma + 1) - (i - 1) ** (gamma + 1)) for i in range(1, steps + 1)
    ) / steps ** (gamma + 1)
    torch.testing.assert_close(average, torch.full_like(average, expected), rtol=1e-12, atol=0)


def test_products_are_integrals() -> None:
    """Against the profiles integrated numerically."""
    times, gammas = torch.tensor([3.0, 7.0]).double(), torch.tensor([2.0, 5.5]).double()
    tau = (torch.arange(200_000).double() + 0.5) / 200_000 * 7
    profiles = [
        torch.where(tau <= t, (g + 1) * tau**g / t ** (g + 1), 0.0)
        for t, g in zip(times.tolist(), gammas.tolist(), strict=True)
    ]
    numeric = torch.stack([torch.stack([(a * b).sum() for b in profiles]) for a in profiles])
    exact = ema._products(times, gammas, times, gammas)
    torch.testing.assert_close(exact, numeric * 7 / 200_000, rtol=1e-4, atol=0)


def test_a_tracked_average_is_found_among_the_snapshots() -> None:
    gammas = [ema.gamma_of(width) for width in (0.05, 0.10)]
    factors = ema.solve([10, 10, 20, 20], gammas * 2, 20, gammas[1])
    expected = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(factors, expected, atol=1e-6, rtol=0)


def _walk(steps: int) -> list[Tensor]:
    """Weights of a training run, as a drifting random walk."""
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(steps, 500, generator=generator) * 0.01 + 0.002
    return list(moves.cumsum(0) + torch.randn(500, generator=generator))


@pytest.mark.parametrize("wanted", [0.06, 0.08, 0.13])
def test_reconstruction_equals_direct_tracking(tmp_path: Path, wanted: float) -> None:
    """Any length afterwards, to a small part of what the lengths differ by."""
    widths, steps = (0.05, 0.10), 256
    tracked = {width: torch.zeros(500) for width in (*widths, wanted)}
    for i, weights in enumerate(_walk(steps), start=1):
        for width, average in tracked.items():
            ema.update([average], [weights], i, ema.gamma_of(width))
        if i % 16 == 0:
            states = [{"weight": tracked[width]} for width in widths]
            ema.write_snapshot(tmp_path, i, widths, states)
    found = ema.reconstruct(tmp_path, wanted)["weight"]
    assert found.dtype == torch.float32
    error = (found - tracked[wanted]).norm()
    nearest = min((tracked[width] - tracked[wanted]).norm() for width in widths)
    assert error < 0.06 * nearest
    # What float16 costs alone: 2^-11 a weight, not more once they are put together.
    assert error < 2**-10 * tracked[wanted].norm()


def test_snapshots_survive_large_weights(tmp_path: Path) -> None:
    path = ema.write_snapshot(tmp_path, 1, (0.1,), [{"big": torch.tensor([1e6])}])
    assert ema.snapshots(tmp_path) == {1: path}
    assert ema.reconstruct(tmp_path, 0.1)["big"].item() == pytest.approx(1e6)


def test_no_snapshots(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no snapshots: train with train\.snapshot_pictures"):
        ema.reconstruct(tmp_path, 0.1)
