"""What the options of the command line take, as text made values.

Each raises argparse's own error, with what would be understood.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint.adapters.strengths import Rule, StrengthError, read_rule
from mezzotint.families.sizes import WORDS, Aspect, read_aspect

if TYPE_CHECKING:
    from mezzotint.apps.controls import Wanted as WantedControl
    from mezzotint.apps.regions import Wanted
    from mezzotint.provenance.grid import Grid


def size(text: str) -> tuple[int, int] | Aspect:
    """``N`` or ``WxH`` as (height, width), or an aspect."""
    if (aspect := read_aspect(text)) is not None:
        return aspect
    match = re.fullmatch(r"(-?\d+)(?:[x×](-?\d+))?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give N or WxH, such as 128 or 96x64, an aspect such as 16:9, or "
            f"{', '.join(WORDS)}"
        )
    width = int(match[1])
    return (width if match[2] is None else int(match[2]), width)


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of 1 or more")
    return int(text)


def port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number below 65536")
    return int(text)


def seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, 0 or more")
    return float(text)


def alias(text: str) -> tuple[str, str]:
    """``NAME=MODEL``."""
    name, sign, model = text.partition("=")
    if not sign or not name or not model:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=MODEL")
    return name, model


def pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give pixels, a whole number of 0 or more")
    return int(text)


def seed(text: str) -> int:
    """A whole number below 2^64: it is a part of the names of files."""
    if not text.isdecimal() or len(text) > 20 or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(
            f"{text[:24]!r}: give a whole number from 0 to 2^64 - 1, or leave it out for a random "
            "one"
        )
    return int(text)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def grid(text: str) -> Grid:
    """A country's two letters, or grams of CO2 per kWh."""
    from mezzotint.provenance import grid as grids

    try:
        return grids.grid(text)
    except grids.GridError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    pair = (number(low), number(high))
    if not 0 <= pair[0] < pair[1] <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give LOW,HIGH with 0 <= LOW < HIGH <= 1")
    return pair


def numbers(text: str) -> frozenset[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 0 with commas between them")
    return frozenset(map(int, parts))


def blocks(text: str) -> tuple[Rule, ...]:
    """``PATTERN=STRENGTH,…``."""
    try:
        return tuple(read_rule(part) for part in text.split(","))
    except StrengthError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def lora(text: str) -> tuple[Path, float, tuple[Rule, ...]]:
    """``FILE``, ``FILE:STRENGTH`` or ``FILE:STRENGTH:PATTERN=STRENGTH…``."""
    rules: tuple[Rule, ...] = ()
    while not Path(text).exists() and "=" in text.rpartition(":")[2]:
        text, _, rule = text.rpartition(":")
        rules = (*blocks(rule), *rules)
    name, colon, strength = text.rpartition(":")
    try:
        return (Path(name), number(strength), rules) if colon else (Path(text), 1.0, rules)
    except argparse.ArgumentTypeError:
        return Path(text), 1.0, rules  # a colon of the file's name


def control(text: str) -> WantedControl:
    """``FILE=PICTURE`` or ``FILE``, and what is wished of it."""
    from mezzotint.apps.controls import wanted

    try:
        return wanted(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def image_prompt(text: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:STRENGTH``."""
    name, colon, strength = text.rpartition(":")
    if Path(text).exists() or not colon:
        return Path(text), 1.0
    try:
        return Path(name), number(strength)
    except argparse.ArgumentTypeError:
        return Path(text), 1.0  # a colon of the file's name


def part(text: str) -> tuple[Path, str | None]:
    """``FILE`` or ``NAME=FILE``."""
    name, sign, path = text.partition("=")
    if Path(text).exists() or not sign:
        return Path(text), None
    return Path(path), name.strip()


def embedding(text: str) -> tuple[Path, str | None]:
    """``FILE`` or ``FILE=NAME``."""
    path, sign, name = text.rpartition("=")
    if Path(text).exists() or not sign:
        return Path(text), None
    if not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: give FILE or FILE=NAME")
    return Path(path), name.strip()


VARIES = {"subtle": 0.1, "strong": 0.4}


def vary(text: str) -> tuple[tuple[int | None, float], ...]:
    """``SEED:AMOUNT``, or in words how far; with a comma a variation of that, and so on.  Of the
    picture that --from names ``AMOUNT`` alone."""
    found: list[tuple[int | None, float]] = []
    for part in text.split(","):
        seed, colon, amount = part.rpartition(":")
        try:
            share = VARIES[amount] if amount in VARIES else float(amount)
        except ValueError:
            share = math.nan
        if not (seed.isdecimal() or (part == text and not colon)) or not 0 <= share <= 1:
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a seed and how far from it, as 7:subtle, 7:strong or 7:0.2"
            )
        found.append((int(seed) if colon else None, share))
    return tuple(found)


def region(text: str) -> Wanted:
    """``BOX=PROMPT`` or ``MASK=PROMPT``."""
    from mezzotint.apps.regions import wanted

    try:
        return wanted(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


SIDES = ("left", "top", "right", "bottom")


def sides(text: str) -> tuple[int, int, int, int] | tuple[int, int]:
    """``N`` or ``left=N,right=N,…`` as pixels to the left, top, right, bottom; ``W:H`` as it is."""
    if (match := re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", text)) is not None:
        return int(match[1]), int(match[2])
    if text.isdecimal():
        each = int(text)
        return (each, each, each, each)
    sides = dict.fromkeys(SIDES, 0)
    for part in text.split(","):
        name, _, amount = (piece.strip() for piece in part.partition("="))
        if name not in sides or not amount.isdecimal():
            raise argparse.ArgumentTypeError(
                f"{text!r}: give pixels, as N or as left=N,right=N (also top, bottom), or W:H"
            )
        sides[name] = int(amount)
    return (sides["left"], sides["top"], sides["right"], sides["bottom"])
