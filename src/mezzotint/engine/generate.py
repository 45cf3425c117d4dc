"""From noise to media: one function for every family and every task.

Each seed is sampled on its own, with noise of its own.  So a picture never depends on the batch
that it was asked for in, nor on the order: the arithmetic is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.adapters.lora import attached
from mezzotint.adapters.seamless import seamless
from mezzotint.adapters.strengths import by_blocks
from mezzotint.diffusion import guidance, samplers, spacings
from mezzotint.diffusion.level import Conditioning, Denoiser, Level
from mezzotint.diffusion.noise import Noise, batch
from mezzotint.diffusion.regions import by_region
from mezzotint.diffusion.schedules import Schedule
from mezzotint.diffusion.two_guidances import text_and_image
from mezzotint.engine.attach import with_words
from mezzotint.engine.ends import coarse_mask, kept, noise_of, start
from mezzotint.engine.image_prompts import Sides, between_sides, sides, with_pictures
from mezzotint.engine.passes import counted, enlarged, from_picture, narrowed, tiling
from mezzotint.engine.regions import check_regions, shares
from mezzotint.engine.request import (
    Control,
    Guidance,
    Progress,
    Request,
    RequestError,
    Seen,
    check,
    check_coded,
)
from mezzotint.engine.seen import check_seen, placed_seen, room, shared, words_beside
from mezzotint.engine.shown import (
    check_shown,
    hinted,
    left_to_itself,
    shown,
    with_shown,
    without_shown,
)
from mezzotint.engine.told import check_adapters, check_guided, placed, said, scaled
from mezzotint.families.controls import Acting, controlled
from mezzotint.families.model import Hint, Model, Weaker

Listener = Callable[[Progress], None]


_Told = Mapping[int, Conditioning]
"""What a model is told, by the step (from 0 on) from which it is told so."""


class _Prompt(NamedTuple):
    """What a model is told of a prompt, and how its prior goes on from there."""

    told: _Told
    imagining: _Plan | None  # none: the model has no prior, or the prompt is empty
    seen: tuple[Seen, ...] = ()  # pictures that share in what its prior makes


class _Plan(NamedTuple):
    """A request with the model's defaults filled in."""

    size: tuple[int, ...]
    schedule: Schedule
    path: Level  # (steps + 1,)
    sampler: samplers.Sampler
    scale: float  # of the guidance by a negative prompt
    image_scale: float  # of the guidance by a reference
    prompt: _Prompt
    negative: _Prompt
    walked: slice  # the levels of the path that this model walks
    regions: tuple[_Prompt, ...]
    shares: tuple[Tensor, ...]  # of the prompt and of each region, (1, 1, *spatial) of x0
    controls: tuple[tuple[Control, Hint], ...] = ()
    before: int = 0  # tokens of image prompts before those of the text
    after: tuple[Model, _Plan] | None = None  # and by whom the rest is walked


def device(model: Model) -> torch.device:
    """Where the model's weights are."""
    return next(model.network.parameters()).device


def _prompt(
    model: Model,
    prompt: str,
    framed: Tensor | None,
    scale: float,
    steps: int,
    pictures: Conditioning,
    beside: Sides,
    seen: tuple[Seen, ...] = (),
) -> _Prompt:
    imagining = None
    if model.prior is not None and prompt != "":
        imagining = plan(model.prior, Request(prompt, (0,)))
    turns = said(model, prompt or words_beside(model, seen), steps)
    told = {step: placed(model, what, framed) for step, what in turns.items()}
    if model.distilled:
        told = {step: scaled(what, scale) for step, what in told.items()}
    told = {step: between_sides(beside, with_shown(what, pictures)) for step, what in told.items()}
    return _Prompt(told, imagining, seen)


