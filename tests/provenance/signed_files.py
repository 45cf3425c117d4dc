"""Small files of every format that is signed, each with a recipe in its metadata."""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, PngImagePlugin

from mezzotint.provenance.credentials import Claim, Ingredient, sidecar, sign
from mezzotint.provenance.identity import Identity, anchors, own

RECIPE = "seed is 7777 here"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    f'xmlns:m="urn:mezzotint" m:recipe="{RECIPE}"/></rdf:RDF></x:xmpmeta>'
)
CLAIM = Claim(
    title="a red fox",
    action="created",
    source="trainedAlgorithmicMedia",
    software="mezzotint",
    version="0.1.0",
    model="icons",
    licence="CC-BY-4.0",
    recipe="sha256:00ff",
    training="notAllowed",
)


def edit(*ingredients: Ingredient) -> Claim:
    return replace(
        CLAIM,
        action="edited",
        source="compositeWithTrainedAlgorithmicMedia",
        ingredients=ingredients,
    )


def picture(form: str, edge: int = 16) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    file, image = io.BytesIO(), Image.fromarray(pixels)
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("parameters", RECIPE)
        text.add_itxt("XML:com.adobe.xmp", XMP)
        image.save(file, form, pnginfo=text)
    elif form == "TIFF":
        image.save(file, form, tiffinfo={270: RECIPE, 700: XMP.encode()})
    else:
        image.save(file, form, xmp=XMP.encode())
    return file.getvalue()


def sound(form: str) -> bytes:
    samples = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16000, 1, format=form) as made:
        made.comment = RECIPE
        made.write(samples)
    return file.getvalue()


def clip(form: str = "mp4", codec: str = "mpeg4") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as made:
        made.metadata["comment"] = RECIPE
        stream = made.add_stream(codec, rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            pixels = np.full((32, 32, 3), 60 * number, np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        made.mux(stream.encode())
    return file.getvalue()


FILES = {
    "image/png": functools.partial(picture, "PNG"),
    "image/jpeg": functools.partial(picture, "JPEG"),
    "image/webp": functools.partial(picture, "WEBP"),
    "image/tiff": functools.partial(picture, "TIFF"),
    "audio/wav": functools.partial(sound, "WAV"),
    "audio/flac": functools.partial(sound, "FLAC"),
    "audio/mpeg": functools.partial(sound, "MP3"),
    "video/mp4": clip,
}


def signed(folder: Path) -> tuple[Identity, bytes, dict[str, bytes]]:
    """An identity, its authority, and a signed file of each format, a chain and a sidecar."""
    identity = own(folder)
    files = {mime: sign(make(), mime, CLAIM, identity) for mime, make in FILES.items()}
    part = Ingredient(files["image/png"], "image/png", "fox.png", "parentOf")
    twice = sign(picture("PNG"), "image/png", edit(part), identity)
    part = Ingredient(twice, "image/png", "fox-2.png", "parentOf")
    files["chain"] = sign(picture("JPEG"), "image/jpeg", edit(part), identity)
    files["sidecar"] = sidecar(b"glTF", CLAIM, identity)
    return identity, anchors(folder), files
