"""Files of few bytes that are large when they are opened, by every way that a file comes in: they
are refused, or what is in them is, and neither the server nor its worker grows by it."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import httpx
import pytest
from attacking import TINY, Attacked
from PIL import Image
from test_api import bomb

HEADS_MB, TEXTS_MB, DECODED_MB = 60, 250, 600
"""By so much a process may grow at most: where the head alone says that a picture is too large;
where the file is of a few MB, which base64, JSON and forms keep in several copies; and where many
send the largest picture at once, of 64 megapixels: one of 256 MB, and what each of the threads that
decoded one keeps of it."""
PIXEL_BYTES = 48
"""A worker's of a picture that it looks at: the marks in the pixels are looked for in float32 of
three channels, several times over.  The largest picture, of 64 megapixels, takes 2.4 GB."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: tuple[bytes, bytes], edge: int = 8, before: bool = True) -> bytes:
    """A transparent picture with more chunks in it."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 6, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(bytes((4 * edge + 1) * edge), 1))
    more = b"".join(_chunk(*each) for each in chunks)
    inner = more + body if before else body + more
    return b"\x89PNG\r\n\x1a\n" + head + inner + _chunk(b"IEND", b"")


@cache
def packed(megabytes: int) -> bytes:
    """Zeros, packed."""
    machine = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join(machine.compress(piece) for _ in range(megabytes)) + machine.flush()


def webp(width: int, height: int, frames: int = 0) -> bytes:
    """The head of a WebP of a size."""
    still = io.BytesIO()
    Image.new("RGB", (8, 8)).save(still, "WEBP", lossless=True)
    inner = still.getvalue()[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    head = b"VP8X" + struct.pack("<I", 10) + bytes([2 if frames else 0, 0, 0, 0]) + canvas
    if frames:
        frame = bytes(6) + (7).to_bytes(3, "little") * 2 + (1).to_bytes(3, "little") + b"\0" + inner
        one = b"ANMF" + struct.pack("<I", len(frame)) + frame
        inner = b"ANIM" + struct.pack("<I", 6) + bytes(6) + one * frames
    body = b"WEBP" + head + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(width: int, height: int, *segments: bytes) -> bytes:
    """A small JPEG that says it is large, with more segments."""
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "JPEG")
    plain = data.getvalue()
    at = plain.index(b"\xff\xc0") + 5
    plain = plain[:at] + struct.pack(">HH", height, width) + plain[at + 4 :]
    return plain[:2] + b"".join(segments) + plain[2:]


def tiff(width: int, height: int, count: int = 1) -> bytes:
    """A TIFF whose one strip is said to be so large."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 64)]
    tags += [(700, 1, count, 8), (34675, 7, count, 8)] if count > 1 else []
    entries = b"".join(struct.pack("<HHII", *each) for each in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + bytes(64)


def _segment(mark: int, data: bytes) -> bytes:
    return bytes([255, mark]) + struct.pack(">H", len(data) + 2) + data


LARGE: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: bomb(50_000),
    "PNG that is a little too large": lambda: bomb(8193),
    "PNG that Pillow would take": lambda: bomb(13_000),
    "PNG of 2^31": lambda: bomb(2**31 - 1),
    "WebP": lambda: webp(50_000, 50_000),
    "WebP of 2^24": lambda: webp(2**24, 2**24),
    "WebP that moves": lambda: webp(16_384, 16_384, 500),
    "TIFF": lambda: tiff(50_000, 50_000),
    "TIFF of 2^31": lambda: tiff(2**31, 2**31),
    "JPEG": lambda: jpeg(50_000, 50_000),
    "GIF": lambda: b"GIF89a" + struct.pack("<HH", 50_000, 50_000) + bytes(3) + b"," * 99,
    "BMP": lambda: b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, 50_000, 50_000, 1, 24, 0),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="50000" height="50000"/>',
    "PSD": lambda: b"8BPS" + struct.pack(">HHHHIIHH", 1, 0, 0, 3, 50_000, 50_000, 8, 3),
}
"""Pictures of more than 64 megapixels: never taken."""

