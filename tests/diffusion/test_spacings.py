"""Spacings: form of every path, published tables, parity with diffusers' set_timesteps."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_utils import AysSchedules
from torch import Tensor

from mezzotint.diffusion.level import Level, half_log_snr
from mezzotint.diffusion.schedules import (
    Cosine,
    RectifiedFlow,
    Schedule,
    VarianceExploding,
    cosine,
    linear_beta,
    resolution_shift,
    scaled_linear_beta,
    zero_terminal_snr,
)
from mezzotint.diffusion.spacing_tables import GITS, GITS_GRID
from mezzotint.diffusion.spacings import (
    SPACINGS,
    align_your_steps,
    beta_quantile,
    custom,
    find,
    gits,
    karras,
    leading,
    shifted,
    truncate,
)

SCHEDULES: dict[str, Schedule] = {
    "flow": RectifiedFlow(3.0),
    "cosine": Cosine(),
    "edm": VarianceExploding(),
    "linear": linear_beta(),
    "scaled linear": scaled_linear_beta(),
    "cosine table": cosine(),
    "zero terminal": zero_terminal_snr(scaled_linear_beta()),
}
# diffusers 0.42 calls numpy on tensors in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = [1, 2, 5, 10, 28, 50]


def ratio(path: Level) -> Tensor:
    return path.sigma / path.alpha


@pytest.mark.parametrize("where", list(SCHEDULES))
@pytest.mark.parametrize("name", list(SPACINGS))
def test_every_path_falls_from_noise_to_data_on_its_schedule(name: str, where: str) -> None:
    schedule = SCHEDULES[where]
    for steps in STEPS:
        if name == "align_your_steps_video" and where in ("edm", "linear", "scaled linear"):
            with pytest.raises(ValueError, match="begins at sigma / alpha = 700"):
                SPACINGS[name](schedule, steps)
            continue
        path = SPACINGS[name](schedule, steps)
        assert path.alpha.shape == path.sigma.shape == (steps + 1,)
        assert path.alpha.dtype == path.sigma.dtype == torch.float64
        assert (path.alpha[-1].item(), path.sigma[-1].item()) == (1, 0)
        assert bool((ratio(path).diff() < 0).all())
        assert bool((path.sigma[:-1] > 0).all())
        again = schedule.normalize(path)
        torch.testing.assert_close(again.alpha, path.alpha, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "name",
    ["trailing", "linspace", "linspace_sigma", "karras", "exponential", "beta", "beta_sigmas"],
)
@pytest.mark.parametrize("where", list(SCHEDULES))
def test_these_start_at_the_last_knot(name: str, where: str) -> None:
    schedule = SCHEDULES[where]
    end = schedule.level(torch.ones((), dtype=torch.float64))
    for steps in STEPS:
        start = SPACINGS[name](schedule, steps).at(0)
        torch.testing.assert_close(start.alpha, end.alpha, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(start.sigma, end.sigma, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 16, 28, 30, 50, 999, 1000])
@pytest.mark.parametrize("name", ["leading", "trailing", "linspace"])
def test_discrete_spacings_equal_ddim(name: str, steps: int) -> None:
    if name == "linspace" and steps == 1:
        return  # diffusers starts its one step at data
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    scheduler.register_to_config(timestep_spacing=name)
    scheduler.set_timesteps(steps)
    table = scaled_linear_beta()
    index = table.index(SPACINGS[name](table, steps).at(slice(0, -1)))
    assert scheduler.timesteps.shape == index.shape
    torch.testing.assert_close(index, scheduler.timesteps.double(), rtol=0, atol=1e-8)


def euler(**options: object) -> EulerDiscreteScheduler:
    base = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return EulerDiscreteScheduler(**{**base, **options})


def euler_sigmas(steps: int, **options: object) -> Tensor:
    scheduler = euler(**options)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.double()


@pytest.mark.parametrize("steps", [2, 10, 28])  # 999 is divisible by steps − 1 (for linspace)
@pytest.mark.parametrize("name", ["leading", "trailing", "linspace"])
def test_discrete_spacings_equal_euler(name: str, steps: int) -> None:
    path = SPACINGS[name](scaled_linear_beta(), steps)
    torch.testing.assert_close(
        ratio(path), euler_sigmas(steps, timestep_spacing=name), rtol=3e-4, atol=0
    )


def test_leading_has_the_offset_of_diffusers() -> None:
    path = leading(1)(scaled_linear_beta(), 20)
    theirs = euler_sigmas(20, timestep_spacing="leading", steps_offset=1)
    torch.testing.assert_close(ratio(path), theirs, rtol=3e-4, atol=0)


@pytest.mark.parametrize("steps", [2, 5, 20, 50])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("karras", "use_karras_sigmas"),
        ("exponential", "use_exponential_sigmas"),
        ("uniform_logsnr", "use_exponential_sigmas"),
        ("beta_sigmas", "use_beta_sigmas"),
    ],
)
def test_sigma_ramps_equal_euler(name: str, option: str, steps: int) -> None:
    path = SPACINGS[name](scaled_linear_beta(), steps)
    torch.testing.assert_close(
        ratio(path), euler_sigmas(steps, **{option: True}), rtol=3e-4, atol=1e-6
    )


def flow_sigmas(steps: int, mu: float | None = None, **options: object) -> Tensor:
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    sigmas = np.linspace(1, 1 / steps, steps)  # as the pipelines of FLUX and its kin give them
    scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    return scheduler.sigmas.double()


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
def test_flow_paths_equal_diffusers(steps: int) -> None:
    fixed = SPACINGS["trailing"](RectifiedFlow(3.0), steps)
    torch.testing.assert_close(fixed.sigma, flow_sigmas(steps, shift=3.0), rtol=1e-5, atol=1e-7)
    again = shifted(3.0)(RectifiedFlow(), steps)
    torch.testing.assert_close(again.sigma, fixed.sigma)
    mu = math.log(resolution_shift(1024))
    dynamic = SPACINGS["trailing"](RectifiedFlow(resolution_shift(1024)), steps)
    theirs = flow_sigmas(steps, mu, use_dynamic_shifting=True)
    torch.testing.assert_close(dynamic.sigma, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_default_flow_path_of_diffusers(shift: float, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    path = SPACINGS["linspace_sigma"](RectifiedFlow(shift), steps)
    torch.testing.assert_close(path.sigma, scheduler.sigmas.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 10, 28])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("linspace", None),
        ("karras", "use_karras_sigmas"),
        ("exponential", "use_exponential_sigmas"),
        ("beta_sigmas", "use_beta_sigmas"),
    ],
)
def test_flow_ramps_equal_diffusers(name: str, option: str | None, steps: int) -> None:
    # Unshifted: with a shift diffusers shifts the smallest of its default sigmas twice.
    options = {} if option is None else {option: True}
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    scheduler.set_timesteps(steps)
    path = SPACINGS[name](RectifiedFlow(), steps)
    torch.testing.assert_close(path.sigma, scheduler.sigmas.double(), rtol=1e-5, atol=1e-7)


def test_karras_is_equation_5() -> None:
    path = karras(5.0)(VarianceExploding(), 18)
    i = torch.arange(18, dtype=torch.float64)
    expected = (80**0.2 + i / 17 * (0.002**0.2 - 80**0.2)) ** 5
    torch.testing.assert_close(path.sigma[:-1], expected)


def test_uniform_logsnr_is_uniform() -> None:
    for where in ("flow", "scaled linear", "zero terminal"):
        gaps = half_log_snr(
            SPACINGS["uniform_logsnr"](SCHEDULES[where], 12).at(slice(0, -1))
        ).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand(11), rtol=1e-9, atol=0)


@pytest.mark.parametrize("a", [0.3, 0.5, 0.6, 1.0, 2.5, 20.0])
@pytest.mark.parametrize("b", [0.3, 0.6, 1.0, 7.0])
def test_beta_quantile_equals_scipy(a: float, b: float) -> None:
    p = torch.linspace(0, 1, 41, dtype=torch.float64)
    expected = torch.from_numpy(scipy.stats.beta.ppf(p.numpy(), a, b))
    torch.testing.assert_close(beta_quantile(a, b, p), expected, rtol=0, atol=2e-14)


def test_beta_takes_quantiles_of_the_steps() -> None:
    table = scaled_linear_beta()
    index = table.index(SPACINGS["beta"](table, 10).at(slice(0, -1)))
    expected = 999 * scipy.stats.beta.ppf(1 - np.arange(10) / 10, 0.6, 0.6)
    torch.testing.assert_close(index, torch.from_numpy(expected), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("latent", "StableDiffusionSigmas"),
        ("latent_xl", "StableDiffusionXLSigmas"),
        ("video", "StableDiffusionVideoSigmas"),
    ],
)
def test_align_your_steps_equals_the_published_tables(name: str, key: str) -> None:
    path = align_your_steps(name)(RectifiedFlow(), 10)
    expected = torch.tensor(AysSchedules[key], dtype=torch.float64)
    torch.testing.assert_close(ratio(path), expected, rtol=1e-12, atol=0)


def test_align_your_steps_interpolates_log_linearly() -> None:
    twenty = ratio(align_your_steps()(scaled_linear_beta(), 20))
    ten = ratio(align_your_steps()(scaled_linear_beta(), 10))
    torch.testing.assert_close(twenty[:19:2], ten[:-1])
    torch.testing.assert_close(twenty[1], (ten[0] * ten[1]).sqrt())


def test_gits_tables_are_whole_and_published() -> None:
    assert [round(0.05 * i, 2) for i in range(16, 31)] == list(GITS)
    for rows in GITS.values():
        assert [len(row) for row in rows] == list(range(3, 22))
        for row in rows:
            assert (row[0], row[-1]) == (0, GITS_GRID)
            assert list(row) == sorted(set(row))


@pytest.mark.parametrize(
    ("coefficient", "published"),
    [
        (1.2, [14.61464119, 2.36326075, 0.92192322, 0.36617002]),
        (0.8, [14.61464119, 11.54541874, 7.49001646, 5.85520077, 2.05039096]),
        (1.5, [14.61464119, 0.803307, 0.25053367]),
    ],
)
def test_gits_gives_the_published_noise_ratios(coefficient: float, published: list[float]) -> None:
    path = gits(coefficient)(scaled_linear_beta(), len(published))
    torch.testing.assert_close(
        ratio(path)[:-1], torch.tensor(published, dtype=torch.float64), rtol=5e-5, atol=0
    )


def test_gits_interpolates_beyond_twenty() -> None:
    twenty = ratio(gits()(scaled_linear_beta(), 20))
    forty = ratio(gits()(scaled_linear_beta(), 40))
    torch.testing.assert_close(forty[:39:2], twenty[:-1])


def test_custom_lists() -> None:
    table = scaled_linear_beta()
    path = custom([999, 500, 0], "index")(table, 3)
    torch.testing.assert_close(table.index(path), torch.tensor([999.0, 500, 0, -1]).double())
    assert torch.equal(custom([999, 500, 0, -1], "index")(table, 3).alpha, path.alpha)
    path = custom([14.0, 3.0, 0.5, 0.0], "ratio")(table, 3)
    torch.testing.assert_close(ratio(path), torch.tensor([14.0, 3, 0.5, 0]).double())
    path = custom([1.0, 0.25], "flow_sigma")(RectifiedFlow(3.0), 2)
    assert path.sigma.tolist() == [1, 0.25, 0]
    path = custom([1.0, 0.5], "time")(RectifiedFlow(), 2)
    assert path.sigma.tolist() == [1, 0.5, 0]


def test_custom_sigmas_equal_diffusers() -> None:
    sigmas = [14.0, 3.0, 0.5, 0.0]
    scheduler = euler()
    scheduler.set_timesteps(sigmas=sigmas)
    table = scaled_linear_beta()
    path = custom(sigmas, "ratio")(table, 3)
    torch.testing.assert_close(ratio(path), scheduler.sigmas.double())
    index = table.index(path.at(slice(0, -1)))
    torch.testing.assert_close(index, scheduler.timesteps.double(), rtol=0, atol=0.02)


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.58, 0.75, 1.0])
def test_truncate_keeps_the_last_steps(strength: float) -> None:
    path = SPACINGS["karras"](scaled_linear_beta(), 50)
    kept = truncate(path, strength)
    count = round(50 * strength + 1e-9) if strength == 0.58 else int(50 * strength)
    assert len(kept.alpha) == count + 1
    assert torch.equal(kept.sigma, path.sigma[-count - 1 :])


def test_misuse_is_named() -> None:
    table = scaled_linear_beta()
    path = SPACINGS["karras"](table, 10)
    for strength in (0.0, -0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match="strength lies"):
            truncate(path, strength)
    with pytest.raises(ValueError, match=r"leaves none of 10 steps: take at least 0\.1"):
        truncate(path, 0.05)
    for name, spacing in SPACINGS.items():
        with pytest.raises(ValueError, match="at least one step"):
            spacing(table, 0)
        assert find(name) is spacing
    with pytest.raises(ValueError, match="did you mean karras"):
        find("kerras")
    with pytest.raises(ValueError, match="1001 steps out of the schedule's 1000"):
        SPACINGS["trailing"](table, 1001)
    with pytest.raises(ValueError, match="offset of 5"):
        leading(5)(table, 1000)
    with pytest.raises(ValueError, match=r"0\.80, 0\.85"):
        gits(0.7)
    with pytest.raises(ValueError, match="did you mean latent"):
        align_your_steps("latents")
    with pytest.raises(ValueError, match="rho is positive"):
        karras(0)
    with pytest.raises(ValueError, match="positive parameters"):
        beta_quantile(0, 1, torch.ones(1))
    for values in ([], [1.0, 2.0], [2.0, 2.0], [math.nan]):
        with pytest.raises(ValueError, match="falls from noise to data"):
            custom(values, "ratio")
    with pytest.raises(ValueError, match="below data"):
        custom([1.0, -0.5], "ratio")
    with pytest.raises(ValueError, match="beyond noise"):
        custom([1000], "index")(table, 1)
    with pytest.raises(ValueError, match="has 2 steps, not 3"):
        custom([2.0, 1.0], "ratio")(table, 3)
    with pytest.raises(ValueError, match="begins at sigma"):
        custom([20.0, 1.0], "ratio")(table, 2)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 16, 50])
def test_lcm_equals_diffusers(steps: int) -> None:
    scheduler = LCMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    scheduler.set_timesteps(steps)
    table = scaled_linear_beta()
    index = table.index(SPACINGS["lcm"](table, steps).at(slice(0, -1)))
    torch.testing.assert_close(index, scheduler.timesteps.double(), rtol=0, atol=1e-8)


def test_no_more_steps_than_were_distilled() -> None:
    with pytest.raises(ValueError, match="51 steps out of 50 distilled ones: take fewer"):
        SPACINGS["lcm"](scaled_linear_beta(), 51)
