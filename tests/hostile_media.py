"""Media files that a stranger changed to do harm: how they are made, read and watched.

    python tests/hostile_media.py COUNT SEED

makes COUNT files one after the other in memory, of each kind as often as of any other, and reads
each in every way, in this one process.  It prints a JSON object of what it saw.
"""

from __future__ import annotations

import codecs
import json
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from hostile import Allowed, Sample, measured
from media_files import MADE
from mezzotint.modalities import metadata
from mezzotint.modalities.metadata import MetadataError, Said, xmp

TEXT = json.dumps({"format": 1, "options": {"prompt": "a <fox> & more"}, "files": []})
_SIZES = (0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE)
_SIZES += (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY a0 "&a;&a;&a;&a;&a;">'
_ENTITIES += "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9)) + "]>"
_PACKETS = (
    _ENTITIES + "<x>&a8;</x>",
    '<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
    '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x"> %p;]><x/>',
    "<x>" * 200_000,
    "<x>" + "<y/>" * 100_000 + "</x>",
    "<x " + " ".join(f"a{n}='{n}'" for n in range(30_000)) + "/>",
    "<x>" + "&#65;" * 100_000 + "</x>",
    f"<x xmlns:m='{xmp.OURS}'>" + "<m:document>a</m:document>" * 20_000 + "</x>",
    f"<x xmlns:m='{xmp.OURS}'><m:document>" + "<![CDATA[a]]>" * 50_000 + "</m:document></x>",
    "<x>" + "<!--" * 100_000,
    "<x a='" + "<" * 1000,
    "<rdf:Description xmlns:mezzotint=" * 20_000,
    "<?xpacket " * 50_000,
)
_JSONS = (
    b'{"asset":' + b"[" * 200_000,
    b'{"asset":{"extras":[' + b"[]," * 200_000 + b"1]}}",
    b'{"asset":{"extras":' + b'{"a":' * 900 + b"1" + b"}" * 902,
    b'{"asset":{"extras":' + b"9" * 200_000 + b"}}",
    b'{"asset":{"extras":NaN}}',
    b'{"asset":{"version":"2.0","version":"2.0"}}',
    b'{"asset":{"extras":"' + b'\\"' * 100_000,
    b'{"asset":{"extras":{"mezzotint":{"document":[1]}}}}',
    b'{"asset":{"extras":{"mezzotint":"\xff"}}}',
    b"[]",
    b"null",
)


def honest() -> dict[str, tuple[str, bytes]]:
    """Files with a document, by the name of what they are."""
    return {name: (kind, metadata.embed(make(), kind, TEXT)) for name, (kind, make) in MADE.items()}


