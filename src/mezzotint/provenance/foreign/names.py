"""How a command is put together from what other programs say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from mezzotint.checkpoints.limits import parse, shown
from mezzotint.provenance.called import SAMPLERS, SPACINGS
from mezzotint.provenance.recipe import Options, RecipeError


class Sought(NamedTuple):
    """A file that is known by a hash only, or by both.

    digest: as the program gives it; AUTOMATIC1111's has the first 10 or 12 hex digits of the
    SHA-256 of the whole file (an adapter's: of its tensors' bytes, without the header).
    """

    option: str
    name: str
    digest: str


class Foreign(NamedTuple):
    """A picture of another program as a command of ours.

    options: as `mezzotint generate` types them; program: what made it, as it says itself;
    left: one line for each thing that they do not say, and why; sought: files by their hashes.
    """

    options: Options
    program: str
    left: tuple[str, ...]
    sought: tuple[Sought, ...] = ()


NOISE = "seed: other programs draw other noise: the same seed gives another picture"
_MOST_LEFT = 200
_MOST_TEXT = 64 << 10  # characters of a prompt


def told(value: object) -> str:
    """A stranger's value in a line for a person."""
    text = value if isinstance(value, str) else shown(value)
    text = "".join(letter if letter.isprintable() else "�" for letter in text[:200])
    return text if len(text) < 120 else f"{text[:119]}…"


def table(text: str, what: str) -> dict[str, object]:
    """A JSON object.

    Raises:
        RecipeError: it is none.
    """
    try:
        return parse(text)
    except (ValueError, RecursionError):
        raise RecipeError(f"its {what} cannot be read: no JSON object stands there") from None


class Draft:
    """A command that is being put together."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.options: dict[str, str | list[str] | bool] = {}
        self.left: list[str] = []
        self.sought: list[Sought] = []

    def leave(self, line: str) -> None:
        """Note what is not expressed."""
        if line not in self.left and len(self.left) < _MOST_LEFT:
            self.left.append(line)

    def number(self, option: str, value: object, low: float, high: float, what: str = "") -> None:
        """A whole number, or one with a fraction as it is said, if it lies within bounds."""
        text = str(value) if isinstance(value, int | float | str) else ""
        if re.fullmatch(r"-?\d{1,20}(\.\d{1,20})?(e-?\d{1,3})?", text.strip(), re.IGNORECASE):
            found = float(text)
            if math.isfinite(found) and low <= found <= high and not isinstance(value, bool):
                self.options[option] = text.strip()
                return
        self.leave(f"{what or option}: {told(value)} is no value that it may have here")

    def whole(self, option: str, value: object, low: int, high: int, what: str = "") -> None:
        """A whole number, if it lies within bounds."""
        text = str(value).strip() if isinstance(value, int | str) else ""
        plain = text.isascii() and text.isdecimal() and len(text) <= 20
        if plain and low <= int(text) <= high and not isinstance(value, bool):
            self.options[option] = str(int(text))
        else:
            self.leave(f"{what or option}: {told(value)} is no value that it may have here")

    def size(self, width: object, height: object) -> None:
        """The size in pixels."""
        edges = [str(edge).strip() for edge in (width, height)]
        if all(edge.isdecimal() and edge.isascii() and len(edge) < 6 for edge in edges):
            self.options["size"] = "x".join(str(int(edge)) for edge in edges)
        else:
            self.leave(f"size: {told(width)} by {told(height)} is none")

    def sampler(self, value: object) -> None:
        """The sampler; AUTOMATIC1111 up to 1.8 and InvokeAI say the spacing with it."""
        name = value.lower().strip() if isinstance(value, str) else ""
        for ending, spacing in ((" karras", "karras"), (" exponential", "exponential")):
            if name.endswith(ending):
                name = name.removesuffix(ending)
                self.options["spacing"] = spacing
        if name in SAMPLERS:
            self.options["sampler"] = SAMPLERS[name]
        else:
            self.leave(f"sampler: {told(value)} is not one of ours (see `mezzotint samplers`)")

    def spacing(self, value: object) -> None:
        """The spacing of the steps."""
        name = value.lower().strip() if isinstance(value, str) else ""
        if name in SPACINGS:
            self.options["spacing"] = SPACINGS[name]
        else:
            self.leave(f"spacing: {told(value)} is not one of ours (see `mezzotint samplers`)")

    def text(self, option: str, value: str) -> None:
        """A prompt."""
        if len(value) > _MOST_TEXT:
            self.leave(f"{option}: {len(value)} characters are too many")
        elif "__" in value:
            self.leave(f"{option}: __name__ in it would be a wildcard here: type it")
        elif value or option == "prompt":
            self.options[option] = value

    def file(self, option: str, name: object, more: str = "") -> None:
        """A file, by its name without where it was; several of an option that takes them."""
        plain = file_name(name)
        if plain is None:
            self.leave(f"{option}: {told(name)} is no file's name")
        elif option in ("lora", "part", "control"):
            known = self.options.setdefault(option, [])
            assert isinstance(known, list)
            if f"{plain}{more}" not in known and len(known) < 64:
                known.append(f"{plain}{more}")
        else:
            self.options[option] = plain

    def done(self) -> Foreign:
        self.leave(NOISE)
        options = dict(sorted(self.options.items()))
        options.setdefault("prompt", "")
        return Foreign(options, self.program, tuple(self.left), tuple(self.sought))


def file_name(name: object) -> str | None:
    """A name without its folders, or None if it is none."""
    plain = re.split(r"[/\\]", name)[-1] if isinstance(name, str) else ""
    good = plain.isprintable() and plain.strip(". ") and len(plain) <= 255
    return plain if good and not set(plain) & set("=,:") else None


def inner(found: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A table in a table, or an empty one."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def literal(text: str, letters: str) -> str:
    """Text in which letters that our prompts read are only letters."""
    return re.sub(rf"(?<!\\)([{re.escape(letters)}])", r"\\\1", text)
