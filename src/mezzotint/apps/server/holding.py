"""The models that a worker keeps loaded, and what it says of those that it could load."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mezzotint.apps.errors import one_line
from mezzotint.apps.making import loaded, loading_key
from mezzotint.apps.server.places import KINDS, WEIGHTS, Places, Stamps, listed, stamps
from mezzotint.apps.server.wish import batch_of
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.source import members
from mezzotint.diffusion import samplers, spacings
from mezzotint.families import catalogue
from mezzotint.families.memory import release, resident
from mezzotint.families.model import Model
from mezzotint.families.native import EMBEDDINGS
from mezzotint.families.sight import sight_for
from mezzotint.families.sizes import written
from mezzotint.provenance.recipe import fingerprint


class _Loaded(NamedTuple):
    """A model, its files as they were when it was loaded, and what its wishes have in common."""

    model: Model
    files: Stamps
    batch: str


class Held:
    """Loaded models, the one that was used last at the end; together within a number of bytes."""

    def __init__(self, most: int | None = None) -> None:
        """most: bytes that the process may have when it begins to load; None: one model."""
        self._most = most
        self._models: OrderedDict[tuple[Any, ...], _Loaded] = OrderedDict()
        self._known: dict[Path, tuple[Stamps, str]] = {}

    def of(self, how: argparse.Namespace) -> Model:
        """The model of a command line.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        where, key = catalogue.locate(how.model), loading_key(how)
        files = stamps(members(where))
        if key in self._models and self._models[key].files != files:  # they were written anew
            del self._models[key]
            release()
        if key not in self._models:
            self._make_room(where)
            batch = batch_of(Path(how.model).name, how.precision)
            self._models[key] = _Loaded(loaded(how), files, batch)
        self._models.move_to_end(key)
        return self._models[key].model

    @property
    def batches(self) -> list[str]:
        """What the wishes have in common that are made with what is here."""
        return [held.batch for held in self._models.values()]

    def _make_room(self, where: Path) -> None:
        """Drop what was used longest ago until the new one fits."""
        size = _size(where)
        while self._models and (self._most is None or resident() + size > self._most):
            self._models.popitem(last=False)
            release()

    def known(self, args: argparse.Namespace) -> Mapping[Path, str]:
        """The fingerprint of the model's file, which is taken once as long as it stays as it is."""
        where = catalogue.locate(args.model)
        now = stamps(members(where))
        if where not in self._known or self._known[where][0] != now:
            self._known[where] = now, fingerprint(where)
        return {where: self._known[where][1]}

    def drop(self) -> None:
        """Forget them all."""
        self._models.clear()
        release()


def _size(path: Path) -> int:
    """The bytes of a file, or of all in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _about(name: str, path: Path) -> dict[str, Any]:
    """What a file of weights is, by its header; image_prompts: it takes these by itself."""
    try:
        report = inspect(path)
    except (CheckpointError, OSError) as error:
        return {"name": name, "error": one_line(error)}
    details, sizes = dict(report.details), _sizes(path)
    usual = _usual(path) or _own_usual(details)
    sees = sight_for(details.get(f"config.notes.{EMBEDDINGS}")) is not None
    said = {"details": details, "usual": usual, "sizes": sizes, "image_prompts": sees}
    return {"name": name, "kind": report.kind, "bytes": _size(path), **said}


def _usual(path: Path) -> dict[str, Any]:
    """What a checkpoint makes when nothing is said; edits: it is told the picture that it edits."""
    try:
        family = catalogue.identify(path)[0]
    except CheckpointError:  # one of our own, or none
        return {}
    how = family.defaults
    joined = None if family.joining is None else catalogue.shadow(family).joined
    edits = joined is not None and (joined.guidance is not None or joined.free_size)
    size = written(how.size)
    return {"size": size, "steps": how.steps, "transparent": False, "edits": edits}


def _own_usual(details: Mapping[str, str]) -> dict[str, Any]:
    try:
        size = tuple(int(edge) for edge in details["config.defaults.size"].split(","))
        steps = int(details["config.defaults.steps"])
    except (KeyError, ValueError):
        return {}
    transparent = details.get("config.channels") == "rgba"
    return {"size": written(size), "steps": steps, "transparent": transparent, "edits": False}


def _sizes(path: Path) -> list[str]:
    """The sizes that a model was trained on, where a list of them is known."""
    try:
        return [written(size) for size in catalogue.trained_sizes(path)]
    except CheckpointError:
        return []


def _names(places: Places, kind: str) -> list[str]:
    """What prompts and options may name of the files below the folders of models."""
    ends = (".txt",) if kind == "wildcards" else WEIGHTS
    found = [path for folder in places.all_of(kind) for path in listed(folder)]
    return list(dict.fromkeys(path.stem for path in found if path.suffix in ends))


def about(places: Places) -> dict[str, Any]:
    """What there is to choose from."""
    own = [_about(name, catalogue.locate(name)) for name in catalogue.names()]
    return {
        "models": [*own, *(_about(path.name, path) for path in places.weights())],
        "samplers": list(samplers.SAMPLERS),
        "spacings": list(spacings.SPACINGS),
        **{kind: _names(places, kind) for kind in KINDS},
    }
