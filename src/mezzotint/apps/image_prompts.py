"""Pictures as prompts, from the files that a person names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mezzotint.apps.edits import Source, opened
from mezzotint.apps.errors import UsageError
from mezzotint.engine.image_prompts import check_encoder, open_image_adapter, prepared
from mezzotint.engine.request import ImagePrompt, RequestError, Seen
from mezzotint.families.image_encoder import load_encoder
from mezzotint.families.memory import release
from mezzotint.families.model import Model
from mezzotint.families.precision import working

BESIDE = "image_encoder"
"""The folder beside an adapter, or in its own folder, in which its authors keep the encoder."""


def encoder_of(adapter: Path, given: Path | None) -> Path:
    """Where the image encoder is: as given, else in the adapter's folder, or beside it.

    Raises:
        UsageError: it is not given, and there is no such folder.
    """
    if given is not None:
        return given
    beside = adapter.parent / BESIDE
    if (adapter / BESIDE).is_dir():
        beside = adapter / BESIDE
    if not beside.is_dir():
        raise UsageError(
            f"{adapter} needs the image encoder that it was trained with, and there is no {beside}:"
            " name a file or a folder with --image-encoder"
        )
    return beside


def seen(model: Model, given: Sequence[tuple[Source, float]]) -> tuple[Seen, ...]:
    """Pictures, each with its strength, as prompts for a model that sees them by itself.

    Raises:
        RequestError: it does not.
        ImageError: a file is not there, or no picture.
    """
    if model.sight is None:
        raise RequestError(f"{model.name} takes no image prompts by itself: leave them out")
    found: list[Seen] = []
    for number, (source, strength) in enumerate(given, start=1):
        name, image = opened(source, f"picture {number}")
        found.append(Seen(Path(name).name, model.sight.embed(image), strength))
    return tuple(found)


def image_prompts(
    model: Model,
    adapter: Path,
    encoder: Path | None,
    given: Sequence[tuple[Source, float]],
) -> tuple[ImagePrompt, ...]:
    """Pictures, each with its strength, as prompts for a model.

    The encoder is in memory only for as long as this takes.

    Raises:
        CheckpointError: a file is damaged, or not for this model.
        RequestError: the encoder is not the adapter's.
        UsageError, ImageError: a file is not there, or no picture.
    """
    maker = open_image_adapter(model, adapter)
    place = next(model.network.parameters()).device
    sees = load_encoder(encoder_of(adapter, encoder), working(model.network), place)
    check_encoder(maker, sees)
    found: list[ImagePrompt] = []
    for number, (source, strength) in enumerate(given, start=1):
        name, image = opened(source, f"picture {number}")
        ready = sees.ready(image, sees.network.config.size)
        found.append(prepared(maker, sees, ready, Path(name).name, strength))
    del sees
    release()
    return tuple(found)
