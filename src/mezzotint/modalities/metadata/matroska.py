"""WebM and Matroska (RFC 8794, RFC 9559): a ``Tags`` element with a tag ``MEZZOTINT_RECIPE``.

It stands last in the segment, so that no position in it changes; where there is room beside the
index of the file's beginning (``SeekHead``, then ``Void``), it is named there, and players that
do not read to the end find it.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from mezzotint.modalities.metadata.common import (
    MAX_TEXT,
    MetadataError,
    Said,
    counted,
    number,
    text_of,
)

MAGIC = b"\x1a\x45\xdf\xa3"
FIELD, SOURCE = "MEZZOTINT_RECIPE", "DIGITALSOURCETYPE"
_SEGMENT, _SEEK_HEAD, _TAGS = 0x18538067, 0x114D9B74, 0x1254C367
_TAG, _TARGETS, _SIMPLE, _NAME, _STRING = 0x7373, 0x63C0, 0x67C8, 0x45A3, 0x4487
_SEEK, _SEEK_ID, _SEEK_AT, _VOID, _CRC = 0x4DBB, 0x53AB, 0x53AC, 0xEC, 0xBF


class Element(NamedTuple):
    name: int
    begin: int
    body: int
    end: int


def _vint(data: bytes, at: int, end: int, most: int) -> tuple[int, int]:
    """A number of variable length, its marker and all; and how many bytes it takes."""
    first = number(data, at, 1, "big", "elements")
    length = 9 - first.bit_length()
    if length > most or at + length > end:
        raise MetadataError("is cut off or damaged in its elements")
    return number(data, at, length, "big", "elements"), length


def _element(data: bytes, at: int, end: int) -> Element:
    name, length = _vint(data, at, end, 4)
    size, width = _vint(data, at + length, end, 8)
    body = at + length + width
    mark = 1 << 7 * width
    if size == 2 * mark - 1:  # all ones: unknown
        if name != _SEGMENT:
            raise MetadataError(
                "has parts without a size, as files that were streamed: save it anew"
            )
        return Element(name, at, body, end)
    if body + size - mark > end:
        raise MetadataError("is cut off or damaged in its elements")
    return Element(name, at, body, body + size - mark)


def _children(data: bytes, parent: Element) -> list[Element]:
    found: list[Element] = []
    at = parent.body
    while at < parent.end:
        counted(len(found))
        found.append(_element(data, at, parent.end))
        at = found[-1].end
    return found


def _segment(data: bytes) -> Element:
    at = _element(data, 0, len(data)).end
    found = _element(data, at, len(data))
    if found.name != _SEGMENT:
        raise MetadataError("is damaged: no segment follows its header")
    return found


def _tags(data: bytes, element: Element) -> list[tuple[str, bytes]]:
    """The names and texts of a ``Tags`` element that are for the whole file or for a track."""
    found: list[tuple[str, bytes]] = []
    for tag in _children(data, element):
        if tag.name != _TAG:
            continue
        for simple in _children(data, tag):
            if simple.name != _SIMPLE:
                continue
            fields = {e.name: data[e.body : e.end] for e in _children(data, simple)}
            if _NAME in fields and _STRING in fields:
                name = text_of(fields[_NAME].rstrip(b"\0")[:256], "a tag's name")
                found.append((name, fields[_STRING].rstrip(b"\0")))
    return found


def _all(data: bytes) -> list[tuple[str, bytes]]:
    parts = [e for e in _children(data, _segment(data)) if e.name == _TAGS]
    return [pair for element in parts for pair in _tags(data, element)]


def extract(data: bytes) -> str | None:
    """The document in a file's tags."""
    found = [value for name, value in _all(data) if name == FIELD]
    if len(found) > 1:
        raise MetadataError(f"has {len(found)} documents: one of them is false")
    return text_of(found[0], f"the tag {FIELD}") if found else None


def texts(data: bytes) -> dict[str, str]:
    """All tags by their names, in lower case; of several the first."""
    found: dict[str, str] = {}
    for name, value in _all(data):
        found.setdefault(name.lower(), text_of(value, "a tag in it"))
    return found