def _change(dice: random.Random, data: bytes) -> tuple[bytes, str]:
    """One change, as a stranger might make it."""
    what = dice.randrange(8)
    near = dice.choice((64, 512, len(data)))
    at = dice.randrange(min(near, len(data)))
    if dice.random() < 0.3:  # where the metadata often are
        at = len(data) - 1 - at
    if what == 0:
        return data[:at], "cut off"
    if what == 1:
        size = dice.choice((1, 2, 4, 8))
        value = dice.choice(_SIZES) % (1 << 8 * size)
        order = dice.choice(("big", "little"))
        return data[:at] + value.to_bytes(size, order) + data[at + size :], "a size"  # type: ignore[arg-type]
    if what == 2:
        return data[:at] + dice.randbytes(dice.randrange(1, 40)) + data[at:], "more bytes"
    if what == 3:
        return data[:at] + data[at + dice.randrange(1, 60) :], "fewer bytes"
    if what == 4:
        end = at + dice.randrange(4, 400)
        return data[:end] + data[at:end] * dice.choice((1, 2, 1000)) + data[end:], "repeated"
    if what == 5:
        changed = bytearray(data)
        for _ in range(dice.randrange(1, 20)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        return bytes(changed), "bytes"
    if what == 6:
        return data[: dice.randrange(min(40, len(data)))] + bytes(
            dice.choice((64, 300_000))
        ), "zeros"
    return data[:at] + b"\xff" * dice.choice((8, 100_000)) + data[at:], "ones"


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def _made(dice: random.Random) -> tuple[str, bytes, str]:
    """What no honest program writes: packets, JSON and packed texts."""
    what = dice.randrange(4)
    if what == 0:
        raw = dice.choice(_JSONS) if dice.random() < 0.5 else _torn(dice)
        raw += b" " * (-len(raw) % 4)
        sizes = (2, 20 + len(raw), len(raw), 0x4E4F534A)
        return "GLB", b"glTF" + struct.pack("<4I", *sizes) + raw, "JSON"
    if what == 1:
        body = zlib.compress(bytes(dice.choice((100, 1 << 20, 64 << 20))))
        if dice.random() < 0.3:
            body = _change(dice, body)[0]
        key = dice.choice((b"XML:com.adobe.xmp", b"parameters", b"x"))
        chunk = (b"zTXt", key + b"\0\0" + body) if dice.random() < 0.5 else (b"iTXt", b"")
        if chunk[0] == b"iTXt":
            chunk = (b"iTXt", key + b"\0\1\0\0\0" + body)
        return "PNG", _png(chunk), "a packed text"
    packet = dice.choice(_PACKETS).encode()
    if what == 3:
        packet = _change(dice, xmp.packet(TEXT, Said()))[0]
    if dice.random() < 0.2:
        packet = packet.decode("utf-8", "replace").encode("utf-16")
    if dice.random() < 0.5:
        return "PNG", _png((b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)), "a packet"
    body = b"WAVE_PMX" + len(packet).to_bytes(4, "little") + packet + bytes(len(packet) % 2)
    return "WAV", b"RIFF" + len(body).to_bytes(4, "little") + body, "a packet"


def _torn(dice: random.Random) -> bytes:
    data = json.dumps({"asset": {"version": "2.0", "extras": {"mezzotint": {"document": TEXT}}}})
    return _change(dice, data.encode())[0]


def make(seed: int, files: dict[str, tuple[str, bytes]]) -> tuple[str, bytes, str]:
    """The kind, the bytes, and how the file of a number was changed."""
    dice = random.Random(seed)
    kinds = [*metadata.KINDS, None]
    if (wanted := kinds[seed % len(kinds)]) is None:
        return _made(dice)
    name = dice.choice([name for name, (kind, _) in files.items() if kind == wanted])
    kind, data = files[name]
    hows: list[str] = []
    for _ in range(dice.choice((1, 1, 2, 4))):
        data, how = _change(dice, data or b"\0")
        hows.append(how)
    return kind, data, f"{name}: {', '.join(hows)}"


def read_in_every_way(kind: str, data: bytes) -> int:
    """Every public way into a file; only a MetadataError may come out.  How many said no."""
    refused = 0
    for action in (
        lambda: metadata.extract(data),
        lambda: metadata.texts(data),
        lambda: metadata.extract(metadata.embed(data, kind, "new")),
    ):
        try:
            action()
        except MetadataError as error:
            text = str(error)
            assert "\n" not in text and len(text) < 300, f"not one line: {text!r}"
            refused += 1
    return refused


def run(count: int, seed: int, watch: bool = True) -> dict[str, Any]:
    """Make and read so many files: see :func:`hostile.measured`."""
    files = honest()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "latin-1"):  # imported at first use
        codecs.lookup(encoding)
    for first in range(100):
        try:
            read_in_every_way(*make(first, files)[:2])
        except Exception:
            continue

    def samples() -> Iterator[Sample]:
        for number in range(seed, seed + count):
            kind, data, how = make(number, files)
            yield Sample(f"{number} ({how})", kind, (kind, data))

    eight = Allowed("eight times", lambda given: 8 * len(given[1]))
    return measured(samples(), lambda given: read_in_every_way(*given), eight, watch)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
