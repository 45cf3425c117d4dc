"""Pictures as prompts: made ready once, then told to a model beside the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mezzotint.adapters import image_prompt
from mezzotint.adapters.image_prompt import Attended, ImageAdapter
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.source import read
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine.request import ImagePrompt, Request, RequestError
from mezzotint.families.image_encoder import ImageEncoder, giving
from mezzotint.families.model import Model
from mezzotint.families.precision import working


def open_image_adapter(model: Model, path: Path) -> ImageAdapter:
    """Read a file of IP-Adapter for a model: plain, Plus or full-face.

    Raises:
        CheckpointError: it is damaged or no such adapter; it is for another model; or this model
            takes none.
    """
    if model.banked is None:
        raise CheckpointError(f"{path}: the model {model.name!r} takes no image prompts")
    state = {n: t.unpack() if isinstance(t, Packed) else t for n, t in read(path).items()}
    place = next(model.network.parameters()).device
    try:
        return image_prompt.read(state, model.banked.ports, working(model.network), place)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def check_encoder(adapter: ImageAdapter, encoder: ImageEncoder) -> None:
    """Raise RequestError where an encoder's features are not those that an adapter was trained on,
    as far as their width tells."""
    config, what = encoder.network.config, "patches"
    found = config.width
    if adapter.pooled:
        found, what = config.projection, "the whole picture"
    if found != adapter.image:
        raise RequestError(
            f"this adapter reads features of {what} of width {adapter.image}"
            f"{giving(adapter.image, adapter.pooled)}, and the image encoder ({encoder.name}) "
            f"gives {found}: give the encoder that the adapter was trained with"
        )


def prepared(
    adapter: ImageAdapter, encoder: ImageEncoder, picture: Tensor, name: str, strength: float
) -> ImagePrompt:
    """A picture as a prompt.

    Where an adapter reads patches, no picture is an even one: zeros after the normalization.

    Args:
        picture: ``(3, size, size)``, prepared for the encoder (``modalities.image.for_clip``).

    Raises:
        RequestError: the encoder is not the adapter's, or the picture not of its size.
    """
    check_encoder(adapter, encoder)
    size = encoder.network.config.size
    if tuple(picture.shape) != (3, size, size):
        raise RequestError(
            f"the image prompt has shape {tuple(picture.shape)}, its encoder takes "
            f"{(3, size, size)}: prepare it with for_clip"
        )
    weight = encoder.network.stem.weight
    with torch.inference_mode():
        x = torch.stack([picture, torch.zeros_like(picture)]).to(weight)
        found = encoder.network(x, skip=1)
        tokens, negative = adapter.tokens(found.pooled if adapter.pooled else found.hidden)
    return ImagePrompt(name, adapter, tokens.float(), negative.float(), strength)


def with_pictures(model: Model, request: Request) -> Model:
    """The model that attends to the request's image prompts.

    Raises:
        RequestError: it takes none, or the tokens of one do not fit it.
    """
    given = request.image_prompts
    if not given:
        return model
    if model.banked is None:
        raise RequestError(f"{model.name} takes no image prompts: leave them out")
    for prompt in given:
        shapes = tuple(prompt.tokens.shape), tuple(prompt.negative.shape)
        one, count, width = shapes[0] if len(shapes[0]) == 3 else (0, 0, 0)
        if shapes[0] != shapes[1] or one != 1 or not count or width != model.banked.ports.context:
            raise RequestError(
                f"the image prompt {prompt.name!r} has tokens of shape {shapes[0]} and {shapes[1]},"
                f" {model.name} takes twice (1, N, {model.banked.ports.context})"
            )
        if not abs(prompt.strength) < float("inf"):
            raise RequestError(f"the strength of an image prompt is no number: {prompt.strength}")
        widths = tuple(kv.weight.shape[0] // 2 for kv in prompt.adapter.banks.kv)  # type: ignore[operator,union-attr]
        if widths != model.banked.ports.widths:
            raise RequestError(f"the adapter of {prompt.name!r} was not read for {model.name}")
    attended = [Attended(p.adapter.banks, p.tokens.shape[1], p.strength) for p in given]
    # The call is another one; the network and its weights are the same and are not touched.
    return replace(model, call=model.banked.call(attended))


def behind(before: Sequence[Tensor], told: Conditioning) -> Conditioning:
    """What is told with the tokens of image prompts before those of the text."""
    if not before:
        return told
    assert told.context is not None  # a model that takes image prompts attends to its text
    values, mask, ids = told.context
    front = torch.cat([tokens.to(values) for tokens in before], dim=1)
    if mask is not None:
        mask = torch.cat([mask.new_ones(front.shape[:2]), mask], dim=1)
    return told._replace(context=Tokens(torch.cat([front, values], dim=1), mask, ids))
