"""GLB (glTF 2.0, §4): the document stands in ``asset.extras.mezzotint`` of the JSON chunk.

The JSON is written anew; numbers keep their values (Python's shortest forms are exact), other
chunks their bytes.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, NoReturn

from mezzotint.modalities.metadata.common import (
    MAX_TEXT,
    MetadataError,
    Said,
    number,
    part,
    text_of,
)

MAGIC = b"glTF"
KEY = "mezzotint"
_JSON = 0x4E4F534A
_MOST_JSON = 64 << 20
_MOST_VALUES, _MOST_DEPTH = 600_000, 64
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_PLAIN = bytes(set(range(256)) - set(b"[]{}"))


class _File(NamedTuple):
    document: dict[str, Any]
    rest: bytes  # the other chunks


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MetadataError("has a name twice in its JSON")
    return found


def _no(word: str) -> NoReturn:
    raise MetadataError(f"has {word} in its JSON, which is no number there")


def _parsed(raw: bytes) -> dict[str, Any]:
    """JSON, weighed before it is read: an empty list takes 2 bytes in a file and 64 in memory."""
    bare = _TEXT.sub(b"", raw)
    values = sum(map(bare.count, (b",", b"[", b"{")))
    if values > max(1000, min(_MOST_VALUES, len(raw) // 2)):
        raise MetadataError(f"has {values} values in its JSON: more than a scene has")
    depth = 0
    for letter in bare.translate(None, _PLAIN):
        depth += 1 if letter in b"[{" else -1
        if depth > _MOST_DEPTH:
            raise MetadataError("has JSON that is nested too deeply")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no)
    except MetadataError:
        raise
    except ValueError:
        raise MetadataError("has a description that is no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("asset"), dict):
        raise MetadataError("has no asset in its JSON: it is no scene")
    return found


def _opened(data: bytes) -> _File:
    version, whole, size, kind = (number(data, at, 4, "little", "header") for at in (4, 8, 12, 16))
    if version != 2:
        raise MetadataError(f"is of version {version} of GLB: only 2 is known")
    if whole > len(data) or kind != _JSON or size > _MOST_JSON or 20 + size > whole:
        raise MetadataError("is cut off or damaged in its header")
    return _File(_parsed(part(data, 20, size, "JSON").rstrip(b"\0")), data[20 + size : whole])


def extract(data: bytes) -> str | None:
    """The document in a GLB."""
    extras = _opened(data).document["asset"].get("extras")
    found = extras.get(KEY) if isinstance(extras, dict) else None
    if found is None:
        return None
    text = found.get("document") if isinstance(found, dict) else None
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise MetadataError("has a damaged document in its asset's extras")
    return text


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The GLB with a document; all other chunks as they are."""
    text_of(text.encode(), "the document")
    found = _opened(data)
    asset = found.document["asset"]
    extras = asset.setdefault("extras", {})
    if not isinstance(extras, dict):
        raise MetadataError("has extras of its asset that are no table: there is no room in them")
    extras[KEY] = {
        "document": text,
        "software": said.software,
        "digitalSourceType": said.source,
    }
    raw = json.dumps(found.document, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 4)
    whole = 20 + len(raw) + len(found.rest)
    sizes = (2, whole, len(raw), _JSON)
    head = MAGIC + b"".join(value.to_bytes(4, "little") for value in sizes)
    return head + raw + found.rest
