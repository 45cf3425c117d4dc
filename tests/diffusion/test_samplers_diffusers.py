"""Parity with the schedulers of diffusers, in float32, after every step from first to last.

Each case takes the scheduler's own levels as the path, a small nonlinear network of x and the
level as the model, and the same noise: diffusers' ``randn_tensor`` is replaced by our draws.
Where an option of diffusers is set below, it is so that both mean the same method:

- ``final_sigmas_type="zero"`` with ``lower_order_final=False``: the last step to sigma = 0 is of
  first order in both, and nothing else is lowered.
- ``solver_type="heun"`` of DPM++ 3M: its second step integrates exactly, as k-diffusion's does.
- UniPC's orders above 1 at sigma = 0 work in diffusers only with ``lower_order_final=True``, and
  its bh1 not at all (infinity times 0): there the path ends at the smallest sigma of training.
- So it does in DEIS and SA-Solver, which have no choice; for flow models they repeat the last
  level instead, a step of length 0 that is left out here.
- ``lower_order_final`` of DPM++ acts in diffusers below 15 steps only.
- DPM++ 3M SDE: the sign of one half is wrong in diffusers' third order (its weight of the second
  difference tends to −1 where it should vanish with h), so k-diffusion's formula is the reference.
- LCM's boundary scaling (c_skip, c_out) belongs to the model: ``timestep_scaling`` makes it 0, 1.
- IPNDM of diffusers starts at alpha = 0, where it takes x0 = 0 instead of the network's: its
  first level is cut off.
- DPM2 ancestral of diffusers takes sigma_down from sigma'^2 − sigma_up^2 in float32, which loses
  every digit in steps as long as 14 to 0.03: its tables are made again in float64.
- diffusers makes flow levels of UniPC, DPM and DEIS start just below sigma = 1.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_ipndm import IPNDMScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import (
    KDPM2AncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_sasolver import SASolverScheduler
from diffusers.schedulers.scheduling_tcd import TCDScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from mezzotint.diffusion import samplers as s
from mezzotint.diffusion import samplers_sde as sde
from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level, mix
from mezzotint.diffusion.prediction import ROWS, solve
from mezzotint.diffusion.samplers import Run

# diffusers hands torch tensors to numpy in ways that numpy 2 warns of
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context:DeprecationWarning",
)

NOTHING = Conditioning()
ROW_OF = {"epsilon": "eps", "v_prediction": "v", "flow_prediction": "flow", "edm": "edm"}
SD: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def network(x: Tensor, ratio: float) -> Tensor:
    """Something nonlinear in x and the level (sigma / alpha), that mixes channels."""
    t = math.atan(ratio)
    return torch.tanh(0.8 * x + 0.3 * x.roll(1, 1) + math.sin(3 * t)) + 0.1 * math.cos(t) * x


def draw(index: int) -> Tensor:
    generator = torch.Generator().manual_seed(50 + index)
    return torch.randn(2, 3, 4, 4, generator=generator)


def ours(run: Run, prediction: str, levels: Level, x: Tensor) -> list[Tensor]:
    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        alpha, sigma = float(level.alpha), float(level.sigma)
        scale = 1 / math.sqrt(sigma**2 + 0.25) if prediction == "edm" else 1.0
        output = network(x * scale, sigma / alpha if alpha else math.inf)
        return solve(ROWS[ROW_OF[prediction]], x, output, level)

    return [step.x for step in run(denoise, x, levels, NOTHING, draw)]


def preserving(ratio: Tensor) -> Level:
    ratio = ratio.double()
    return Level(1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt())


def flow(sigma: Tensor) -> Level:
    return Level(1 - sigma.double(), sigma.double())


def agree(found: list[Tensor], expected: list[Tensor]) -> None:
    """Equal within 5e-5 of the largest value after every step.

    1e-4 in one step: from sigma / alpha = 10^6 to 1 it costs diffusers' x / alpha these digits.
    """
    assert len(found) == len(expected)
    tolerance = 1e-4 if len(found) == 1 else 5e-5
    for number, (x, y) in enumerate(zip(found, expected, strict=True), 1):
        assert x.dtype == torch.float32
        scale = max(1.0, float(y.abs().max()))
        difference = float((x - y).abs().max()) / scale
        assert difference < tolerance, f"step {number} of {len(found)} differs by {difference:.1e}"


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Makes a scheduler draw our noise, in order."""

    def patch(scheduler: object) -> None:
        module = importlib.import_module(type(scheduler).__module__)
        count = iter(range(10_000))
        if hasattr(module, "randn_tensor"):  # not in those of deterministic schedulers
            monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: draw(next(count)))

    return patch


