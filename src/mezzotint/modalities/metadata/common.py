"""What the carriers have in common: their error, their limits, and slices that stay inside."""

from __future__ import annotations

from typing import NamedTuple

MAX_TEXT = 16 << 20
"""Bytes of a document; that of a sheet of a hundred pictures has half a MiB."""
MAX_PACKET = MAX_TEXT + (4 << 20)
"""Bytes of an XMP packet: the document, and what others say there."""
MAX_PIECES = 200_000
"""Chunks, boxes or elements of a file; a PNG of 64 megapixels has 32,000."""

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's digital source type of what a trained model made."""
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""The same of a captured picture of which a model made a part."""


class MetadataError(ValueError):
    """A file's metadata cannot be read or written; one line, without the file's name."""


class Said(NamedTuple):
    """What stands beside the document, in fields that other programs know."""

    software: str = "mezzotint"
    source: str = GENERATED


def part(data: bytes, at: int, size: int, what: str) -> bytes:
    """The bytes at a place.

    Raises:
        MetadataError: some of them would lie outside.
    """
    if at < 0 or size < 0 or at + size > len(data):
        raise MetadataError(f"is cut off or damaged in its {what}")
    return data[at : at + size]


def number(data: bytes, at: int, size: int, order: str, what: str) -> int:
    """The unsigned integer at a place, ``order`` big or little.

    Raises:
        MetadataError: some of it would lie outside.
    """
    return int.from_bytes(part(data, at, size, what), "big" if order == "big" else "little")


def counted(pieces: int, most: int = MAX_PIECES) -> int:
    """One more piece.

    Raises:
        MetadataError: there are more than any honest file has.
    """
    if pieces >= most:
        raise MetadataError(f"has more than {most} parts")
    return pieces + 1


def text_of(raw: bytes, what: str) -> str:
    """UTF-8 as text.

    Raises:
        MetadataError: it is none, or too long.
    """
    if len(raw) > MAX_TEXT:
        raise MetadataError(f"{what} is of {len(raw)} bytes: more than {MAX_TEXT}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MetadataError(f"{what} is no UTF-8 text") from None
