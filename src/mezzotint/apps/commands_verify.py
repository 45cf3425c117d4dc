"""`mezzotint verify`: a file made again from what it carries, and compared."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

import mezzotint
from mezzotint.apps.commands_generate import sheet_of
from mezzotint.apps.derived import cut
from mezzotint.apps.making import Made, begin, loaded, loading_key, making
from mezzotint.apps.repeat import Parse, Used, followed
from mezzotint.families.model import Model
from mezzotint.modalities.image import READABLE, ImageError, kind_of, open_image, seen
from mezzotint.modalities.metadata import svg
from mezzotint.provenance.pixels import Difference, difference, digest
from mezzotint.provenance.recipe import (
    COMPOSITE,
    File,
    RecipeError,
    derived,
    files_of,
    fingerprint,
    opened,
    pictures_of,
    recipe_of,
    told,
)
from mezzotint.provenance.surroundings import changed, versions

EQUAL, DIFFERS, CANNOT = "bit-equal", "differs", "cannot"
_SLACK_DB, _SLACK = 0.5, 2
"""How much farther a lossy file may be from what was made than it was when it was written: another
version of a decoder rounds otherwise."""


@dataclass(frozen=True)
class Verdict:
    """What was found of a file; causes: why it may differ, or what is missing."""

    file: str
    verdict: str
    said: str
    causes: tuple[str, ...] = ()
    apart: Difference | None = None

    def line(self) -> str:
        causes = "".join(f"; {cause}" for cause in self.causes)
        said = f" {self.said}" if self.said else ""
        return f"{self.file}: {self.verdict}{said}{causes}"

    def as_json(self) -> str:
        apart = None if self.apart is None else self.apart.as_data()
        return json.dumps({**vars(self), "apart": apart})


@dataclass
class _Again:
    """Pictures made again: what they are, and what is not as it was."""

    made: list[Made] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)


def _surroundings(document: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the versions and the machine is other than when a document was written."""
    found: list[str] = []
    for part in ("versions", "machine"):
        then = document.get(part)
        if isinstance(then, dict):
            found += changed(then, now[part])
    return found


def _threads(document: Mapping[str, Any]) -> int | None:
    """With how many it was made, if its document says so."""
    then = document.get("machine")
    threads = then.get("threads") if isinstance(then, dict) else None
    return threads if type(threads) is int and 0 < threads <= 1024 else None


class Models(Protocol):
    """Where models come from."""

    def of(self, how: argparse.Namespace) -> Model:
        """The model of a command line."""
        ...


class Loaded:
    """The model that was loaded last, for the files that it made too."""

    def __init__(self) -> None:
        self._key: object = None
        self._model: Model | None = None

    def of(self, how: argparse.Namespace) -> Model:
        """The model of a command line; under --memory, where the request decides how, anew."""
        key = loading_key(how)
        if self._model is None or self._key != key or how.memory is not None:
            self._model = None  # its memory is free before the next one takes it
            self._model, self._key = loaded(how), key
        return self._model


def _made_again(
    source: Path,
    documents: Sequence[Mapping[str, Any]],
    args: argparse.Namespace,
    parse: Parse,
    models: Models,
) -> _Again:
    """The pictures of documents, one by one, with the files that are found.

    Raises:
        ValueError, OSError: it cannot be done.
    """
    again = _Again()
    given = {
        name: str(value)
        for name in ("device", "memory", "mark-key")
        if (value := getattr(args, name.replace("-", "_"))) is not None
    }
    for document in documents:
        how = followed(recipe_of(source, document), source, given, parse, args.folders)
        how.lenient, how.quiet, how.preview, how.count = True, True, False, 1
        how.threads = _threads(document)
        begin(how)
        used = Used(how)
        made = next(iter(making(how, models.of(how), (how.seed,), used)))
        again.made.append(made)
        now = {"versions": versions(mezzotint.__version__), "machine": made.document["machine"]}
        for cause in [*used.others, *_surroundings(document, now)]:
            if cause not in again.causes:
                again.causes.append(cause)
    return again


def _compared(source: Path, document: Mapping[str, Any], made: Made, causes: list[str]) -> Verdict:
    """What was made again beside what is on the disk."""
    said, kind = document.get("pixels"), kind_of(source)
    if kind is None:  # it has a document and no pixels: curves
        return _drawn_again(source, said, made, causes)
    stored = open_image(source)
    lossy = kind == "JPEG" or (kind == "WEBP" and isinstance(said, dict) and "stored" in said)
    wanted = said.get("hash") if isinstance(said, dict) else None
    again = digest(made.image)
    shown = seen(made.image, kind)
    if stored.size != shown.size:
        sizes = f"{stored.width}x{stored.height} in place of {shown.width}x{shown.height}"
        return Verdict(str(source), DIFFERS, f"in size: {sizes}", tuple(causes))
    apart = difference(stored, shown)
    if wanted not in (None, again):
        return Verdict(str(source), DIFFERS, str(apart), tuple(causes) or _UNKNOWN, apart)
    if not lossy and digest(_as(stored, made.image.mode)) == again:
        return Verdict(str(source), EQUAL, "")
    if lossy and _within(apart, said):
        return Verdict(
            str(source),
            EQUAL,
            f"as it was made; as {kind} has stored it, it differs {apart}, as when it was written",
            (),
            apart,
        )
    changed_since = (
        "made again it is what its recipe says bit by bit: the file was changed after it was made"
    )
    return Verdict(str(source), DIFFERS, str(apart), (changed_since,), apart)


