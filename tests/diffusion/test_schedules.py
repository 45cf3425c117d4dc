"""Schedules: exact ends, inverses, published tables, parity with diffusers."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from mezzotint.diffusion.level import Level, half_log_snr, log_snr
from mezzotint.diffusion.schedules import (
    Cosine,
    RectifiedFlow,
    Schedule,
    Table,
    VarianceExploding,
    cosine,
    from_alphas,
    from_betas,
    linear_beta,
    resolution_shift,
    scaled_linear_beta,
    zero_terminal_snr,
)

SCHEDULES: dict[str, Schedule] = {
    "flow": RectifiedFlow(),
    "flow shift 3.1": RectifiedFlow(3.1),
    "cosine": Cosine(),
    "edm": VarianceExploding(),
    "geometric": VarianceExploding(rho=math.inf),
    "linear": linear_beta(),
    "scaled linear": scaled_linear_beta(),
    "cosine table": cosine(),
    "two steps": linear_beta(steps=2),
    "zero terminal": zero_terminal_snr(scaled_linear_beta()),
    "zero terminal, two steps": zero_terminal_snr(linear_beta(end=0.5, steps=2)),
}
TABLES = [name for name, schedule in SCHEDULES.items() if isinstance(schedule, Table)]
T = torch.linspace(0, 1, 3001, dtype=torch.float64)
every = pytest.mark.parametrize("name", list(SCHEDULES))


@every
def test_ends_are_exact(name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = schedule.level(T)
    assert (alpha[0].item(), sigma[0].item()) == (1, 0)
    if name.startswith("flow") or name == "cosine" or "terminal" in name:
        assert (alpha[-1].item(), sigma[-1].item()) == (0, 1)
    if name in ("edm", "geometric"):
        assert (alpha[-1].item(), sigma[-1].item()) == (1, 80)


@every
def test_log_snr_falls_and_is_finite_inside(name: str) -> None:
    value = log_snr(SCHEDULES[name].level(T))
    assert bool((value.diff() < 0).all())
    assert bool(value[1:-1].isfinite().all())


@every
def test_time_inverts_level(name: str) -> None:
    schedule = SCHEDULES[name]
    back = schedule.time(schedule.level(T))
    torch.testing.assert_close(back, T, rtol=0, atol=1e-12)
    assert back[0].item() == 0
    assert back[-1].item() == pytest.approx(1, abs=1e-15)


@every
def test_time_reads_the_log_snr_only(name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = schedule.level(T)
    scaled = Level(0.3 * alpha, 0.3 * sigma)
    torch.testing.assert_close(schedule.time(scaled), T, rtol=0, atol=1e-12)
    again = schedule.normalize(scaled)
    torch.testing.assert_close(again.alpha, alpha, rtol=0, atol=1e-12)
    torch.testing.assert_close(again.sigma, sigma, rtol=1e-12, atol=1e-12)


@every
def test_any_shape_and_dtype(name: str) -> None:
    schedule = SCHEDULES[name]
    for shape in [(), (3,), (2, 3)]:
        level = schedule.level(torch.full(shape, 0.3))
        assert level.alpha.shape == level.sigma.shape == shape
        assert level.alpha.dtype == level.sigma.dtype == torch.float32
        exact = schedule.level(torch.tensor(0.3, dtype=torch.float64))
        assert level.sigma.flatten()[0].item() == pytest.approx(exact.sigma.item(), rel=1e-4)


def test_flow_shift_multiplies_the_noise_ratio() -> None:
    plain, shifted = RectifiedFlow().level(T[1:-1]), RectifiedFlow(3.0).level(T[1:-1])
    torch.testing.assert_close(shifted.sigma / shifted.alpha, 3 * plain.sigma / plain.alpha)
    expected = 3 * T / (1 + 2 * T)
    torch.testing.assert_close(RectifiedFlow(3.0).level(T).sigma, expected)


def test_resolution_shift_goes_through_its_two_points() -> None:
    assert resolution_shift(256) == pytest.approx(math.exp(0.5))
    assert resolution_shift(4096) == pytest.approx(math.exp(1.15))
    assert resolution_shift(2176) == pytest.approx(math.exp(0.825))
    with pytest.raises(ValueError, match="positive number of tokens"):
        resolution_shift(0)


def test_cosine_is_the_cosine() -> None:
    level = Cosine().level(T)
    torch.testing.assert_close(level.alpha, (math.pi / 2 * T).cos(), rtol=0, atol=1e-15)


def test_edm_ramp_is_the_papers() -> None:
    knots = torch.arange(1, 1001, dtype=torch.float64) / 1000
    expected = torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 1000, dtype=torch.float64) ** 7
    torch.testing.assert_close(VarianceExploding().level(knots).sigma, expected)
    geometric = torch.linspace(math.log(0.002), math.log(80), 1000, dtype=torch.float64).exp()
    torch.testing.assert_close(VarianceExploding(rho=math.inf).level(knots).sigma, geometric)


@pytest.mark.parametrize("name", TABLES)
def test_knots_are_the_table(name: str) -> None:
    table = SCHEDULES[name]
    assert isinstance(table, Table)
    index = torch.arange(table.knots)
    level = table.level((index + 1).double() / table.knots)
    torch.testing.assert_close(level.alpha**2, table.alphas_cumprod, rtol=0, atol=1e-14)
    exact = table.knot(index)
    assert torch.equal(exact.alpha, table.alphas_cumprod.sqrt())
    torch.testing.assert_close(table.index(exact), index.double(), rtol=0, atol=1e-9)
    assert table.knot(torch.tensor(-1)) == (1, 0)
    assert table.index(table.level(torch.zeros((), dtype=torch.float64))).item() == -1


def test_between_knots_log_snr_is_linear() -> None:
    table = linear_beta()
    t = torch.tensor([600.0, 600.25, 601.0], dtype=torch.float64) / 1000
    low, between, high = half_log_snr(table.level(t)).tolist()
    assert between == pytest.approx(0.75 * low + 0.25 * high, abs=1e-12)


def diffusers_table(beta_schedule: str, start: float, end: float, zero: bool) -> Tensor:
    return DDIMScheduler(
        beta_start=start, beta_end=end, beta_schedule=beta_schedule, rescale_betas_zero_snr=zero
    ).alphas_cumprod


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(
    ("table", "other"),
    [
        (linear_beta(), ("linear", 1e-4, 0.02)),
        (scaled_linear_beta(), ("scaled_linear", 0.00085, 0.012)),
        (cosine(), ("squaredcos_cap_v2", 1e-4, 0.02)),
    ],
    ids=["linear", "scaled_linear", "cosine"],
)
def test_tables_equal_diffusers(table: Table, other: tuple[str, float, float], zero: bool) -> None:
    ours = zero_terminal_snr(table) if zero else table
    theirs = diffusers_table(*other, zero).double()
    torch.testing.assert_close(ours.alphas_cumprod, theirs, rtol=2e-4, atol=2e-7)


def test_zero_terminal_snr_keeps_the_first_step() -> None:
    table = zero_terminal_snr(scaled_linear_beta())
    assert table.alphas_cumprod[-1].item() == 0
    first = scaled_linear_beta().alphas_cumprod[0].item()
    assert table.alphas_cumprod[0].item() == pytest.approx(first, rel=1e-14)
    # towards the end 1 / r goes linearly to 0: finite everywhere before it
    alpha, sigma = table.level(torch.tensor([0.999, 0.9995, 1.0], dtype=torch.float64))
    inverse = (alpha / sigma).tolist()
    assert inverse[1] == pytest.approx(inverse[0] / 2, rel=1e-9)
    assert inverse[2] == 0


def test_from_alphas_and_from_betas_agree() -> None:
    betas = [0.1, 0.2, 0.3]
    expected = torch.tensor([0.9, 0.72, 0.504], dtype=torch.float64)
    torch.testing.assert_close(from_betas(betas).alphas_cumprod, expected)
    torch.testing.assert_close(from_alphas([0.9, 0.72, 0.504]).alphas_cumprod, expected)


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="must fall"):
        from_alphas([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="betas lie in"):
        from_betas([0.1, 1.2])
    with pytest.raises(ValueError, match="must fall"):
        from_betas([0.1, 1.0, 0.5])
    with pytest.raises(ValueError, match="two steps"):
        from_alphas([0.5])
    with pytest.raises(ValueError, match="positive number"):
        RectifiedFlow(0.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        VarianceExploding(1.0, 0.5)
    with pytest.raises(IndexError, match="0 to 999"):
        linear_beta().knot(torch.tensor(1000))
    with pytest.raises(ValueError, match="no level of pure noise"):
        VarianceExploding().normalize(RectifiedFlow().level(torch.ones(1)))
