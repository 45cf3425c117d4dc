"""MP4 (ISO 14496-12): XMP in a ``uuid`` box of the file (Adobe, XMP specification part 3, §1.3.1).

The box stands behind all else, so that no offset into the media changes; one that stands before
them becomes free space.
"""

from __future__ import annotations

from typing import NamedTuple

from mezzotint.modalities.metadata import xmp
from mezzotint.modalities.metadata.common import MetadataError, Said, counted, number, part

UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")


class Box(NamedTuple):
    kind: bytes
    begin: int
    body: int
    end: int
    open: bool  # its size is 0: it goes to the end of the file


def is_kind(data: bytes) -> bool:
    return data[4:8] == b"ftyp"


def _boxes(data: bytes) -> list[Box]:
    found: list[Box] = []
    at = 0
    while at < len(data):
        counted(len(found))
        size, kind = number(data, at, 4, "big", "boxes"), part(data, at + 4, 4, "boxes")
        body, last = at + 8, size == 0
        if size == 1:
            size, body = number(data, at + 8, 8, "big", "boxes"), at + 16
        end = len(data) if last else at + size
        if end < body or end > len(data):
            raise MetadataError("is cut off or damaged in its boxes")
        found.append(Box(kind, at, body, end, last))
        at = end
    return found


def _mine(data: bytes, boxes: list[Box]) -> list[Box]:
    return [b for b in boxes if b.kind == b"uuid" and data[b.body : b.body + 16] == UUID]


def _packet(data: bytes, boxes: list[Box]) -> bytes | None:
    found = _mine(data, boxes)
    if len(found) > 1:
        raise MetadataError(f"has {len(found)} XMP packets: one of them is false")
    return data[found[0].body + 16 : found[0].end] if found else None


def extract(data: bytes) -> str | None:
    """The document in an MP4's XMP."""
    packet = _packet(data, _boxes(data))
    return None if packet is None else xmp.document(packet)


def _closed(data: bytes, box: Box) -> bytes:
    """A box that says how long it is."""
    if not box.open:
        return data[box.begin : box.end]
    size = box.end - box.begin
    if size > 0xFFFFFFFF:
        raise MetadataError("ends with a box without a size: save it anew")
    return size.to_bytes(4, "big") + data[box.begin + 4 : box.end]


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The MP4 with a document; all that offsets lead to stays where it is."""
    boxes = _boxes(data)
    packet = xmp.packet(text, said, _packet(data, boxes))
    mine = _mine(data, boxes)
    after: list[Box] = []  # the index of fragments is the last, and leads to nothing behind it
    if boxes and boxes[-1].kind == b"mfra":
        after = [boxes.pop()]
    pieces: list[bytes] = []
    for box in boxes:
        if box not in mine:
            pieces.append(_closed(data, box))
        elif box is not boxes[-1]:
            size = box.end - box.begin  # never more than 4 GiB: a packet is checked
            pieces.append(size.to_bytes(4, "big") + b"free" + bytes(size - 8))
    ours = (24 + len(packet)).to_bytes(4, "big") + b"uuid" + UUID + packet
    return b"".join([*pieces, ours, *(data[box.begin : box.end] for box in after)])
