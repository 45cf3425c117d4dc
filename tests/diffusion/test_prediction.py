"""Prediction rows: the solve is the inverse of the target; EDM's and v's published forms."""

import pytest
import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Level, log_snr, mix
from mezzotint.diffusion.prediction import (
    ROWS,
    Parameterization,
    denoiser,
    edm,
    preconditioned,
    solve,
    target,
    unit,
)

GENERATOR = torch.Generator().manual_seed(1)
X0 = torch.randn(3, 2, 5, dtype=torch.float64, generator=GENERATOR)
EPS = torch.randn(3, 2, 5, dtype=torch.float64, generator=GENERATOR)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


LEVELS = {
    "vp": Level(number(0.28), number(0.96)),
    "flow": Level(number(0.3), number(0.7)),
    "ve": Level(number(1.0), number(7.0)),
    "per sample": Level(
        torch.tensor([0.9, 0.5, 0.1]).double(), torch.tensor([0.1, 0.5, 0.9]).double()
    ),
}


@pytest.mark.parametrize("where", list(LEVELS))
@pytest.mark.parametrize("name", list(ROWS))
def test_solve_inverts_target(name: str, where: str) -> None:
    level = LEVELS[where]
    if name.startswith("edm") and where != "ve":
        with pytest.raises(ValueError, match="alpha = 1"):
            target(ROWS[name], X0, EPS, level)
        return
    output = target(ROWS[name], X0, EPS, level)
    estimate = solve(ROWS[name], mix(X0, EPS, level), output, level)
    torch.testing.assert_close(estimate.x0, X0, rtol=0, atol=1e-12)
    torch.testing.assert_close(estimate.eps, EPS, rtol=0, atol=1e-12)


def test_v_is_the_published_one() -> None:
    level = LEVELS["vp"]
    torch.testing.assert_close(target(ROWS["v"], X0, EPS, level), 0.28 * EPS - 0.96 * X0)


def test_flow_is_the_derivative_of_the_straight_path() -> None:
    torch.testing.assert_close(target(ROWS["flow"], X0, EPS, LEVELS["flow"]), EPS - X0)


def test_edm_is_skip_and_out_of_the_paper() -> None:
    sigma, data = 7.0, 0.4
    level = Level(number(1.0), number(sigma))
    x = mix(X0, EPS, level)
    skip = data**2 / (sigma**2 + data**2)
    out = sigma * data / (sigma**2 + data**2) ** 0.5
    output = target(edm(data), X0, EPS, level)
    torch.testing.assert_close(skip * x + out * output, X0, rtol=0, atol=1e-12)
    p, q = edm(data)(level)
    assert (p**2 * data**2 + q**2).item() == pytest.approx(1)  # F has unit variance


def test_edm_v_is_v_of_the_same_log_snr() -> None:
    """And what it reads is that level's x: ``c_in`` scales it so."""
    exploding = LEVELS["ve"]
    r = (1 + exploding.sigma**2) ** 0.5
    same = Level(1 / r, exploding.sigma / r)
    found = target(ROWS["edm_v"], X0, EPS, exploding)
    torch.testing.assert_close(found, target(ROWS["v"], X0, EPS, same), rtol=0, atol=1e-12)
    told = preconditioned(ROWS["edm_v"], 1.0)
    read = mix(X0, EPS, exploding) * told.c_in(exploding)
    torch.testing.assert_close(read, mix(X0, EPS, same), rtol=0, atol=1e-12)
    assert float(told.c_noise(exploding)) == pytest.approx(0.4864775)


@pytest.mark.parametrize(
    ("name", "alpha", "sigma"), [("eps", 0.0, 1.0), ("x0", 1.0, 0.0)], ids=["noise", "data"]
)
def test_an_undefined_prediction_is_refused(name: str, alpha: float, sigma: float) -> None:
    level = Level(number(alpha), number(sigma))
    with pytest.raises(ValueError, match="undefined at this noise level"):
        solve(ROWS[name], X0, X0, level)


@pytest.mark.parametrize("name", ["x0", "v", "flow"])
def test_others_are_defined_at_pure_noise(name: str) -> None:
    level = Level(number(0.0), number(1.0))
    estimate = solve(ROWS[name], EPS, target(ROWS[name], X0, EPS, level), level)
    torch.testing.assert_close(estimate.x0, X0)


def test_denoiser_scales_in_and_solves_out() -> None:
    seen: dict[str, Tensor] = {}

    def network(x: Tensor, time: Tensor, _: Conditioning) -> Tensor:
        seen.update(x=x, time=time)
        return torch.zeros_like(x)

    parameters = Parameterization(
        edm(0.5), lambda level: (level.sigma**2 + 0.25) ** -0.5, lambda level: log_snr(level) / -8
    )
    level = Level(number(1.0), number(2.0))
    x = mix(X0, EPS, level).float()
    estimate = denoiser(network, parameters)(x, level, Conditioning())
    torch.testing.assert_close(seen["x"], x / 4.25**0.5)
    torch.testing.assert_close(seen["time"], torch.full((3,), 2.0).log() / 4)
    torch.testing.assert_close(estimate.x0, 0.25 / 4.25 * x)
    assert estimate.x0.dtype == torch.float32


def test_a_learned_variance_is_split_off() -> None:
    def network(x: Tensor, time: Tensor, _: Conditioning) -> Tensor:
        return torch.cat([x, torch.full_like(x, 0.5)], dim=1)

    parameters = Parameterization(ROWS["eps"], unit, log_snr, learned_variance=True)
    estimate = denoiser(network, parameters)(X0, LEVELS["vp"], Conditioning())
    assert estimate.x0.shape == X0.shape
    torch.testing.assert_close(estimate.eps, X0)
    assert estimate.variance_mix is not None
    assert estimate.variance_mix.unique().item() == 0.75
