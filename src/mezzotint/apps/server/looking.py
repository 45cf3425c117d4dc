"""Jobs that look at a picture: is it what its recipe makes, and how was it made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mezzotint.apps.cli import parse
from mezzotint.apps.commands_detect import MARKED, looked
from mezzotint.apps.commands_verify import Models, verified
from mezzotint.apps.sealing import converted
from mezzotint.apps.server.likeness import packed
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.store import Store, StoreError
from mezzotint.families import ledger
from mezzotint.families.model import Model
from mezzotint.modalities import image as pictures
from mezzotint.modalities.ground import cut_out
from mezzotint.modalities.image import read_text
from mezzotint.provenance import identity
from mezzotint.provenance.chain import read as read_credentials
from mezzotint.provenance.foreign import foreign
from mezzotint.provenance.recipe import (
    NoRecipeError,
    RecipeError,
    files_of,
    opened,
    pictures_of,
    recipe_of,
)

_SEEN = 256
"""Pixels of the longer edge of what is looked at."""
_PLAIN = 0.98
"""Share of the border that has to be of one colour: a photograph is looked at with its ground."""


def _documents(path: Path) -> list[dict[str, Any]]:
    """The recipes in a file: of a sheet one a picture."""
    document = opened(path)
    return pictures_of(path, document) if "pictures" in document else [document]


Theirs = Callable[[str], bool]
"""Whether a file of the store, by its SHA-256, is of the one who asks."""


def _with_inputs(path: Path, store: Store, theirs: Theirs) -> None:
    """Lay the pictures that a recipe names beside it, those that are here."""
    for document in _documents(path):
        for file in files_of(path, document):
            beside = path.with_name(Path(file.name).name)
            name = file.fingerprint.removeprefix("sha256:")
            if not beside.exists() and theirs(name):
                with suppress(StoreError):
                    store.link(name, beside)


def verify(
    path: Path, store: Store, theirs: Theirs, places: Places, models: Models, device: str | None
) -> dict[str, Any]:
    """Make a file again, and say how it compares."""
    with suppress(RecipeError, ValueError):  # which the verdict says
        _with_inputs(path, store, theirs)
    words = [word for folder in places.sought() for word in ("--in", str(folder))]
    words += [] if device is None else ["--device", device]
    verdict = verified(path, parse(["verify", str(path), *words]), parse, models)
    apart = None if verdict.apart is None else verdict.apart.as_data()
    line = verdict.line().removeprefix(f"{path}: ")
    return {"verdict": verdict.verdict, "said": line, "causes": verdict.causes, "apart": apart}


@torch.inference_mode()
def sight(image: Image.Image) -> bytes:
    """What is seen of a picture: of a drawing on one colour, without that."""
    whole = pictures.as_rgba(image)
    try:
        shown = cut_out(whole, ledger.MARGIN, _PLAIN)
    except pictures.ImageError:  # a photograph, or nothing at all
        shown = whole.copy()
        shown.thumbnail((_SEEN, _SEEN), Image.Resampling.BOX)
    return packed(ledger.described("icons", pictures.to_tensor(shown, "rgba")).tolist())


def see(path: Path) -> dict[str, str]:
    """What is seen of a file, in hexadecimal.

    Raises:
        ImageError: it is no picture.
    """
    return {"seen": sight(pictures.open_image(path)).hex()}


def credentials(path: Path) -> dict[str, Any]:
    """Who made a file, from what, and whether it was changed since.

    Raises:
        CredentialsError: they are damaged.
    """
    found = read_credentials(path, identity.anchors(), b"")
    return {"state": "none"} if found is None else asdict(found)


def export(path: Path, kind: str, store: Store) -> dict[str, Any]:
    """A picture in another format, in the store.

    Raises:
        ValueError: it cannot be, for one of the reasons of :func:`converted`.
    """
    title = f"{path.name[:12]}.{kind.lower()}"
    data, mime = converted(path, kind, title, identity.configured())
    return {"file": store.put(data), "type": mime}


def detect(path: Path, places: Places, models: Models, device: str | None) -> dict[str, Any]:
    """Look for the marks in a picture; each with how sure it is."""
    words = [] if device is None else ["--device", device]
    with suppress(ValueError):  # without a recipe nothing is looked for in the noise
        name = str(recipe_of(path, opened(path)).options.get("model", ""))
        words += [f"--model={each}" for each in places.weights() if each.name == name]
    args = parse(["detect", str(path), *words])

    def load(name: str) -> Model:
        at = [] if device is None else ["--device", device]
        return models.of(parse(["generate", f"--model={name}", *at, "--", ""]))

    lines = [replace(line, file="") for line in looked(path, args, load)]
    marks = [{**asdict(line), "found": line.p_value <= MARKED} for line in lines]
    return {"marks": marks, "most": MARKED}


def recipe(path: Path, theirs: Theirs) -> dict[str, Any]:
    """How a file was made, as the wishes of jobs; a sheet has several.

    Raises:
        RecipeError: it does not say.
    """
    try:
        documents = _documents(path)
    except NoRecipeError:
        found = foreign(read_text(path))
        return {"program": found.program, "wishes": [dict(found.options)], "left": found.left}
    wishes = []
    for document in documents:
        how = recipe_of(path, document)
        options: dict[str, Any] = dict(how.options)
        for file in how.files:
            name = file.fingerprint.removeprefix("sha256:")
            if options.get(file.option) == file.name and theirs(name):
                options[file.option] = name
        wishes.append(options)
    return {"program": "mezzotint", "wishes": wishes, "left": []}