def _told(model: Model, prompt: _Prompt, seed: int) -> _Told:
    """What the model is told: with the embedding that its prior makes, in which pictures share;
    zeros where there are neither words nor pictures."""
    prior, (turns, imagining, seen) = model.prior, prompt
    if prior is None:
        return turns
    imagined = None
    if imagining is not None and room(seen):
        imagined = _imagine(prior, imagining, seed)
    embedding = shared(imagined, seen)
    if embedding is None:
        embedding = torch.zeros(1, *prior.codec.shape(()), device=device(prior))

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
    check_shown(model, request, size)
    check_seen(model, request)
    scale = defaults.guidance if wish.scale is None else wish.scale
    image_scale = _image_scale(model, wish)
    check_guided(model, request, scale == 1 and image_scale == 1)
    check_coded(request, model.codec.shape(size))
    spacing = spacings.find(request.spacing or defaults.spacing)
    schedule = model.schedule_of(size)
    path = spacing(schedule, request.steps or defaults.steps)
    if request.start is not None:
        path = spacings.truncate(path, request.start.strength)
    steps = path.sigma.numel() - 1
    pictures = shown(model, request, size, device(model))
    framed = None if model.framing is None else model.framing(size)
    negative = framed if model.framing_negative is None else model.framing_negative(size)
    yes, no = sides(request.image_prompts)
    seen = placed_seen(request.seen, device(model))
    return _Plan(
        size,
        schedule,
        path,
        samplers.find(request.sampler or defaults.sampler),
        1.0 if model.distilled else scale,
        image_scale,
        _prompt(model, request.prompt, framed, scale, steps, pictures, yes, seen),
        _prompt(model, request.negative, negative, scale, steps, pictures, no),
        slice(None),
        tuple(
            _prompt(model, region.prompt, framed, scale, steps, pictures, yes, seen)
            for region in request.regions
        ),
        shares(request.regions, model.codec.shape(size)),
        tuple((control, hinted(control, request.known)) for control in request.controls),
        sum(tokens.shape[1] for tokens in yes.before),
    )


def told_of(model: Model, planned: _Plan, seed: int = 0) -> Conditioning:
    """What a model is told of a plan's prompt, at the first step: with the embedding of a seed,
    where a prior makes one."""
    return _told(model, planned.prompt, seed)[0]


def _refined(model: Model, request: Request, planned: _Plan) -> _Plan:
    """The plan of two models: the first walks the path down to where the refiner begins."""
    if request.refiner is None:
        return planned
    second, begin = request.refiner
    same = second.codec.shape(planned.size) == model.codec.shape(planned.size)
    if not same or second.codec.units != model.codec.units:
        raise RequestError(f"{second.name} cannot refine what {model.name} makes: other codes")
    defaults = model.defaults
    rest = replace(
        request,
        refiner=None,
        adapters=(),
        controls=(),
        image_prompts=(),
        seen=(),
        reference=None,
        guidance=replace(request.guidance, image=None),
        size=planned.size,
        steps=request.steps or defaults.steps,
        sampler=request.sampler or defaults.sampler,
        spacing=request.spacing or defaults.spacing,
    )
    after, path, schedule = plan(with_words(second, rest), rest), planned.path, planned.schedule
    if not all(torch.equal(*pair) for pair in zip(path, after.path, strict=True)):
        raise RequestError(
            f"{second.name} has other noise levels than {model.name}: it cannot go on from there"
        )
    times = schedule.time(path.at(slice(None, -1))) * schedule.knots
    # A whole number is where a level of the table is; half of it away, none is.
    first = int((times > round((1 - begin) * schedule.knots) + 0.5).sum())
    if not 0 < first < len(times):
        whose = model.name if first == 0 else second.name
        raise RequestError(
            f"a refiner from {begin} on leaves no step of {len(times)} to {whose}: move it, or "
            "take more steps"
        )
    return planned._replace(
        walked=slice(0, first + 1),
        # What it is given is a code of the first's: shown as that one shows it.
        after=(replace(second, preview=model.preview), after._replace(walked=slice(first, None))),
    )


