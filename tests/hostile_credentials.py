"""Manifests that a stranger changed to do harm: how they are read, and what is watched meanwhile.

    python tests/hostile_credentials.py COUNT SEED FOLDER

changes COUNT signed files one after the other, reads each and takes it in as an input, in this one
process, which a test starts and watches: the library is native code, and could end the process.
It prints a JSON object of what it saw.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "provenance"))

from signed_files import signed

from hostile import RESIDENT, SECONDS, seconds
from mezzotint.provenance.chain import read_bytes
from mezzotint.provenance.credentials import CredentialsError, Ingredient, check
from mezzotint.provenance.identity import Identity
from mezzotint.provenance.manifest_store import MARK

_LENGTHS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\0\0\0\x08")
_CBOR = (0x1B, 0x3B, 0x5B, 0x5F, 0x7B, 0x7F, 0x9B, 0x9F, 0xBB, 0xBF, 0xC1, 0xFB, 0xFF)
_TEXTS = (b"http://127.0.0.1:9/", b"../../../x", b"\x1b[2J\n\0", b"file:///etc/passwd", b"{}[]\"'")


# --- built to be as bad as can be -------------------------------------------------------------


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data


def _boxes(letters: bytes, label: bytes, *inner: bytes) -> bytes:
    kind = letters + bytes.fromhex("00110010800000aa00389b71")
    return _box(b"jumb", _box(b"jumd", kind + b"\x03" + label + b"\0") + b"".join(inner))


def _store(claim: bytes, *assertions: bytes) -> bytes:
    return _boxes(
        b"c2pa",
        b"c2pa",
        _boxes(
            b"c2ma",
            b"urn:c2pa:7d7c2fae-8ee8-4a4d-a38b-616812fc7c9f",
            _boxes(b"c2as", b"c2pa.assertions", *assertions),
            _boxes(b"c2cl", b"c2pa.claim.v2", _box(b"cbor", claim)),
            _boxes(b"c2cs", b"c2pa.signature", _box(b"cbor", b"\xd2\x84\x40\xa0\xf6\x40")),
        ),
    )


def _nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = _boxes(b"c2as", b"x", inner)
    return _boxes(b"c2pa", b"c2pa", inner)


def _cbor(data: bytes, label: bytes = b"c2pa.actions.v2") -> bytes:
    return _boxes(b"cbor", label, _box(b"cbor", data))


BUILT = {
    "boxes 5,000 deep": lambda: _nested(5000),
    "lists a million deep": lambda: _store(b"\x81" * 10**6, _cbor(b"\x81" * 10**6)),
    "tags a million deep": lambda: _store(b"\xc1" * 10**6, _cbor(b"\xc1" * 10**6)),
    "lists without an end": lambda: _store(b"\x9f" * 10**6, _cbor(b"\x9f" * 10**6)),
    "a list that claims 2^63": lambda: _store(b"\x9b\x7f" + b"\xff" * 7),
    "a table that claims 2^31": lambda: _store(b"\xbb\0\0\0\0\x7f\xff\xff\xff"),
    "a text that claims 2^31": lambda: _store(b"\x7b\0\0\0\0\x7f\xff\xff\xff"),
    "an assertion's text that claims 2^31": lambda: _store(b"\xa0", _cbor(b"\x7a\x7f\xff\xff\xff")),
    "JSON a million deep": lambda: _store(
        b"\xa0", _boxes(b"json", b"stds.schema", _box(b"json", b"[" * 10**6))
    ),
    "20,000 assertions": lambda: _store(
        b"\xa0", *(_cbor(b"\xa0", b"a%d" % n) for n in range(20_000))
    ),
    "a long label": lambda: _store(b"\xa0", _cbor(b"\xa0", b"x" * 10**6)),
}
"""Stores that no program writes."""


def in_png(png: bytes, store: bytes) -> bytes:
    """A signed PNG with another store in place of its own."""
    at = png.index(b"caBX") - 4
    (length,) = struct.unpack(">I", png[at : at + 4])
    chunk = b"caBX" + store
    chunk = struct.pack(">I", len(store)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:at] + chunk + png[at + 12 + length :]


# --- changed ----------------------------------------------------------------------------------


def changed(dice: random.Random, data: bytes) -> bytes:
    """A file with some changes, mostly in its manifest."""
    found = bytearray(data)
    begin = max(0, data.find(MARK) - 40)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        size = max(1, len(found))
        at = dice.randrange(begin, begin + 20_000) if dice.random() < 0.8 else dice.randrange(size)
        at %= size
        match dice.randrange(8):
            case 0:
                found[at : at + 1] = bytes([found[at] ^ 1 << dice.randrange(8)]) if found else b""
            case 1:
                found[at : at + 1] = bytes([dice.choice(_CBOR)])
            case 2:
                found[at : at + 4] = dice.choice(_LENGTHS)
            case 3:
                other = dice.randrange(size)
                found[at : at + 16] = found[other : other + 16]
            case 4:
                del found[at : at + dice.choice((1, 4, 100))]
            case 5:
                found[at:at] = dice.randbytes(dice.choice((1, 4, 50)))
            case 6:
                text = dice.choice(_TEXTS)
                found[at : at + len(text)] = text
            case _:
                found[at:at] = b"\x81" * dice.choice((10, 1000, 100_000))
    return bytes(found)


def read_in_every_way(
    data: bytes, beside: bytes | None, anchor: bytes, identity: Identity | None
) -> str:
    """What comes out; only a CredentialsError may be raised, in one line."""
    state = "none"
    try:
        found = read_bytes(data, beside, anchor)
        if found is not None:
            state = found.state
            assert all(c.isprintable() for c in repr(found)), "control characters"
    except CredentialsError as error:
        state = "refused"
        assert str(error).isprintable() and len(str(error)) < 400, f"not one line: {error!r}"
    if identity is not None:
        try:
            check(Ingredient(data, "image/png", "input.png", "parentOf"), identity)
        except CredentialsError as error:
            assert str(error).isprintable() and len(str(error)) < 400, f"not one line: {error!r}"
    return state


def run(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Make and read so many files; what came out, the worst, and all failures."""
    identity, anchor, files = signed(folder)
    failures: list[str] = []
    states, worst = Counter[str](), (0.0, "")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = sorted(files)
    for number in range(seed, seed + count):
        dice = random.Random(number)
        name = names[number % len(names)]
        data = changed(dice, files[name])
        pair = (b"glTF", data) if name == "sidecar" else (data, None)
        began = time.process_time()
        try:
            state = read_in_every_way(*pair, anchor, identity if number % 2 else None)
        except BaseException as error:  # whatever it is, it is a find
            failures.append(f"{number} ({name}): {type(error).__name__}: {error}"[:500])
            continue
        states[state] += 1
        taken = time.process_time() - began
        worst = max(worst, (taken, f"{number} ({name})"))
        if taken > SECONDS and taken > seconds():
            failures.append(f"{number} ({name}): {taken:.2f} s")
    for what, make in BUILT.items():
        for data in (in_png(files["image/png"], make()), make()):
            state = read_in_every_way(data, None, anchor, identity)
            if state not in ("refused", "invalid", "none"):
                failures.append(f"{what}: {state}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > RESIDENT:
        failures.append(f"the process has grown by {grown} bytes")
    return {
        "files": count,
        "states": dict(states),
        "worst": worst,
        "grown": grown,
        "failures": failures,
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
