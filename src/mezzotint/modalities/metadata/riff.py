"""RIFF: XMP in WebP (chunk ``XMP ``, WebP container specification) and in WAV (chunk ``_PMX``,
Adobe, XMP specification part 3, §1.2.3).

Both stand behind what they describe, so that no chunk moves.
"""

from __future__ import annotations

from typing import NamedTuple

from mezzotint.modalities.metadata import xmp
from mezzotint.modalities.metadata.common import MetadataError, Said, counted, number, part

_NAMES = {b"WEBP": b"XMP ", b"WAVE": b"_PMX"}
_HAS_XMP, _HAS_ALPHA = 0x04, 0x10


class Chunk(NamedTuple):
    kind: bytes
    begin: int
    body: int
    end: int  # without its padding


def is_kind(data: bytes, form: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == form


def _chunks(data: bytes) -> tuple[list[Chunk], int]:
    """The chunks, and where the outermost one ends."""
    size = number(data, 4, 4, "little", "header")
    if size in (0, 0xFFFFFFFF):
        raise MetadataError("does not say how long it is, as if streamed: save it anew")
    end = 8 + size
    if end > len(data):
        raise MetadataError("is cut off")
    found: list[Chunk] = []
    at = 12
    while at + 8 <= end:
        counted(len(found))
        length = number(data, at + 4, 4, "little", "chunks")
        if at + 8 + length > end:
            raise MetadataError("is cut off or damaged in its chunks")
        found.append(Chunk(data[at : at + 4], at, at + 8, at + 8 + length))
        at += 8 + length + length % 2
    return found, end


def _packet(data: bytes, chunks: list[Chunk]) -> bytes | None:
    name = _NAMES[data[8:12]]
    found = [chunk for chunk in chunks if chunk.kind == name]
    if len(found) > 1:
        raise MetadataError(f"has {len(found)} XMP packets: one of them is false")
    return data[found[0].body : found[0].end] if found else None


def extract(data: bytes) -> str | None:
    """The document in the XMP of a WebP or WAV."""
    packet = _packet(data, _chunks(data)[0])
    return None if packet is None else xmp.document(packet)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The file with a document; all other chunks as they are, and what follows them too."""
    chunks, end = _chunks(data)
    name = _NAMES[data[8:12]]
    packet = xmp.packet(text, said, _packet(data, chunks))
    kept = [
        _chunk(chunk.kind, data[chunk.body : chunk.end]) for chunk in chunks if chunk.kind != name
    ]
    if name == b"XMP ":
        kept = _extended(kept)
    body = b"".join([data[8:12], *kept, _chunk(name, packet)])
    if len(body) >= 0xFFFFFFFF:
        raise MetadataError("is of 4 GiB or more, for which its format has no room")
    return b"RIFF" + len(body).to_bytes(4, "little") + body + data[end:]


# --- WebP -------------------------------------------------------------------------------------


def _extended(chunks: list[bytes]) -> list[bytes]:
    """The chunks of a WebP behind a header ``VP8X`` that announces XMP."""
    first = chunks[0] if chunks else b""
    if first[:4] == b"VP8X":
        if len(first) < 18:
            raise MetadataError("is damaged in its header")
        return [first[:8] + bytes([first[8] | _HAS_XMP]) + first[9:], *chunks[1:]]
    width, height, alpha = _size(first)
    flags = _HAS_XMP | (_HAS_ALPHA if alpha else 0)
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return [_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size), *chunks]


def _size(chunk: bytes) -> tuple[int, int, bool]:
    """Width, height and whether there is alpha, of a bare picture: lossless or not (RFC 6386)."""
    body = chunk[8:]
    if chunk[:4] == b"VP8L" and body[:1] == b"\x2f":
        bits = number(body, 1, 4, "little", "header")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if chunk[:4] == b"VP8 " and part(body, 3, 3, "header") == b"\x9d\x01\x2a":
        width, height = (number(body, at, 2, "little", "header") & 0x3FFF for at in (6, 8))
        if width and height:
            return width, height, False
    raise MetadataError("is damaged in its header")
