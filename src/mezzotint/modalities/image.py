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
from typing import Literal

import numpy as np
import torch
from PIL import (
    ExifTags,
    Image,
    ImageDraw,
    ImageFont,
    ImageOps,
    PngImagePlugin,
    UnidentifiedImageError,
)
from torch import Tensor

from mezzotint.files import atomic_write
from mezzotint.modalities import metadata

Channels = Literal["grey", "rgb", "rgba"]
CHANNELS: dict[int, Channels] = {1: "grey", 3: "rgb", 4: "rgba"}
"""By their number."""

READABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
TELLING = (*READABLE, ".svg")
"""Of files that may carry a recipe."""
WRITABLE = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
MAX_PIXELS = 64 * 2**20
"""A file of some bytes can claim any size: more than this is refused before it is decoded."""

_MOST_EXIF = 65_533 - 6  # bytes of a JPEG's segment, less the mark that it begins with
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_MODES = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}


class ImageError(ValueError):
    """A picture cannot be read or written; the message is one line, without the file's name."""


class TextError(ImageError):
    """The text does not fit into the file."""


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
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged files: OSError,
        # SyntaxError, struct.error, IndexError …
        raise ImageError(f"is damaged: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_range(image: Image.Image) -> None:
    if image.mode == "F":
        raise ImageError("floating-point pictures have no fixed range: save it with 8 or 16 bits")


def _as_mode(image: Image.Image, channels: Channels) -> Image.Image:
    """Grey, RGB or RGBA, 8 bits a channel; what was transparent lies on white unless RGBA."""
    if channels not in _MODES:
        raise ValueError(f"unknown channels {channels!r}: choose one of {', '.join(_MODES)}")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip them, not scale them
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    _check_range(image)
    if channels == "rgba":
        return image.convert("RGBA")
    return on_white(image).convert(_MODES[channels])


def as_rgba(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGBA with 8 bits a channel.

    Raises:
        ImageError: a floating-point picture.
    """
    return _as_mode(image, "rgba")


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


def fit(image: Image.Image, channels: Channels, size: tuple[int, int]) -> Tensor:
    """The middle of a picture, as large as the ratio allows, in ``size`` (height, width).

    Lanczos with its support scaled to the ratio (no aliasing), on premultiplied bytes, so that
    the colour of transparent pixels never bleeds in.

    Returns:
        ``(C, height, width)`` float32 in [−1, 1].
    """
    image = _as_mode(image, channels)
    if channels == "rgba":
        image = image.convert("RGBa")  # premultiplied
    height, width = size
    if image.size != (width, height):
        ratio = min(image.width / width, image.height / height)
        crop = (width * ratio, height * ratio)
        left, top = (image.width - crop[0]) / 2, (image.height - crop[1]) / 2
        right, bottom = min(left + crop[0], image.width), min(top + crop[1], image.height)
        box = (left, top, right, bottom)  # the float sums may exceed the edge by a rounding
        image = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(image)
    if channels == "grey":
        pixels = pixels[..., None]
    if channels == "rgba":  # Lanczos overshoots: no colour without its alpha
        pixels = np.minimum(pixels, pixels[..., 3:])
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous() / 127.5 - 1


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, in [0, 1] (Radford et al. 2021)."""


def for_clip(image: Image.Image, size: int) -> Tensor:
    """The middle of a picture as CLIP's encoders take it: ``(3, size, size)``, normalized.

    The shorter side is resized to ``size`` (bicubic), the rest cut off; what was transparent lies
    on white.
    """
    image = _as_mode(image, "rgb")
    short = min(image.size)
    width, height = (size if edge == short else int(size * edge / short) for edge in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    values = _unit(image.crop((left, top, left + size, top + size)))
    mean, deviation = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_DEVIATION)
    return ((values - mean[:, None, None]) / deviation[:, None, None]).contiguous()


def for_siglip(image: Image.Image, size: int) -> Tensor:
    """A picture as SigLIP's encoders take it: ``(3, size, size)`` in [−1, 1].

    All of it is resized to a square (bicubic), whatever its aspect, as in training (Zhai et al.
    2023); what was transparent lies on white.
    """
    square = _as_mode(image, "rgb").resize((size, size), Image.Resampling.BICUBIC)
    return ((_unit(square) - 0.5) / 0.5).contiguous()


def _unit(image: Image.Image) -> Tensor:
    """``(3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.asarray(image).astype(np.float32)).permute(2, 0, 1) / 255


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a file, upright and decoded.

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    return _opened(path, _bytes_of(path))


def _bytes_of(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _opened(path: str | os.PathLike[str], data: bytes) -> Image.Image:
    """The picture in the bytes of a file."""
    try:
        image = decode(data)
        _check_range(image)
        return image
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """Pillow's name of what a file holds, whatever it is called; None for no picture."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.format
    except Exception:  # as in `decode`
        return None


def read(path: str | os.PathLike[str], channels: Channels) -> Tensor:
    """The picture in a file as ``(C, H, W)`` float32 in [−1, 1].

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    return to_tensor(open_image(path), channels)


def read_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """The keys and values that a picture's file carries: of :func:`write`, a document of
    :mod:`mezzotint.modalities.metadata` as ``parameters``, and the texts of others.

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    data = _bytes_of(path)
    kind = metadata.kind_of(data)
    found = {} if kind == "SVG" else _texts_of(path, data)
    try:
        document = None if kind is None else metadata.extract(data)
    except metadata.MetadataError as error:
        raise ImageError(f"{path}: {error}") from error
    if document is not None:
        found["parameters"] = document
    found.pop("XML:com.adobe.xmp", None)
    return found


def _texts_of(path: str | os.PathLike[str], data: bytes) -> dict[str, str]:
    """The texts that Pillow sees in a picture."""
    image = _opened(path, data)
    found = {str(key): str(v) for key, v in image.info.items() if isinstance(v, str)}
    try:  # upright ones have lost a TIFF's tags
        with Image.open(io.BytesIO(data), formats=_FORMATS) as whole:
            return found | _exif_texts(whole.getexif())
    except Exception as error:  # as in `decode`
        raise ImageError(f"{path}: is damaged: {_one_line(error)}") from error


_USER_COMMENT = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16-be", bytes(8): "utf-8"}
"""EXIF's marks of an encoding; those who write UNICODE mostly do so in this order of bytes."""


def _exif_texts(exif: Image.Exif) -> dict[str, str]:
    """Texts in EXIF: ``key: value`` lines of a description, ``key:value`` in the camera's maker and
    model (as ComfyUI has them), a comment as ``parameters`` (as AUTOMATIC1111 has it)."""
    found: dict[str, str] = {}
    for tag in (ExifTags.Base.Make, ExifTags.Base.Model):
        key, colon, value = str(exif.get(tag, "")).partition(":")
        if colon and key in ("prompt", "workflow"):
            found[key] = value.rstrip("\0")
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment[:8] in _USER_COMMENT:
        text = comment[8:].decode(_USER_COMMENT[comment[:8]], "replace")
        found["parameters"] = text.rstrip("\0")
    said = exif.get(ExifTags.Base.ImageDescription)
    for line in said.splitlines() if isinstance(said, str) else ():
        key, colon, value = line.partition(": ")
        if colon:
            found[key] = value
    return found


def mask_of(image: Image.Image) -> Tensor:
    """A mask ``(1, H, W)`` float32 in [0, 1]: white (1) is what is made new, black (0) stays.

    A picture that is transparent somewhere masks by its alpha in place of its grey.
    """
    grey = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if grey is None or grey.getextrema() == (255, 255):  # many programs store an alpha always
        grey = _as_mode(image, "grey")
    return torch.from_numpy(np.asarray(grey).astype(np.float32) / 255)[None]


def read_mask(path: str | os.PathLike[str]) -> Tensor:
    """The mask in a file, as :func:`mask_of` has it.

    Raises:
        ImageError: it cannot be read; the message names the file.
    """
    return mask_of(open_image(path))


# --- writing ----------------------------------------------------------------------------------


def _bytes(values: Tensor) -> Tensor:
    """[0, 255] to the nearest integer, halves up (torch.round would take halves to even)."""
    return (values + 0.5).floor().clamp(0, 255)


def to_image(picture: Tensor) -> Image.Image:
    """``(C, H, W)`` in [−1, 1] as a Pillow image of mode L, RGB or RGBA, 8 bits a channel.

    Values outside [−1, 1] are clamped.  RGBA: premultiplied colour above its alpha is clamped to
    it, then divided by the alpha *as stored*, so what is seen on any background is nearest to
    what was asked for.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3, 4):
        raise ValueError(f"a picture is (1, 3 or 4, H, W), not {tuple(picture.shape)}")
    if not bool(picture.isfinite().all()):
        raise ValueError("the picture has values that are not finite")
    values = (picture.detach().cpu().float() + 1) * 127.5  # (C, H, W)
    if len(values) == 4:
        alpha = _bytes(values[3:])
        colour = torch.minimum(values[:3], values[3:]) * 255 / alpha.clamp_min(1)
        values = torch.cat([torch.where(alpha > 0, colour, 0), alpha])
    pixels = _bytes(values).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def writable_format(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that a file name's extension asks for.

    Raises:
        ImageError: an extension that is not in WRITABLE.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in WRITABLE:
        raise ImageError(
            f"{path}: cannot write {suffix or 'a file without extension'}: "
            f"choose one of {', '.join(WRITABLE)}"
        )
    return WRITABLE[suffix.lower()]


def on_white(image: Image.Image) -> Image.Image:
    """The picture without transparency, as it looks on white."""
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def seen(image: Image.Image, kind: str) -> Image.Image:
    """What of a picture a format stores: a JPEG has no transparency."""
    return on_white(image) if kind == "JPEG" else image


def encode(
    image: Image.Image,
    kind: str,
    text: Mapping[str, str] | None = None,
    quality: int | None = None,
) -> bytes:
    """The bytes of a picture's file: PNG, WebP and TIFF exactly, JPEG on white at quality 95.

    Args:
        kind: Pillow's name of the format, of WRITABLE.
        text: keys and values that go into the file: PNG text chunks; else one line a key in the
            EXIF image description (of a TIFF the tag of that name).
        quality: of a JPEG or a WebP, which is stored with loss then, 0 to 100.

    Raises:
        TextError: the text is too long for a JPEG, which has room for 64 KiB.
    """
    exif = Image.Exif()
    if text:
        lines = [f"{key}: {value}" for key, value in text.items()]
        exif[ExifTags.Base.ImageDescription] = "\n".join(lines)
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_itxt(key, value) if not value.isascii() else chunks.add_text(key, value)
    encoded = io.BytesIO()
    if kind == "PNG":
        image.save(encoded, kind, pnginfo=chunks)
    elif kind == "WEBP":
        how = {"lossless": True} if quality is None else {"quality": quality}
        image.save(encoded, kind, exact=True, exif=exif, **how)
    elif kind == "TIFF":
        image.save(encoded, kind, compression="tiff_adobe_deflate", tiffinfo=dict(exif))
    elif kind == "JPEG":
        if len(exif.tobytes()) > _MOST_EXIF:
            raise TextError("the text is too long for a JPEG: choose .png or .webp")
        quality = 95 if quality is None else quality
        on_white(image).save(encoded, kind, quality=quality, subsampling=0, exif=exif)
    else:
        raise ValueError(f"cannot write {kind!r}: choose one of {', '.join(WRITABLE.values())}")
    return encoded.getvalue()


def write(
    image: Image.Image, path: str | os.PathLike[str], text: Mapping[str, str] | None = None
) -> None:
    """Write a picture, atomically, as :func:`encode` makes it.

    Raises:
        ImageError: an unknown extension.
        TextError: the text is too long for a JPEG.
        mezzotint.files.WriteError: the file cannot be written.
    """
    try:
        encoded = encode(image, writable_format(path), text)
    except TextError as error:
        raise TextError(f"{path}: {error}") from None
    with atomic_write(path) as file:
        file.write(encoded)


# --- contact sheets ---------------------------------------------------------------------------


def checkerboard(width: int, height: int, square: int = 8) -> Image.Image:
    """Light grey squares, ``square`` pixels wide: what shows where a picture is transparent."""
    row, column = np.arange(height)[:, None] // square, np.arange(width) // square
    tone = np.where((row + column) % 2 == 0, 255, 229).astype(np.uint8)
    return Image.fromarray(np.repeat(tone[..., None], 3, axis=2))


def on_checkerboard(image: Image.Image) -> Image.Image:
    """The picture with squares where it is transparent; an opaque one as it is, in RGB."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    board = checkerboard(image.width, image.height, max(2, min(image.size) // 16))
    board.paste(image, (0, 0), image.convert("RGBA").getchannel("A"))
    return board


def _lines(text: str, width: float, font: ImageFont.FreeTypeFont, most: int = 2) -> str:
    """The text in at most ``most`` lines of ``width`` pixels, cut with an ellipsis if longer."""
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or len(lines) == most or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    for number, line in enumerate(lines):
        if font.getlength(line) > width:
            while line and font.getlength(line + "…") > width:
                line = line[:-1]
            lines[number] = line.rstrip() + "…"
    return "\n".join(lines)


_LEGIBLE = 48
"""The edge that a contact sheet gives its pictures at least."""


def contact_sheet(
    images: Sequence[Image.Image],
    columns: int | None = None,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures in rows on white, a caption under each; transparency shows as a checkerboard.

    columns: None makes the sheet about square.  Cells are as large as the largest picture; if that
    is tiny, all are enlarged by a whole number, pixels staying squares.

    Raises:
        ValueError: no pictures, no columns, or another number of captions than of pictures.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} pictures")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"a contact sheet needs at least one column, not {columns}")
    columns = min(columns, len(images))
    times = -(-_LEGIBLE // max(max(image.size) for image in images))
    if times > 1:
        images = [
            image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
            for image in images
        ]
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    gap = max(4, width // 16)
    font = ImageFont.load_default(max(10, min(24, width // 11)))
    assert isinstance(font, ImageFont.FreeTypeFont)
    texts = [_lines(caption, width, font) for caption in captions or ()]
    line = math.ceil(font.size * 1.3) * max((text.count("\n") + 1 for text in texts), default=0)
    rows = math.ceil(len(images) / columns)
    size = (gap + columns * (width + gap), gap + rows * (height + line + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        left, top = gap + column * (width + gap), gap + row * (height + line + gap)
        offset = (left + (width - image.width) // 2, top + (height - image.height) // 2)
        sheet.paste(on_checkerboard(image), offset)
        if texts:
            middle = (left + width / 2, top + height + line / 2)
            draw.multiline_text(
                middle, texts[number], "black", font, "mm", spacing=1, align="center"
            )
    return sheet