Patch = Callable[[object], None]
STEPS = pytest.mark.parametrize("steps", [2, 5, 20])


# --- Schedulers whose x is x0 + sigma eps (k-diffusion's) -----------------------------------------


class Exploding(NamedTuple):
    run: Run
    scheduler: type
    middle: Callable[[Any], Tensor] | None = None  # the level of a second evaluation, if any
    options: dict[str, Any] = {}  # noqa: RUF012


def _same(scheduler: Any) -> Tensor:
    return scheduler.sigmas[scheduler.step_index]


def _precise(scheduler: Any) -> None:
    """The tables of DPM2 ancestral from its sigmas, in float64."""
    ends = scheduler.sigmas.double().unique_consecutive()
    sigma, after = ends[:-1], ends[1:]
    down = after**2 / sigma
    up = (after**2 - down**2).sqrt()
    middle = (sigma * down).sqrt()
    for name, table in {"up": up, "down": down, "interpol": middle}.items():
        old = getattr(scheduler, f"sigmas_{name}")
        new = torch.cat([table[:1], table[1:].repeat_interleave(2), torch.zeros(3)])
        assert torch.allclose(old[:-3], new[:-3].to(old), rtol=0.05, atol=0)
        setattr(scheduler, f"sigmas_{name}", new)


EXPLODING = {
    "euler": Exploding(s.euler, EulerDiscreteScheduler),
    "euler karras": Exploding(s.euler, EulerDiscreteScheduler, None, {"use_karras_sigmas": True}),
    "euler_ancestral": Exploding(s.euler_ancestral, EulerAncestralDiscreteScheduler),
    "heun": Exploding(s.heun, HeunDiscreteScheduler, _same),
    "heun karras": Exploding(s.heun, HeunDiscreteScheduler, _same, {"use_karras_sigmas": True}),
    "dpm2": Exploding(s.dpm2, KDPM2DiscreteScheduler, lambda k: k.sigmas_interpol[k.step_index]),
    "dpm2_ancestral": Exploding(
        sde.dpm2_ancestral,
        KDPM2AncestralDiscreteScheduler,
        lambda k: k.sigmas_interpol[k.step_index - 1],
    ),
    "lms": Exploding(s.lms, LMSDiscreteScheduler),
    "lms karras": Exploding(s.lms, LMSDiscreteScheduler, None, {"use_karras_sigmas": True}),
}


@STEPS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", EXPLODING)
def test_exploding(name: str, prediction: str, steps: int, same_noise: Patch) -> None:
    case = EXPLODING[name]
    scheduler = case.scheduler(**SD, prediction_type=prediction, **case.options)
    scheduler.set_timesteps(steps)
    if isinstance(scheduler, KDPM2AncestralDiscreteScheduler):
        _precise(scheduler)
    same_noise(scheduler)
    twice = case.middle is not None
    sigmas = scheduler.sigmas
    path = sigmas.unique_consecutive()  # two evaluations: each level but the first is repeated
    levels = preserving(path)
    x = draw(1000)
    expected: list[Tensor] = []
    y = x / levels.alpha[0].float()
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(y, t)
        second = twice and i % 2 == 1
        ratio = case.middle(scheduler) if second and case.middle else _same(scheduler)
        y = scheduler.step(network(scaled, float(ratio)), t, y).prev_sample
        if second or not twice or i == len(scheduler.timesteps) - 1:
            expected.append(y * levels.alpha[len(expected) + 1].float())
    agree(ours(case.run, prediction, levels, x), expected)


# --- Schedulers whose x is alpha x0 + sigma eps, with sigmas --------------------------------------


class Preserving(NamedTuple):
    run: Run
    scheduler: type
    options: dict[str, Any]


def _tau(t: Any) -> float:
    return 0.7


