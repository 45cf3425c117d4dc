"""What a stranger's file may cost: limits, and JSON that is weighed before it is read.

Every limit is several times what the largest honest release needs.  Together they keep what a
header takes in memory below 128 MiB, whatever it claims.
"""

from __future__ import annotations

import json
import re

MAX_TENSORS = 16_384  # of a file; a release of 12 B parameters has 780, one of LoKr's for it 3,000
MAX_NAME = 512  # characters of a tensor's name; honest ones have 150
_MAX_VALUES = 600_000  # of a JSON document: a tensor's entry has 13
_MAX_NESTED = 64  # tables within tables of a JSON document
_SHOWN = 80  # characters of a stranger's value in a message

_PLAIN = bytes(set(range(256)) - set(b"[]{}"))
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # possessive: never tried twice


def shown(value: object) -> str:
    """A stranger's value as a message can show it: one line, not long, whatever it is."""
    if isinstance(value, dict | list) and not (
        isinstance(value, list) and len(value) < 4 and all(isinstance(v, str) for v in value)
    ):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value[:_SHOWN]) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a key that comes twice would silently hide a tensor."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the name {shown(key)} comes twice")
        found[key] = value
    return found


def _nested(bare: bytes) -> bool:
    """Whether tables or lists lie deeper within each other than any honest ones."""
    depth = 0
    for letter in bare:
        if letter in b"[{":
            depth += 1
            if depth > _MAX_NESTED:
                return True
        elif letter in b"]}":
            depth -= 1
    return False


def parse(raw: bytes | str) -> dict[str, object]:
    """A JSON object in UTF-8.

    Its values are counted first: an empty list takes 2 bytes in a file and 64 in memory.

    Raises:
        ValueError: it is none, or has too many values; the message is one line.
    """
    raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    bare = _TEXT.sub(b"", raw)
    if (count := sum(map(bare.count, (b",", b"[", b"{")))) > _MAX_VALUES:
        raise ValueError(f"{count} values are too many for a description")
    if _nested(bare.translate(None, _PLAIN)):
        raise ValueError("its tables are nested too deeply")
    document = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def name_error(name: str) -> str | None:
    """What is wrong with a tensor's name, if anything: it will stand in messages."""
    if len(name) > MAX_NAME:
        return f"a tensor's name of {len(name)} characters is too long"
    if not name.isprintable():
        return f"the tensor name {shown(name)} has control characters"
    return None
