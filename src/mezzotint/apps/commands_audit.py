"""`mezzotint audit`: of all files in a folder what they carry, and what is missing."""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezzotint.apps.errors import one_line
from mezzotint.apps.table import columns
from mezzotint.files import atomic_write
from mezzotint.modalities.image import TELLING, ImageError
from mezzotint.provenance import chain, energy, identity, recipe
from mezzotint.provenance.credentials import CredentialsError
from mezzotint.provenance.keys import PUBLIC
from mezzotint.provenance.recipe import MARKS
from mezzotint.provenance.terms import combine, parts_of

_SHOWN = 40


@dataclass(frozen=True)
class Row:
    """What one file carries; an empty text: nothing of that kind."""

    file: str
    model: str = ""
    prompt: str = ""
    seed: str = ""
    recipe: str = ""
    credentials: str = ""
    watermark: str = ""
    licence: str = ""
    commercial: str = ""
    """Whether its licences allow that: yes, conditional, no, unknown."""
    energy: energy.Said | None = None
    missing: tuple[str, ...] = ()
    """What it lacks, or what is wrong with it."""


@dataclass(frozen=True)
class Total:
    """Of all files; whole: those with all that they should carry.

    wh, gco2e: that their pictures took, each once, though it stands on a sheet and by itself.
    """

    files: int
    whole: int
    wh: float
    gco2e: float
    how: str

    def __str__(self) -> str:
        said = f"{self.files} files, {self.whole} of them with all that they should carry"
        spent = f"{energy.figure(self.wh)} Wh, {energy.figure(self.gco2e)} g CO2e ({self.how})"
        return f"{said}; they took {spent}" if self.how else said


Spent = dict[str, energy.Said]
"""What pictures took, by what tells them apart."""


HEAD = tuple(Row.__dataclass_fields__)


