"""TIFF 6.0: XMP under tag 700 (Adobe, XMP specification part 3, §1.1.4) of the first picture.

A file has its directory anywhere: the new one is written behind all else and nothing moves; what an
earlier one of ours took there is cut off.
"""

from __future__ import annotations

from typing import NamedTuple

from mezzotint.modalities.metadata import xmp
from mezzotint.modalities.metadata.common import MAX_PACKET, MetadataError, Said, number, part

MAGICS = (b"II*\0", b"MM\0*")
_TAG, _BYTE, _UNDEFINED = 700, 1, 7
_MOST_ENTRIES = 4096


class _Directory(NamedTuple):
    order: str
    at: int
    entries: list[bytes]
    following: bytes
    place: tuple[int, int] | None  # of the packet: offset, size


def _directory(data: bytes) -> _Directory:
    order = "little" if data[:2] == b"II" else "big"
    at = number(data, 4, 4, order, "header")
    if at < 8:
        raise MetadataError("is damaged in its header")
    count = number(data, at, 2, order, "directory")
    if not 1 <= count <= _MOST_ENTRIES:
        raise MetadataError(f"has a directory of {count} entries, which is none")
    raw = part(data, at + 2, 12 * count, "directory")
    following = part(data, at + 2 + 12 * count, 4, "directory")
    entries = [raw[start : start + 12] for start in range(0, len(raw), 12)]
    mine = [entry for entry in entries if number(entry, 0, 2, order, "directory") == _TAG]
    if len(mine) > 1:
        raise MetadataError(f"has {len(mine)} XMP packets: one of them is false")
    return _Directory(order, at, entries, following, _place(mine[0], order) if mine else None)


def _place(entry: bytes, order: str) -> tuple[int, int]:
    kind, size, place = (
        number(entry, at, length, order, "directory") for at, length in ((2, 2), (4, 4), (8, 4))
    )
    if kind not in (_BYTE, _UNDEFINED) or not 4 < size <= MAX_PACKET:
        raise MetadataError("is damaged in its XMP")
    return place, size


def _packet(data: bytes, found: _Directory) -> bytes | None:
    return None if found.place is None else part(data, *found.place, "XMP")


def extract(data: bytes) -> str | None:
    """The document in a TIFF's XMP."""
    packet = _packet(data, _directory(data))
    return None if packet is None else xmp.document(packet)


def _cleared(data: bytes, found: _Directory) -> bytes:
    """The file without the old packet: cut off where it is the last but its directory."""
    if found.place is None:
        return data
    place, size = found.place
    ends = found.at + 2 + 12 * len(found.entries) + 4
    if place + size <= found.at < place + size + 2 and ends == len(data):
        return data[:place]
    return data[:place] + bytes(size) + data[place + size :]


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The TIFF with a document; all else stays where it is."""
    found = _directory(data)
    order = "little" if found.order == "little" else "big"
    packet = xmp.packet(text, said, _packet(data, found))
    start = _cleared(data, found)
    start += bytes(len(start) % 2)
    place = len(start)
    at = place + len(packet) + len(packet) % 2
    if at + 12 * (len(found.entries) + 1) + 6 > 0xFFFFFFFF:
        raise MetadataError("is of 4 GiB or more, for which its format has no room")

    def written(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    mine = written(_TAG, 2) + written(_BYTE, 2) + written(len(packet), 4) + written(place, 4)
    others = [e for e in found.entries if number(e, 0, 2, order, "directory") != _TAG]
    entries = sorted([*others, mine], key=lambda e: number(e, 0, 2, order, "directory"))
    directory = written(len(entries), 2) + b"".join(entries) + found.following
    return b"".join(
        [
            *(start[:4], written(at, 4), start[8:]),
            *(packet, bytes(len(packet) % 2), directory),
        ]
    )