def _drawn_again(source: Path, said: object, made: Made, causes: Sequence[str]) -> Verdict:
    """What is traced of what was made again beside the curves on the disk."""
    from mezzotint.apps.tracing import traced

    known = said if isinstance(said, dict) else {}
    if known.get("hash") not in (None, digest(made.image)):
        told = "in the pixels that it was traced from"
        return Verdict(str(source), DIFFERS, told, tuple(causes) or _UNKNOWN)
    if svg.drawing(source.read_bytes()) == svg.drawing(traced(made.image)):
        return Verdict(str(source), EQUAL, "")
    if "stored" in known:
        why = "it was traced from a file that stored the picture with loss: verify that file"
        return Verdict(str(source), CANNOT, "be compared", (why,))
    why = (
        "the pixels are what its recipe says: the curves were changed since, or another version "
        "of vtracer drew them"
    )
    return Verdict(str(source), DIFFERS, "in its curves", (why,))


_UNKNOWN = ("versions, machine and files are as they were: the cause is not known",)


def _as(stored: Image.Image, mode: str) -> Image.Image:
    """A picture in the mode that it was made in: WebP has no grey, and leaves a full alpha out."""
    return stored if stored.mode == mode else stored.convert(mode)


def _within(apart: Difference, said: object) -> bool:
    """Whether a lossy file is about as far from what was made as when it was written."""
    stored = said.get("stored") if isinstance(said, dict) else None
    if not isinstance(stored, dict):
        return False
    largest, psnr = stored.get("largest"), stored.get("psnr")
    if not isinstance(largest, int | float) or not isinstance(psnr, int | float | None):
        return False
    near = psnr is None or apart.psnr >= psnr - _SLACK_DB
    return near and apart.largest <= largest + _SLACK


def _with_fingerprint(file: File, folders: Sequence[Path]) -> Path | None:
    """The file that a recipe means: by its name, else any picture; it may have been renamed."""
    named = [folder / file.name for folder in folders]
    others = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    pictures = (path for path in others if path.suffix.lower() in READABLE)
    found = (path for path in chain(named, pictures) if path.is_file())
    return next((path for path in found if fingerprint(path) == file.fingerprint), None)


def _of_others(
    source: Path, document: Mapping[str, Any], what: str, args: argparse.Namespace
) -> Verdict:
    """Of what was made of other pictures: a cut-out is cut out again; nothing makes a composite.

    Raises:
        RecipeError, ImageError, OSError: it cannot be done.
    """
    said = told(source, document)
    if what == COMPOSITE:
        by_hand = f"it is {said}, put together by hand: not reproducible"
        return Verdict(str(source), CANNOT, "be made again", (by_hand, _since(source, document)))
    files = files_of(source, document)
    if len(files) != 1:
        raise RecipeError(
            f"{source}: its recipe is damaged: its files are not what it was cut out of"
        )
    file = files[0]
    there = _with_fingerprint(file, (Path(), source.parent, *args.folders))
    if there is None:
        raise RecipeError(
            f"{source}: {file.name}, of which it was cut out, is neither here nor beside it, "
            "under whatever name: say where with --in"
        )
    if (threads := _threads(document)) is not None:
        torch.set_num_threads(threads)
    made = cut(there)
    now = {part: made.document[part] for part in ("versions", "machine")}
    return _compared(source, document, made, _surroundings(document, now))


def _since(source: Path, document: Mapping[str, Any]) -> str:
    """Whether a file that nothing makes again was changed, as far as its pixels tell."""
    if kind_of(source) is None:
        return "it was traced in curves, and has no pixels to compare"
    pixels, now = document.get("pixels"), digest(open_image(source))
    same = isinstance(pixels, dict) and pixels.get("hash") == now
    return "its pixels are as they were then" if same else "its pixels are other than then"


def verified(source: Path, args: argparse.Namespace, parse: Parse, models: Models) -> Verdict:
    """Make a file again and compare; what hinders that is in the verdict."""
    threads = torch.get_num_threads()  # it is made with as many as its recipe says
    try:
        document = opened(source)
        if (what := derived(document)) is not None:
            return _of_others(source, document, what, args)
        sheet = "pictures" in document
        documents = pictures_of(source, document) if sheet else [document]
        again = _made_again(source, documents, args, parse, models)
        made = sheet_of(again.made) if sheet else again.made[0]
        return _compared(source, document, made, again.causes)
    except (ImageError, RecipeError) as error:
        return Verdict(str(source), CANNOT, "", (_without(source, error),))
    except (ValueError, OSError) as error:
        return Verdict(str(source), CANNOT, "be made again", (_without(source, error),))
    finally:
        torch.set_num_threads(threads)


def _without(source: Path, error: Exception) -> str:
    """What an error says, without the file's name before it."""
    return " ".join(str(error).split()).removeprefix(f"{source}: ")


def _verdicts(args: argparse.Namespace) -> Iterator[Verdict]:
    from mezzotint.apps.cli import parse

    models = Loaded()
    for source in args.files:
        yield verified(source, args, parse, models)


def run(args: argparse.Namespace) -> int:
    """A line for each file; the exit code is 0 if all are bit-equal, else 1."""
    good = True
    for verdict in _verdicts(args):
        print(verdict.as_json() if args.json else verdict.line(), flush=True)
        good = good and verdict.verdict == EQUAL
    return 0 if good else 1
