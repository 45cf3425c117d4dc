"""Addresses of pictures that need no token, for an hour: signed with a key of this server."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

SECONDS = 3600
_KEY_BYTES = 32


def key(folder: Path) -> bytes:
    """The key in a server's folder of data, made when there is none; its user alone may read it."""
    path = folder / "links.key"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        found = path.read_bytes()
        if len(found) == _KEY_BYTES:
            return found
        path.unlink()  # it was being written when the power went
        return key(folder)
    made = secrets.token_bytes(_KEY_BYTES)
    with os.fdopen(handle, "wb") as file:
        file.write(made)
    return made


def _sum(secret: bytes, name: str, until: int) -> str:
    return hmac.new(secret, f"{name} {until}".encode(), hashlib.sha256).hexdigest()


def signed(secret: bytes, name: str) -> str:
    """The query of an address of an output."""
    until = int(time.time()) + SECONDS
    return f"until={until}&signed={_sum(secret, name, until)}"


def is_signed(secret: bytes, name: str, until: int, said: str) -> bool:
    """Whether a query is of this server, and not too old."""
    return hmac.compare_digest(_sum(secret, name, until), said) and time.time() < until
