"""What a job may ask for: options of `mezzotint generate` as JSON, where files are names.

    {"prompt": "a fox", "model": "icons", "count": 4, "seed": 7, "size": "16:9",
     "lora": ["ink:0.8"], "image": "<id of an upload or an output>", "strength": 0.6}

Names are those of a recipe (docs/recipes.md), with - or _; values are texts, numbers, lists of
them, and true.  A name of weights is one in the server's folders, and of a picture an id; what has
a path in it is refused here, before anything looks at a disk, and looked up by the worker.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mezzotint.apps.cli import parse
from mezzotint.apps.errors import UsageError, suggestion
from mezzotint.apps.options import generate
from mezzotint.families.sizes import Aspect

SEEDS = 2**32
MOST_PICTURES = 64
MOST_TEXT = 10_000
MOST_STEPS = 1000
"""Of one picture: as many as a model is trained on, and more make no better one."""
FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG", "tiff": "TIFF"}

_OURS = frozenset(
    {
        *("output", "source", "from", "pick", "quiet", "preview", "sidecar", "mark-key"),
        *(
            "server",
            "grid",
            "lora-dir",
            "embedding-dir",
            "wildcards",
            "device",
            "memory",
            "threads",
            "help",
        ),
        *("credentials", "watermark", "part", "family", "ip-adapter", "image-encoder"),
    }
)
"""Options of who runs the server, not of who asks."""
WEIGHTS = ("model", "refiner", "lora", "embedding")
PICTURES = ("image", "mask", "reference")
_MIXED = ("control", "region", "image-prompt")
"""Options with names of files and more in one text."""
_LATER = ("control", "region")
"""Whose reading takes what only a worker has loaded: it says what is wrong with them."""
_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")


class WishError(ValueError):
    """A wish that nobody can fulfil; one line that names the field and the remedy."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def batch_of(model: str, precision: str) -> str:
    """A short name of what is loaded: of a model by its file's name, and in which numbers."""
    return hashlib.sha256(json.dumps([model, precision]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wish:
    """A wish that is understood: options as a recipe has them, with a seed, and the ids in them.

    quality: of a format that stores with loss, 0 to 100; None: as well as it is usual.
    pictures: by the name that an option gives it, the id of an upload or an output.
    """

    options: dict[str, Any]
    count: int
    format: str
    quality: int | None
    pictures: tuple[str, ...]
    steps: int | None
    pixels: int | None

    @property
    def batch(self) -> str:
        """Wishes that have the same are made with the same model in memory."""
        model = self.options.get("model", "icons")
        return batch_of(str(model), str(self.options.get("precision", "auto")))

    def as_json(self) -> dict[str, Any]:
        pictures = list(self.pictures)
        return {
            "options": self.options,
            "format": self.format,
            "quality": self.quality,
            "pictures": pictures,
        }


@lru_cache
def _actions() -> dict[str, argparse.Action]:
    """The options of `generate` by their names."""
    parser = argparse.ArgumentParser()
    generate(parser)
    found = {action.dest.replace("_", "-"): action for action in parser._actions}
    return {name: action for name, action in found.items() if name not in _OURS}


def fields() -> dict[str, str]:
    """What may be asked for, and what it means."""
    return {name: str(action.help) for name, action in _actions().items()}


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WishError(f"{name} must be a text or a number", name)
    text = str(value)
    if len(text) > MOST_TEXT:
        raise WishError(f"{name} has {len(text):,} characters: at most {MOST_TEXT:,}", name)
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise WishError(f"{name} has characters that are not to be seen: leave them out", name)
    return text


def _value(name: str, action: argparse.Action, value: object) -> str | list[str] | bool:
    """The value of a field as a recipe has it."""
    if action.nargs == 0:
        if value is not True:
            raise WishError(f"{name} must be true, or be left out", name)
        return True
    if isinstance(action.default, list):
        several = value if isinstance(value, list) else [value]
        if len(several) > MOST_PICTURES:
            raise WishError(f"{name} has {len(several)} values: at most {MOST_PICTURES}", name)
        return [_text(name, each) for each in several]
    return _text(name, value)


_NO_NAME = re.compile(r"[/\\\x00]|\.\.|^[.~]|^$")


def _is_name(text: str) -> bool:
    return _NO_NAME.search(text) is None


def _files(name: str, text: str) -> list[str]:
    """The names of files in the value of an option; all of the text where it has nothing else."""
    if name in ("lora", "image-prompt"):
        return [text, text.partition(":")[0]]
    if name == "embedding":
        return [text, text.partition("=")[0]]
    if name == "control":
        return text.partition(",")[0].split("=")
    if name == "region":  # a box, or a mask with , and =
        where = text.partition("=")[0]
        return [] if re.match(r"[\d.\s]+,", where) else [where.partition(",")[0]]
    return [text]


def _quality(value: object, form: str) -> int | None:
    if value is None:
        return None
    if form not in ("jpeg", "webp"):
        raise WishError("quality is of the formats jpeg and webp", "quality")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise WishError("quality must be a whole number from 0 to 100", "quality")
    return value


def read(body: Mapping[str, object]) -> Wish:
    """A wish from JSON; a seed is drawn if none is given, so the job makes the same whenever it
    runs.

    Raises:
        WishError: a field is not known, or cannot be.
    """
    given = {name.replace("_", "-"): value for name, value in body.items() if value is not None}
    form = given.pop("format", "png")
    if form not in FORMATS:
        raise WishError(f"no format {form!r}: one of {', '.join(FORMATS)}", "format")
    quality = _quality(given.pop("quality", None), str(form))
    actions = _actions()
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name not in actions:
            raise WishError(f"no field {name[:40]!r}{suggestion(name, actions)}", name[:40])
        options[name] = _value(name, actions[name], value)
    if "prompt" not in options:
        raise WishError("a prompt is needed: what to draw", "prompt")
    pictures: list[str] = []
    for name in (*WEIGHTS, *PICTURES, *_MIXED):
        held = options.get(name, [])
        for text in held if isinstance(held, list) else [held]:
            for file in _files(name, text):
                if not _is_name(file):
                    raise WishError(f"{name} names a file as {file[:80]!r}: a name alone", name)
                if _ID.fullmatch(file):
                    pictures.append(file)
                elif name in PICTURES:
                    raise WishError(f"{name} must be the id of an upload or an output", name)
    args = _parsed(options)
    if args.count > MOST_PICTURES:
        raise WishError(f"count is {args.count}: at most {MOST_PICTURES} in one job", "count")
    if (args.steps or 0) > MOST_STEPS:
        raise WishError(f"steps is {args.steps}: at most {MOST_STEPS}", "steps")
    options.setdefault("seed", str(secrets.randbelow(SEEDS)))
    options.pop("count", None)
    size = None if isinstance(args.size, Aspect) else args.size
    return Wish(
        options=options,
        count=args.count,
        format=str(form),
        quality=quality,
        pictures=tuple(dict.fromkeys(pictures)),
        steps=args.steps,
        pixels=None if size is None else size[0] * size[1],
    )


def _parsed(options: Mapping[str, Any]) -> argparse.Namespace:
    """What the options mean, as the command line reads them."""
    words = [
        f"--{name}" if each is True else f"--{name}={each}"
        for name, value in options.items()
        if name not in (*_LATER, "prompt")
        for each in (value if isinstance(value, list) else [value])
    ]
    try:
        return parse(["generate", *words, "--", options["prompt"]])
    except UsageError as error:
        told = str(error).removesuffix(" (see mezzotint generate --help)")
        match = re.match(r"argument (?:-\w/)?--([\w-]+)", told)
        raise WishError(
            told.removeprefix("argument "), None if match is None else match[1]
        ) from None
