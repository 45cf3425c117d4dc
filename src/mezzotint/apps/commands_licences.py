"""`mezzotint licences`: under which terms models and pictures are; `sources`: what one is like.

Exit codes: 0 done, 2 there is no such file, or nothing in it that can be told.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mezzotint.apps.errors import UsageError
from mezzotint.apps.repeat import name_of
from mezzotint.apps.table import columns
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.engine.licences import inside, record
from mezzotint.families import ledger
from mezzotint.families.catalogue import PACKAGED, locate
from mezzotint.modalities import dataset
from mezzotint.modalities.ground import cut_out
from mezzotint.modalities.image import TELLING, ImageError, open_image, to_tensor
from mezzotint.provenance import recipe
from mezzotint.provenance.licence_table import LICENCES, find
from mezzotint.provenance.licences import SIDE, UNKNOWN, Record
from mezzotint.provenance.terms import Licensed, Terms, combine, parts_of

NOTE = "A reading of the licences' texts and no legal advice: the texts decide."
AID = (
    "That a drawing looks like the picture does not tell that the picture was taken from it, nor "
    "that it was\nnot taken from another: an aid to attribution, no proof."
)
_BY = {
    "file": "as its file states",
    "card": "as its model card states",
    "text": "by the text in its folder",
    "you": f"as you state in its {SIDE}",
}


def run(args: argparse.Namespace) -> int:
    """The terms of a model or an output, the drawings of a model, or all licences known."""
    if args.csv and not args.drawings:
        raise UsageError("--csv is for --drawings: name a model whose drawings are told")
    if args.name is None:
        if args.drawings:
            raise UsageError("--drawings needs a model: mezzotint licences icons --drawings")
        _table(args.json)
        return 0
    if args.drawings:
        _drawings(args)
        return 0
    parts = licensed(args.name)
    terms = combine(parts)
    if args.json:
        rows = [{**part._asdict(), "record": asdict(part.record)} for part in parts]
        shown = {"file": args.name, "parts": rows, "terms": asdict(terms), "note": NOTE}
        print(json.dumps(shown, indent=1))
        return 0
    print("\n".join(_lines(args.name, parts, terms)))
    return 0


def licensed(name: str) -> list[Licensed]:
    """What is licensed of an output, as its recipe says; of a data set; of any file of weights.

    Raises:
        CheckpointError: there is no such file; RecipeError: an output says nothing of licences;
        DatasetError: the metadata of a data set are damaged.
    """
    path = Path(name)
    if name not in PACKAGED and path.suffix.lower() in TELLING and path.is_file():
        found = parts_of(recipe.opened(path))
        if not found:
            raise recipe.RecipeError(
                f"{path}: its recipe names no licences: it was made by an older version"
            )
        return found
    if path.suffix.lower() == ".zip" or (path / dataset.METADATA).is_file():
        return [
            Licensed("data set", _counted(path, count), Record(said, "file") if said else Record())
            for said, count in dataset.licences(path).items()
        ]
    what = "model" if name in PACKAGED else "weights"
    return [Licensed(what, name_of(name), record(name)), *inside(name)]


def _counted(path: Path, count: int) -> str:
    return f"{path.name} ({count} {'picture' if count == 1 else 'pictures'})"


# --- words ------------------------------------------------------------------------------------


def said(known: Record) -> str:
    """A record in words."""
    if known.said != UNKNOWN:
        return f"{known.said}, {_BY[known.by]}" if known.by else known.said
    row = find(known.likely)
    likely = f"; its kind was released under {row.name}" if row is not None else ""
    return f"unknown: nobody states it{likely}"


def _lines(name: str, parts: Sequence[Licensed], terms: Terms) -> Iterator[str]:
    """A part a line, and then the terms, each under its heading."""
    yield f"{name}:"
    for part in parts:
        yield f"  {part.what:<13} {part.name}: {said(part.record)}"
    told: list[tuple[str, Sequence[str]]] = [
        ("commercial", (terms.commercial, *terms.because)),
        ("attribution", terms.credit),
        ("share alike", terms.share_alike),
        ("forbidden", terms.restrictions),
        ("outputs", terms.rules),
        ("conflict", terms.conflicts),
    ]
    for heading, lines in told:
        for number, line in enumerate(lines):
            yield f"  {heading if number == 0 else '':<13} {line}"
    if any(ledger.has_ledger(part.name) for part in parts):
        yield f"  {'drawings':<13} mezzotint licences icons --drawings; mezzotint sources FILE"
    yield NOTE


def _table(as_data: bool) -> None:
    """All licences that are known."""
    if as_data:
        print(json.dumps([{**asdict(row), "commercial": row.commercial} for row in LICENCES]))
        return
    rows = [("licence", "commercial", "name", "alike", "text")]
    for row in LICENCES:
        name, alike = ("yes" if each else "" for each in (row.credit, row.share_alike))
        rows.append((row.id, row.commercial, name, alike, row.source))
    print(columns(rows))
    print(NOTE)


# --- drawings ---------------------------------------------------------------------------------

_DRAWING: tuple[str, ...] = ("set", "name", "concept", "licence", "author", "url", "learnt")


def _row(drawing: ledger.Drawing) -> dict[str, Any]:
    source = drawing.source
    values = (source.id, drawing.name, drawing.concept, source.licence, drawing.author, source.url)
    return dict(zip(_DRAWING, (*values, drawing.learnt), strict=True))


def _ledger_of(name: str) -> ledger.Ledger:
    if not ledger.has_ledger(name):
        locate(name)
        raise CheckpointError(
            f"{name}: has no ledger of drawings: that is of models in the package, such as icons"
        )
    return ledger.ledger(name)


def _drawings(args: argparse.Namespace) -> None:
    """The drawings of a model one by one, as a table, CSV or JSON."""
    found = _ledger_of(args.name)
    rows = [_row(drawing) for drawing in found.drawings]
    if args.json:
        sets = [source._asdict() for source in found.sources]
        print(json.dumps({"sets": sets, "drawings": rows}))
        return
    if args.csv:
        writer = csv.DictWriter(sys.stdout, _DRAWING, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "learnt": "yes" if row["learnt"] else "no"} for row in rows)
        return
    learnt = found.learnt()
    head = ("set", "drawings", "learnt", "licence", "by", "url")
    told = [
        (s.id, str(s.drawings), str(learnt[s.id]), s.licence, s.holder, s.url)
        for s in found.sources
    ]
    print(columns([head, *told]))
    print()
    shown = [_DRAWING[:3] + _DRAWING[4:5]]
    print(columns([*shown, *((r["set"], r["name"], r["concept"], r["author"]) for r in rows)]))


# --- sources ----------------------------------------------------------------------------------


def _model_of(path: Path) -> tuple[str, str]:
    """The model in the package that made a picture, and what to say of that.

    Raises:
        UsageError: it was made by a model whose drawings are not told.
    """
    try:
        found = recipe.opened(path)
    except recipe.RecipeError:
        return "icons", "carries no recipe: compared with the drawings of icons"
    picture = recipe.pictures_of(path, found)[0] if "pictures" in found else found
    names = [file.name for file in recipe.recipe_of(path, picture).files if file.option == "model"]
    if not names or not ledger.has_ledger(names[0]):
        made = names[0] if names else "another model"
        raise UsageError(
            f"{path}: was made by {made}, of which no ledger of drawings is known: only models in "
            "the package have one"
        )
    if "pictures" in found:
        raise UsageError(f"{path}: is a sheet: name one of its pictures")
    return names[0], f"made by {names[0]}"


def run_sources(args: argparse.Namespace) -> int:
    """The drawings nearest to each picture."""
    shown: list[object] = []
    for path in args.files:
        model, told = _model_of(path) if path.exists() else ("icons", "")
        try:
            picture = to_tensor(cut_out(open_image(path), ledger.MARGIN), "rgba")
        except ImageError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise UsageError(f"{path}: {reason}") from None
        near = ledger.nearest(model, picture, args.count)
        rows = [{"likeness": round(each.likeness, 3), **_row(each.drawing)} for each in near]
        if args.json:
            shown.append({"file": str(path), "model": model, "nearest": rows, "note": AID})
            continue
        print(f"{path}: {told}; of the drawings that it learnt from, the {len(rows)} most like it:")
        print(columns([_SHOWN, *([str(row[key]) for key in _SHOWN] for row in rows)]), end="\n\n")
    print(json.dumps(shown, indent=1) if args.json else AID)
    return 0


_SHOWN = ("likeness", "concept", "set", "name", "licence", "author", "url")
