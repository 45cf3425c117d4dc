"""From noise to media: one function for every family and every task.

Each seed is sampled on its own, with noise of its own.  So a picture never depends on the batch
that it was asked for in, nor on the order: the arithmetic is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.adapters.lora import attached
from mezzotint.adapters.strengths import by_blocks
from mezzotint.diffusion import guidance, samplers, spacings
from mezzotint.diffusion.level import Conditioning, Denoiser, Level, Tokens
from mezzotint.diffusion.noise import batch, stream
from mezzotint.diffusion.schedules import Schedule
from mezzotint.engine import prompts
from mezzotint.engine.request import Guidance, Known, Progress, Request, RequestError, check
from mezzotint.families.model import Model, Weaker

Listener = Callable[[Progress], None]


_Told = Mapping[int, Conditioning]
"""What a model is told, by the step (from 0 on) from which it is told so."""


class _Prompt(NamedTuple):
    """What a model is told of a prompt, and how its prior goes on from there."""

    told: _Told
    imagining: _Plan | None  # none: the model has no prior, or the prompt is empty


class _Plan(NamedTuple):
    """A request with the model's defaults filled in."""

    size: tuple[int, ...]
    schedule: Schedule
    path: Level  # (steps + 1,)
    sampler: samplers.Sampler
    scale: float  # of the guidance by a negative prompt
    prompt: _Prompt
    negative: _Prompt


def device(model: Model) -> torch.device:
    """Where the model's weights are."""
    return next(model.network.parameters()).device


def _check_adapters(request: Request) -> None:
    """Raise RequestError for an adapter that the prompt asks for and does not get."""
    if prompts.read(request.negative).adapters:
        raise RequestError("an adapter acts on the whole picture: ask for it in the prompt only")
    there = {adapter.name for adapter in request.adapters}
    for wanted in prompts.read(request.prompt).adapters:
        if wanted.name not in there:
            raise RequestError(
                f"the prompt asks for <{wanted.kind}:{wanted.name}>, which is not there: give the "
                "adapter with the request"
            )


def _said(model: Model, prompt: str, steps: int) -> dict[int, Conditioning]:
    """What the model is told of a prompt, as it is written where the model reads weights."""
    tell = model.weighted
    if tell is None:
        return {0: model.conditioner([prompt])}
    read = prompts.read(prompt)
    found: dict[int, Conditioning] = {}
    known: dict[tuple[tuple[prompts.Span, ...], ...], Conditioning] = {}
    for step in read.changes(steps):
        spans = read.at(step, steps)
        if spans not in known:
            known[spans] = tell([[(span.text, span.weight) for span in part] for part in spans])
        found[step] = known[spans]
    return found


def _placed(model: Model, told: Conditioning, size: tuple[int, ...]) -> Conditioning:
    """What the model is told of a prompt and of the size, on its device."""
    place = device(model)
    if model.framing is not None:
        assert told.vector is not None  # a family that is told the size has one
        told = told._replace(
            vector=torch.cat([told.vector, model.framing(size).to(told.vector)], 1)
        )

    def move(tokens: Tokens | None) -> Tokens | None:
        if tokens is None:
            return None
        mask = None if tokens.mask is None else tokens.mask.to(place)
        ids = None if tokens.ids is None else tokens.ids.to(place)
        return Tokens(tokens.values.to(place), mask, ids)

    return told._replace(
        vector=None if told.vector is None else told.vector.to(place),
        context=move(told.context),
        tokens=move(told.tokens),
    )


def _scaled(told: Conditioning, scale: float) -> Conditioning:
    """What a distilled network is told: the scale is the last entry of its vector."""
    assert told.vector is not None
    last = told.vector.new_full((len(told.vector), 1), scale)
    return told._replace(vector=torch.cat([told.vector, last], 1))


def _prompt(model: Model, prompt: str, size: tuple[int, ...], scale: float, steps: int) -> _Prompt:
    imagining = None
    if model.prior is not None and prompt != "":
        imagining = plan(model.prior, Request(prompt, (0,)))
    said = _said(model, prompt, steps)
    told = {step: _placed(model, what, size) for step, what in said.items()}
    if model.distilled:
        told = {step: _scaled(what, scale) for step, what in told.items()}
    return _Prompt(told, imagining)


def _check_distilled(model: Model, request: Request) -> None:
    """Raise RequestError for what goes by a negative prompt, which this model never reads."""
    wish = request.guidance
    asked = {
        "negative prompt": request.negative != "",
        "guidance interval": wish.interval is not None,
        "rescaled guidance": wish.rescale != 0,
        "apg": wish.apg,
        "cfg_zero_star": wish.cfg_zero_star,
    }
    if found := [name for name, is_asked in asked.items() if is_asked]:
        raise RequestError(
            f"{model.name} has its guidance distilled into it: the scale is told to the network, "
            f"and there is no {' or '.join(found)}: leave that out"
        )