def _check_acting(planned: _Plan) -> None:
    """Raise RequestError for a control network that acts in no step that the model walks."""
    steps, walked = _steps(planned), len(planned.path.at(planned.walked).sigma) - 1
    for control, _ in planned.controls:
        if not any(control.acts(step, steps) for step in range(walked)):
            raise RequestError(
                f"{control.network.name} acts from {control.begin:g} to {control.end:g} of the "
                f"way, in which none of the {walked} steps lies: move from and to, or take more"
            )


def _image_scale(model: Model, wish: Guidance) -> float:
    usual = None if model.joined is None else model.joined.guidance
    return 1.0 if usual is None else usual if wish.image is None else wish.image


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
    model: Model,
    wish: Guidance,
    planned: _Plan,
    negative: Conditioning,
    rule: guidance.Rule,
    areas: Sequence[tuple[Conditioning, Tensor]] = (),
) -> Denoiser:
    """The model under the request's guidance.

    areas: what it is told instead of a prompt, each with its share of the picture.  Their estimates
    are one before they are guided: what is led away from is evaluated once.
    """

    def everywhere(denoise: Denoiser) -> Denoiser:
        if not areas:
            return denoise
        return by_region([(guidance.with_conditioning(denoise, told), m) for told, m in areas])

    plain = model.denoise()
    strong = everywhere(plain)
    told_so = strong if areas else None
    weaker = [
        (Weaker(perturb=wish.perturb), wish.perturb_scale),
        (Weaker(skip=wish.skip), wish.skip_scale),
    ]
    contrasts = [
        guidance.Contrast(everywhere(model.denoise(weak)), 1 + scale)
        for weak, scale in weaker
        if any(weak)
    ]
    if planned.image_scale == 1:
        guided = guidance.classifier_free(
            plain, negative, planned.scale, rule, contrasts, strong=told_so
        )
    else:
        scales = planned.scale, planned.image_scale
        neither = without_shown(negative)
        guided = text_and_image(plain, negative, neither, *scales, rule, contrasts, told_so)
    interval = wish.interval or model.defaults.interval
    if interval is None:
        return guided
    ends = planned.schedule.level(torch.tensor(interval, dtype=torch.float64))
    low, high = (ends.sigma / ends.alpha).tolist()  # at alpha = 0 infinity, as meant
    return guidance.interval(guided, strong, low, high)


_Area = tuple[_Told, Tensor]
"""What a model is told of a part of the picture, and the share that it has of each element."""


def _turned(
    model: Model,
    wish: Guidance,
    planned: _Plan,
    told: _Told,
    negative: _Told,
    areas: Sequence[_Area],
) -> Denoiser:
    """The model told and guided step by step; made fresh for a sample: rules may remember."""
    rule = _rule(wish, planned.path)

    def at(turns: _Told, step: int) -> Conditioning:
        return turns[max(first for first in turns if first <= step)]

    def acting(step: int) -> list[Acting]:
        return [
            Acting(control.network, hint, control.strength)
            for control, hint in planned.controls
            if control.acts(step, _steps(planned))
        ]

    def turn(step: int) -> Denoiser:
        steered = controlled(model, acting(step), planned.before)
        parts = [(at(turns, step), share) for turns, share in areas]
        guided = _guided(steered, wish, planned, at(negative, step), rule, parts)
        return guidance.with_conditioning(guided, at(told, step))

    changes = {
        step
        for step in range(1, _steps(planned))
        for control, _ in planned.controls
        if control.acts(step, _steps(planned)) != control.acts(step - 1, _steps(planned))
    }
    begins = {*told, *negative, *changes}.union(*(turns for turns, _ in areas))
    turns = {step: turn(step) for step in sorted(begins)}
    return turns[0] if len(turns) == 1 else guidance.in_turn(planned.path, turns)


