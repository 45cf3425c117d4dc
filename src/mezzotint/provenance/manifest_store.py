"""The bytes of a manifest store that no signature covers: they must be what they have to be.

A store is made of boxes (JUMBF, ISO/IEC 19566-5).  The assertions and the claim are hashed and
signed, and the signature of an input's manifest too; the descriptions of the boxes around them, the
boxes' lengths, and the zeros with which the file's own signature is filled up are not.  Changing
them changes nothing that is stated, and the library does not look; here a change is found all the
same, so that no byte of the credentials can be changed unnoticed, or used to carry something else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

MARK = b"jumdc2pa"
"""How the description of a manifest store begins, in whatever file it is."""
_TAIL = bytes.fromhex("00110010800000aa00389b71")
"""The end of the type of a box whose first four letters say what it is."""
_MANIFESTS = (b"c2ma", b"c2um", b"c2cm")
_PARTS = {
    b"c2as": (b"c2pa.assertions",),
    b"c2cl": (b"c2pa.claim", b"c2pa.claim.v2"),
    b"c2cs": (b"c2pa.signature",),
    b"c2vc": (b"c2pa.credentials",),
}
"""Types of the boxes of a manifest, and their labels."""
_NAMED = 3  # a box that can be asked for, and has a label
_DEPTH = 32


class LooseError(ValueError):
    """A byte that no signature covers is not what it must be; in words."""


def find(data: bytes) -> bytes | None:
    """The store in a file, or in a sidecar; None if there is none, or in pieces (GIF).

    Raises:
        LooseError: it is cut off, or the chunk of a PNG in which it lies is damaged.
    """
    begin = data.find(MARK) - 12
    return _at(data, begin) if begin >= 0 else None


def claims(data: bytes) -> None:
    """Raise unless all that a file's manifests claim to hold is there.

    The library takes memory as a text of CBOR claims to be long: gigabytes for a file of 6 kB.

    Raises:
        LooseError: a value is longer than its box, or manifests are compressed, which is not read.
    """
    at = data.find(MARK)
    while at >= 0:
        store = _at(data, at - 12, strict=False) if at >= 12 else None
        if store is not None:
            _claims(store, _DEPTH)
        at = data.find(MARK, at + 1)


def _claims(boxes: bytes, depth: int) -> None:
    if not depth:
        raise LooseError("boxes are nested too deeply")
    for kind, content in _boxes(boxes):
        if kind == b"jumb":
            _claims(content, depth - 1)
        elif kind == b"brob":
            raise LooseError("they are compressed, which is not read")
        elif kind == b"cbor":
            at = 0
            while at < len(content):  # heads follow each other, whatever is nested in what
                short = content[at] & 31
                if short == 31:  # of no stated length, or the end of one
                    at += 1
                    continue
                major, argument, at = _head(content, at)
                if major in (2, 3):
                    at += argument
            if at > len(content):
                raise LooseError("a value is longer than its box")


def _at(data: bytes, begin: int, strict: bool = True) -> bytes | None:
    """The store that begins there; strict: the checksum around it must be right."""
    if begin + 12 > len(data):
        return None
    (length,) = struct.unpack(">I", data[begin : begin + 4])
    if strict and data[begin - 4 : begin] == b"caBX":
        return _of_png(data, begin)
    if data[:2] == b"\xff\xd8" and data[begin - 12 : begin - 10] == b"\xff\xeb":
        return _of_jpeg(data, begin - 12)
    if begin + length > len(data):
        if data[:3] == b"GIF":  # cuts what it holds into blocks of 255 bytes
            return None
        raise LooseError("the length of a box is wrong")
    return data[begin : begin + length]


def _of_png(data: bytes, begin: int) -> bytes:
    """The chunk ``caBX``: length, type, the store, checksum."""
    (length,) = struct.unpack(">I", data[begin - 8 : begin - 4])
    checksum = zlib.crc32(data[begin - 4 : begin + length]).to_bytes(4, "big")
    if data[begin + length : begin + length + 4] != checksum:
        raise LooseError("the checksum of their chunk is wrong")
    return data[begin : begin + length]


def _of_jpeg(data: bytes, begin: int) -> bytes:
    """The segments APP11: length, ``JP``, box number, count from 1, and a part of the box, which
    after the first begins with the box's length and type again."""
    store = b""
    number = data[begin + 6 : begin + 8]
    for count in range(1, 1 << 16):
        marker, length = struct.unpack(">HH", data[begin : begin + 4].ljust(4, b"\0"))
        same = data[begin + 4 : begin + 8] == b"JP" + number
        if marker != 0xFFEB or not same or data[begin + 8 : begin + 12] != struct.pack(">I", count):
            break
        end = begin + 2 + length
        store += data[begin + 12 + (8 if count > 1 else 0) : end]
        begin = end
    return store


