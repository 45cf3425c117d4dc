"""Pictures as prompts: made ready once, then told to a model beside the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.adapters import embedder, image_prompt
from mezzotint.adapters.embedder import Embedder, blended, embeds
from mezzotint.adapters.image_prompt import Attended, ImageAdapter
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.source import describe, read
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine.request import ImagePrompt, Request, RequestError
from mezzotint.families.image_encoder import ImageEncoder, giving
from mezzotint.families.model import Model
from mezzotint.families.precision import working
from mezzotint.networks.clip import ClipVision, ClipVisionConfig
from mezzotint.networks.siglip import Siglip, SiglipConfig


def open_image_adapter(model: Model, path: Path) -> ImageAdapter | Embedder:
    """Read what makes prompts of pictures, for a model: a file of IP-Adapter (plain, Plus or
    full-face), or an embedder from its file or its folder of `diffusers`.

    Raises:
        CheckpointError: it is damaged or no such adapter; it is for another model; or this model
            takes none.
    """
    takes = "IP-Adapter" if model.banked is not None else None
    takes = model.pictured.said if model.pictured is not None else takes
    if takes is None:
        raise CheckpointError(f"{path}: the model {model.name!r} takes no image prompts")
    file = embedder.file_of(path)
    state = {n: t.unpack() if isinstance(t, Packed) else t for n, t in read(file).items()}
    kind, place = working(model.network), next(model.network.parameters()).device
    try:
        if embeds(state) and model.pictured is not None:
            return embedder.read(state, model.pictured.width, kind, place)
        if not embeds(state) and model.banked is not None:
            return image_prompt.read(state, model.banked.ports, kind, place)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    what = recognise(describe(file)).kind or "nothing that is known"
    raise CheckpointError(f"{file}: is {what}, and {model.name} is told pictures by {takes}")


def check_encoder(adapter: ImageAdapter | Embedder, encoder: ImageEncoder) -> None:
    """Raise RequestError where an encoder's features are not those that an adapter was trained on,
    as far as their width tells."""
    config, what, found = encoder.network.config, "patches", None
    wanted = SiglipConfig if isinstance(adapter, Embedder) else ClipVisionConfig
    pooled = isinstance(adapter, ImageAdapter) and adapter.pooled
    if isinstance(config, wanted):
        found = config.width
    if pooled:
        what = "the whole picture"
        found = config.projection if isinstance(config, ClipVisionConfig) else None
    if found != adapter.image:
        whose = "SigLIP" if wanted is SiglipConfig else "CLIP"
        raise RequestError(
            f"this adapter reads {whose}'s features of {what} of width {adapter.image}"
            f"{giving(adapter.image, pooled, wanted)}, and the image encoder ({encoder.name}) "
            f"gives {'others' if found is None else found}: give the encoder that the adapter was "
            "trained with"
        )


def prepared(
    adapter: ImageAdapter | Embedder,
    encoder: ImageEncoder,
    picture: Tensor,
    name: str,
    strength: float,
) -> ImagePrompt:
    """A picture as a prompt.

    Where an adapter reads CLIP's patches, no picture is an even one: zeros after the normalization.

    Args:
        picture: ``(3, size, size)``, prepared for the encoder (``encoder.ready``).

    Raises:
        RequestError: the encoder is not the adapter's, or the picture not of its size.
    """
    check_encoder(adapter, encoder)
    network, size = encoder.network, encoder.network.config.size
    if tuple(picture.shape) != (3, size, size):
        raise RequestError(
            f"the image prompt has shape {tuple(picture.shape)}, its encoder takes "
            f"{(3, size, size)}: prepare it with the encoder's ready"
        )
    x = picture[None].to(network.norm.weight)
    with torch.inference_mode():
        if isinstance(adapter, Embedder):
            assert isinstance(network, Siglip)  # it was checked
            return ImagePrompt(name, None, adapter.network(network(x)).float(), None, strength)
        assert isinstance(network, ClipVision)
        found = network(torch.cat([x, torch.zeros_like(x)]), skip=1)
        tokens, negative = adapter.tokens(found.pooled if adapter.pooled else found.hidden)
    return ImagePrompt(name, adapter, tokens.float(), negative.float(), strength)


def _check(model: Model, prompt: ImagePrompt) -> None:
    """Raise RequestError for an image prompt that a model cannot be told."""
    adapter, strength = prompt.adapter, prompt.strength
    joined = adapter is None
    if (model.pictured if joined else model.banked) is None:
        other = model.banked if joined else model.pictured
        whose = "such image prompts" if other is not None else "image prompts"
        raise RequestError(f"{model.name} takes no {whose}: leave them out")
    width = model.pictured.width if joined else model.banked.ports.context  # type: ignore[union-attr]
    shape = tuple(prompt.tokens.shape)
    one, count, found = shape if len(shape) == 3 else (0, 0, 0)
    negative = None if prompt.negative is None else tuple(prompt.negative.shape)
    if negative != (None if joined else shape) or one != 1 or not count or found != width:
        raise RequestError(
            f"the image prompt {prompt.name!r} has tokens of shape {shape} and {negative}, "
            f"{model.name} takes {'' if joined else 'twice '}(1, N, {width})"
        )
    if not abs(strength) < float("inf"):
        raise RequestError(f"the strength of an image prompt is no number: {strength}")
    if joined and not 0 <= strength <= 1:
        raise RequestError(
            f"the strength of {prompt.name!r} is {strength:g}; of tokens that are joined to those "
            "of the text it lies in 0…1"
        )
    if adapter is not None:
        assert model.banked is not None
        widths = tuple(kv.weight.shape[0] // 2 for kv in adapter.banks.kv)  # type: ignore[operator,union-attr]
        if widths != model.banked.ports.widths:
            raise RequestError(f"the adapter of {prompt.name!r} was not read for {model.name}")


def with_pictures(model: Model, request: Request) -> Model:
    """The model that attends to the request's image prompts.

    Raises:
        RequestError: it takes none, or the tokens of one do not fit it.
    """
    for prompt in request.image_prompts:
        _check(model, prompt)
    attended = [
        Attended(p.adapter.banks, p.tokens.shape[1], p.strength)
        for p in request.image_prompts
        if p.adapter is not None
    ]
    if not attended:
        return model
    assert model.banked is not None
    # The call is another one; the network and its weights are the same and are not touched.
    return replace(model, call=model.banked.call(attended))


class Sides(NamedTuple):
    """Tokens of image prompts beside those of the text, ``(1, N, C)`` each: those before it, which
    further matrices attend to, and those behind it."""

    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...] = ()


def sides(prompts: Sequence[ImagePrompt]) -> tuple[Sides, Sides]:
    """The tokens beside a prompt, and those beside the negative one.

    A picture whose tokens are joined to the text's is no part of the negative prompt.

    Raises:
        RequestError: pictures whose tokens are blended have not the same number of them.
    """
    attended = [p for p in prompts if p.adapter is not None]
    joined = [(p.tokens, p.strength) for p in prompts if p.adapter is None]
    if len({tokens.shape for tokens, _ in joined}) > 1:
        raise RequestError("image prompts of different encoders cannot be blended: take one's")
    told = blended(joined)
    return (
        Sides(tuple(p.tokens for p in attended), () if told is None else (told,)),
        Sides(tuple(p.negative for p in attended if p.negative is not None)),
    )


def between_sides(pictures: Sides, told: Conditioning) -> Conditioning:
    """What is told, with the tokens of image prompts before and behind those of the text."""
    if not any(pictures):
        return told
    assert told.context is not None  # a model that takes image prompts attends to its text
    values, mask, ids = told.context
    before, after = ([tokens.to(values) for tokens in side] for side in pictures)
    if mask is not None:
        more = (sum(tokens.shape[1] for tokens in side) for side in pictures)
        mask = F.pad(mask, tuple(more), value=True)
    values = torch.cat([*before, values, *after], dim=1)
    return told._replace(context=Tokens(values, mask, ids))