ZERO = {"final_sigmas_type": "zero", "lower_order_final": False}
SA_SOLVER = {"tau_func": _tau, "lower_order_final": False}
PRESERVING = {
    "dpmpp_2m": Preserving(
        s.dpmpp_2m, DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", **ZERO}
    ),
    "dpmpp_2m heun": Preserving(
        partial(sde.dpmpp_2m_sde, eta=0.0, variant="heun"),
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_type": "heun", **ZERO},
    ),
    "dpmpp_3m": Preserving(
        partial(sde.dpmpp_3m_sde, eta=0.0),
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 3, "solver_type": "heun", **ZERO},
    ),
    "dpmpp_3m lower_order_final": Preserving(
        partial(sde.dpmpp_3m_sde, eta=0.0, lower_order_final=True),
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 3, "solver_type": "heun"},
    ),
    "dpmpp_2m_sde": Preserving(
        sde.dpmpp_2m_sde, DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", **ZERO}
    ),
    "dpmpp_2m_sde heun": Preserving(
        partial(sde.dpmpp_2m_sde, variant="heun"),
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", **ZERO},
    ),
    "deis 1": Preserving(
        partial(s.deis, order=1),
        DEISMultistepScheduler,
        {"solver_order": 1, "lower_order_final": False},
    ),
    "deis 2": Preserving(
        partial(s.deis, order=2),
        DEISMultistepScheduler,
        {"solver_order": 2, "lower_order_final": False},
    ),
    "deis": Preserving(
        s.deis, DEISMultistepScheduler, {"solver_order": 3, "lower_order_final": False}
    ),
    "unipc": Preserving(s.unipc, UniPCMultistepScheduler, {"final_sigmas_type": "zero"}),
    "unipc bh1": Preserving(
        partial(s.unipc, variant="bh1"),
        UniPCMultistepScheduler,
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min", "lower_order_final": False},
    ),
    "unipc 3": Preserving(
        partial(s.unipc, order=3, lower_order_final=True),
        UniPCMultistepScheduler,
        {"solver_order": 3, "final_sigmas_type": "zero"},
    ),
    "sa_solver": Preserving(partial(sde.sa_solver, tau=_tau), SASolverScheduler, SA_SOLVER),
    "sa_solver 3 4": Preserving(
        partial(sde.sa_solver, tau=_tau, predictor_order=3, corrector_order=4),
        SASolverScheduler,
        {**SA_SOLVER, "predictor_order": 3, "corrector_order": 4},
    ),
    "sa_solver lower_order_final": Preserving(
        partial(
            sde.sa_solver, tau=_tau, predictor_order=3, corrector_order=3, lower_order_final=True
        ),
        SASolverScheduler,
        {"tau_func": _tau, "predictor_order": 3, "corrector_order": 3},
    ),
}


@STEPS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow_prediction"])
@pytest.mark.parametrize("name", PRESERVING)
def test_preserving(name: str, prediction: str, steps: int, same_noise: Patch) -> None:
    case = PRESERVING[name]
    if name == "dpmpp_3m lower_order_final":
        steps = min(steps, 14)
    is_flow = prediction == "flow_prediction"
    if is_flow and name == "sa_solver lower_order_final":
        case = PRESERVING["sa_solver"]  # the repeated level of diffusers counts as its last step
    options = {"use_flow_sigmas": True, "flow_shift": 3.0} if is_flow else SD
    scheduler = case.scheduler(prediction_type=prediction, **options, **case.options)
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    if is_flow:  # with sigma = 1 − 1e-6, coefficients in float32 lose most of alpha's digits
        scheduler.sigmas = scheduler.sigmas.double()
    sigmas, timesteps = scheduler.sigmas, scheduler.timesteps
    if sigmas[-1] == sigmas[-2]:
        sigmas, timesteps = sigmas[:-1], timesteps[:-1]
    levels = flow(sigmas) if is_flow else preserving(sigmas)
    x = draw(1000)
    expected: list[Tensor] = []
    y = x
    for i, t in enumerate(timesteps):
        ratio = float(levels.sigma[i] / levels.alpha[i])
        y = scheduler.step(network(y, ratio), t, y).prev_sample
        expected.append(y)
    agree(ours(case.run, prediction, levels, x), expected)