FULL: dict[str, Callable[[], bytes]] = {
    "packed text": lambda: png((b"zTXt", b"parameters\0\0" + packed(100))),
    "packed text of iTXt": lambda: png((b"iTXt", b"parameters\0\1\0\0\0" + packed(100))),
    "packed XMP": lambda: png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed(100))),
    "many packed texts": lambda: png(*[(b"zTXt", b"k%d\0\0" % n + packed(1)) for n in range(500)]),
    "packed colours": lambda: png((b"iCCP", b"icc\0\0" + packed(100))),
    "behind the picture": lambda: png((b"zTXt", b"a\0\0" + packed(100)), before=False),
    "text of spaces": lambda: png(
        (b"tEXt", b"parameters\0Steps: 1, A: 1, B: 2, c" + b" " * 10**5 + b"!")
    ),
    "text of lines": lambda: png((b"tEXt", b"parameters\0" + b"\n" * 10**5 + b"Steps: 1, a")),
    "text of quotes": lambda: png((b"tEXt", b"parameters\0Steps: 1," + b'a:",' * 10**5 + b'"')),
    "deep JSON": lambda: png((b"tEXt", b"prompt\0" + b"[" * 10**6 + b"]" * 10**6)),
    "wide JSON": lambda: png((b"tEXt", b"workflow\0[" + b"[]," * 300_000 + b"0]")),
    "large EXIF": lambda: png((b"eXIf", b"II*\0\x08\0\0\0\xff\x0f" + bytes(10**6))),
    "entities": lambda: png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LAUGHS)),
    "frames": lambda: png((b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "many chunks": lambda: png(*[(b"teSt", b"")] * 5_000),
    "TIFF of large tags": lambda: tiff(8, 8, 2**31),
    "JPEG of colours": lambda: jpeg(
        8, 8, *[_segment(0xE2, b"ICC_PROFILE\0\xff\xff" + bytes(65_000))] * 40
    ),
    "JPEG of XMP": lambda: jpeg(8, 8, *[_segment(0xE1, XMP_PART + bytes(65_000))] * 40),
    "JPEG of credentials": lambda: jpeg(
        8, 8, *[_segment(0xEB, b"JP\0\1\0\0\0\1\xff\xff\xff\xffjumb" + bytes(65_000))] * 40
    ),
}
"""Pictures whose texts, colours or chunks are large."""

LAUGHS = (
    b"<!DOCTYPE x [<!ENTITY a0 'ha'>"
    + b"".join(b"<!ENTITY a%d '%b'>" % (n + 1, b"&a%d;" % n * 10) for n in range(12))
    + b"]><x>&a12;</x>"
)
XMP_PART = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + b"\xff\xff\xff\xff\0\0\0\0"


@pytest.fixture(scope="module")
def client(attacked: Attacked) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=attacked.base, timeout=120) as found:
        yield found


class Peaks:
    """The peaks of memory of a server and its workers from now on, beside what they have now."""

    def __init__(self, server: Attacked) -> None:
        found = subprocess.run(
            ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
        )
        self._processes = [server.process.pid, *map(int, found.stdout.split())]
        self._before = [self._read(process, "VmRSS") for process in self._processes]
        for process in self._processes:
            Path(f"/proc/{process}/clear_refs").write_text("5")

    def _read(self, process: int, what: str) -> int:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) >> 10  # MB

    def more(self) -> list[int]:
        """By how many MB each has grown at most, the server first."""
        now = [self._read(process, "VmHWM") for process in self._processes]
        return [peak - before for peak, before in zip(now, self._before, strict=True)]


def sends(client: httpx.Client, data: bytes) -> Iterator[tuple[str, httpx.Response]]:
    """A file by every way in."""
    coded = base64.b64encode(data).decode()
    tiny = {"sd_model_checkpoint": TINY}
    body = {"prompt": "a", "steps": 1, "override_settings": tiny}
    small = base64.b64encode(png()).decode()
    yield "upload", client.post("/v1/uploads", content=data)
    yield "composite", client.post("/v1/composites", content=data)
    yield "png-info", client.post("/sdapi/v1/png-info", json={"image": coded})
    yield "init_images", client.post("/sdapi/v1/img2img", json={**body, "init_images": [coded]})
    with_mask = {**body, "init_images": [small], "mask": f"data:image/png;base64,{coded}"}
    yield "mask", client.post("/sdapi/v1/img2img", json=with_mask)
    wish = {"prompt": "a", "model": TINY, "steps": "1"}
    one = {"image": ("a.png", data)}
    yield "edit", client.post("/v1/images/edits", data=wish, files=one)
    both = {"image": ("a.png", png()), "mask": ("m.png", data)}
    yield "edit's mask", client.post("/v1/images/edits", data=wish, files=both)
    more = {"images": [{"image_url": f"data:image/png;base64,{coded}"}]}
    yield "edit of JSON", client.post("/v1/images/edits", json={**wish, "steps": 1, **more})


