"""AUTOMATIC1111's `infotext`: how a picture was made, as a text that its users know."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image
from pydantic import BaseModel

from mezzotint.apps.server import gallery, given
from mezzotint.apps.server.asking import Refusal
from mezzotint.apps.server.gallery import UploadError
from mezzotint.apps.server.wish import WishError
from mezzotint.modalities import metadata
from mezzotint.provenance.called import WEBUI_SAMPLERS, WEBUI_SPACINGS

_FIELD = re.compile(r'([A-Za-z][\w \-/.]{0,60}+):\s*+("(?:\\.|[^\\"])*+"|[^,]*+)(?:,|$)')
_MOST_FIELDS = 300
_NEGATIVE = "Negative prompt: "


class Refused(BaseModel):
    """An error in AUTOMATIC1111's form, or one of what every request passes before."""

    error: str | Refusal
    detail: str = ""
    body: str = ""
    errors: str = ""


def fields(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a picture made here, by AUTOMATIC1111's names."""
    options = recipe.get("options")
    how: Mapping[str, Any] = options if isinstance(options, dict) else {}
    sampler, spacing = str(how.get("sampler", "")), str(how.get("spacing", ""))
    found = {
        "Steps": how.get("steps"),
        "Sampler": WEBUI_SAMPLERS.get(sampler, sampler),
        "Schedule type": WEBUI_SPACINGS.get(spacing, spacing),
        "CFG scale": how.get("guidance"),
        "Seed": how.get("seed"),
        "Size": how.get("size") or recipe.get("size"),
        "Model": how.get("model"),
        "Denoising strength": how.get("strength") or how.get("enlarge-strength"),
        "Tiling": True if how.get("tile") == "both" else None,
        "Hires upscale": how.get("enlarge"),
        "Hires upscaler": "Latent" if how.get("enlarge-latent") else None,
    }
    if "enlarge" in how and found["Hires upscaler"] is None:
        found["Hires upscaler"] = "Lanczos"
    if "vary" in how:  # ours is a variation's own seed, theirs that of what is varied
        root, _, share = str(how["vary"]).rpartition(",")[2].partition(":")
        found["Variation seed"], found["Seed"] = how.get("seed"), root
        found["Variation seed strength"] = share
    found["Version"] = recipe.get("software")
    return {name: value for name, value in found.items() if value not in (None, "")}


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:"\n') else text


def infotext(recipe: Mapping[str, Any]) -> str:
    """The text of a picture made here."""
    options = recipe.get("options")
    how: Mapping[str, Any] = options if isinstance(options, dict) else {}
    lines = [str(how.get("prompt", ""))]
    if how.get("negative"):
        lines.append(f"{_NEGATIVE}{how['negative']}")
    said = ", ".join(f"{name}: {_quoted(value)}" for name, value in fields(recipe).items())
    return "\n".join([*lines, said])


def parsed(text: str) -> dict[str, str]:
    """The prompts and fields of a text, whoever wrote it."""
    lines = text.strip().split("\n")
    last = len(_FIELD.findall(lines[-1], 0, 2000)) >= 3
    head, tail = (lines[:-1], lines[-1]) if last else (lines, "")
    said: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    into = "Prompt"
    for line in head:
        if line.startswith(_NEGATIVE.strip()):
            into, line = "Negative prompt", line[len(_NEGATIVE) :]
        said[into].append(line)
    found = {name: "\n".join(lines).lstrip("\n") for name, lines in said.items()}
    for count, match in enumerate(_FIELD.finditer(tail)):
        if count == _MOST_FIELDS:
            break
        value = match[2].strip()
        if value[:1] == '"':
            try:
                value = str(json.loads(value))
            except ValueError:
                value = value.strip('"')
        found.setdefault(match[1].strip(), value)
    return found


def _texts_of_pillow(data: bytes) -> tuple[dict[str, str], object]:
    with Image.open(io.BytesIO(data)) as image:  # which is decoded, and gone on return
        found = {str(k): v for k, v in image.info.items() if isinstance(v, str)}
        return found, image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)


def texts(data: bytes) -> dict[str, str]:
    """What a picture's file says.

    Raises:
        UploadError: it is none.
    """
    gallery.kind_of(data)
    try:
        document = metadata.extract(data)
    except metadata.MetadataError as error:
        raise UploadError(f"the picture {error}") from None
    if document is not None:
        return {"parameters": document}
    with given.one_at_a_time("the picture"):
        found, comment = _texts_of_pillow(data)
    if isinstance(comment, bytes) and comment[:8] in (b"UNICODE\0", bytes(8), b"ASCII\0\0\0"):
        coding = "utf-16-be" if comment[:8] == b"UNICODE\0" else "utf-8"
        found["parameters"] = comment[8:].decode(coding, "replace").rstrip("\0")
    return found


def said(image: object) -> dict[str, Any]:
    """The texts in a picture in base64, as `png-info` tells them.

    Raises:
        WishError: it is none; UploadError: it cannot be read.
    """
    if not isinstance(image, str):
        raise WishError("image must be a picture in base64", "image")
    items = texts(given.decoded(image, "the picture"))
    info = items.get("parameters", "")
    try:
        recipe = json.loads(info)
    except (ValueError, RecursionError):
        recipe = None
    if isinstance(recipe, dict) and isinstance(recipe.get("options"), dict):
        info = infotext(recipe)
    return {"info": info, "items": items, "parameters": parsed(info) if info else {}}
