"""SVG: the document stands in an XMP packet in a ``<metadata>`` right behind the first tag.

The file is not read as XML, only its beginning and the packet are; a packet of another program
stays where it is.
"""

from __future__ import annotations

import re

from mezzotint.modalities.metadata import xmp
from mezzotint.modalities.metadata.common import MetadataError, Said

_PROLOGUE = re.compile(rb"\xef\xbb\xbf|\s+|<\?(?!xpacket)[^?]*+(?:\?(?!>)[^?]*+)*+\?>")
_COMMENT = re.compile(rb"<!--[^-]*+(?:-(?!->)[^-]*+)*+-->")
_ROOT = re.compile(rb"""<svg(?=[\s>/])[^>"']*+(?:"[^"]*+"|'[^']*+'|[^>"']++)*+>""")
_SIGNER = b' xmlns:c2pa="http://c2pa.org/manifest"'
_MOST_HEAD = 64 << 10


def _root(data: bytes) -> re.Match[bytes] | None:
    """The tag that the drawing begins with; None: it is no SVG."""
    at = 0
    while found := _PROLOGUE.match(data, at, _MOST_HEAD) or _COMMENT.match(data, at, _MOST_HEAD):
        at = found.end()
    return _ROOT.match(data, at, at + _MOST_HEAD)


def is_kind(data: bytes) -> bool:
    """Whether the bytes begin as an SVG does."""
    return data[:3] in (b"<sv", b"<?x", b"<!-", b"\xef\xbb\xbf") and _root(data) is not None


def _between(data: bytes, begin: bytes, last: bytes) -> tuple[int, int] | None:
    """From where to where the first part lies that begins and ends so."""
    start = data.find(begin)
    near = -1 if start < 0 else data.find(last, start)
    end = -1 if near < 0 else data.find(b">", near)
    return None if end < 0 else (start, end + 1)


def _packet(data: bytes) -> tuple[int, int] | None:
    """Where the XMP packet lies.

    Raises:
        MetadataError: there are several.
    """
    found = _between(data, b"<?xpacket begin=", b"<?xpacket end=")
    if found is not None and b"<?xpacket begin=" in data[found[0] + 1 :]:
        raise MetadataError("has two XMP packets: one of them is false")
    return found


def extract(data: bytes) -> str | None:
    """The document in an SVG."""
    found = _packet(data)
    return None if found is None else xmp.document(data[slice(*found)])


def embed(data: bytes, text: str, said: Said) -> bytes:
    """The SVG with a document; all else as it is."""
    found = _packet(data)
    if found is not None:
        packet = xmp.packet(text, said, data[slice(*found)])
        return data[: found[0]] + packet + data[found[1] :]
    root = _root(data)
    if root is None or root[0].endswith(b"/>"):
        raise MetadataError("has no place for a document: its first tag is closed at once")
    more = b"\n<metadata>" + xmp.packet(text, said) + b"</metadata>"
    return data[: root.end()] + more + data[root.end() :]


def drawing(data: bytes) -> bytes:
    """What is drawn: the SVG without its metadata, and without the name that a signer gives to its
    own."""
    root = _root(data)
    end = 0 if root is None else root.end()
    head, body = data[:end].replace(_SIGNER, b""), data[end:].lstrip()
    while body.startswith(b"<metadata"):
        found = _between(body, b"<metadata", b"</metadata")
        if found is None:
            break
        body = body[found[1] :].lstrip()
    return head + body
