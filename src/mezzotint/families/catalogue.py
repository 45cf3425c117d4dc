"""The models that can be named: those in the package, and any model by its path."""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.layout import Beside
from mezzotint.checkpoints.signatures import ADAPTER, OPTIONS
from mezzotint.checkpoints.source import Listing, describe, one_file, open_folder, read
from mezzotint.families import flow, ldm, separate, tiny
from mezzotint.families.memory import plan, resting
from mezzotint.families.model import Model
from mezzotint.families.native import EMBEDDINGS, KEY, EmbeddingCodec, from_json, load_model
from mezzotint.families.precision import AUTO, kind_of
from mezzotint.families.separate import Given
from mezzotint.families.sight import sight_for
from mezzotint.families.sizes import Aspect

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


def sees(name_or_path: str) -> bool:
    """Whether a model takes pictures as prompts by itself; its header alone is read.

    Raises:
        CheckpointError: there is no such model, or its file is damaged.
    """
    path = one_file(locate(name_or_path))
    if path.is_dir():
        return False
    said = describe(path).metadata.get(KEY)
    return said is not None and sight_for(from_json(said).notes.get(EMBEDDINGS)) is not None


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
        kinds = [recognise(describe(folder.weights(other))).kind for other in folder.networks]
        if adapter := next((kind for kind in kinds if _option(kind) == ADAPTER), None):
            raise _no_model(path, adapter, ADAPTER)
        raise CheckpointError(f"{path}: has none of {', '.join(_DENOISERS)}: no such pipeline")
    return describe(folder.weights(part))


def _option(kind: str | None) -> str | None:
    """By which option a model is given what is none by itself."""
    return next((option for start, option in OPTIONS if (kind or "").startswith(start)), None)


def _no_model(path: Path, kind: str | None, option: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: is {kind}, no model by itself: give `generate` a model with --model, and this "
        f"with {option}"
    )


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
    fit = [f for f in FAMILIES if base == f.folder.kind or (base == f.file.kind and not whole)]
    if not fit:
        if (option := _option(kind)) is not None:
            raise _no_model(path, kind, option)
        known = ", ".join(family.name for family in FAMILIES)
        raise CheckpointError(
            f"{path}: {kind or 'no weights that are known'}: pictures are made by Mezzotint's own "
            f"models and by checkpoints, files or diffusers folders, of these families: {known}"
        )
    said = open_folder(path).configs.get("scheduler", {}) if whole else marks.scheduler(listing)
    read = [_scheduled(family, said, f"{path}: scheduler") for family in fit]
    same = [new for new, own in zip(read, fit, strict=True) if new.prediction == own.prediction]
    fit = same or [family for family in read if not family.title][:1] or read[:1]
    if not same and fit[0].prediction in marks.EDM:
        raise CheckpointError(
            f"{path}: is {kind} that predicts in EDM's terms ({fit[0].prediction}), of which no "
            "family is known: see inspect"
        )
    if name is None:
        fit = _saying(path, listing, fit)
    else:
        fit = [family for family in fit if family.name == name]
        if not fit:
            raise CheckpointError(f"{path}: is {kind}, not of the family {name!r}")
    if isinstance(fit[0], ldm.Family) and fit[0].std:
        _check_code(fit[0], path)
    if len(fit) > 1:
        names = " and ".join(f"{family.name} ({family.prediction})" for family in fit)
        raise CheckpointError(
            f"{path}: fits {names}, and nothing in it tells which: say it with --family"
        )
    return fit[0]


def _check_code(family: ldm.Family, path: Path) -> None:
    """Raise CheckpointError where a checkpoint norms its code by other numbers than its family."""
    whole = path.is_dir()
    names = ("latents_mean", "latents_std") if whole else (marks.EDM_MEAN, marks.EDM_STD)
    own: dict[str, tuple[float, ...]] = {names[0]: family.mean, names[1]: family.std}
    if whole:
        vae = open_folder(path).configs.get(family.folder.places[separate.AUTOENCODER], {})
        said: dict[str, Any] = {key: vae.get(key) for key in own}
    else:
        state = read(path)
        said = {key: state[key] for key in own if key in state}
    for key, value in said.items():
        try:
            numbers = torch.as_tensor(value, dtype=torch.float32).flatten()
            alike = torch.allclose(numbers, torch.tensor(own[key]), atol=1e-3, rtol=0)
        except (TypeError, ValueError, RuntimeError):
            alike = False
        if not alike:
            raise CheckpointError(
                f"{path}: its {key} is other than {family.title}'s, {list(own[key])}: it is not "
                "known how its code is to be read"
            )


