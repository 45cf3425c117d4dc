"""What follows of the licences of all that went into an output: the strictest of their terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mezzotint.provenance.licence_table import STRICTNESS, Allowed, Licence, find, strictest
from mezzotint.provenance.licences import (
    LINE,
    MOST,
    OTHER,
    SIDE,
    UNKNOWN,
    LicenceError,
    Record,
    printable,
)

# --- expressions ------------------------------------------------------------------------------

_TOKEN = re.compile(r"\s*(\(|\)|\bAND\b|\bOR\b)\s*")


class Named(NamedTuple):
    """A licence that an expression names; row: what is known of it, None: nothing."""

    name: str
    row: Licence | None

    @property
    def commercial(self) -> Allowed:
        return "unknown" if self.row is None else self.row.commercial


def named(said: str) -> tuple[Named, ...]:
    """The licences that hold, of an SPDX expression or a name; of ``A OR B`` the freer one."""
    if said.lower() in OTHER:
        return ()
    if (row := find(said)) is not None:  # a name may have words of its own in brackets
        return (Named(said, row),)
    tokens = [token for token in _TOKEN.split(said) if token.strip()]
    if len(tokens) == 1:
        return (Named(said, None),)
    found, rest = _either(tokens)
    return found if found and not rest else (Named(said, None),)


def _stern(found: Sequence[Named]) -> int:
    return max((STRICTNESS.index(each.commercial) for each in found), default=0)


def _either(tokens: list[str]) -> tuple[tuple[Named, ...], list[str]]:
    found, rest = _both(tokens)
    while found and rest[:1] == ["OR"]:
        other, rest = _both(rest[1:])
        if not other:
            return (), rest
        found = min(found, other, key=_stern)
    return found, rest


def _both(tokens: list[str]) -> tuple[tuple[Named, ...], list[str]]:
    found, rest = _one(tokens)
    while found and rest[:1] == ["AND"]:
        other, rest = _one(rest[1:])
        if not other:
            return (), rest
        found = (*found, *other)
    return found, rest


def _one(tokens: list[str]) -> tuple[tuple[Named, ...], list[str]]:
    if not tokens or tokens[0] in (")", "AND", "OR"):
        return (), tokens
    if tokens[0] != "(":
        return (Named(tokens[0], find(tokens[0])),), tokens[1:]
    found, rest = _either(tokens[1:])
    return (found, rest[1:]) if rest[:1] == [")"] else ((), rest)


# --- terms ------------------------------------------------------------------------------------


class Licensed(NamedTuple):
    """Something that went in: by which option, or as what; its name; its record."""

    what: str
    name: str
    record: Record


@dataclass(frozen=True)
class Terms:
    """What follows of all that went in.

    commercial: the strictest; because: what is not plainly allowed, a sentence each.
    credit: who is to be named; share_alike, restrictions, rules: a sentence each.
    conflicts: terms that cannot all be kept by what is derived of all.
    """

    commercial: Allowed
    because: tuple[str, ...] = ()
    credit: tuple[str, ...] = ()
    share_alike: tuple[str, ...] = ()
    restrictions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def allowed(record: Record) -> Allowed:
    """Whether what is under a record may be used commercially."""
    if record.commercial:
        return record.commercial
    return strictest((each.commercial for each in named(record.said)), "unknown")


def _why(part: Licensed) -> Iterator[str]:
    """Of a part that is not plainly free for commerce, why, in a sentence each."""
    record = part.record
    if record.commercial in ("conditional", "no"):
        clause = f": {record.clause}" if record.clause else ", as you state"
        yield f"{part.name} is under {record.said}, {_VERDICT[record.commercial]}{clause}"
    if record.commercial:
        return
    for each in named(record.said):
        if each.name.lower() in OTHER:
            yield f"nobody states the licence of a part of {part.name}"
        elif each.row is None:
            yield f"{part.name} is under {each.name!r}, whose terms are not known here"
        elif each.commercial != "yes":
            verdict = _VERDICT[each.commercial]
            yield f"{part.name} is under {each.row.name}, {verdict}: {each.row.clause}"
    if not named(record.said):
        likely = find(record.likely)
        hint = f" (its kind was released under {likely.name})" if likely is not None else ""
        yield f"nobody states the licence of {part.name}{hint}"


_VERDICT: dict[Allowed, str] = {
    "conditional": "whose commercial use has a condition",
    "no": "which does not allow commercial use",
    "unknown": "",
    "yes": "",
}


def _rows(parts: Sequence[Licensed]) -> Iterator[tuple[Licensed, Licence]]:
    for part in parts:
        for each in named(part.record.said):
            if each.row is not None:
                yield part, each.row


def _told(parts: Sequence[Licensed], field: Callable[[Licence], str]) -> tuple[str, ...]:
    lines = (f"{row.name}: {text}" for _, row in _rows(parts) if (text := field(row)))
    return tuple(dict.fromkeys(lines))


def combine(parts: Sequence[Licensed]) -> Terms:
    """The terms of what is made of all parts: the strictest of each."""
    commercial = strictest((allowed(part.record) for part in parts), "unknown")
    because = [why for part in parts for why in _why(part)]
    credit = [text for part in parts for text in part.record.attribution]
    credit += [
        f"{part.name}, {row.name}"
        for part, row in _rows(parts)
        if row.credit and not part.record.attribution
    ]
    return Terms(
        commercial,
        tuple(dict.fromkeys(because)),
        tuple(dict.fromkeys(credit)),
        _told(parts, lambda row: _SHARED if row.share_alike else ""),
        _told(parts, lambda row: row.restrictions),
        _told(parts, lambda row: row.rules),
        tuple(_conflicts(parts)),
    )


_SHARED = "what is derived from it has to be under it too"


def _conflicts(parts: Sequence[Licensed]) -> Iterator[str]:
    """Pairs of licences, of which each asks what the other does not allow."""
    rows = list(dict.fromkeys(row for _, row in _rows(parts)))
    shared = [row for row in rows if row.share_alike]
    for number, row in enumerate(shared):
        for other in shared[number + 1 :]:
            yield f"{row.name} and {other.name} each want what derives from both under themselves"
        for other in rows:
            if other.commercial == "no" and row.commercial != "no":
                yield (
                    f"{row.name} wants what derives from it free for commerce too, which "
                    f"{other.name} does not allow"
                )


def check_commercial(parts: Sequence[Licensed]) -> tuple[str, ...]:
    """The conditions under which what is made of all parts may be used commercially.

    Raises:
        LicenceError: it may not, or nobody states whether.
    """
    conditions: list[str] = []
    for verdict in ("no", "unknown", "conditional"):
        for part in parts:
            if allowed(part.record) != verdict:
                continue
            why = "; ".join(_why(part))
            if verdict == "no":
                raise LicenceError(f"--commercial: {why}: leave it out, or leave --commercial out")
            if verdict == "unknown":
                raise LicenceError(
                    f"--commercial: {why}: if you know, state it in {part.name}{SIDE} "
                    "beside it (docs/licences.md)"
                )
            conditions.append(why)
    return tuple(conditions)


# --- in a recipe ------------------------------------------------------------------------------


def as_row(part: Licensed) -> dict[str, Any]:
    """A part as a recipe has it; what is empty is left out."""
    record = part.record
    row = {"option": part.what, "name": part.name, "licence": record.said, "by": record.by}
    row |= {"likely": record.likely, "commercial": record.commercial, "clause": record.clause}
    more = {"attribution": list(record.attribution)} if record.attribution else {}
    return {key: value for key, value in row.items() if value} | more


def parts_of(document: Mapping[str, Any]) -> list[Licensed]:
    """The parts that the document of a picture or a sheet tells; what is damaged is unknown."""
    pictures = document.get("pictures")
    each = [document] if not isinstance(pictures, list) else pictures
    found: dict[Licensed, None] = {}
    for picture in each:
        rows = picture.get("licences") if isinstance(picture, dict) else None
        for row in rows[:MOST] if isinstance(rows, list) else []:
            if isinstance(row, dict):
                found[_part(row)] = None
    return list(found)[: 8 * MOST]


def _part(row: Mapping[str, Any]) -> Licensed:
    text = {key: value for key, value in row.items() if isinstance(value, str)}
    by, said = text.get("by", ""), printable(text.get("licence", ""))
    names = row.get("attribution")
    credit = names[:MOST] if isinstance(names, list) else []
    commercial = text.get("commercial", "")
    record = Record(
        said or UNKNOWN,
        by if by in ("file", "card", "text", "you") else "",  # type: ignore[arg-type]
        printable(text.get("likely", "")),
        tuple(printable(name, LINE) for name in credit if isinstance(name, str)),
        commercial if commercial in STRICTNESS else "",  # type: ignore[arg-type]
        printable(text.get("clause", "")),
    )
    return Licensed(printable(text.get("option", ""), 40), printable(text.get("name", "")), record)