def _files(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and those below it; links are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in TELLING and path.is_file() and not path.is_symlink():
            yield path


def _told(path: Path) -> tuple[Mapping[str, Any], str]:
    """The document of a file, and in a word what it is."""
    try:
        found = recipe.opened(path)
        if (what := recipe.derived(found)) is not None:
            recipe.files_of(path, found)
            return found, what
        for each in recipe.pictures_of(path, found) if "pictures" in found else [found]:
            recipe.recipe_of(path, each)
    except (recipe.OthersError, ImageError, OSError) as error:
        return {}, _reason(path, error)
    except recipe.NoRecipeError:
        return {}, ""
    except recipe.RecipeError as error:
        return {}, _reason(path, error)
    return found, "sheet" if "pictures" in found else "picture"


def _signed(path: Path, own: bytes, trusted: bytes) -> tuple[str, str]:
    """The state of a file's credentials, and what is wrong with them."""
    try:
        found = chain.read(path, own, trusted)
    except (CredentialsError, OSError) as error:
        return "damaged", _reason(path, error)
    if found is None:
        return "", "credentials"
    return found.state, f"credentials: {found.faults[0]}" if found.faults else ""


def _reason(path: Path, error: Exception) -> str:
    return one_line(error).removeprefix(f"{path}: ")


def _first(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document of a picture, of a sheet that of its first."""
    pictures = document.get("pictures")
    return pictures[0] if isinstance(pictures, list) and pictures else document


def _text(value: object) -> str:
    clean = "".join(c if c.isprintable() else " " for c in str(value)[:200])
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 1] + "…"


def _watermark(document: Mapping[str, Any]) -> str:
    """Which watermark it says that it has; `mezzotint detect` looks whether it is there."""
    marks = document.get("marks")
    if not isinstance(marks, dict) or type(key := marks.get("key")) is not int:
        return ""
    called = "public key" if key == PUBLIC.id else f"key {key:04x}"
    where = marks.get("in", ["noise"])
    places = [mark for mark in MARKS if mark in where] if isinstance(where, list) else []
    return f"{called}, {' and '.join(places)}" if places else called


def _licences(document: Mapping[str, Any]) -> str:
    """The licences of all weights that went in, each once."""
    return "; ".join(dict.fromkeys(part.record.said for part in parts_of(document)))


def _spent(document: Mapping[str, Any]) -> Spent:
    """What the pictures of a document took, as far as it says that."""
    found: Spent = {}
    for each in document.get("pictures", [document]):
        if (said := energy.said(each.get("energy"))) is not None:
            pixels = each.get("pixels")
            made = pixels.get("hash") if isinstance(pixels, dict) else None
            found[json.dumps([made, each["energy"]])] = said
    return found


def _added(spent: Spent) -> energy.Said:
    """The sum; none is nothing."""
    hows = {said.how for said in spent.values()}
    how = hows.pop() if len(hows) == 1 else "partly measured" if hows else ""
    wh = sum(said.wh for said in spent.values())
    return energy.Said(wh, sum(said.gco2e for said in spent.values()), how)


def row_of(path: Path, name: str, own: bytes = b"", trusted: bytes = b"") -> Row:
    """What a file carries.

    name: by which it is shown; own, trusted: see :func:`mezzotint.provenance.chain.read`.
    """
    return _row(path, name, own, trusted)[0]


def _row(path: Path, name: str, own: bytes, trusted: bytes) -> tuple[Row, Spent]:
    document, kind = _told(path)
    first, spent = _first(document), _spent(document)
    took = _added(spent)
    signed, fault = _signed(path, own, trusted)
    told = "" if document else f"recipe: {kind}" if kind else "recipe"
    drawn = document and recipe.derived(document) is None  # what it is made of took the energy
    lacks = "energy" if drawn and not spent else ""
    row = Row(
        name,
        *(_text(first.get(key, "")) for key in ("model", "prompt", "seed")),
        recipe=kind if document else "",
        credentials=signed,
        watermark=_watermark(first),
        licence=_text(_licences(document)),
        commercial=combine(parts_of(document)).commercial if document else "",
        energy=took if spent else None,
        missing=tuple(_text(each) for each in (told, fault, lacks) if each),
    )
    return row, spent


def _cell(value: object) -> str:
    if isinstance(value, energy.Said):
        return f"{energy.figure(value.wh)} Wh, {value.how}"
    return "; ".join(value) if isinstance(value, tuple) else str(value or "")


def _cells(row: Row) -> list[str]:
    return [_cell(value) for value in vars(row).values()]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Audit of {folder}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: CanvasText; background: Canvas }}
:root {{ color-scheme: light dark }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: .3rem .7rem; border-bottom: 1px solid #8886 }}
td:last-child {{ color: #c33 }}
</style></head><body>
<h1>What the files of {folder} carry</h1>
<p>{summary}</p>
<table><thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""


def page(folder: str, rows: Sequence[Row], total: Total) -> str:
    """The report as a page that loads nothing and runs nothing."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    return _PAGE.format(
        folder=html.escape(folder),
        summary=html.escape(str(total)),
        head=line(HEAD, "th"),
        rows="\n".join(f"<tr>{line(_cells(row), 'td')}</tr>" for row in rows),
    )


def total(rows: Sequence[Row], spent: Spent) -> Total:
    took = _added(spent)
    return Total(len(rows), sum(not row.missing for row in rows), *vars(took).values())


def run(args: argparse.Namespace) -> int:
    """A table, or data; the exit code is 1 if anything is missing."""
    if not args.folder.is_dir():
        raise recipe.RecipeError(f"{args.folder}: is no folder: name one with pictures in it")
    own, trusted = identity.anchors(), b"".join(path.read_bytes() for path in args.trust)
    rows, spent = list[Row](), Spent()
    for path in _files(args.folder):
        row, took = _row(path, path.relative_to(args.folder).as_posix(), own, trusted)
        rows.append(row)
        spent |= took
    whole = total(rows, spent)
    if args.html is not None:
        with atomic_write(args.html) as file:
            file.write(page(args.folder.resolve().name, rows, whole).encode())
    if args.json:
        files = [asdict(row) for row in rows]
        print(json.dumps({"files": files, "total": asdict(whole)}, indent=1))
    else:
        print(columns([HEAD, *map(_cells, rows)]))
        print(f"\n{whole}")
    return 1 if any(row.missing for row in rows) else 0