def identify(path: Path, name: str | None = None) -> tuple[Family, Listing]:
    """The family of a checkpoint of others, and the tensors that told it.

    Raises:
        CheckpointError: as :func:`family_of`, or it is one of our own models.
    """
    listing = _listing(path)
    if KEY in listing.metadata:
        raise CheckpointError(f"{path}: is one of Mezzotint's own models, which have one layout")
    return family_of(path, listing, name), listing


def trained_sizes(path: Path) -> tuple[tuple[int, int], ...]:
    """The sizes that a checkpoint was trained on, where it is of a family that knows them."""
    try:
        return identify(path)[0].defaults.sizes
    except CheckpointError:  # no checkpoint, one of several families, or one of our own
        return ()


def shadow(family: Family) -> Model:
    """A model of a family without weights: on the meta device."""
    with torch.device("meta"):
        return flow.build(family) if isinstance(family, flow.Family) else ldm.build(family)


def located(
    family: Family, path: Path, listing: Listing, given: Sequence[Given]
) -> dict[str, Beside]:
    """The parts of a model that lie in files of their own: see :mod:`~mezzotint.families.separate`.

    Args:
        path: of its file or folder; listing: what told the family; given: files beside it.

    Raises:
        CheckpointError: a file is damaged, or is none of the family's parts.
    """
    if not given and not separate.alone(family, path, listing):
        return {}
    if isinstance(family, flow.Family):
        family = flow.unprojected(family, family.identity)
    return separate.locate(family, shadow(family).parts, path, listing, given)


def parts(family: Family) -> dict[str, nn.Module]:
    """The networks of a family, by the part's name, without weights."""
    return shadow(family).parts


class Limit(NamedTuple):
    """Bytes that the program may take, for media of a size (None: the family's default) that are
    enlarged by a factor."""

    memory: int
    size: tuple[int, ...] | Aspect | None = None
    factor: float = 1.0

    def largest(self, model: Model) -> tuple[int, ...]:
        """The size of the largest media that a model is to make."""
        size = model.size_of(self.size) if isinstance(self.size, Aspect) else self.size
        multiple, size = model.codec.multiple, size or model.defaults.size
        return tuple(math.ceil(edge * self.factor / multiple) * multiple for edge in size)


def _load(
    path: Path,
    family: str | None,
    precision: str,
    place: torch.device,
    limit: Limit | None,
    given: Sequence[Given],
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
        if given:
            raise CheckpointError(
                f"{path}: one of Mezzotint's own models, which are whole: leave the parts out"
            )
        model = load_model(path)[0]
        if isinstance(model.codec, EmbeddingCodec):
            raise CheckpointError(
                f"{path}: a prior, which makes embeddings and no pictures: give the model that "
                "was trained with it"
            )
        return model
    found = family_of(path, listing, family)
    kind = kind_of(precision, place)
    beside = located(found, path, listing, given)
    said = separate.replaced(found, path, beside)
    found = tiny.fitted(found, beside)
    lean = limit is None and place.type == "cpu"
    room = resting((*found.file.places, *beside)) if lean else {}
    if limit is not None:
        if place.type != "cpu":
            raise CheckpointError(
                f"{path}: a limit of memory is for the processor's: leave it out, or --device cpu"
            )
        empty = shadow(found)
        room, words = plan(empty, limit.largest(empty), kind, limit.memory)
        said = (*said, words)
    load = flow.load if isinstance(found, flow.Family) else ldm.load
    model = load(found, path, kind, room, beside, lean)  # type: ignore[arg-type]
    return replace(model, notes=(*model.notes, *said))


def load(
    name_or_path: str,
    place: str | None = None,
    family: str | None = None,
    precision: str = AUTO,
    limit: Limit | None = None,
    given: Sequence[Given] = (),
) -> Model:
    """Load a model that makes media, by name or path, onto a device (none: the GPU if any).

    Args:
        family: what a checkpoint is, where its file cannot say.
        precision: of a checkpoint's networks: see :mod:`mezzotint.families.precision`.
        limit: what the program may take: see :mod:`mezzotint.families.memory`.
        given: files with parts of a checkpoint: see :mod:`mezzotint.families.separate`.

    Raises:
        CheckpointError: there is no such file, or it is damaged or no such model.
        ValueError: there is no such device or precision, or the memory is too little.
    """
    where, path = device(place), one_file(locate(name_or_path))
    model = _load(path, family, precision, where, limit, given)
    for module in model.parts.values():
        module.to(where)
    return model
