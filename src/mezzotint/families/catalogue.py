"""The models that can be named: those in the package, and any model by its path."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.source import Listing, describe, open_folder
from mezzotint.families import flow, ldm
from mezzotint.families.memory import plan, resting
from mezzotint.families.model import Model
from mezzotint.families.native import KEY, EmbeddingCodec, load_model
from mezzotint.families.precision import AUTO, kind_of

DATA = Path(__file__).parent / "data"
PACKAGED = {"icons": DATA / "icons.safetensors"}
"""Models that lie in the package, by name."""
Family = ldm.Family | flow.Family


def _families() -> tuple[Family, ...]:
    """Every family that a module of this package has under a public name."""
    found: dict[str, Family] = {}
    for entry in pkgutil.iter_modules([str(DATA.parent)]):
        name = f"{__package__}.{entry.name}"
        values = vars(importlib.import_module(name)) if name != __name__ else {}
        for key, value in values.items():
            if key.startswith("_") or not isinstance(value, ldm.Family | flow.Family):
                continue
            if found.setdefault(value.name, value) is not value:
                raise ValueError(f"two families are called {value.name!r}: rename {name}.{key}")
    return tuple(found[name] for name in sorted(found))


FAMILIES = _families()
"""The families of others' checkpoints; a new module in this package is in it by itself."""
_DENOISERS = ("unet", "transformer")  # the folder's part that tells the family


def names() -> list[str]:
    """The models that `load` knows by name."""
    return list(PACKAGED)


def locate(name_or_path: str) -> Path:
    """The file or folder of a model named or given by its path.

    Raises:
        CheckpointError: it is neither a known name nor an existing file.
    """
    if name_or_path in PACKAGED:
        return PACKAGED[name_or_path]
    path = Path(name_or_path)
    if not path.exists():
        near = difflib.get_close_matches(name_or_path, PACKAGED) or names()
        raise CheckpointError(
            f"no model {name_or_path!r}: give the path of a model file, or one of: "
            + ", ".join(near)
        )
    return path


def device(name: str | None = None) -> torch.device:
    """A device by its name ("cpu", "cuda:1", "mps"); none is the GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    here += ["cuda"] if len(here) > 1 else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name not in here:
        raise ValueError(f"no device {name!r} here: choose one of {', '.join(here)}")
    return torch.device(name)


def _listing(path: Path) -> Listing:
    """The tensors that tell a family: the file's, or those of a folder's denoiser."""
    if not path.is_dir():
        return describe(path)
    folder = open_folder(path)
    part = next((part for part in _DENOISERS if part in folder.networks), None)
    if part is None:
        raise CheckpointError(f"{path}: has none of {', '.join(_DENOISERS)}: no such pipeline")
    return describe(folder.weights(part))


def _scheduled(family: Family, config: Mapping[str, Any], where: str) -> Family:
    if isinstance(family, flow.Family):
        return flow.scheduled(family, config, where)
    return ldm.scheduled(family, config, where)


def _saying(path: Path, listing: Listing, fit: list[Family]) -> list[Family]:
    """Of families with the same tensors those that a checkpoint says it is: by the class of the
    folder's pipeline, or by its title; without either, those that no title names."""
    if path.is_dir():
        kind = open_folder(path).kind
        if same := [family for family in fit if family.folder.pipeline == kind]:
            fit = same
    said = marks.variants(listing)
    titled = [family for family in fit if family.title in said]
    return titled or [family for family in fit if not family.title] or fit


