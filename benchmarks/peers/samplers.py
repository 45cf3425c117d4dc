"""Our samplers beside the schedulers of diffusers, driving one network."""

from __future__ import annotations

import functools
import math
import time
from typing import Any, NamedTuple

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from mezzotint.diffusion.level import Conditioning
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.model import Model
from peers.models import CLASS, SIZE, Clock, Scale, eps_model
from peers.report import Bar, Row, Section
from peers.timing import in_turns, ratios

STEPS, SEED = 20, 7
_TABLE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "trailing",
}
SCHEDULERS: dict[str, tuple[type, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
}
GUIDANCE = {"guidance off": 1.0, "guidance 3": 3.0}


class Made(NamedTuple):
    """A picture, the seconds that it took, and those of them outside the network."""

    picture: Tensor
    whole: float
    outside: float


def ours(model: Model, clock: Clock, sampler: str, scale: float) -> Made:
    """`generate()`, as any user calls it."""
    clock.restart()
    began = time.perf_counter()
    request = Request(CLASS, (SEED,), steps=STEPS, sampler=sampler, guidance=Guidance(scale))
    picture = generate(model, request)[0]
    whole = time.perf_counter() - began
    return Made(picture, whole, whole - clock.seconds)


def _scale(scheduler: Any) -> float:
    """The factor on the noise at the start: ``sqrt(1 + sigma^2)`` where x is ``x0 + sigma eps``.

    ``init_noise_sigma`` leaves the 1 out at these spacings: a start that differs by 0.2 %.
    """
    if isinstance(scheduler, EulerDiscreteScheduler):
        return math.hypot(1, float(scheduler.sigmas[0]))
    return float(scheduler.init_noise_sigma)


@torch.no_grad()
def theirs(model: Model, clock: Clock, sampler: str, scale: float, start: Tensor) -> Made:
    """The loop of a pipeline of diffusers: scale, call, combine, step.

    ``start``: the noise, made beforehand; it takes the place of what the loop draws here.
    """
    clock.restart()
    began = time.perf_counter()
    kind, options = SCHEDULERS[sampler]
    scheduler = kind(**_TABLE, **options)
    scheduler.set_timesteps(STEPS)
    guided = scale != 1
    vector = model.conditioner(["", CLASS] if guided else [CLASS]).vector
    x = torch.randn(start.shape)
    x = start * _scale(scheduler)
    for t in scheduler.timesteps:
        given = torch.cat([x] * 2) if guided else x
        given = scheduler.scale_model_input(given, t)
        output = clock(given, t.expand(given.shape[0]), Conditioning(vector=vector))
        if guided:
            plain, told = output.chunk(2)
            output = plain + scale * (told - plain)
        x = scheduler.step(output, t, x).prev_sample
    picture = model.codec.decode(x)[0].clamp(-1, 1).cpu()
    whole = time.perf_counter() - began
    return Made(picture, whole, whole - clock.seconds)


def _rows(model: Model, clock: Clock, sampler: str, guided: str, rounds: int) -> list[Row]:
    scale = GUIDANCE[guided]
    start = batch([SEED], "start", 0, (3, SIZE, SIZE))
    found = in_turns(
        [
            functools.partial(ours, model, clock, sampler, scale),
            functools.partial(theirs, model, clock, sampler, scale, start),
        ],
        rounds,
    )
    mine, other = found
    scaled = mine[0].picture - other[0].picture
    difference = 10 * float(scaled.abs().max())  # the codec shows a tenth of what is diffused
    whole = ratios([m.whole for m in mine], [m.whole for m in other])
    outside = ratios([m.outside for m in mine], [m.outside for m in other])
    name = f"{sampler}, {guided}"
    return [
        Row(f"{name}: largest difference", (difference,), "difference", Bar("at most", 1e-4)),
        Row(f"{name}: time, ours ÷ theirs", whole, "×", Bar("at most", 1.0, noisy=True)),
        Row(f"{name}: the same outside the network", outside, "×"),
        Row(f"{name}: ours, whole", tuple(m.whole for m in mine), "s"),
    ]


def measure(scale: Scale) -> Section:
    model, clock = eps_model(scale)
    rows = [
        row
        for sampler in SCHEDULERS
        for guided in GUIDANCE
        for row in _rows(model, clock, sampler, guided, scale.rounds)
    ]
    text = (
        f"One picture of {SIZE} px at {STEPS} steps from the same noise, by `generate()` and by "
        "the schedulers of diffusers in the loop that its pipelines have (concatenate, call, "
        "split, combine, step). Both drive the same network, a small U-Net predicting eps on a "
        "scaled-linear table at trailing steps, so that what surrounds the network weighs more "
        "than it usually does. Ours plans its request and draws its noise inside its time, theirs "
        "builds its scheduler and draws noise, in place of which it then takes ours. Data have "
        "unit variance; the largest difference is that of the final result."
    )
    return Section("samplers", "Beside the schedulers of diffusers", text, tuple(rows))
