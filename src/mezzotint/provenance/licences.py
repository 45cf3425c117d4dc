"""Under which licence weights and data are, as far as somebody states it.

A record says what somebody states: the file's own header (of our own models ``notes.licence``, of
others the ``modelspec.license`` of Stability's ModelSpec 1.0.1, ``license``, or ``general.license``
of GGUF), the model card and the licence's text in a folder, or whoever uses the file, in a file
beside it, ``NAME.licence.toml``:

    licence = "CC-BY-4.0"                    # a licence that is known here, or a name of your own
    attribution = "Foxes by Ada Painter"     # one text or a list, if somebody is to be named
    commercial = true                        # or false, or a condition: before what the table says

What nobody states is unknown, never guessed; ``likely`` is what others of its kind were released
under.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import Report, inspect
from mezzotint.checkpoints.source import within
from mezzotint.provenance.licence_table import Allowed, Licence, of_text

UNKNOWN = "unknown"
SIDE = ".licence.toml"
By = Literal["file", "card", "text", "you", ""]
"""Who says it: the header, a folder's README, the text of a licence in it, a file of the user's
beside it, or nobody."""
_KEYS = (
    *("config.notes.licence", "modelspec.license", "license"),
    *("general.license", "general.license.name"),
)
OTHER = ("other", "unknown", "none", "")  # no names of licences, but model cards have them
LONGEST, LINE, MOST = 200, 400, 64  # characters of a name, of an attribution; number of these
_SMALL = 1 << 16  # bytes of a file beside weights that are read
_CARD, _TEXTS = "README.md", re.compile(r"(licen[cs]e|copying|unlicense)([.\-_].*)?", re.IGNORECASE)
_FIELD = re.compile(r"^(license|license_name):[ \t]*[\"']?([^\n\"'#]+)", re.MULTILINE)


class LicenceError(ValueError):
    """Terms that forbid what was asked for, or a damaged statement; one line that names it."""


@dataclass(frozen=True)
class Record:
    """Under which terms something is.

    said: in the words of who says it, on one line; by: who that is.
    likely: a licence's id, of the weights of its family as they were released; no statement.
    attribution: who is to be named, a line each.
    commercial: what the user states of it, before what the table says; "" leaves it to the table.
    clause: the condition that the user states.
    """

    said: str = UNKNOWN
    by: By = ""
    likely: str = ""
    attribution: tuple[str, ...] = ()
    commercial: Allowed | Literal[""] = ""
    clause: str = ""


def printable(said: object, most: int = LONGEST) -> str:
    """A text of a file's author on one line, without what could rewrite a terminal."""
    clean = "".join(c if c.isprintable() else " " for c in str(said)[: 4 * most])
    return " ".join(clean.split())[:most]


# --- what is stated ---------------------------------------------------------------------------


def stated(path: Path) -> Record:
    """What is stated of a file of weights or a folder; only headers and small texts are read.

    Raises:
        LicenceError: what stands beside it is damaged.
    """
    if (mine := _beside(path)) is not None:
        return mine
    try:
        report = inspect(path)
    except (CheckpointError, OSError):  # whoever reads it whole says what is wrong with it
        report = None
    return of_report(path, report)


def of_report(path: Path, report: Report | None) -> Record:
    """As :func:`stated`, of a file that was inspected, without what stands beside it."""
    if report is not None and (said := _of_header(dict(report.details))):
        return Record(said, "file")
    folder = path if path.is_dir() else path.parent if _is_index(path) else None
    if folder is None:
        return Record()
    if said := of_card(folder / _CARD):
        return Record(said, "card")
    found = dict.fromkeys(licence.id for licence in _of_texts(folder))
    return Record(" AND ".join(found), "text") if found else Record()


def _is_index(path: Path) -> bool:
    return path.name.endswith(".json")


def _of_header(details: Mapping[str, str]) -> str:
    said = (printable(details.get(key, "")) for key in _KEYS)
    return next((text for text in said if text.lower() not in OTHER), "")


def _text_of(path: Path) -> str:
    """The start of a text file, "" where there is none in its folder."""
    try:
        with within(path.parent, path).open(encoding="utf-8", errors="replace") as file:
            return file.read(_SMALL)
    except (CheckpointError, OSError):
        return ""


def of_card(readme: Path) -> str:
    """The licence that a model card's head names, between its two lines of ``---``; else ""."""
    start, _, rest = _text_of(readme).partition("---\n")
    if start.strip():
        return ""
    found = {key: printable(value) for key, value in _FIELD.findall(rest.partition("\n---")[0])}
    if found.get("license", "").lower() not in OTHER:
        return found["license"]
    return found.get("license_name", "")


def _of_texts(folder: Path) -> Iterator[Licence]:
    """The licences whose texts lie in a folder under names such as LICENSE.md."""
    for path in sorted(folder.glob("*"))[: 8 * MOST]:
        if not _TEXTS.fullmatch(path.name) or not path.is_file():
            continue
        if (licence := of_text(_text_of(path))) is not None:
            yield licence


def _beside(path: Path) -> Record | None:
    """What the user states of a file in one beside it.

    Raises:
        LicenceError: it is damaged.
    """
    side = path.with_name(path.name + SIDE) if path.name else path / SIDE
    if not side.is_file():
        return None
    try:
        with side.open("rb") as file:
            found = tomllib.loads(file.read(_SMALL).decode())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LicenceError(f"{side}: cannot be read as TOML: {reason}") from None
    if unknown := found.keys() - {"licence", "attribution", "commercial"}:
        raise LicenceError(
            f"{side}: has no use for {printable(min(unknown), 40)!r}: it takes licence, "
            "attribution, commercial"
        )
    said, names = found.get("licence"), found.get("attribution", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(said, str) or not printable(said):
        raise LicenceError(f'{side}: does not say which licence: write licence = "…"')
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LicenceError(f"{side}: attribution is one text or a list of texts")
    commercial, clause = _allowed(side, found.get("commercial"))
    texts = tuple(printable(name, LINE) for name in names[:MOST])
    return Record(printable(said), "you", "", texts, commercial, clause)


def _allowed(side: Path, said: object) -> tuple[Allowed | Literal[""], str]:
    if said is None:
        return "", ""
    if isinstance(said, bool):
        return ("yes" if said else "no"), ""
    if isinstance(said, str) and printable(said):
        return "conditional", printable(said)
    raise LicenceError(f"{side}: commercial is true, false or a condition in words")