# --- writing ----------------------------------------------------------------------------------


def _bytes(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")


def _sized(size: int, width: int) -> bytes:
    return (size | 1 << 7 * width).to_bytes(width, "big")


def _made(name: int, body: bytes) -> bytes:
    width = next(w for w in range(1, 9) if len(body) < (1 << 7 * w) - 1)
    return _bytes(name) + _sized(len(body), width) + body


def _simple(name: str, text: str) -> bytes:
    return _made(_SIMPLE, _made(_NAME, name.encode()) + _made(_STRING, text.encode()))


def _is_ours(data: bytes, element: Element) -> bool:
    return element.name == _TAGS and any(name == FIELD for name, _ in _tags(data, element))


def _empty(size: int) -> bytes:
    """A ``Void`` of so many bytes, of 2 or more."""
    width = 1 if size < 128 else 8
    return bytes([_VOID]) + _sized(size - 1 - width, width) + bytes(size - 1 - width)


def _indexed(data: bytes, children: list[Element], at: int, segment: Element) -> bytes:
    """The file with the tags named in its index, if there is room; its length is the same."""
    head, room = (*children[:2], None, None)[:2]
    if head is None or room is None or (head.name, room.name) != (_SEEK_HEAD, _VOID):
        return data
    entries = _children(data, head)
    checked = bool(entries) and entries[0].name == _CRC
    seek = _made(
        _SEEK,
        _made(_SEEK_ID, _bytes(_TAGS)) + _made(_SEEK_AT, (at - segment.body).to_bytes(8, "big")),
    )
    old = b"".join(data[e.begin : e.end] for e in entries[checked:] if not _leads(data, e, segment))
    body = old + seek
    if checked:
        body = _made(_CRC, zlib.crc32(body).to_bytes(4, "little")) + body
    written = _made(_SEEK_HEAD, body)
    left = room.end - head.begin - len(written)
    if left < 2:
        return data
    return data[: head.begin] + written + _empty(left) + data[room.end :]


def _leads(data: bytes, entry: Element, segment: Element) -> bool:
    """Whether an entry of the index names tags that are not there (any more), as ours replaced."""
    fields = {e.name: data[e.body : e.end] for e in _children(data, entry)}
    if fields.get(_SEEK_ID) != _bytes(_TAGS):
        return False
    at = segment.body + int.from_bytes(fields.get(_SEEK_AT, b"")[:8], "big")
    return at >= segment.end or data[at : at + 4] != _bytes(_TAGS)


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The file with a document; all that positions lead to stays where it is."""
    if len(text) > MAX_TEXT:
        raise MetadataError(f"a document of {len(text)} characters is more than {MAX_TEXT}")
    segment = _segment(data)
    children = _children(data, segment)
    if children and children[0].name == _CRC:
        raise MetadataError("has a checksum of the whole: save it anew")
    body, end = data, segment.end
    for child in reversed(children):
        if not _is_ours(data, child):
            continue
        if child.end == end:
            body, end = body[: child.begin] + body[segment.end :], child.begin
        else:
            body = body[: child.begin] + _empty(child.end - child.begin) + body[child.end :]
    tags = _simple(FIELD, text) + _simple(SOURCE, said.source)
    ours = _made(_TAGS, _made(_TAG, _made(_TARGETS, b"") + tags))
    tail = data[segment.end :]
    body = body[:end] + ours
    resized = segment._replace(end=end + len(ours))
    body = _indexed(body, _children(body, resized), end, resized)
    width = segment.body - segment.begin - 4
    size = data[segment.begin + 4 : segment.body]
    if number(size, 0, width, "big", "header") != (1 << 7 * width + 1) - 1:  # it is known
        if len(body) - segment.body >= (1 << 7 * width) - 1:
            raise MetadataError("has no room for a larger size in its header: save it anew")
        size = _sized(len(body) - segment.body, width)
    return body[: segment.begin + 4] + size + body[segment.body :] + tail
