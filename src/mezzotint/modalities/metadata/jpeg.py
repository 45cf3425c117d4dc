"""JPEG: XMP in segments APP1 (Adobe, XMP specification part 3, §1.1.3), extended ones above 64 KiB.

What does not fit into one segment is a packet of its own, cut into segments that carry its MD5, its
length and their place in it; the first packet names the MD5 under ``xmpNote:HasExtendedXMP``.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from mezzotint.modalities.metadata import xmp
from mezzotint.modalities.metadata.common import (
    MAX_PACKET,
    MetadataError,
    Said,
    counted,
    number,
    part,
)

MAGIC = b"\xff\xd8\xff"
_XMP, _MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_NOTE = "http://ns.adobe.com/xmp/note/"
_MOST = 65_533 - len(_XMP)  # bytes of a packet in one segment
_PIECE = 65_400
_MOST_PARTS = 4096
_ALONE = {0x01, *range(0xD0, 0xD8)}
_HAS = re.compile(rb"HasExtendedXMP(?:\s*=\s*[\"']|>\s*)([0-9A-Fa-f]{32})")


class Segment(NamedTuple):
    marker: int
    begin: int
    body: int
    end: int


def _segments(data: bytes) -> list[Segment]:
    """The segments before the picture itself, which begins at ``SOS`` (or where there is none)."""
    found: list[Segment] = []
    at = 2
    while True:
        counted(len(found), _MOST_PARTS)
        begin = at
        if part(data, at, 1, "segments") != b"\xff":
            raise MetadataError("is damaged between its segments")
        while part(data, at, 1, "segments") == b"\xff":  # any number of them may stand there
            at += 1
            if at - begin > 1 << 16:
                raise MetadataError("is damaged between its segments")
        marker = data[at]
        if marker in (0xDA, 0xD9):
            found.append(Segment(marker, begin, at, at))
            return found
        at += 1
        size = 0 if marker in _ALONE else number(data, at, 2, "big", "segments")
        if marker not in _ALONE and size < 2:
            raise MetadataError("is damaged in its segments")
        part(data, at, size, "segments")
        body = at if marker in _ALONE else at + 2
        at += size
        found.append(Segment(marker, begin, body, at))


class _Packets(NamedTuple):
    main: bytes | None
    more: bytes | None
    mine: list[Segment]


def _is(data: bytes, segment: Segment, mark: bytes) -> bool:
    return segment.marker == 0xE1 and data.startswith(mark, segment.body, segment.end)


def _packets(data: bytes) -> _Packets:
    """The two packets, and the segments of both."""
    segments = _segments(data)
    mains = [s for s in segments if _is(data, s, _XMP)]
    mores = [s for s in segments if _is(data, s, _MORE)]
    if len(mains) > 1:
        raise MetadataError(f"has {len(mains)} XMP packets: one of them is false")
    main = data[mains[0].body + len(_XMP) : mains[0].end] if mains else None
    name = None if main is None else _HAS.search(main)
    more = None if name is None else _joined(data, mores, name[1])
    return _Packets(main, more, mains + mores)


def _joined(data: bytes, segments: list[Segment], name: bytes) -> bytes | None:
    """The extended packet of a name: what of others lies about is left alone."""
    pieces: dict[int, bytes] = {}
    whole = -1
    for segment in segments:
        at = segment.body + len(_MORE)
        if part(data, at, 32, "extended XMP").lower() != name.lower():
            continue
        length = number(data, at + 32, 4, "big", "extended XMP")
        offset = number(data, at + 36, 4, "big", "extended XMP")
        if length > MAX_PACKET or whole not in (-1, length) or at + 40 > segment.end:
            raise MetadataError("is damaged in its extended XMP")
        whole = length
        pieces[offset] = data[at + 40 : segment.end]
    if whole < 0:
        return None  # some programs drop them
    joined = bytearray()
    for offset in sorted(pieces):
        if offset != len(joined):
            raise MetadataError("is damaged in its extended XMP: a piece is missing")
        joined += pieces[offset]
    if len(joined) != whole:
        raise MetadataError("is damaged in its extended XMP: a piece is missing")
    if hashlib.md5(joined, usedforsecurity=False).hexdigest().encode() != name.lower():
        raise MetadataError("is damaged in its extended XMP: its MD5 is another")
    return bytes(joined)


def extract(data: bytes) -> str | None:
    """The document in a JPEG's XMP."""
    main, more, _ = _packets(data)
    found = [xmp.document(packet) for packet in (main, more) if packet is not None]
    texts = [text for text in found if text is not None]
    if len(texts) > 1:
        raise MetadataError("has two documents in its XMP: one of them is false")
    return texts[0] if texts else None


def _segment(body: bytes) -> bytes:
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def _split(text: str, said: Said, main: bytes | None, more: bytes | None) -> tuple[bytes, bytes]:
    """The first packet and the extended one, which may be empty."""
    if more is None:
        whole = xmp.packet(text, said, main)
        if len(whole) <= _MOST:
            return whole, b""
    extended = xmp.packet(text, said, more, wrapped=False)
    name = hashlib.md5(extended, usedforsecurity=False).hexdigest().upper().encode()
    first = xmp.without(main) if main is not None else xmp.empty()
    if _HAS.search(first) is not None:
        first = _HAS.sub(lambda m: m[0][:-32] + name, first)
    else:
        note = f'xmlns:xmpNote="{_NOTE}" xmpNote:HasExtendedXMP="{name.decode()}"'
        first = xmp.added(first, note)
    if len(first) > _MOST:
        raise MetadataError("has so much XMP of others that no room is left: choose PNG or WebP")
    return first, extended


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The JPEG with a document; all other segments as they are."""
    main, more, mine = _packets(data)
    first, extended = _split(text, said, main, more)
    pieces = [_segment(_XMP + first)]
    name = hashlib.md5(extended, usedforsecurity=False).hexdigest().upper().encode()
    for at in range(0, len(extended), _PIECE):
        head = name + len(extended).to_bytes(4, "big") + at.to_bytes(4, "big")
        pieces.append(_segment(_MORE + head + extended[at : at + _PIECE]))
    *segments, last = _segments(data)
    leading = 0
    while leading < len(segments) and (
        segments[leading].marker == 0xE0 or _is(data, segments[leading], b"Exif\0")
    ):
        leading += 1
    kept = [b"" if s in mine else data[s.begin : s.end] for s in segments]
    return b"".join([data[:2], *kept[:leading], *pieces, *kept[leading:], data[last.begin :]])
