"""The key of the watermarks, and the 64 bits that they carry.

A mark is found by whoever has its key.  The default key is public, so that anyone can find the
marks of this program and make its files again; whoever wants marks of his own, which others neither
find nor forge, gives a secret key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from mezzotint.provenance.identity import configuration_folder

HASH_BITS = 48
_SECRET = 32  # bytes
_LONGEST = 4096


class KeyFileError(ValueError):
    """A file is no key of watermarks; one line that names it."""


class MarkKey(NamedTuple):
    """id: 16 bits that tell a key from others, 0 the public one; secret: 32 bytes."""

    id: int
    secret: bytes


PUBLIC = MarkKey(0, hashlib.sha256(b"mezzotint: public key of watermarks, 1").digest())


def of_secret(secret: bytes) -> MarkKey:
    """A key of one's own; its id is the start of the secret's hash, and not 0."""
    short = int.from_bytes(hashlib.sha256(b"id " + secret).digest()[:2], "big")
    return MarkKey(max(short, 1), secret)


def chosen(path: Path | None) -> MarkKey:
    """The key in a file; without one that in ``mark.key`` of the user's configuration, or the
    public one.

    Raises:
        KeyFileError: a file is none.
    """
    usual = configuration_folder() / "mark.key"
    if path is None:
        return read(usual) if usual.exists() else PUBLIC
    return read(path)


def of_id(wanted: int, path: Path | None) -> MarkKey:
    """The key of an id: the public one, that of a file, or that of the user's configuration.

    Raises:
        KeyFileError: it is none of them, or a file is no key.
    """
    found = chosen(path)
    for key in (PUBLIC, found):
        if key.id == wanted:
            return key
    raise KeyFileError(
        f"its watermarks have the secret key {wanted:04x}, which is not here: name its file with "
        "--mark-key"
    )


def read(path: Path) -> MarkKey:
    """The key in a file: 64 hexadecimal digits.

    Raises:
        KeyFileError: it cannot be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST).strip()
        secret = bytes.fromhex(text.decode("ascii"))
    except OSError as error:
        raise KeyFileError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        secret = b""
    if len(secret) != _SECRET:
        raise KeyFileError(f"{path}: is no key of watermarks: it should be 64 hexadecimal digits")
    return of_secret(secret)


def seed_hash(seed: int) -> int:
    """The first 48 bits of the SHA-256 of a seed, as decimal digits."""
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[: HASH_BITS // 8], "big")


def payload(key: MarkKey, hashed: int) -> int:
    """64 bits: 16 of the key's id, 48 of a hash."""
    return key.id << HASH_BITS | hashed
