"""What a request of OpenAI's Images API asks for, as a wish of ours (wish.py).

Fields that it does not have but `mezzotint generate` has (`seed`, `steps`, `negative` …) are taken
too; the official client sends them as `extra_body`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mezzotint.apps.errors import suggestion
from mezzotint.apps.server import wish
from mezzotint.apps.server.given import Given
from mezzotint.apps.server.wish import WishError

MOST_PICTURES = 10
MOST_GIVEN = 16
MODEL = "icons"
QUALITIES = {
    "low": 0.5,
    "medium": 1.0,
    "high": 2.0,
    "xhigh": 3.0,
    "max": 4.0,
    "auto": 1.0,
    "standard": 1.0,
    "hd": 2.0,
}
"""How many times a model's usual steps."""
_SAID = {"auto": "medium", "standard": "medium", "hd": "high"}
_FAITHFUL = 0.4
"""Strength with input_fidelity: high; low is the usual one."""
_THEIRS = ("prompt", "model", "count", "size", "image", "mask", "reference", "format", "vary")
"""Fields of ours that theirs say."""


class Variation(BaseModel):
    """What is asked of every picture."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, max_length=256, description="default: icons")
    n: int | None = Field(None, ge=1, le=MOST_PICTURES)
    size: str | None = Field(None, max_length=32, description="WxH, auto (the model's own), 16:9")
    response_format: Literal["b64_json", "url"] | None = None
    user: str | None = Field(None, max_length=512, description="not used")
    safety_identifier: str | None = Field(None, max_length=512, description="not used")


class Generation(Variation):
    """`POST /v1/images/generations`."""

    prompt: str = Field(max_length=wish.MOST_TEXT)
    quality: str | None = Field(None, description=", ".join(QUALITIES))
    background: Literal["transparent", "opaque", "auto"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100, description="of jpeg and webp")
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=3)
    moderation: Literal["auto", "low"] | None = Field(None, description="not used")
    style: Literal["vivid", "natural"] | None = Field(None, description="vivid alone")


class Edit(Generation):
    """`POST /v1/images/edits`, beside its pictures."""

    input_fidelity: Literal["high", "low"] | None = None


def _own(body: Variation) -> dict[str, Any]:
    """The fields of ours among those that OpenAI does not have.

    Raises:
        WishError: one is neither's.
    """
    found: dict[str, Any] = {}
    known = [name for name in wish.fields() if name not in _THEIRS]
    for said, value in (body.model_extra or {}).items():
        name = said.replace("_", "-").removesuffix("[]")
        if name not in known:
            theirs = type(body).model_fields
            raise WishError(
                f"no parameter {said[:40]!r}{suggestion(name, [*theirs, *known])}", said[:40]
            )
        found[name] = True if value == "true" else value  # a form has texts only
    return found


def _size(said: str | None, picture: Given | None) -> str | None:
    """The size as ours; auto is the model's own, of an edit at the picture's aspect."""
    if said in (None, "auto"):
        return None if picture is None else picture.aspect
    return said


def quality_of(body: Variation) -> str:
    """What the answer says of the quality."""
    said = getattr(body, "quality", None) or "auto"
    return _SAID.get(said, said)


def _steps(said: str | None, about: Mapping[str, Any], model: str) -> int | None:
    """The steps of a quality.

    Raises:
        WishError: there is no such quality, or it is not known how many the model usually takes.
    """
    if said is None:
        return None
    if said not in QUALITIES:
        raise WishError(f"no quality {said[:40]!r}: {', '.join(QUALITIES)}", "quality")
    if QUALITIES[said] == 1:
        return None
    usual = about.get("usual", {}).get("steps")
    if usual is None:
        raise WishError(
            f"it is not known how many steps {model} usually takes: give steps in place of quality",
            "quality",
        )
    return max(1, round(usual * QUALITIES[said]))


def is_opaque(body: Generation, about: Mapping[str, Any]) -> bool:
    """Whether the pictures have no transparency.

    Raises:
        WishError: they shall have it and cannot.
    """
    can = bool(about.get("usual", {}).get("transparent"))
    if body.background == "transparent":
        if body.output_format == "jpeg":
            raise WishError("jpeg has no transparency: take png or webp", "background")
        if not can:
            name = body.model or MODEL
            raise WishError(f"{name} draws no transparent background", "background")
    return not can or body.background == "opaque" or body.output_format == "jpeg"


def _common(body: Variation, about: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"model": body.model or MODEL, "count": body.n or 1}
    if isinstance(body, Generation):
        if body.style == "natural":
            raise WishError("there is no style: say it in the prompt", "style")
        if body.partial_images and not body.stream:
            raise WishError("partial_images needs stream: true", "partial_images")
        if body.output_compression is not None:
            if body.output_format not in ("jpeg", "webp"):
                raise WishError("output_compression is of jpeg and webp", "output_compression")
            found["quality"] = body.output_compression
        if body.stream and body.response_format == "url":
            raise WishError("a stream has b64_json only", "response_format")
        found |= {"prompt": body.prompt, "format": body.output_format or "png"}
        found["steps"] = _steps(body.quality, about, found["model"])
        opaque = is_opaque(body, about)
        can = about.get("usual", {}).get("transparent")
        found["opaque"] = True if opaque and can and body.output_format != "jpeg" else None
    return {**found, **_own(body)}


def generation(body: Generation, about: Mapping[str, Any]) -> dict[str, Any]:
    """A wish of words alone; about: what is known of the model.

    Raises:
        WishError: it cannot be fulfilled.
    """
    return {**_common(body, about), "size": _size(body.size, None)}


def edit(
    body: Edit, about: Mapping[str, Any], pictures: list[Given], mask: Given | None
) -> dict[str, Any]:
    """A wish after pictures: the first is edited, a second one is the reference of a model that
    takes one.

    Raises:
        WishError: it cannot be fulfilled.
    """
    edits = bool(about.get("usual", {}).get("edits"))
    name = body.model or MODEL
    most = 2 if edits else 1
    if len(pictures) > most:
        raise WishError(f"{name} takes {most} of the {len(pictures)} pictures", "image")
    if mask is not None and edits:
        raise WishError(f"{name} edits by words, without a mask: leave it out", "mask")
    found = {**_common(body, about), "size": _size(body.size, pictures[0])}
    if edits and len(pictures) == 1:
        return {**found, "reference": pictures[0].id}
    found["image"] = pictures[0].id
    if edits:
        found["reference"] = pictures[1].id
    if mask is not None:
        found["mask"] = mask.id
    if body.input_fidelity == "high":
        found.setdefault("strength", _FAITHFUL)
    return found


def varied(
    body: Variation, about: Mapping[str, Any], picture: Given, recipe: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A wish for variations: of a picture that was made here by its recipe, from noise near its
    own; of others after the picture, without words.

    Raises:
        WishError: it cannot be fulfilled.
    """
    common, size = _common(body, about), _size(body.size, None)
    if recipe is not None:
        known = wish.fields()
        kept = {name: value for name, value in recipe.items() if name in known and name != "seed"}
        before = [str(recipe["vary"])] if "vary" in recipe else []
        kept["vary"] = ",".join([*before, f"{recipe['seed']}:strong"])
        said = {name: value for name, value in common.items() if name != "model"}
        return {**kept, **said, **({} if size is None else {"size": size})}
    return {"prompt": "", **common, "image": picture.id, "size": size or picture.aspect}
