"""XMP packets (ISO 16684-1): our document is one property of one namespace of our own.

    <rdf:Description rdf:about="" xmlns:mezzotint="urn:mezzotint:recipe:1#" …>
      <mezzotint:document>{"format": 1, …}</mezzotint:document>
      <Iptc4xmpExt:DigitalSourceType>…/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
      <xmp:CreatorTool>mezzotint 0.1.0</xmp:CreatorTool>
    </rdf:Description>

What other programs wrote in a packet stays as it is, byte by byte.  The parser is expat, with
handlers that refuse document types and entities; it is fed in pieces, so that no tag of a
stranger's grows beyond bounds.  Nothing that a packet names is looked up.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.parsers import expat

from mezzotint.modalities.metadata.common import MAX_PACKET, MAX_TEXT, MetadataError, Said

OURS = "urn:mezzotint:recipe:1#"
NAME = "document"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_SOURCE, _TOOL = f"{_IPTC} DigitalSourceType", f"{_XMP} CreatorTool"

_PIECE, _MOST_TAG = 64 << 10, 256 << 10
_MOST_ELEMENTS, _MOST_DEPTH = 50_000, 64
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '<?xpacket end="w"?>'
_OPEN = '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n<rdf:RDF xmlns:rdf="' + _RDF + '">\n'
_CLOSE = "</rdf:RDF>\n</x:xmpmeta>\n"
_ALL = re.compile(
    rb"<rdf:Description xmlns:mezzotint=[^<]*+(?:<(?!/?rdf:Desc)[^<]*+)*+</rdf:Description>\n?"
)
"""A description of ours, as `_description` writes it: in a text of ours every `<` is escaped."""
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Scan(NamedTuple):
    """What was found in a packet.

    about: of its first description; known: all properties; end: where </rdf:RDF> begins, or −1;
    elements: from where to where those of ours stand; tags: where tags with it as an attribute do.
    """

    text: str | None
    about: str
    known: frozenset[str]
    end: int
    elements: tuple[tuple[int, int], ...]
    tags: tuple[int, ...]


class _Reader:
    """The handlers of one parse."""

    def __init__(self) -> None:
        self.parser = parser = expat.ParserCreate("UTF-8", " ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.stop
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = self.refuse
        self.depth = self.count = 0
        self.inside = -1
        self.texts: list[str] = []
        self.parts: list[str] = []
        self.about: str | None = None
        self.known: set[str] = set()
        self.end = -1
        self.open: list[bool] = []  # whether what is open is a description right below RDF
        self.closing: list[int] = []
        self.elements: list[int] = []
        self.tags: list[int] = []

    def refuse(self, *_: object) -> None:
        raise MetadataError("its XMP declares a document type or entities, which XMP never does")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth, self.count = self.depth + 1, self.count + 1
        if self.depth > _MOST_DEPTH or self.count > _MOST_ELEMENTS:
            raise MetadataError("its XMP has too many elements, or too deeply nested ones")
        if self.inside >= 0:
            raise MetadataError("its XMP has elements in the document")
        self.known.add(name)
        if name == f"{_RDF} Description":
            self.known.update(attributes)
            about = attributes.get(f"{_RDF} about", attributes.get("about", ""))
            self.about = about if self.about is None else self.about
            if (text := attributes.get(f"{OURS} {NAME}")) is not None:
                self.texts.append(text)
                self.tags.append(self.parser.CurrentByteIndex)
        elif name == f"{OURS} {NAME}":
            self.inside = self.parser.CurrentByteIndex
            self.parser.CharacterDataHandler = self.parts.append

    def stop(self, name: str) -> None:
        self.depth -= 1
        if self.inside >= 0:
            self.texts.append("".join(self.parts))
            self.elements += [self.inside, self.parser.CurrentByteIndex]
            self.parser.CharacterDataHandler, self.inside = None, -1
            self.parts.clear()
        elif name == f"{_RDF} RDF":
            self.end = self.parser.CurrentByteIndex


def _utf8(packet: bytes) -> bytes:
    """A packet in UTF-8; some are in UTF-16, and some end with zeros."""
    if len(packet) > MAX_PACKET:
        raise MetadataError(f"its XMP is of {len(packet)} bytes: more than {MAX_PACKET}")
    try:
        if packet[:2] in (b"\xff\xfe", b"\xfe\xff"):
            packet = packet.decode("utf-16").encode()
        elif packet[:2] in (b"<\0", b"\0<"):
            order = "utf-16-le" if packet[:1] == b"<" else "utf-16-be"
            packet = packet.decode(order).encode()
    except UnicodeError:
        raise MetadataError("its XMP is no text") from None
    return packet.rstrip(b"\0")


def scan(packet: bytes) -> Scan:
    """Read a packet in UTF-8.

    Raises:
        MetadataError: it is no XML, has a document type or entities, or is beyond all bounds.
    """
    reader = _Reader()
    try:
        for at in range(0, len(packet), _PIECE):
            piece = packet[at : at + _PIECE]
            reader.parser.Parse(piece, False)
            if at + len(piece) - max(reader.parser.CurrentByteIndex, 0) > _MOST_TAG:
                raise MetadataError(f"its XMP has a tag of more than {_MOST_TAG} bytes")
        reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise MetadataError(f"its XMP is no XML: {expat.ErrorString(error.code)}") from None
    except (ValueError, UnicodeError) as error:
        if isinstance(error, MetadataError):
            raise
        raise MetadataError("its XMP is damaged") from None
    if len(reader.texts) > 1:
        raise MetadataError(f"its XMP has {len(reader.texts)} documents: one of them is false")
    pairs = tuple(zip(reader.elements[::2], reader.elements[1::2], strict=True))
    return Scan(
        text=reader.texts[0] if reader.texts else None,
        about=reader.about or "",
        known=frozenset(reader.known),
        end=reader.end,
        elements=pairs,
        tags=tuple(reader.tags),
    )


def document(packet: bytes) -> str | None:
    """The document in a packet, if there is one.

    Raises:
        MetadataError: as :func:`scan`; or there are several.
    """
    text = scan(_utf8(packet)).text
    if text is not None and len(text) > MAX_TEXT:
        raise MetadataError(f"the document in its XMP is longer than {MAX_TEXT} bytes")
    return text


# --- writing ----------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    """Text as it stands in an element, or between quotes."""
    if (match := _FORBIDDEN.search(text)) is not None:
        raise MetadataError(f"XMP has no room for the character {match[0]!r}: leave it out")
    for letter, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("\r", "#13")):
        text = text.replace(letter, f"&{name};")
    return text


def _body(text: str) -> str:
    """As `_escaped`, with quotes as they are: JSON is full of them."""
    return _escaped(text).replace("&quot;", '"')


def _description(text: str, said: Said, about: str, known: frozenset[str]) -> str:
    lines = [f"<mezzotint:{NAME}>{_body(text)}</mezzotint:{NAME}>"]
    if _SOURCE not in known:
        name = "Iptc4xmpExt:DigitalSourceType"
        lines.append(f'<{name} xmlns:Iptc4xmpExt="{_IPTC}">{_body(said.source)}</{name}>')
    if _TOOL not in known:
        name = "xmp:CreatorTool"
        lines.append(f'<{name} xmlns:xmp="{_XMP}">{_body(said.software)}</{name}>')
    head = f'xmlns:mezzotint="{OURS}" xmlns:rdf="{_RDF}" rdf:about="{_escaped(about)}"'
    return "\n".join([f"<rdf:Description {head}>", *lines, "</rdf:Description>\n"])


def without(packet: bytes) -> bytes:
    """A packet in UTF-8 without our document, all else as it is.

    Raises:
        MetadataError: as :func:`scan`.
    """
    packet = _ALL.sub(b"", _utf8(packet))
    found = scan(packet)
    for begin, end in found.elements:  # another program wrote it anew
        close = packet.find(b">", end)
        return packet[:begin] + packet[close + 1 :]
    for at in found.tags:
        tag = re.compile(rb"""<[^>"']*+(?:"[^"]*+"|'[^']*+'|[^>"']++)*+>""").match(packet, at)
        ours = re.compile(rb"""\s[^\s"'=<>]*:document\s*=\s*(?:"[^"]*+"|'[^']*+')""")
        if tag is not None:
            return packet[:at] + ours.sub(b"", tag[0]) + packet[tag.end() :]
    return packet


def added(packet: bytes, properties: str) -> bytes:
    """A packet in UTF-8 with a description of these attributes, which are ours."""
    found = scan(packet)
    if found.end < 0 or packet[found.end : found.end + 2] != b"</":
        raise MetadataError("its XMP has no place for a document: it is not what XMP is")
    about = f'xmlns:rdf="{_RDF}" rdf:about="{_escaped(found.about)}"'
    more = f"<rdf:Description {about} {properties}/>\n".encode()
    return packet[: found.end] + more + packet[found.end :]


def empty() -> bytes:
    """A packet that says nothing."""
    return (_BEGIN + _OPEN + _CLOSE + _END).encode()


def packet(text: str, said: Said, other: bytes | None = None, wrapped: bool = True) -> bytes:
    """The packet with a document.

    Args:
        other: the packet that is there; it is kept, and a document in it replaced.
        wrapped: in the processing instructions that let a program find it in any file.

    Raises:
        MetadataError: the other one cannot be read; or the text is too long, or has characters
            that XML does not.
    """
    if len(text) > MAX_TEXT:
        raise MetadataError(f"a document of {len(text)} characters is more than {MAX_TEXT}")
    if other is not None and other.strip(b"\0 \n"):
        kept = without(other)
        found = scan(kept)
        if found.end < 0 or kept[found.end : found.end + 2] != b"</":
            raise MetadataError("its XMP has no place for a document: it is not what XMP is")
        ours = _description(text, said, found.about, found.known).encode()
        return kept[: found.end] + ours + kept[found.end :]
    whole = _OPEN + _description(text, said, "", frozenset()) + _CLOSE
    return (_BEGIN + whole + _END if wrapped else whole).encode()