def _told(model: Model, prompt: _Prompt, seed: int) -> _Told:
    """What the model is told: with the embedding that its prior makes, zeros of an empty prompt."""
    prior, (turns, imagining) = model.prior, prompt
    if prior is None:
        return turns
    if imagining is None:
        embedding = torch.zeros(1, *prior.codec.shape(()), device=device(prior))
    else:
        embedding = _imagine(prior, imagining, seed)

    def joined(told: Conditioning) -> Conditioning:
        assert told.vector is not None  # a model with a prior is told something to make one of
        return told._replace(vector=torch.cat([told.vector, embedding], dim=1))

    return {step: joined(told) for step, told in turns.items()}


def _imagine(prior: Model, planned: _Plan, seed: int) -> Tensor:
    """The embedding ``(1, K)`` that a prior makes: of its ranker's candidates the best.

    They are one batch, and each has noise of its own; so a seed's are always the same.
    """
    ranker = prior.ranker
    names = [f"prior/{number}/" for number in range(1 if ranker is None else ranker.candidates)]
    shape, place = prior.codec.shape(()), device(prior)

    def draws(kind: str, index: int) -> Tensor:
        return torch.cat([batch([seed], name + kind, index, shape) for name in names]).to(place)

    told = guidance.expand_conditioning(planned.prompt.told[0], len(names))
    x = start(prior, Request("", (seed,)), planned.path, draws("start", 0))
    rule = _rule(Guidance(), planned.path)
    denoise = _guided(prior, Guidance(), planned, planned.negative.told[0], rule)

    def noise(index: int) -> Tensor:
        return draws("step", index)

    for step in planned.sampler.run(denoise, x, planned.path, told, noise):
        x = step.x
    if ranker is None:
        return x
    return x[ranker.score(x, told).argmax()][None]


def plan(model: Model, request: Request) -> _Plan:
    """Check a request against a model and fill in the defaults.

    Raises:
        RequestError: the request is impossible for this model; the message names the remedy.
        ValueError: an unknown sampler or spacing (with the nearest names), or a prompt that the
            model cannot read.
    """
    defaults, wish = model.defaults, request.guidance
    size = request.size or defaults.size
    check(request, model.codec.channels, model.codec.multiple, size)
    if model.distilled:
        _check_distilled(model, request)
    spacing = spacings.find(request.spacing or defaults.spacing)
    schedule = model.schedule_of(size)
    path = spacing(schedule, request.steps or defaults.steps)
    if request.start is not None:
        path = spacings.truncate(path, request.start.strength)
    scale = defaults.guidance if wish.scale is None else wish.scale
    steps = path.sigma.numel() - 1
    return _Plan(
        size,
        schedule,
        path,
        samplers.find(request.sampler or defaults.sampler),
        1.0 if model.distilled else scale,
        _prompt(model, request.prompt, size, scale, steps),
        _prompt(model, request.negative, size, scale, steps),
    )


def _rule(wish: Guidance, path: Level) -> guidance.Rule:
    """The rule that makes one estimate of the conditional and the unconditional one."""
    if wish.apg and wish.cfg_zero_star:
        raise RequestError("apg and cfg_zero_star replace the same rule: choose one of them")
    rule = guidance.linear
    if wish.apg:
        rule = guidance.apg(momentum=-0.5)
    if wish.cfg_zero_star:
        rule = guidance.cfg_zero_star(path.at(0))
    return guidance.rescale(wish.rescale, rule) if wish.rescale else rule


def _guided(
    model: Model, wish: Guidance, planned: _Plan, negative: Conditioning, rule: guidance.Rule
) -> Denoiser:
    """The model under the request's guidance."""
    plain = model.denoise()
    weaker = [
        (Weaker(perturb=wish.perturb), wish.perturb_scale),
        (Weaker(skip=wish.skip), wish.skip_scale),
    ]
    contrasts = [
        guidance.Contrast(model.denoise(weak), 1 + scale) for weak, scale in weaker if any(weak)
    ]
    guided = guidance.classifier_free(plain, negative, planned.scale, rule, contrasts)
    interval = wish.interval or model.defaults.interval
    if interval is None:
        return guided
    ends = planned.schedule.level(torch.tensor(interval, dtype=torch.float64))
    low, high = (ends.sigma / ends.alpha).tolist()  # at alpha = 0 infinity, as meant
    return guidance.interval(guided, plain, low, high)


