"""What a request takes from pictures: where its way begins, what it keeps, what it is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from mezzotint.apps.errors import UsageError
from mezzotint.engine.edit import expand, near_aspect, sides_to
from mezzotint.engine.request import Known, Start
from mezzotint.families.model import Model
from mezzotint.modalities import image as pictures
from mezzotint.modalities.image import CHANNELS, Channels

STRENGTH = 0.6
"""Of image to image, when none is given: the layout stays, the style changes."""

Source = str | os.PathLike[str] | Image.Image
Note = Callable[[str], None]
"""What is told of how a picture is taken."""
Sides = tuple[int, int, int, int] | tuple[int, int]
"""What is added at the left, top, right and bottom; or an aspect, width to height."""


class Held(str):
    """A picture that a program gave, not a file: the name is what recipes call it."""

    __slots__ = ("image",)
    image: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> Held:
        held = cls("a picture in memory")
        held.image = image
        return held


class Picture(NamedTuple):
    """A picture, and what messages call it."""

    name: str
    image: Image.Image


@dataclass(frozen=True)
class Edit:
    """What a request takes from a picture."""

    size: tuple[int, int] | None
    start: Start | None = None
    known: Known | None = None

    def whole(self, model: Model) -> tuple[int, int]:
        """The size of what is made, to which controls and regions are fitted."""
        whole = None if self.known is None else tuple(self.known.media.shape[1:])
        height, width = whole or self.size or model.defaults.size
        return height, width


def opened(source: Source, name: str = "the picture") -> Picture:
    """A picture from its file, or as it is.

    Raises:
        ImageError: the file is none.
    """
    if isinstance(source, Held):
        return Picture(name, source.image)
    if isinstance(source, Image.Image):
        return Picture(name, source)
    return Picture(str(source), pictures.open_image(Path(source)))


def _fitted(picture: Picture, channels: Channels, size: tuple[int, int], note: Note) -> Tensor:
    name, image = picture
    if image.size != (size[1], size[0]):
        note(
            f"{name}: {image.width}x{image.height} fitted to {size[1]}x{size[0]} "
            "(resized, the middle of it)"
        )
    return pictures.fit(image, channels, size)


def _masked(
    picture: Picture,
    mask: Picture,
    channels: Channels,
    size: tuple[int, int] | None,
    note: Note,
) -> tuple[Tensor, Tensor]:
    """The picture and the mask, at the wanted size or, without one, exactly as they are."""
    new, image = pictures.mask_of(mask.image), picture.image
    if tuple(new.shape[1:]) != (image.height, image.width):
        raise UsageError(
            f"the mask {mask.name} is {new.shape[2]}x{new.shape[1]} and the picture "
            f"{picture.name} {image.width}x{image.height}: make them the same size"
        )
    if size is None:
        return pictures.to_tensor(image, channels), new
    grey = pictures.fit(pictures.to_image(new * 2 - 1), "grey", size)
    return _fitted(picture, channels, size, note), (grey + 1) / 2


def sides_of(sides: Sides, image: Image.Image, multiple: int) -> tuple[int, int, int, int]:
    """What is added at the left, top, right and bottom of a picture."""
    if len(sides) == 4:
        return sides
    return sides_to((image.height, image.width), sides, multiple)


def edited(
    model: Model,
    size: tuple[int, int] | None,
    picture: Picture,
    note: Note,
    *,
    mask: Picture | None = None,
    sides: Sides | None = None,
    strength: float | None = None,
    around: int | None = None,
) -> Edit:
    """Image to image; with a mask inpainting, with sides outpainting.

    Args:
        size: of what is made; None takes the mask's picture as it is, else the model's usual one.
        around: see :class:`~mezzotint.engine.request.Known`.

    Raises:
        UsageError: the mask is of another size than the picture.
        RequestError: nothing is added by the sides.
    """
    channels = CHANNELS[model.codec.channels]
    known: Known | None = None
    if mask is not None:
        wanted = size if around is None else None
        canvas, new = _masked(picture, mask, channels, wanted, note)
        known = Known(canvas, new, around)
    elif sides is not None:
        added = sides_of(sides, picture.image, model.codec.multiple)
        known = expand(pictures.to_tensor(picture.image, channels), *added)
        canvas = known.media
    else:
        height, width = size or model.defaults.size
        canvas = _fitted(picture, channels, (height, width), note)
    strength = STRENGTH if strength is None and known is None else strength
    start = None if strength is None else Start(canvas, strength)
    height, width = canvas.shape[1:]
    if around is not None:  # the size is that of the area while it is worked on
        return Edit(size, start, known)
    return Edit((height, width), start, known)


def referred(model: Model, edit: Edit, picture: Picture, note: Note) -> tuple[Edit, Tensor]:
    """A reference, and the request with a size: without one it is of the reference's aspect."""
    channels, image = CHANNELS[model.codec.channels], picture.image
    if model.joined is None or model.joined.masked:  # `generate` refuses it, whatever its size
        return edit, pictures.to_tensor(image, channels)
    own = near_aspect((image.height, image.width), model.defaults.size, model.codec.multiple)
    size = edit.size or own
    fitted = _fitted(picture, channels, own if model.joined.free_size else size, note)
    return replace(edit, size=size), fitted
