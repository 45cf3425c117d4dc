"""PNG (W3C PNG 3rd edition, §5): a text chunk ``parameters``, which many programs show, and XMP in
an ``iTXt`` chunk ``XML:com.adobe.xmp`` (Adobe, XMP specification part 3, §1.1.5)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from mezzotint.modalities.metadata import xmp
from mezzotint.modalities.metadata.common import (
    MetadataError,
    Said,
    counted,
    number,
    part,
    text_of,
)

MAGIC = b"\x89PNG\r\n\x1a\n"
KEY, XMP_KEY = "parameters", "XML:com.adobe.xmp"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_MOST_UNPACKED = 1 << 20  # bytes: 1 KiB of a file can claim so much
_MOST_KEYS = 256


class Chunk(NamedTuple):
    kind: bytes
    begin: int
    end: int  # after its checksum


def _chunks(data: bytes) -> Iterator[Chunk]:
    at, count = len(MAGIC), 0
    while True:
        count = counted(count)
        size = number(data, at, 4, "big", "chunks")
        kind = part(data, at + 4, 4, "chunks")
        end = at + 12 + size
        if size > 0x7FFFFFFF or end > len(data) or not (kind.isalpha() and kind.isascii()):
            raise MetadataError("is cut off or damaged in its chunks")
        if count == 1 and kind != b"IHDR":
            raise MetadataError("is no PNG: it does not begin with its header")
        yield Chunk(kind, at, end)
        if kind == b"IEND":
            return
        at = end


def _unpacked(raw: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(raw, _MOST_UNPACKED)
    except zlib.error:
        raise MetadataError("has a packed text that is damaged") from None
    if machine.unconsumed_tail:
        raise MetadataError(f"has a packed text of more than {_MOST_UNPACKED} bytes")
    if not machine.eof:
        raise MetadataError("has a packed text that is cut off")
    return found


def _entry(data: bytes, chunk: Chunk) -> tuple[str, bytes, str]:
    """The key of a text chunk, its value and the value's encoding."""
    body = data[chunk.begin + 8 : chunk.end - 4]
    check = number(data, chunk.end - 4, 4, "big", "chunks")
    if zlib.crc32(body, zlib.crc32(chunk.kind)) != check:
        raise MetadataError("has a text whose checksum is wrong")
    key, zero, rest = body.partition(b"\0")
    if not zero or not 1 <= len(key) <= 79:
        raise MetadataError("has a text without a key")
    name = key.decode("latin-1")
    if chunk.kind == b"tEXt":
        return name, rest, "latin-1"
    if chunk.kind == b"zTXt":
        if rest[:1] != b"\0":
            raise MetadataError("has a text that is packed in an unknown way")
        return name, _unpacked(rest[1:]), "latin-1"
    flags, parts = rest[:2], rest[2:].split(b"\0", 2)
    if len(parts) != 3 or flags not in (b"\0\0", b"\1\0", b"\0\1"):
        raise MetadataError("has an international text that is damaged")
    return name, _unpacked(parts[2]) if flags == b"\1\0" else parts[2], "utf-8"


def _decoded(raw: bytes, encoding: str) -> str:
    return raw.decode("latin-1") if encoding == "latin-1" else text_of(raw, "a text in it")


def _key(data: bytes, chunk: Chunk) -> bytes:
    return data[chunk.begin + 8 : min(chunk.end - 4, chunk.begin + 8 + 80)].partition(b"\0")[0]


def _found(data: bytes, key: str) -> bytes | None:
    """The raw value of a key; of several that are alike the first."""
    found: bytes | None = None
    for chunk in _chunks(data):
        if chunk.kind in _TEXTS and _key(data, chunk) == key.encode():
            _, raw, encoding = _entry(data, chunk)
            value = raw if encoding == "utf-8" else raw.decode("latin-1").encode()
            if found is not None and value != found:
                raise MetadataError(f"says two things under {key!r}: one of them is false")
            found = value
    return found


def extract(data: bytes) -> str | None:
    """The document of a PNG: of its XMP, or under ``parameters``."""
    packet, plain = _found(data, XMP_KEY), _found(data, KEY)
    within = None if packet is None else xmp.document(packet)
    said = None if plain is None else text_of(plain, f"the text {KEY!r}")
    if within is not None and said is not None and within != said:
        raise MetadataError(
            f"says one thing under {KEY!r} and another in its XMP: one of them was changed later"
        )
    return said if within is None else within


def texts(data: bytes) -> dict[str, str]:
    """All texts of a PNG by their keys, without its XMP."""
    found: dict[str, str] = {}
    for chunk in _chunks(data):
        if chunk.kind in _TEXTS and len(found) < _MOST_KEYS:
            key, raw, encoding = _entry(data, chunk)
            if key != XMP_KEY:
                found.setdefault(key, _decoded(raw, encoding))
    return found


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(body, zlib.crc32(kind))
    return len(body).to_bytes(4, "big") + kind + body + check.to_bytes(4, "big")


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The PNG with a document; all other chunks as they are."""
    packet = xmp.packet(text, said, _found(data, XMP_KEY))
    if text.isascii() and "\0" not in text:
        plain = _chunk(b"tEXt", KEY.encode() + b"\0" + text.encode())
    else:
        plain = _chunk(b"iTXt", KEY.encode() + bytes(5) + text.encode())
    ours = plain + _chunk(b"iTXt", XMP_KEY.encode() + bytes(5) + packet)
    pieces, placed, end = [data[: len(MAGIC)]], False, 0
    for chunk in _chunks(data):
        end = chunk.end
        if chunk.kind in _TEXTS and _key(data, chunk) in (KEY.encode(), XMP_KEY.encode()):
            continue
        if chunk.kind in (b"IDAT", b"IEND") and not placed:
            pieces.append(ours)
            placed = True
        pieces.append(data[chunk.begin : chunk.end])
    return b"".join([*pieces, data[end:]])