def _turned(model: Model, wish: Guidance, planned: _Plan, told: _Told, negative: _Told) -> Denoiser:
    """The model told and guided step by step; made fresh for a sample: rules may remember."""
    rule = _rule(wish, planned.path)

    def at(turns: _Told, step: int) -> Conditioning:
        return turns[max(first for first in turns if first <= step)]

    def turn(step: int) -> Denoiser:
        guided = _guided(model, wish, planned, at(negative, step), rule)
        return guidance.with_conditioning(guided, at(told, step))

    turns = {step: turn(step) for step in sorted({*told, *negative})}
    return turns[0] if len(turns) == 1 else guidance.in_turn(planned.path, turns)


_MAX_POOL = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


def _coarse_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A media mask ``(1, *spatial)`` at the resolution of ``x0``: new wherever any of it is."""
    return _MAX_POOL[len(shape) - 1](mask[None], shape[1:])


def _walk(
    model: Model, request: Request, planned: _Plan, number: int, listener: Listener | None
) -> Tensor:
    """From noise to the ``x0`` of seed ``number``, ``(1, …)``."""
    place, seed = device(model), request.seeds[number]
    shape = model.codec.shape(planned.size)
    told = _told(model, planned.prompt, seed)
    negative = told if planned.scale == 1 else _told(model, planned.negative, seed)
    path, denoise = planned.path, _turned(model, request.guidance, planned, told, negative)
    x = start(model, request, path, batch([seed], "start", 0, shape).to(place))
    if request.known is not None:
        known = model.codec.encode(request.known.media[None].to(place))
        mask = _coarse_mask(request.known.mask, shape).to(place)
        denoise = guidance.constrained(denoise, guidance.known_region(known, mask))
    noise = stream([seed], "step", x)
    for step in planned.sampler.run(denoise, x, path, told[0], noise):
        x = step.x
        if listener is not None:
            believed = step.estimate.x0
            listener(
                Progress(
                    number,
                    len(request.seeds),
                    step.number,
                    step.total,
                    lambda believed=believed: model.codec.decode(believed)[0].clamp(-1, 1).cpu(),
                )
            )
    return x


def _sample(
    model: Model, request: Request, planned: _Plan, number: int, listener: Listener | None
) -> Tensor:
    """The sample of seed ``number`` of the request: ``(C, *spatial)`` in [−1, 1]."""
    x = _walk(model, request, planned, number, listener)
    result = model.codec.decode(x)[0].clamp(-1, 1).cpu()
    return result if request.known is None else _keep(result, request.known)


def start(model: Model, request: Request, path: Level, eps: Tensor) -> Tensor:
    """``x`` at the first level of the path: the start image noised, or noise alone.

    Noise alone has the variance ``alpha^2 + sigma^2`` that data of unit variance would have
    there: what a model trained on a schedule with alpha > 0 at t = 1 has seen.
    """
    alpha, sigma = path.at(0)
    if request.start is None:
        return torch.hypot(alpha, sigma) * eps
    x0 = model.codec.encode(request.start.media[None].to(eps.device))
    return alpha * x0 + sigma * eps


def _keep(result: Tensor, known: Known) -> Tensor:
    """The known values, exactly, where the mask is 0; a soft mask blends."""
    blended = torch.lerp(known.media, result, known.mask)
    return torch.where(known.mask == 0, known.media, blended)


def generate(model: Model, request: Request, listener: Listener | None = None) -> list[Tensor]:
    """Make one sample a seed.

    Args:
        model: a loaded family.
        request: what to make; None values take the model's defaults.
        listener: called after every step; what it raises ends the work (cancelling).
    Returns:
        one ``(C, *spatial)`` float32 tensor in [−1, 1] on the CPU a seed, in their order.
    Raises:
        RequestError: the request is impossible for this model.
        ValueError: an unknown sampler or spacing, or a prompt that the model cannot read.
    """
    if model.weighted is not None:
        _check_adapters(request)
    worn = [
        group
        for adapter in request.adapters
        for group in by_blocks(adapter.fitted, adapter.strength, adapter.rules)
    ]
    with torch.inference_mode(), attached(model.parts, worn):
        planned = plan(model, request)
        results = []
        for number in range(len(request.seeds)):
            result = _sample(model, request, planned, number, listener)
            if not bool(result.isfinite().all()):
                raise RequestError(
                    f"seed {request.seeds[number]} gave numbers that are not finite: lower the "
                    "guidance, or take another sampler or more steps"
                )
            results.append(result)
        return results