LOOKS = ("recipe", "verify", "detect", "credentials", "cutouts")


def looks(client: httpx.Client, file: str) -> Iterator[tuple[str, httpx.Response]]:
    """All that is done with a file that was taken."""
    for way in LOOKS:
        yield way, client.post(f"/v1/{way}", json={"picture": file})
    yield "like", client.get("/v1/outputs", params={"like": file})
    canvas = f"/v1/canvases/{os.urandom(16).hex()}"
    layers = {"name": "a", "document": {}, "files": [file]}
    yield "canvas", client.put(canvas, json=layers)
    yield "layer", client.get(f"{canvas}/files/{file}")
    yield "away", client.delete(canvas)


def test_pictures_that_are_too_large(attacked: Attacked, client: httpx.Client) -> None:
    peaks = Peaks(attacked)
    for name, make in LARGE.items():
        for way, answer in sends(client, make()):
            assert 400 <= answer.status_code < 500, (name, way, answer.text[:300])
    assert max(peaks.more()) < HEADS_MB, peaks.more()


@pytest.mark.parametrize("name", FULL)
def test_files_that_are_full(attacked: Attacked, client: httpx.Client, name: str) -> None:
    peaks, data = Peaks(attacked), FULL[name]()
    for way, answer in sends(client, data):
        assert answer.status_code < 500, (way, answer.text[:300])
    given = client.post("/v1/uploads", content=data)
    if given.status_code == 201:
        for way, answer in looks(client, given.json()["id"]):
            assert answer.status_code < 500, (way, answer.text[:300])
            assert str(attacked.folder) not in answer.text  # where it lies is nobody's business
            assert way != "layer" or answer.content == data
    assert max(peaks.more()) < TEXTS_MB, peaks.more()


@pytest.mark.parametrize("edge", [1024, pytest.param(8192, marks=pytest.mark.slow)])
def test_pictures_that_are_taken(attacked: Attacked, client: httpx.Client, edge: int) -> None:
    """The largest one too: minutes."""
    pixels, data = edge * edge, png(edge=edge)
    peaks = Peaks(attacked)
    for way, answer in sends(client, data):
        assert answer.status_code < 500, (way, answer.text[:300])
    for way, answer in looks(client, client.post("/v1/uploads", content=data).json()["id"]):
        assert answer.status_code < 500, (way, answer.text[:300])
    server, worker = peaks.more()
    assert server < HEADS_MB + (14 * pixels >> 20), peaks.more()
    assert worker < TEXTS_MB + (PIXEL_BYTES * pixels >> 20), peaks.more()


def test_large_pictures_at_once(attacked: Attacked, client: httpx.Client) -> None:
    """The server decodes them one after the other."""
    data, peaks = png(edge=8192), Peaks(attacked)
    coded = base64.b64encode(data).decode()
    wish, files = {"prompt": "a", "model": TINY}, {"image": png(), "mask": data}
    with ThreadPoolExecutor(6) as pool:
        jobs = [
            pool.submit(client.post, "/sdapi/v1/png-info", json={"image": coded}) for _ in range(4)
        ]
        jobs += [
            pool.submit(client.post, "/v1/images/edits", data=wish, files=files) for _ in range(4)
        ]
        assert all(job.result().status_code < 500 for job in jobs)
    server, _ = peaks.more()
    assert server < DECODED_MB, peaks.more()


JSON_MB = 350
"""60 MB of JSON with a million values, at most."""


def test_bodies_of_json_that_are_large(attacked: Attacked, client: httpx.Client) -> None:
    """Many values, long texts, deep ones: refused before they are taken apart."""
    peaks = Peaks(attacked)
    for body in (
        b'{"prompt": "a", "steps": [' + b"[]," * (20 << 20) + b"0]}",
        b'{"prompt": "a", "steps": ' + b"[" * (1 << 20) + b"]" * (1 << 20) + b"}",
        b"{" + b",".join(b'"%d":{}' % n for n in range(600_000)) + b"}",
        b'{"prompt": "' + b"x" * (10 << 20) + b'"}',
        b'{"prompt": "a", "seed": ' + b"9" * (1 << 20) + b"}",
    ):
        for route in ("/v1/jobs", "/v1/boards", "/v1/images/generations", "/sdapi/v1/txt2img"):
            answer = client.post(route, content=body, headers={"content-type": "application/json"})
            assert 400 <= answer.status_code < 500, (route, body[:30], answer.text[:300])
    server, worker = peaks.more()
    assert server < JSON_MB and worker < 20, peaks.more()
