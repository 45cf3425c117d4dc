"""Prompts for parts of a picture, as people write them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from mezzotint.engine.regions import box, feathered
from mezzotint.engine.request import Region, RequestError
from mezzotint.modalities import image as pictures

_NUMBER = r"\d*\.?\d+"
_WRITTEN = re.compile(
    r"(?P<where>.+?)(?P<options>(?:,(?:strength|feather)=[^,=]*)*)=(?P<prompt>.*)", re.DOTALL
)
_BOX = re.compile(r"\s*,\s*".join(rf"(?P<s{n}>{_NUMBER})" for n in range(4)))


def plain(number: float) -> str:
    """A number without an exponent, short, to the last digit."""
    short = f"{number:g}"
    return short if float(short) == number and "e" not in short else f"{Decimal(repr(number)):f}"


class Wanted(NamedTuple):
    """A region before the size of the picture is known.

    where: a box as shares of width and height, left, top, right, bottom; or a mask's file.
    """

    where: tuple[float, float, float, float] | str
    prompt: str
    strength: float = 1.0
    feather: float = 0.0

    def __str__(self) -> str:
        """As it is written, but for the prompt; of a file its name."""
        where = self.where
        if not isinstance(where, str):
            where = ",".join(map(plain, where))
        options = {"strength": (self.strength, 1), "feather": (self.feather, 0)}
        said = [
            f",{name}={plain(value)}" for name, (value, usual) in options.items() if value != usual
        ]
        return where.replace("\\", "/").rpartition("/")[2] + "".join(said)

    def at(self, size: tuple[int, int]) -> Region:
        """This region of a picture ``(height, width)``; a mask's file is fitted to it.

        Raises:
            RequestError: an impossible box; ImageError: the file is no picture.
        """
        if isinstance(self.where, str):
            grey = pictures.to_image(pictures.read_mask(self.where) * 2 - 1)
            mask = (pictures.fit(grey, "grey", size) + 1) / 2
        else:
            mask = box(size, *self.where)
        return Region(self.prompt, feathered(mask, self.feather), self.strength)


def wanted(text: str) -> Wanted:
    """``LEFT,TOP,RIGHT,BOTTOM=PROMPT`` or ``MASK=PROMPT``; before the ``=`` perhaps ``,strength=S``
    and ``,feather=F``.

    Raises:
        RequestError: it is written in another way.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise RequestError(
            f"{text!r}: give where and what, as 0,0,0.5,1=a fox (left, top, right, bottom as "
            "shares of the picture) or mask.png=a fox; before the = also "
            ",strength=0.7 and ,feather=0.1"
        )
    numbers: dict[str, float] = {}
    for option in found["options"].split(",")[1:]:
        name, _, value = option.partition("=")
        if name in numbers or not re.fullmatch(_NUMBER, value.strip()):
            raise RequestError(f"{option!r} of {text!r}: give a number, once")
        numbers[name] = float(value)
    strength, feather = numbers.get("strength", 1.0), numbers.get("feather", 0.0)
    sides = _BOX.fullmatch(found["where"].strip())
    where = found["where"]
    if sides is not None:
        left, top, right, bottom = (float(side) for side in sides.groups())
        return Wanted((left, top, right, bottom), found["prompt"], strength, feather)
    return Wanted(where, found["prompt"], strength, feather)
