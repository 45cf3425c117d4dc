"""What a model is told of a request's pictures, where it joins any to what it denoises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine.request import Control, Known, Request, RequestError
from mezzotint.families.model import Hint, Joined, Model


def check_shown(model: Model, request: Request, size: tuple[int, ...]) -> None:
    """Raise RequestError for a reference that the model does not take, or lacks."""
    joined, reference = model.joined, request.reference
    takes = joined is not None and not joined.masked
    if reference is not None and not takes:
        raise RequestError(
            f"{model.name} is told of no reference: leave --reference out, or start from the "
            "picture with --image"
        )
    if joined is None or joined.masked:
        if request.guidance.image is not None:
            raise RequestError(f"{model.name} has no guidance by a picture: leave it out")
        return
    if joined.guidance is None and request.guidance.image is not None:
        raise RequestError(f"{model.name} has no guidance by a picture: leave it out")
    if reference is None:
        if joined.optional:
            return
        raise RequestError(f"{model.name} works from a picture: give one with --reference")
    found, wanted = tuple(reference.shape), (model.codec.channels, *size)
    if joined.free_size:
        multiple = model.codec.multiple
        if found[0] != wanted[0] or any(edge < 1 or edge % multiple for edge in found[1:]):
            raise RequestError(
                f"the reference has shape {found}: this model needs {wanted[0]} channels and "
                f"sides that are multiples of {multiple}"
            )
    elif found != wanted:
        raise RequestError(
            f"the reference has shape {found}, this request needs {wanted} (channels, height, "
            "width)"
        )


def _pictures(
    joined: Joined, model: Model, request: Request, size: tuple[int, ...]
) -> tuple[Tensor, Tensor] | None:
    """The picture and the mask; of a model that is told a mask, without any: all is new."""
    new = torch.ones(1, *size)
    if not joined.masked:
        return None if request.reference is None else (request.reference, new)
    if request.known is None:
        return torch.zeros(model.codec.channels, *size), new
    return request.known.media, request.known.mask


def shown(
    model: Model, request: Request, size: tuple[int, ...], place: torch.device
) -> Conditioning:
    """The slots that the pictures fill, for a request that was checked; all empty without any."""
    joined = model.joined
    given = None if joined is None else _pictures(joined, model, request, size)
    if joined is None or given is None:
        return Conditioning()
    picture, mask = (tensor[None].to(place) for tensor in given)
    return joined.tell(picture, mask)


def hinted(control: Control, known: Known | None) -> Hint:
    """What a control network is told of its picture, or of what is painted over; it was checked."""
    network = control.network
    if control.picture is None:
        assert known is not None and network.masked is not None
        return network.masked(known.media, known.mask)
    assert network.hint is not None
    return network.hint(control.picture)


def left_to_itself(model: Model, controls: Sequence[Control]) -> bool:
    """Whether the model makes by itself what fits around a mask: where it is told the mask, or a
    control network that was trained so is, and acts all the way."""
    joined = model.joined
    told = joined is not None and joined.masked
    return told or any(
        control.network.hint is None
        and control.strength != 0
        and (control.begin, control.end) == (0, 1)
        for control in controls
    )


def with_shown(told: Conditioning, pictures: Conditioning) -> Conditioning:
    """What is told of a prompt, and of the pictures."""
    return told._replace(
        concat=told.concat if pictures.concat is None else pictures.concat,
        tokens=told.tokens if pictures.tokens is None else pictures.tokens,
    )


def without_shown(told: Conditioning) -> Conditioning:
    """The same without the pictures: zeros stand for them."""
    tokens = told.tokens
    if tokens is not None:
        tokens = Tokens(torch.zeros_like(tokens.values), tokens.mask, tokens.ids)
    concat = None if told.concat is None else torch.zeros_like(told.concat)
    return told._replace(concat=concat, tokens=tokens)