def family_of(path: Path, listing: Listing, name: str | None = None) -> Family:
    """The family of a checkpoint, as its folder's scheduler says, or the marks in its file.

    Args:
        name: the family to take where several fit.

    Raises:
        CheckpointError: no family fits, not the one that was named, or several fit.
    """
    kind, whole = recognise(listing).kind, path.is_dir()
    base = (kind or "").split(",")[0]  # what follows is a prediction, which the marks tell too
    fit = [f for f in FAMILIES if base == (f.folder if whole else f.file).kind]
    if not fit:
        known = ", ".join(family.name for family in FAMILIES)
        raise CheckpointError(
            f"{path}: {kind or 'no weights that are known'}: pictures are made by Mezzotint's own "
            f"models and by whole checkpoints, files or diffusers folders, of these families: "
            f"{known}"
        )
    said = open_folder(path).configs.get("scheduler", {}) if whole else marks.scheduler(listing)
    read = [_scheduled(family, said, f"{path}: scheduler") for family in fit]
    same = [new for new, own in zip(read, fit, strict=True) if new.prediction == own.prediction]
    fit = same or read[:1]
    if name is None:
        fit = _saying(path, listing, fit)
    else:
        fit = [family for family in fit if family.name == name]
        if not fit:
            raise CheckpointError(f"{path}: is {kind}, not of the family {name!r}")
    if len(fit) > 1:
        names = " and ".join(f"{family.name} ({family.prediction})" for family in fit)
        raise CheckpointError(
            f"{path}: fits {names}, and nothing in it tells which: say it with --family"
        )
    return fit[0]


def identify(path: Path, name: str | None = None) -> tuple[Family, Listing]:
    """The family of a checkpoint of others, and the tensors that told it.

    Raises:
        CheckpointError: as :func:`family_of`, or it is one of our own models.
    """
    listing = _listing(path)
    if KEY in listing.metadata:
        raise CheckpointError(f"{path}: is one of Mezzotint's own models, which have one layout")
    return family_of(path, listing, name), listing


def shadow(family: Family) -> Model:
    """A model of a family without weights: on the meta device."""
    with torch.device("meta"):
        return flow.build(family) if isinstance(family, flow.Family) else ldm.build(family)


def parts(family: Family) -> dict[str, nn.Module]:
    """The networks of a family, by the part's name, without weights."""
    return shadow(family).parts


class Limit(NamedTuple):
    """Bytes that the program may take, for media of a size (None: the family's default)."""

    memory: int
    size: tuple[int, ...] | None = None


def _load(
    path: Path, family: str | None, precision: str, place: torch.device, limit: Limit | None
) -> Model:
    """A model from its file or folder, of whichever family it is."""
    listing = _listing(path)
    if KEY in listing.metadata:
        if family is not None:
            raise CheckpointError(f"{path}: is one of Mezzotint's own models: leave the family out")
        if precision not in (AUTO, "float32"):
            raise CheckpointError(
                f"{path}: one of Mezzotint's own models, which compute in float32: leave the "
                "precision out"
            )
        if limit is not None:
            raise CheckpointError(
                f"{path}: one of Mezzotint's own models, which are small: leave the memory out"
            )
        model = load_model(path)[0]
        if isinstance(model.codec, EmbeddingCodec):
            raise CheckpointError(
                f"{path}: a prior, which makes embeddings and no pictures: give the model that "
                "was trained with it"
            )
        return model
    found = family_of(path, listing, family)
    kind, said = kind_of(precision, place), ()
    lean = limit is None and place.type == "cpu"
    room = resting(found.file.places) if lean else {}
    if limit is not None:
        if place.type != "cpu":
            raise CheckpointError(
                f"{path}: a limit of memory is for the processor's: leave it out, or --device cpu"
            )
        room, words = plan(shadow(found), limit.size or found.defaults.size, kind, limit.memory)
        said = (words,)
    load = flow.load if isinstance(found, flow.Family) else ldm.load
    model = load(found, path, kind, room, lean)  # type: ignore[arg-type]
    return replace(model, notes=(*model.notes, *said))


def load(
    name_or_path: str,
    place: str | None = None,
    family: str | None = None,
    precision: str = AUTO,
    limit: Limit | None = None,
) -> Model:
    """Load a model that makes media, by name or path, onto a device (none: the GPU if any).

    Args:
        family: what a checkpoint is, where its file cannot say.
        precision: of a checkpoint's networks: see :mod:`mezzotint.families.precision`.
        limit: what the program may take: see :mod:`mezzotint.families.memory`.

    Raises:
        CheckpointError: there is no such file, or it is damaged or no such model.
        ValueError: there is no such device or precision, or the memory is too little.
    """
    where, path = device(place), locate(name_or_path)
    model = _load(path, family, precision, where, limit)
    for module in model.parts.values():
        module.to(where)
    return model
