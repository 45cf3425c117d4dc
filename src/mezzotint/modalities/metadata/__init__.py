"""One text document in any media file, where other programs look for such things.

| file | the document stands in | all else |
|---|---|---|
| PNG | the text ``parameters``, and XMP | chunks as they are |
| JPEG | XMP (APP1), above 64 KiB extended | segments as they are |
| WebP | XMP (``XMP ``) | chunks as they are, ``VP8X`` before them |
| TIFF | XMP (tag 700) | stays where it is |
| WAV | XMP (``_PMX``) | chunks as they are |
| FLAC | the comment ``MEZZOTINT_RECIPE`` | blocks as they are |
| MP4 | XMP (``uuid``) | stays where it is |
| WebM | the tag ``MEZZOTINT_RECIPE`` | stays where it is |
| GLB | ``asset.extras.mezzotint`` | other chunks as they are |
| SVG | XMP (``<metadata>``) | stays as it is |

Plain functions from bytes to bytes: pixels and samples are not looked at and not changed.  Nothing
that a file says is executed, fetched or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mezzotint.modalities.metadata import flac, glb, jpeg, matroska, mp4, png, riff, svg, tiff
from mezzotint.modalities.metadata.common import COMPOSITE, GENERATED, MetadataError, Said

__all__ = ["COMPOSITE", "GENERATED", "KINDS", "MetadataError", "Said", "embed", "extract", "texts"]


class _Carrier(NamedTuple):
    knows: Callable[[bytes], bool]
    embed: Callable[[bytes, str, Said], bytes]
    extract: Callable[[bytes], str | None]
    texts: Callable[[bytes], dict[str, str]] | None = None


def _begins(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(marks)


_CARRIERS: dict[str, _Carrier] = {
    "PNG": _Carrier(_begins(png.MAGIC), png.embed, png.extract, png.texts),
    "JPEG": _Carrier(_begins(jpeg.MAGIC), jpeg.embed, jpeg.extract),
    "WEBP": _Carrier(lambda data: riff.is_kind(data, b"WEBP"), riff.embed, riff.extract),
    "TIFF": _Carrier(_begins(*tiff.MAGICS), tiff.embed, tiff.extract),
    "WAV": _Carrier(lambda data: riff.is_kind(data, b"WAVE"), riff.embed, riff.extract),
    "FLAC": _Carrier(flac.is_kind, flac.embed, flac.extract, flac.texts),
    "MP4": _Carrier(mp4.is_kind, mp4.embed, mp4.extract),
    "WEBM": _Carrier(_begins(matroska.MAGIC), matroska.embed, matroska.extract, matroska.texts),
    "GLB": _Carrier(_begins(glb.MAGIC), glb.embed, glb.extract),
    "SVG": _Carrier(svg.is_kind, svg.embed, svg.extract),
}
KINDS = tuple(_CARRIERS)
"""The kinds of files, by the names that Pillow has for some of them."""


def kind_of(data: bytes) -> str | None:
    """The kind of a file by its first bytes; None: none of KINDS."""
    return next((kind for kind, carrier in _CARRIERS.items() if carrier.knows(data)), None)


def _checked(data: bytes) -> _Carrier:
    kind = kind_of(data)
    if kind is None:
        raise MetadataError(f"is no file that carries a recipe: {', '.join(KINDS)}")
    return _CARRIERS[kind]


def embed(data: bytes, kind: str, text: str, said: Said | None = None) -> bytes:
    """The bytes of a media file with a document in it; one that is there is replaced.

    Args:
        kind: what it is, of KINDS.
        said: what stands beside it, in fields that other programs know.

    Raises:
        MetadataError: it is none of that kind, or damaged; there is no room for the text, or it
            has characters that the format does not.
    """
    if kind not in _CARRIERS:
        raise MetadataError(f"{kind!r} carries no recipe: choose one of {', '.join(KINDS)}")
    if kind_of(data) != kind:
        raise MetadataError(f"is no {kind}")
    if any("\ud800" <= letter <= "\udfff" for letter in text) or "\0" in text:
        raise MetadataError("a document with zeros or halves of characters cannot be written")
    return _CARRIERS[kind].embed(data, text, said or Said())


def extract(data: bytes) -> str | None:
    """The document in a media file, whose kind its first bytes say; None: it has none.

    Of a PNG without one in its XMP it is the text ``parameters``, whoever wrote it.

    Raises:
        MetadataError: it is no such file, is damaged, or has two documents that differ.
    """
    return _checked(data).extract(data)


def texts(data: bytes) -> dict[str, str]:
    """The plain texts of a PNG, FLAC or WebM by their keys; of others nothing.

    Raises:
        MetadataError: it is no file of KINDS, or damaged.
    """
    carrier = _checked(data)
    return {} if carrier.texts is None else carrier.texts(data)
