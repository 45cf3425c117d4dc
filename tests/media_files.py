"""Small media files of every kind, made by other libraries, and how these read them back."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import resvg
import soundfile
import trimesh
from PIL import Image, PngImagePlugin


def _picture(kind: str, **options: object) -> Callable[[], bytes]:
    def made() -> bytes:
        pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)  # type: ignore[arg-type]
        return file.getvalue()

    return made


def _clear() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(2).integers(0, 256, (10, 12, 4)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, exact=True)
    return file.getvalue()


def _sound(kind: str) -> Callable[[], bytes]:
    def made() -> bytes:
        samples = np.random.default_rng(3).uniform(-1, 1, (801, 1))
        file = io.BytesIO()
        soundfile.write(file, samples, 8000, format=kind, subtype="PCM_24")
        return file.getvalue()

    return made


def _clip(kind: str, codec: str, options: dict[str, str] | None = None) -> Callable[[], bytes]:
    def made() -> bytes:
        with (
            tempfile.NamedTemporaryFile() as file,  # moving the index needs a file with a name
            av.open(file.name, "w", format=kind, options=options or {}) as container,
        ):
            container.metadata["title"] = "a title"
            stream = container.add_stream(codec, rate=Fraction(4))
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"  # type: ignore[attr-defined]
            dice = np.random.default_rng(4)
            for _ in range(4):
                pixels = dice.integers(0, 256, (32, 32, 3)).astype(np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels)):  # type: ignore[attr-defined]
                    container.mux(packet)
            for packet in stream.encode():  # type: ignore[attr-defined]
                container.mux(packet)
            container.close()
            return Path(file.name).read_bytes()

    return made


def _scene() -> bytes:
    return bytes(trimesh.creation.box((1, 2, 3)).export(file_type="glb"))


_DRAWING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8" data-a=">">'
    b'<rect width="5" height="7" fill="#3a7"/></svg>'
)
_NOTES = PngImagePlugin.PngInfo()
_NOTES.add_text("Title", "a title")
_NOTES.add_itxt("note", "füchse", zip=True)
_EXIF = Image.Exif()
_EXIF[0x010E] = "a description"

MADE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("PNG", _picture("PNG", pnginfo=_NOTES)),
    "jpeg": ("JPEG", _picture("JPEG", quality=90)),
    "jpeg, progressive, exif": ("JPEG", _picture("JPEG", progressive=True, exif=_EXIF)),
    "webp, lossless": ("WEBP", _picture("WEBP", lossless=True)),
    "webp, lossy": ("WEBP", _picture("WEBP", quality=80)),
    "webp, exif": ("WEBP", _picture("WEBP", exif=_EXIF)),
    "webp, alpha": ("WEBP", _clear),
    "tiff": ("TIFF", _picture("TIFF")),
    "tiff, packed": ("TIFF", _picture("TIFF", compression="tiff_lzw", big_tiff=False)),
    "wav": ("WAV", _sound("WAV")),
    "flac": ("FLAC", _sound("FLAC")),
    "mp4": ("MP4", _clip("mp4", "mpeg4")),
    "mp4, index first": ("MP4", _clip("mp4", "mpeg4", {"movflags": "faststart"})),
    "mp4, fragments": ("MP4", _clip("mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"})),
    "webm": ("WEBM", _clip("webm", "libvpx-vp9")),
    "matroska": ("WEBM", _clip("matroska", "mpeg4")),
    "glb": ("GLB", _scene),
    "svg": ("SVG", lambda: _DRAWING),
    "svg, comments first": ("SVG", lambda: b"\xef\xbb\xbf<!-- a > b -->\n<?a b?>" + _DRAWING),
}


def content(kind: str, data: bytes) -> list[np.ndarray]:
    """Pixels, samples, frames or vertices, by a library that is not ours."""
    if kind in ("WAV", "FLAC"):
        return [soundfile.read(io.BytesIO(data), dtype="int32")[0]]
    if kind in ("MP4", "WEBM"):
        with av.open(io.BytesIO(data)) as container:
            return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    if kind == "GLB":
        scene = trimesh.load(io.BytesIO(data), file_type="glb")
        meshes = scene.geometry.values()  # type: ignore[union-attr]
        return [array for mesh in meshes for array in (mesh.vertices, mesh.faces)]
    if kind == "SVG":
        drawn = resvg.usvg.Tree.from_str(data.decode("utf-8-sig"), resvg.usvg.Options.default())
        data = bytes(resvg.render(drawn, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    with Image.open(io.BytesIO(data)) as image:
        return [np.asarray(image)]