# --- boxes ------------------------------------------------------------------------------------


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents of boxes that fill ``data`` exactly."""
    at = 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8].ljust(8, b"\0"))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", data[at + 8 : at + 16].ljust(8, b"\0"))
            head = 16
        if length < head or at + length > len(data):
            raise LooseError("the length of a box is wrong")
        yield kind, data[at + head : at + length]
        at += length


def _described(data: bytes) -> tuple[bytes, int, bytes, list[tuple[bytes, bytes]]]:
    """Type, toggles and label of a box of boxes, and what is in it."""
    inner = list(_boxes(data))
    if not inner or inner[0][0] != b"jumd" or len(inner[0][1]) < 18:
        raise LooseError("a box has no description")
    description = inner[0][1]
    label = description[17:].partition(b"\0")[0]
    return description[:16], description[16], label, inner[1:]


def check(store: bytes) -> None:
    """Raise unless all that no signature covers is as it must be.

    Raises:
        LooseError: it is not; in words.
    """
    outer = list(_boxes(store))
    if len(outer) != 1 or outer[0][0] != b"jumb":
        raise LooseError("there is more than the credentials in their place")
    kind, toggles, label, manifests = _described(outer[0][1])
    _check_description(kind, toggles, (b"c2pa",))
    if label != b"c2pa":
        raise LooseError("the label of a box is wrong")
    if not manifests or {name for name, _ in manifests} != {b"jumb"}:
        raise LooseError("there is more than manifests in their place")
    for number, (_, manifest) in enumerate(manifests, start=1):
        kind, toggles, _, parts = _described(manifest)
        _check_description(kind, toggles, _MANIFESTS)
        last = number == len(manifests)  # the file's own; the filling of others is hashed
        for name, part in parts:
            if name == b"jumb":
                _check_part(part, last)


def _check_part(part: bytes, last: bool) -> None:
    kind, toggles, label, inner = _described(part)
    named = [letters for letters, labels in _PARTS.items() if label in labels]
    if not named and kind[:4] not in _PARTS:
        return  # another program's
    _check_description(kind, toggles, tuple(named))
    if label == b"c2pa.signature" and last:
        if [name for name, _ in inner] != [b"cbor"]:
            raise LooseError("there is more than a signature in its place")
        _check_signature(inner[0][1])


def _check_description(kind: bytes, toggles: int, allowed: tuple[bytes, ...]) -> None:
    if kind[:4] not in allowed or kind[4:] != _TAIL or toggles & _NAMED != _NAMED:
        raise LooseError("the description of a box is wrong")


# --- the signature ----------------------------------------------------------------------------


def _check_signature(raw: bytes) -> None:
    """COSE_Sign1 (RFC 9052, section 4.2): protected header, other header, payload, signature."""
    value, end = _item(raw, 0, _DEPTH)
    if end != len(raw) or not isinstance(value, list) or len(value) != 4:
        raise LooseError("there is more than a signature in its place")
    header = value[1]
    if not isinstance(header, dict) or value[2] is not None:  # the claim stands elsewhere
        raise LooseError("the header of the signature is wrong")
    for name, filled in header.items():
        empty = isinstance(filled, bytes) and not filled.strip(b"\0")
        if (name in ("pad", "pad2")) != empty:  # C2PA specification 2.2, section 13.2.4
            raise LooseError("the filling of the signature is not empty")


def _head(raw: bytes, at: int) -> tuple[int, int, int]:
    """Major type and argument of a CBOR item (RFC 8949, section 3), and where its content is."""
    if at >= len(raw):
        raise LooseError("a value is cut off")
    major, short = raw[at] >> 5, raw[at] & 31
    if short < 24:
        return major, short, at + 1
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(short)
    if size is None or at + 1 + size > len(raw):
        raise LooseError("a value is not written as it must be")
    return major, int.from_bytes(raw[at + 1 : at + 1 + size], "big"), at + 1 + size


def _item(raw: bytes, at: int, depth: int) -> tuple[Any, int]:
    """A CBOR item of definite length, and where it ends; a tag is passed over."""
    major, argument, at = _head(raw, at)
    if not depth:
        raise LooseError("the signature is nested too deeply")
    if major == 7:
        return (None if argument == 22 else ...), at
    if major in (0, 1):
        return (argument if major == 0 else -1 - argument), at
    if major in (2, 3):
        end = at + argument
        if end > len(raw):
            raise LooseError("the signature is cut off")
        text = raw[at:end]
        return (text if major == 2 else text.decode("utf-8", "replace")), end
    if major == 6:
        return _item(raw, at, depth - 1)
    values: list[Any] = []
    for _ in range(argument * (2 if major == 5 else 1)):
        value, at = _item(raw, at, depth - 1)
        values.append(value)
    if major == 4:
        return values, at
    keys = [key if isinstance(key, int | str | bytes) else None for key in values[::2]]
    return dict(zip(keys, values[1::2], strict=True)), at
