"""How strongly an adapter acts on each block: strengths by patterns of our modules' names.

A module's name begins with its network's: ``network`` is the denoiser, ``text``, ``text2``, ``t5``
are the text encoders: ``network.joint.0.picture.qkv``, ``text.layers.3.mlp_in``.

| pattern | means |
|---|---|
| ``te`` | every text encoder |
| ``denoiser``, ``unet`` | the denoiser |
| ``network.joint.0`` | that block, and all that is in it |
| ``network.*.qkv``, ``network.single.1?`` | as of files: ``*`` any letters, ``?`` one, ``[ab]`` |

A rule's strength stands in place of the adapter's; of several rules for a module the last counts.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the command line reads rules before it needs torch
    from mezzotint.adapters.lora import Fitted, Target

DENOISER = "network"
_NAMED = {"te": False, "denoiser": True, "unet": True}  # whether it is the denoiser


class StrengthError(ValueError):
    """A strength cannot be read, or is of no module; one line with the remedy."""


class Rule(NamedTuple):
    """The strength of the modules that a pattern matches."""

    pattern: str
    strength: float

    def __str__(self) -> str:
        return f"{self.pattern}={self.strength:g}"


def read_rule(text: str) -> Rule:
    """``PATTERN=STRENGTH``.

    Raises:
        StrengthError: it is not of that form.
    """
    pattern, sign, strength = (piece.strip() for piece in text.rpartition("="))
    try:
        number = float(strength)
    except ValueError:
        number = math.nan
    if not sign or not pattern or not math.isfinite(number):
        raise StrengthError(f"{text!r} is no strength of blocks: write PATTERN=NUMBER, as te=0.5")
    return Rule(pattern, number)


def name(target: Target) -> str:
    """The name of a module, as patterns match it."""
    return f"{target.network}.{target.part.name.removesuffix('.weight')}"


def _matches(rule: Rule, target: Target) -> bool:
    if rule.pattern in _NAMED:
        return (target.network == DENOISER) == _NAMED[rule.pattern]
    own = name(target)
    return fnmatchcase(own, rule.pattern) or fnmatchcase(own, f"{rule.pattern}.*")


def by_blocks(
    fitted: Sequence[Fitted], strength: float, rules: Sequence[Rule]
) -> list[tuple[tuple[Fitted, ...], float]]:
    """An adapter's deltas, in groups of one strength each.

    Raises:
        StrengthError: a rule matches nothing that the adapter changes; it names the nearest.
    """
    found = [strength] * len(fitted)
    for rule in rules:
        places = [n for n, (target, _) in enumerate(fitted) if _matches(rule, target)]
        if not places:
            raise StrengthError(_unmatched(rule, fitted))
        for place in places:
            found[place] = rule.strength
    return [
        (tuple(f for f, own in zip(fitted, found, strict=True) if own == each), each)
        for each in dict.fromkeys(found)
    ]


def _unmatched(rule: Rule, fitted: Sequence[Fitted]) -> str:
    known: dict[str, None] = {}
    for target, _ in fitted:
        known["denoiser" if target.network == DENOISER else "te"] = None
        pieces = name(target).split(".")
        known |= dict.fromkeys(".".join(pieces[: n + 1]) for n in range(len(pieces)))
    near = difflib.get_close_matches(rule.pattern.strip("*."), known, n=1, cutoff=0.4)
    hint = near[0] if near else ", ".join(list(known)[:2])
    return f"{rule.pattern!r} matches nothing that this adapter changes (nearest: {hint})"
