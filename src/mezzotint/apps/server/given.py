"""Pictures in the bodies of requests: taken in as uploads, and masks made as ours are.

What is decoded here is decoded by Pillow, one at a time: a picture of few bytes can be large.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFilter, ImageOps

from mezzotint.apps.server import gallery
from mezzotint.apps.server.gallery import UploadError
from mezzotint.apps.server.service import Service
from mezzotint.apps.server.tokens import Who
from mezzotint.families.sizes import MOST

_DECODES = threading.Lock()
_UPRIGHT = (5, 6, 7, 8)  # EXIF: turned by a quarter


class Given(NamedTuple):
    """A picture that was taken in: its id, and its (width, height) upright."""

    id: str
    size: tuple[int, int]

    @property
    def aspect(self) -> str:
        """Its aspect, no farther from the square than sizes can be."""
        width, height = self.size
        if max(width, height) > MOST * min(width, height):
            return f"{MOST}:1" if width > height else f"1:{MOST}"
        part = max(math.gcd(width, height), math.ceil(max(width, height) / 9999))
        return f"{max(1, width // part)}:{max(1, height // part)}"


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Within it a picture that somebody gave may be decoded.

    Raises:
        UploadError: it is damaged; of what Pillow raises.
    """
    with _DECODES:
        try:
            yield
        except UploadError:
            raise
        except Exception as error:  # Pillow's plugins raise anything on damaged files
            raise UploadError(f"{what} is damaged: {' '.join(str(error).split())[:200]}") from None


def _size(data: bytes) -> tuple[int, int]:
    """(width, height) upright; a PNG is decoded for it, whose EXIF may come last."""
    with Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _UPRIGHT
        return (image.height, image.width) if turned else image.size


def enter(service: Service, who: Who, data: bytes, name: str = "") -> Given:
    """Take a picture in.

    Raises:
        UploadError: it is none; ForbiddenError, NoRoomError, WriteError.
    """
    service.need(who, "make")
    kind = gallery.kind_of(data)
    with one_at_a_time("the picture"):
        size = _size(data)
    service.store.check_room(len(data))
    file = service.store.put(data)
    gallery.enter(service.engine, who.owner, file, kind, len(data), name)
    return Given(file, size)


def decoded(text: str, what: str) -> bytes:
    """The bytes of a picture in base64, perhaps after ``data:image/png;base64,``.

    Raises:
        UploadError: they are none.
    """
    if re.match(r"(https?|ftp|file):", text[:8]):
        raise UploadError(f"{what} is an address: nothing is fetched here; give it in base64")
    coded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(coded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UploadError(f"{what} is no base64") from None


def _opened(data: bytes) -> Image.Image:
    """A picture, upright, with an alpha.

    Raises:
        UploadError: it is none.
    """
    gallery.kind_of(data)
    image = Image.open(io.BytesIO(data), formats=tuple(gallery.KINDS))
    return ImageOps.exif_transpose(image).convert("RGBA")


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def transparent_is_new(data: bytes, size: tuple[int, int]) -> bytes:
    """OpenAI's mask, which is transparent where something new is wanted, as ours: white there.

    Raises:
        UploadError: it is no picture of that size, or transparent nowhere.
    """
    with one_at_a_time("the mask"):
        gallery.kind_of(data)
        if (own := _size(data)) != size:
            raise UploadError(
                f"the mask is {own[0]}x{own[1]} and the picture {size[0]}x{size[1]}: make them the "
                "same size"
            )
        alpha = _opened(data).getchannel("A")
        if alpha.getextrema() == (255, 255):
            raise UploadError("the mask is transparent nowhere: nothing would be drawn anew")
        return _png(ImageOps.invert(alpha))


class Masking(NamedTuple):
    """What AUTOMATIC1111 does with a mask before it is used; blur: in pixels."""

    invert: bool
    blur: float
    hard: bool


def white_is_new(data: bytes, size: tuple[int, int], how: Masking) -> bytes:
    """AUTOMATIC1111's mask as ours: its alpha where it has one, else its grey; as large as the
    picture.

    Raises:
        UploadError: it is no picture.
    """
    with one_at_a_time("the mask"):
        mask = _opened(data)
        alpha = mask.getchannel("A")
        grey = mask.convert("L") if alpha.getextrema() == (255, 255) else alpha
        if how.hard:
            grey = grey.point([0] * 128 + [255] * 128)
        grey = ImageOps.invert(grey) if how.invert else grey
        if grey.size != size:
            grey = grey.resize(size, Image.Resampling.LANCZOS)
        return _png(grey.filter(ImageFilter.GaussianBlur(how.blur)) if how.blur else grey)


def stretched(data: bytes, size: tuple[int, int]) -> bytes:
    """A picture at another size, whatever its aspect.

    Raises:
        UploadError: it is no picture.
    """
    with one_at_a_time("the picture"):
        image = _opened(data)
        return _png(image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA"))


def as_kind(data: bytes, kind: str, opaque: bool = False) -> bytes:
    """A preview as a file of another kind."""
    with _DECODES, Image.open(io.BytesIO(data)) as image:
        if image.mode == "RGBA" and (opaque or kind == "JPEG"):
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
        shown = io.BytesIO()
        image.convert("RGB" if kind == "JPEG" else image.mode).save(shown, kind)
        return shown.getvalue()