def _walk(
    model: Model,
    request: Request,
    planned: _Plan,
    number: int,
    listener: Listener | None,
    begun: Tensor | None = None,
) -> Tensor:
    """From noise to the ``x0`` of seed ``number``, ``(1, …)``.

    begun: where another model has come to.
    """
    place, vary = device(model), request.vary
    shape = model.codec.shape(planned.size)
    seed = request.seeds[number] if vary is None else vary.root
    key = request.mark if request.start is None and begun is None else None

    def draws(name: str) -> Noise:
        return noise_of(request.seeds[number], vary, name, torch.empty(1, *shape), key)

    areas = [
        (_told(model, prompt, seed), share)
        for prompt, share in zip((planned.prompt, *planned.regions), planned.shares, strict=True)
        if bool((share != 0).any())
    ]
    told = areas[0][0]
    one = len(areas) == 1  # a prompt over all is told as any
    areas = [] if one else [(what, share.to(place)) for what, share in areas]
    guided = planned.scale != 1 or planned.image_scale != 1
    negative = _told(model, planned.negative, seed) if guided else told
    path, wish = planned.path, request.guidance
    denoise = _turned(model, wish, planned, told, negative, areas)
    if begun is None:
        x = start(model, request, path, draws("start")(0).to(place))
    else:
        x = begun.to(place)
    alone = left_to_itself(model, [control for control, _ in planned.controls])
    if request.known is not None and not alone:
        known = model.codec.encode(request.known.media[None].to(place))
        mask = coarse_mask(request.known.mask, shape).to(place)
        denoise = guidance.constrained(denoise, guidance.known_region(known, mask))
    like, drawn = x, draws("step" if begun is None else "refine")

    def noise(index: int) -> Tensor:
        return drawn(index).to(like)

    part, before = path.at(planned.walked), planned.walked.start or 0
    for step in planned.sampler.run(denoise, x, part, told[0], noise):
        x = step.x
        if listener is not None:
            listener(
                Progress(
                    number,
                    len(request.seeds),
                    before + step.number,
                    path.sigma.numel() - 1,
                    partial(model.show, step.estimate.x0),
                )
            )
    if planned.after is None:
        return x
    second, rest = planned.after
    return _walk(second, request, rest, number, listener, x)


def _sample(
    model: Model, request: Request, planned: _Plan, number: int, listener: Listener | None
) -> Tensor:
    """The sample of seed ``number`` of the request: ``(C, *spatial)`` in [−1, 1]."""
    x = _walk(model, request, planned, number, listener)
    result = model.codec.decode(x)[0].clamp(-1, 1).cpu()
    return result if request.known is None else kept(result, request.known)


def _steps(planned: _Plan) -> int:
    return planned.path.sigma.numel() - 1


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
        check_adapters(request)
    check_regions(request.regions)
    worn = [
        group
        for adapter in request.adapters
        for group in by_blocks(adapter.fitted, adapter.strength, adapter.rules)
    ]
    model = with_pictures(with_words(model, request), request)
    request, finish = narrowed(model, request)
    parts = tiling(model, request)
    with torch.inference_mode(), attached(model.parts, worn), seamless(parts, request.tiled):
        planned = _refined(model, request, plan(model, request))
        larger = enlarged(model, request)
        again = None if larger is None else plan(model, larger)
        for each in (planned, again):
            if each is not None:
                _check_acting(each)
        tell = listener if again is None else counted(listener, 0, _steps(planned) + _steps(again))
        results = []
        for number in range(len(request.seeds)):
            result = _sample(model, request, planned, number, tell)
            if larger is not None and again is not None:
                first = _steps(planned)
                tell_on = counted(listener, first, first + _steps(again))
                second = from_picture(model, larger, result)
                result = _sample(model, second, again, number, tell_on)
            if not bool(result.isfinite().all()):
                raise RequestError(
                    f"seed {request.seeds[number]} gave numbers that are not finite: lower the "
                    "guidance, or take another sampler or more steps"
                )
            results.append(finish(result))
        return results
