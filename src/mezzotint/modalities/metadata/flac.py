"""FLAC (RFC 9639): the document is a Vorbis comment ``MEZZOTINT_RECIPE``, as every player shows.

An ID3 tag may stand before the file, as Content Credentials do: it stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from mezzotint.modalities.metadata.common import (
    MAX_TEXT,
    MetadataError,
    Said,
    counted,
    number,
    part,
    text_of,
)

MAGIC = b"fLaC"
FIELD, SOURCE = "MEZZOTINT_RECIPE", "DIGITALSOURCETYPE"
_COMMENTS, _LAST = 4, 0x80
_MOST_BLOCK = (1 << 24) - 1
_MOST_FIELDS = 10_000
_MOST_PARTS = 4096


class Block(NamedTuple):
    kind: int
    body: bytes


def _start(data: bytes) -> int:
    """Where the file begins: behind an ID3v2 tag, if there is one (ID3v2.4, §3.1)."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:  # seven bits each
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if data[5] & 0x10 else 0)


def is_kind(data: bytes) -> bool:
    return data.startswith(MAGIC, _start(data))


def _blocks(data: bytes) -> tuple[list[Block], int]:
    """The blocks of metadata, and where the sound begins."""
    found: list[Block] = []
    at, last = _start(data) + 4, False
    while not last:
        counted(len(found), _MOST_PARTS)
        head = number(data, at, 1, "big", "metadata")
        size = number(data, at + 1, 3, "big", "metadata")
        found.append(Block(head & ~_LAST, part(data, at + 4, size, "metadata")))
        last = bool(head & _LAST)
        at += 4 + size
    if found[0].kind != 0 or len(found[0].body) != 34:
        raise MetadataError("is no FLAC: it does not begin with its stream's description")
    return found, at


def _comments(body: bytes) -> tuple[bytes, list[bytes]]:
    """The vendor and the fields, ``NAME=value``, of a Vorbis comment."""
    size = number(body, 0, 4, "little", "comments")
    vendor = part(body, 4, size, "comments")
    at = 4 + size
    count = number(body, at, 4, "little", "comments")
    at += 4
    if count > _MOST_FIELDS:
        raise MetadataError(f"has {count} comments: more than {_MOST_FIELDS}")
    fields: list[bytes] = []
    for _ in range(count):
        length = number(body, at, 4, "little", "comments")
        fields.append(part(body, at + 4, length, "comments"))
        at += 4 + length
    return vendor, fields


def _named(field: bytes, name: str) -> bool:
    return field[: len(name) + 1].upper() == f"{name}=".encode()


def _fields(blocks: list[Block]) -> tuple[bytes, list[bytes]]:
    found = [block.body for block in blocks if block.kind == _COMMENTS]
    if len(found) > 1:
        raise MetadataError(f"has {len(found)} blocks of comments, and may have one")
    return _comments(found[0]) if found else (b"", [])


def extract(data: bytes) -> str | None:
    """The document in a FLAC's comments."""
    _, fields = _fields(_blocks(data)[0])
    found = [field for field in fields if _named(field, FIELD)]
    if len(found) > 1:
        raise MetadataError(f"has {len(found)} documents: one of them is false")
    return text_of(found[0][len(FIELD) + 1 :], f"the comment {FIELD}") if found else None


def texts(data: bytes) -> dict[str, str]:
    """All comments by their names, in lower case; of several the first."""
    found: dict[str, str] = {}
    for field in _fields(_blocks(data)[0])[1]:
        name, sign, value = field.partition(b"=")
        if sign and name.isascii():
            found.setdefault(name.decode().lower(), text_of(value, "a comment in it"))
    return found


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The FLAC with a document; all other blocks and comments as they are."""
    blocks, sound = _blocks(data)
    vendor, fields = _fields(blocks)
    kept = [field for field in fields if not _named(field, FIELD)]
    kept.append(f"{FIELD}={text}".encode())
    if not any(_named(field, SOURCE) for field in kept):
        kept.append(f"{SOURCE}={said.source}".encode())
    sized = [len(field).to_bytes(4, "little") + field for field in kept]
    vendor = vendor or said.software.encode()
    head = len(vendor).to_bytes(4, "little") + vendor + len(kept).to_bytes(4, "little")
    body = b"".join([head, *sized])
    if len(body) > _MOST_BLOCK or len(text) > MAX_TEXT:
        raise MetadataError(f"has no room for a document of {len(text)} characters: 16 MiB are it")
    written = [Block(_COMMENTS, body) if block.kind == _COMMENTS else block for block in blocks]
    if not any(block.kind == _COMMENTS for block in blocks):
        written.insert(1, Block(_COMMENTS, body))
    pieces = [data[: _start(data) + 4]]
    for number_, block in enumerate(written, start=1):
        kind = block.kind | (_LAST if number_ == len(written) else 0)
        pieces += [bytes([kind]), len(block.body).to_bytes(3, "big"), block.body]
    return b"".join([*pieces, data[sound:]])
