"""What a model is told of a prompt, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine import prompts
from mezzotint.engine.request import Request, RequestError
from mezzotint.families.model import Model


def check_adapters(request: Request) -> None:
    """Raise RequestError for an adapter that the prompt asks for and does not get."""
    elsewhere = [request.negative, *(region.prompt for region in request.regions)]
    if any(prompts.read(text).adapters for text in elsewhere):
        raise RequestError("an adapter acts on the whole picture: ask for it in the prompt only")
    there = {adapter.name for adapter in request.adapters}
    for wanted in prompts.read(request.prompt).adapters:
        if wanted.name not in there:
            raise RequestError(
                f"the prompt asks for <{wanted.kind}:{wanted.name}>, which is not there: give the "
                "adapter with the request"
            )


def said(model: Model, prompt: str, steps: int) -> dict[int, Conditioning]:
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


def placed(model: Model, told: Conditioning, framed: Tensor | None) -> Conditioning:
    """What the model is told of a prompt and of the size, on its device."""
    place = next(model.network.parameters()).device
    if framed is not None:
        assert told.vector is not None  # a family that is told the size has one
        told = told._replace(vector=torch.cat([told.vector, framed.to(told.vector)], 1))

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


def scaled(told: Conditioning, scale: float) -> Conditioning:
    """What a distilled network is told: the scale is the last entry of its vector."""
    assert told.context is not None
    vector, context = told.vector, told.context.values
    last = context.new_full((len(context), 1), scale)
    return told._replace(vector=last if vector is None else torch.cat([vector, last], 1))


def check_guided(model: Model, request: Request, off: bool) -> None:
    """Raise RequestError for what goes by a negative prompt, where this is never read.

    off: whether guidance is, of a model that has it.
    """
    if not (model.distilled or off):
        return
    wish = request.guidance
    asked = {
        "negative prompt": request.negative != "",
        "guidance interval": wish.interval is not None,
        "rescaled guidance": wish.rescale != 0,
        "apg": wish.apg,
        "cfg_zero_star": wish.cfg_zero_star,
    }
    found = " or ".join(name for name, is_asked in asked.items() if is_asked)
    if found and model.distilled:
        raise RequestError(
            f"{model.name} has its guidance distilled into it: the scale is told to the network, "
            f"and there is no {found}: leave that out"
        )
    if found:
        raise RequestError(
            f"guidance is off (1), and with it {found}: leave that out, or give a guidance above 1"
        )