@pytest.mark.parametrize("steps", [3, 5, 21])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_singlestep(prediction: str, steps: int) -> None:
    """DPM-Solver++(2S): diffusers counts its middle evaluations as steps, so N = 2 n + 1 of them
    at uniform log-SNR are n steps of ours and the last."""
    scheduler = DPMSolverSinglestepScheduler(
        **SD, prediction_type=prediction, use_exponential_sigmas=True, lower_order_final=True,
        final_sigmas_type="zero",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas
    levels = preserving(torch.cat([sigmas[:-1:2], sigmas[-1:]]))
    x = y = draw(1000)
    expected: list[Tensor] = []
    for i, t in enumerate(scheduler.timesteps):
        y = scheduler.step(network(y, float(sigmas[i])), t, y).prev_sample
        if i % 2 == 1 or i == steps - 1:
            expected.append(y)
    agree(ours(partial(sde.dpmpp_2s_ancestral, eta=0.0), prediction, levels, x), expected)


# --- Schedulers over alphas_cumprod ---------------------------------------------------------------


def cumulative(scheduler: Any, timesteps: Tensor) -> Level:
    product = scheduler.alphas_cumprod[timesteps].double()
    return Level(product.sqrt(), (1 - product).sqrt())


def to_clean(levels: Level) -> Level:
    one = torch.ones(1, dtype=torch.float64)
    return Level(torch.cat([levels.alpha, one]), torch.cat([levels.sigma, 0 * one]))


def trace(scheduler: Any, levels: Level, **options: Any) -> list[Tensor]:
    y = draw(1000)
    steps: list[Tensor] = []
    for i, t in enumerate(scheduler.timesteps):
        alpha, sigma = float(levels.alpha[i]), float(levels.sigma[i])
        output = network(y, sigma / alpha if alpha else math.inf)
        y = scheduler.step(output, t, y, **options).prev_sample
        steps.append(y)
    return steps


@STEPS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta: float, prediction: str, steps: int, same_noise: Patch) -> None:
    scheduler = DDIMScheduler(**SD, prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    levels = to_clean(cumulative(scheduler, scheduler.timesteps))
    found = ours(partial(s.ddim, eta=eta), prediction, levels, draw(1000))
    agree(found, trace(scheduler, levels, eta=eta))


@STEPS
@pytest.mark.parametrize("eta", [0.0, 0.5])  # at 1, float32 loses its sqrt(1 − 1) there
def test_ddim_from_zero_terminal_snr(eta: float, steps: int, same_noise: Patch) -> None:
    scheduler = DDIMScheduler(
        **SD, prediction_type="v_prediction", clip_sample=False, rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    levels = to_clean(cumulative(scheduler, scheduler.timesteps))
    assert float(levels.alpha[0]) == 0
    found = ours(partial(s.ddim, eta=eta), "v_prediction", levels, draw(1000))
    agree(found, trace(scheduler, levels, eta=eta))


@STEPS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(variance: str, prediction: str, steps: int, same_noise: Patch) -> None:
    scheduler = DDPMScheduler(
        **SD, prediction_type=prediction, clip_sample=False, variance_type=f"fixed_{variance}"
    )
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    levels = to_clean(cumulative(scheduler, scheduler.timesteps))
    found = ours(partial(s.ddpm, variance=variance), prediction, levels, draw(1000))
    agree(found, trace(scheduler, levels))


@STEPS
def test_ddpm_with_learned_variance(steps: int, same_noise: Patch) -> None:
    scheduler = DDPMScheduler(**SD, clip_sample=False, variance_type="learned_range")
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    levels = to_clean(cumulative(scheduler, scheduler.timesteps))

    def learned(x: Tensor) -> Tensor:
        return torch.sin(3 * x)  # in [−1, 1]

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        output = network(x, float(level.sigma / level.alpha))
        estimate = solve(ROWS["eps"], x, output, level)
        return estimate._replace(variance_mix=(learned(x) + 1) / 2)

    y = draw(1000)
    expected: list[Tensor] = []
    for i, t in enumerate(scheduler.timesteps):
        output = network(y, float(levels.sigma[i] / levels.alpha[i]))
        y = scheduler.step(torch.cat([output, learned(y)], 1), t, y).prev_sample
        expected.append(y)
    steps_of_ours = s.ddpm(denoise, draw(1000), levels, NOTHING, draw)
    agree([step.x for step in steps_of_ours], expected)


@STEPS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_lcm(prediction: str, steps: int, same_noise: Patch) -> None:
    scheduler = LCMScheduler(
        **SD, prediction_type=prediction, clip_sample=False, timestep_scaling=1e6
    )
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    levels = to_clean(cumulative(scheduler, scheduler.timesteps))
    agree(ours(s.lcm, prediction, levels, draw(1000)), trace(scheduler, levels))


@STEPS
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_tcd(gamma: float, prediction: str, steps: int, same_noise: Patch) -> None:
    """diffusers ends at its timestep 0, which is not quite clean, and calls gamma eta."""
    scheduler = TCDScheduler(**SD, prediction_type=prediction)
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    times = torch.cat([scheduler.timesteps, torch.zeros(1, dtype=torch.long)])
    levels = cumulative(scheduler, times)
    inner = cumulative(scheduler, torch.floor((1 - gamma) * times[1:]).long())
    run = partial(s.tcd, inner=inner)
    agree(ours(run, prediction, levels, draw(1000)), trace(scheduler, levels, eta=gamma))


# --- Flow, EDM, iPNDM -----------------------------------------------------------------------------


@STEPS
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(shift: float, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    levels = flow(scheduler.sigmas)
    assert float(levels.alpha[0]) == 0
    agree(ours(s.euler, "flow_prediction", levels, draw(1000)), trace(scheduler, levels))


@STEPS
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_heun(shift: float, steps: int) -> None:
    """diffusers' Heun for flow models averages in the flow's t: integrand="flow"."""
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas
    levels = flow(sigmas.unique_consecutive())
    y = draw(1000)
    expected: list[Tensor] = []
    for i, t in enumerate(scheduler.timesteps):
        sigma = float(sigmas[i])
        ratio = sigma / (1 - sigma) if sigma < 1 else math.inf
        y = scheduler.step(network(y, ratio), t, y).prev_sample
        if i % 2 == 1 or i == len(scheduler.timesteps) - 1:
            expected.append(y)
    run = partial(s.heun, integrand="flow")
    agree(ours(run, "flow_prediction", levels, draw(1000)), expected)


EDM: dict[str, tuple[Run, type, dict[str, Any]]] = {
    "euler": (s.euler, EDMEulerScheduler, {}),
    "dpmpp_2m": (s.dpmpp_2m, EDMDPMSolverMultistepScheduler, {"lower_order_final": False}),
    "dpmpp_3m": (
        partial(sde.dpmpp_3m_sde, eta=0.0),
        EDMDPMSolverMultistepScheduler,
        {"lower_order_final": False, "solver_order": 3, "solver_type": "heun"},
    ),
    "dpmpp_2m_sde": (
        sde.dpmpp_2m_sde,
        EDMDPMSolverMultistepScheduler,
        {"lower_order_final": False, "algorithm_type": "sde-dpmsolver++"},
    ),
}


@STEPS
@pytest.mark.parametrize("name", EDM)
def test_edm(name: str, steps: int, same_noise: Patch) -> None:
    """Levels with alpha = 1 and EDM's preconditioning (its c_skip, c_out are our edm row)."""
    run, make, options = EDM[name]
    scheduler = make(**options)
    scheduler.set_timesteps(steps)
    same_noise(scheduler)
    sigma = scheduler.sigmas.double()
    levels = Level(torch.ones_like(sigma), sigma)
    x = y = draw(1000) * scheduler.sigmas[0]
    expected: list[Tensor] = []
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(y, t)
        y = scheduler.step(network(scaled, float(sigma[i])), t, y).prev_sample
        expected.append(y)
    agree(ours(run, "edm", levels, x), expected)


@pytest.mark.parametrize("steps", [3, 5, 20])
def test_ipndm(steps: int) -> None:
    scheduler = IPNDMScheduler()
    scheduler.set_timesteps(steps)
    for name in ("timesteps", "alphas", "betas"):
        setattr(scheduler, name, getattr(scheduler, name)[1:])
    levels = Level(scheduler.alphas.double(), scheduler.betas.double())
    agree(ours(s.ipndm, "v_prediction", levels, draw(1000)), trace(scheduler, levels))


# --- What diffusers can not show here -------------------------------------------------------------


def k_dpmpp_sde(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> list[Tensor]:
    """DPM++ SDE of k-diffusion written out for alpha = 1, in float64.

    diffusers' own needs torchsde for its Brownian tree; the noise here is a Brownian path over
    sigma with the increments ``draw(2 i)`` and ``draw(2 i + 1)`` of each step.
    """
    found: list[Tensor] = []

    def x0(x: Tensor, sigma: float) -> Tensor:
        level = Level(torch.tensor(1.0), torch.tensor(sigma, dtype=torch.float64))
        return denoise(x, level, NOTHING).x0

    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        first = x0(x, sigma)
        if after == 0:
            found.append(first)
            break
        middle = math.sqrt(sigma * after)
        one, two = draw(2 * i).double(), draw(2 * i + 1).double()
        walk = math.sqrt(sigma - middle) * one  # W(sigma) − W(middle)
        whole = (walk + math.sqrt(middle - after) * two) / math.sqrt(sigma - after)
        up = math.sqrt(middle**2 * (sigma**2 - middle**2)) / sigma
        down = math.sqrt(middle**2 - up**2)
        half = down / sigma * x + (1 - down / sigma) * first + up * one
        second = x0(half, middle)
        up = math.sqrt(after**2 * (sigma**2 - after**2)) / sigma
        down = math.sqrt(after**2 - up**2)
        x = down / sigma * x + (1 - down / sigma) * second + up * whole
        found.append(x)
    return found


def k_dpmpp_3m_sde(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> list[Tensor]:
    """DPM++ 3M SDE of k-diffusion written out for alpha = 1 and eta = 1, in float64."""
    found: list[Tensor] = []
    known: list[Tensor] = []  # x0, newest first
    gone: list[float] = []  # steps in log sigma, newest first
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        level = Level(torch.tensor(1.0), torch.tensor(sigma, dtype=torch.float64))
        known.insert(0, denoise(x, level, NOTHING).x0)
        if after == 0:
            found.append(known[0])
            break
        h = math.log(sigma / after)
        phi2 = 1 - (1 - math.exp(-2 * h)) / (2 * h)
        x = math.exp(-2 * h) * x + (1 - math.exp(-2 * h)) * known[0]
        if len(known) == 2:
            x = x + phi2 * (known[0] - known[1]) * h / gone[0]
        elif len(known) > 2:
            r0, r1 = gone[0] / h, gone[1] / h
            near, far = (known[0] - known[1]) / r0, (known[1] - known[2]) / r1
            second = (near - far) / (r0 + r1)
            x = x + phi2 * (near + second * r0) - (phi2 / (2 * h) - 0.5) * second
        x = x + after * math.sqrt(1 - math.exp(-2 * h)) * draw(i).double()
        gone.insert(0, h)
        found.append(x)
    return found


def k_edm_stochastic(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> list[Tensor]:
    """Karras et al. 2022, algorithm 2, as it is written there, with the paper's constants."""
    found: list[Tensor] = []

    def slope(x: Tensor, sigma: float) -> Tensor:
        level = Level(torch.tensor(1.0), torch.tensor(sigma, dtype=torch.float64))
        return (x - denoise(x, level, NOTHING).x0) / sigma

    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        gamma = min(40 / (len(sigmas) - 1), math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0.0
        raised = sigma * (1 + gamma)
        x = x + math.sqrt(raised**2 - sigma**2) * 1.003 * draw(i).double()
        d = slope(x, raised)
        guess = x + (after - raised) * d
        x = guess if after == 0 else x + (after - raised) * (d + slope(guess, after)) / 2
        found.append(x)
    return found


@STEPS
@pytest.mark.parametrize(
    ("run", "reference"),
    [
        (sde.dpmpp_sde, k_dpmpp_sde),
        (sde.dpmpp_3m_sde, k_dpmpp_3m_sde),
        (sde.edm_stochastic, k_edm_stochastic),
    ],
)
def test_published_algorithms(run: Run, reference: Callable[..., list[Tensor]], steps: int) -> None:
    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        sigma = float(level.sigma / level.alpha)
        output = network(x / level.alpha.item() / math.sqrt(1 + sigma**2), sigma)
        return solve(ROWS["eps"], x, output.to(x.dtype), level)

    sigmas = torch.cat([torch.logspace(1.9, -1.5, steps), torch.zeros(1)]).double()
    x = draw(1000).double() * sigmas[0]
    expected = reference(denoise, x, sigmas.tolist())
    levels = preserving(sigmas)
    noise = lambda i: draw(i).double()  # noqa: E731
    found = list(run(denoise, x * levels.alpha[0], levels, NOTHING, noise))
    for step, y in zip(found, expected, strict=True):
        assert torch.allclose(step.x / step.level.alpha, y, rtol=1e-9, atol=1e-9)


def test_the_parity_tests_can_fail() -> None:
    """DPM++ 2M is not Euler, and the comparison sees it."""
    levels = preserving(torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0]))
    x = mix(draw(0), draw(1), levels.at(0))
    euler, other = (ours(run, "epsilon", levels, x) for run in (s.euler, s.dpmpp_2m))
    with pytest.raises(AssertionError, match="step 2 of 4 differs"):
        agree(euler, other)
