"""Pictures: files and Pillow images ↔ tensors, and contact sheets.

A picture is ``(C, H, W)`` float32 in [−1, 1]: C = 1 grey, 3 RGB, 4 RGBA.  RGBA is premultiplied
inside: with p = colour · alpha a transparent pixel has one value only, and means of pixels are
right.  −1 is none and 1 is all, for colour and alpha alike.  Bytes are sRGB as they come.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from mezzotint.files import atomic_write

Channels = Literal["grey", "rgb", "rgba"]

READABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
WRITABLE = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 64 * 2**20
"""A file of some bytes can claim any size: more than this is refused before it is decoded."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_MODES = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}


class ImageError(ValueError):
    """A picture cannot be read or written; the message is one line, without the file's name."""


# --- reading ----------------------------------------------------------------------------------


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded picture, upright, fully decoded.

    Raises:
        ImageError: empty, of no known format, damaged, or of more than MAX_PIXELS.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{image.width}x{image.height} is more than {MAX_PIXELS // 2**20} megapixels"
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ImageError("is no picture of a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"is of more than {MAX_PIXELS // 2**20} megapixels") from error
    except (OSError, SyntaxError, EOFError, IndexError, TypeError) as error:
        # Pillow's plugins raise any of these, and struct.error below, on damaged files.
        raise ImageError(f"is damaged: {_one_line(error)}") from error
    except ImageError:
        raise
    except Exception as error:  # struct.error, zlib.error, ValueError: no file may end the program
        raise ImageError(f"is damaged: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _as_mode(image: Image.Image, channels: Channels) -> Image.Image:
    """Grey, RGB or RGBA, 8 bits a channel; what was transparent lies on white unless RGBA."""
    if channels not in _MODES:
        raise ValueError(f"unknown channels {channels!r}: choose one of {', '.join(_MODES)}")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip them, not scale them
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError("floating-point pictures have no fixed range: save it with 8 or 16 bits")
    if channels == "rgba":
        return image.convert("RGBA")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert(_MODES[channels])


def to_tensor(image: Image.Image, channels: Channels) -> Tensor:
    """A Pillow image as ``(C, H, W)`` float32 in [−1, 1], RGBA premultiplied: v = 2·b/255 − 1.

    Raises:
        ImageError: a floating-point picture.
    """
    pixels = np.asarray(_as_mode(image, channels))
    if channels == "grey":
        pixels = pixels[..., None]
    values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)  # (C, H, W)
    if channels == "rgba":
        values[:3] *= values[3:] / 255
    return (values / 127.5 - 1).contiguous()


def square(image: Image.Image, channels: Channels, size: int) -> Tensor:
    """The middle square of a picture in ``size`` × ``size``: ``(C, size, size)`` in [−1, 1].

    Lanczos with its support scaled to the ratio (no aliasing), on premultiplied bytes, so that
    the colour of transparent pixels never bleeds in.
    """
    image = _as_mode(image, channels)
    if channels == "rgba":
        image = image.convert("RGBa")  # premultiplied
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    if image.size != (size, size):
        box = (left, top, left + edge, top + edge)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(image)
    if channels == "grey":
        pixels = pixels[..., None]
    if channels == "rgba":  # Lanczos overshoots: no colour without its alpha
        pixels = np.minimum(pixels, pixels[..., 3:])
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous() / 127.5 - 1


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a file, upright and decoded.

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def read(path: str | os.PathLike[str], channels: Channels) -> Tensor:
    """The picture in a file as ``(C, H, W)`` float32 in [−1, 1].

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    return to_tensor(open_image(path), channels)


def read_mask(path: str | os.PathLike[str]) -> Tensor:
    """A mask ``(1, H, W)`` float32 in [0, 1]: white (1) is what is made new, black (0) stays.

    A picture with transparency masks by its alpha in place of its grey.

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    image = open_image(path)
    if image.has_transparency_data:
        grey = image.convert("RGBA").getchannel("A")
    else:
        grey = _as_mode(image, "grey")
    return torch.from_numpy(np.asarray(grey).astype(np.float32) / 255)[None]
