"""Control networks, and what they follow, as people write them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from mezzotint.engine import hints
from mezzotint.engine.request import Control, RequestError
from mezzotint.families import controls
from mezzotint.families.model import Model
from mezzotint.modalities import image as pictures

_NUMBERS = ("strength", "from", "to")
_WRITTEN = "FILE=PICTURE, and perhaps ,canny ,strength=0.8 ,from=0 ,to=0.6"


class Wanted(NamedTuple):
    """A control network before the model is known.

    picture: what it follows; None: the request's own picture and its mask.
    hint: what makes of the picture what the network is told; mode: the kind that it is.
    """

    file: str
    picture: str | None
    hint: str | None = None
    strength: float = 1.0
    begin: float = 0.0
    end: float = 1.0
    mode: str | None = None

    def said(self) -> dict[str, object]:
        """As it is written, of files the names."""
        told = self._asdict() | {"file": Path(self.file).name, "from": self.begin, "to": self.end}
        if self.picture is not None:
            told["picture"] = Path(self.picture).name
        usual = {"strength": 1.0, "from": 0.0, "to": 1.0}
        return {
            name: value
            for name, value in told.items()
            if name not in ("begin", "end") and value is not None and value != usual.get(name)
        }

    def of(self, model: Model, size: tuple[int, int]) -> Control:
        """The network, loaded for a model, and its picture, fitted to ``(height, width)``.

        Raises:
            CheckpointError: it is no network for this model.
            ImageError: the picture is none; ValueError: a hint that it cannot be made to.
        """
        shown = None
        if self.picture is not None:
            shown = pictures.fit(pictures.open_image(self.picture), "rgb", size)
            if self.hint is not None:
                shown = hints.find(self.hint)(shown)
        hint = self.hint and hints.base(self.hint)
        network = controls.load(model, self.file, self.mode, hint)
        return Control(network, shown, self.strength, self.begin, self.end)


def wanted(text: str) -> Wanted:
    """``FILE=PICTURE``, then any of ``,HINT`` ``,strength=S`` ``,from=A`` ``,to=B`` ``,mode=M``;
    ``FILE`` without a picture is told the one that is painted over, and where.

    Raises:
        RequestError: it is written in another way; ValueError: there is no such hint.
    """
    first, *rest = text.split(",")
    file, equals, picture = first.rpartition("=")
    if not equals:
        file, picture = first, ""
    if not file or (equals and not picture):
        raise RequestError(f"{text!r}: give {_WRITTEN}")
    found: dict[str, str] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        key = name if equals else "hint"
        if key in found or (equals and name not in (*_NUMBERS, "mode")):
            raise RequestError(
                f"{part!r} of {text!r}: give a hint, strength=, from=, to= and mode=, each once"
            )
        found[key] = value if equals else name
    hint = found.get("hint")
    if hint is not None:
        hints.find(hint)
        if not picture:
            raise RequestError(f"{text!r}: {hint} is made of a picture: give {_WRITTEN}")

    def number(name: str, usual: float) -> float:
        try:
            value = float(found.get(name, usual))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise RequestError(f"{name}={found[name]} of {text!r}: give a number")
        return value

    strength, begin, end = number("strength", 1), number("from", 0), number("to", 1)
    return Wanted(file, picture or None, hint, strength, begin, end, found.get("mode"))
