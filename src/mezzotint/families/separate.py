"""Models whose parts lie in files of their own: which file is which part, and what is lacking.

FLUX.1 and SD3.5 are mostly kept so: the transformer, ``ae.safetensors``, ``clip_l.safetensors``,
``t5xxl_fp16.safetensors``.  A file is told by its names and sizes (:mod:`mezzotint.checkpoints
.separate`), which must be those of a part of the model's family.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from mezzotint.checkpoints.files import CheckpointError, nearest
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.layout import Beside, Layout
from mezzotint.checkpoints.separate import Form, Misfit, match
from mezzotint.checkpoints.source import Listing, describe, one_file, open_folder
from mezzotint.checkpoints.tables import clip, ldm_autoencoder, t5, tiny_autoencoder
from mezzotint.networks.clip import ClipText
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder
from mezzotint.networks.t5 import T5Encoder
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig

NETWORK, AUTOENCODER, T5, TINY = "network", "autoencoder", "t5", "tiny"
"""Parts of every family; its CLIP encoders have names of their own.  What shows a code while it
forms, the tiny autoencoder, is no part of a checkpoint."""
NO_TEXT = (NETWORK, AUTOENCODER, TINY)
"""Parts that are no text encoders."""


class Given(NamedTuple):
    """A file that holds one part; part: which, as people call it, where its header cannot say."""

    path: Path
    part: str | None = None


class Called(Protocol):
    """What a family says of a CLIP encoder."""

    @property
    def called(self) -> str: ...


class Family(Protocol):
    """What is needed of a family here."""

    @property
    def name(self) -> str: ...
    @property
    def texts(self) -> Mapping[str, Called]: ...
    @property
    def file(self) -> Layout: ...
    @property
    def folder(self) -> Layout: ...


_TEXT = {**clip.text(), **clip.text("")}  # newer releases leave the prefix out
_UNPROJECTED = {"text_projection.weight": None, "text_projection": None}
_PICTURES = ("vision_model.*", "visual_projection.weight", "visual.*", "*logit_scale")
_DECODER = ("decoder.*", "lm_head.weight", "dec.*", "output.weight")
_FORMS: dict[type[nn.Module], tuple[Form, ...]] = {
    ClipText: (
        Form(_TEXT, ("", "transformer."), _PICTURES),
        Form(clip.TEXT_OPEN, ("", "transformer.", "model."), _PICTURES),
    ),
    T5Encoder: (Form(t5.T5, ("", "transformer."), _DECODER), Form(t5.GGUF, ("",), _DECODER)),
    LdmAutoencoder: (
        Form(
            ldm_autoencoder.DIFFUSERS,
            ("", *ldm_autoencoder.ORIGINAL_PREFIXES),
            ("loss.*", "model_ema.*"),
        ),
    ),
}
"""How networks lie in files of their own, beside the layouts of their family."""
_BOTH_HALVES = (Form(tiny_autoencoder.DIFFUSERS), Form(tiny_autoencoder.COMBINED))
_DECODERS = (
    Form(tiny_autoencoder.DIFFUSERS, ignored=("encoder.*",)),
    Form(tiny_autoencoder.COMBINED, ignored=("taesd_encoder.*",)),
    Form(tiny_autoencoder.DECODER),
)
"""How a tiny autoencoder does, or its decoder."""


def labels(family: Family) -> dict[str, str]:
    """What people call the parts of a family that may be given beside its denoiser."""
    own = {part: text.called for part, text in family.texts.items()}
    more = {T5: T5} if T5 in family.file.places else {}
    return {**own, **more, AUTOENCODER: "vae", TINY: "taesd"}


def _forms(family: Family, part: str, network: nn.Module) -> list[Form]:
    general = _FORMS.get(type(network), ())
    known = {prefix: None for form in general for prefix in form.prefixes} | {"": None}
    prefixes = (*known, family.file.places[part])
    more = (*family.file.ignored, *family.file.marks)
    ignored = {pattern: None for form in general for pattern in form.ignored}
    tables = [layout.tables[part] for layout in (family.file, family.folder)]
    forms = [
        *general,
        *(Form(table, prefixes, (*ignored, *more)) for table in tables),
    ]
    if isinstance(network, ClipText) and not network.config.projection:
        forms = [Form({**f.table, **_UNPROJECTED}, f.prefixes, f.ignored) for f in forms]
    return forms


def alone(family: Family, path: Path, listing: Listing) -> bool:
    """Whether a file has the denoiser alone under its bare names, as it was released."""
    return not path.is_dir() and not any(
        name.startswith(place) for name in listing.tensors for place in family.file.places.values()
    )


def locate(
    family: Family,
    parts: Mapping[str, nn.Module],
    path: Path,
    listing: Listing,
    given: Sequence[Given],
) -> dict[str, Beside]:
    """Which of a model's parts lie in files of their own, and how they are to be read.

    Args:
        parts: its networks, without weights.
        path: of its file or folder; listing: of that file, or of the folder's denoiser.

    Raises:
        CheckpointError: a file is damaged, fits no part or several, or two are the same part.
    """
    found: dict[str, Beside] = {}
    if alone(family, path, listing):
        network = match(
            listing, _forms(family, NETWORK, parts[NETWORK]), parts[NETWORK].state_dict()
        )
        if isinstance(network, Misfit):
            raise CheckpointError(f"{path}: is not of {family.name}: {network.reason}")
        found[NETWORK] = network
    for file, said in given:
        part, beside = _part(family, parts, file, said)
        if part in found:
            raise CheckpointError(
                f"{file} and {found[part].path} are both {labels(family)[part]}: give one of them"
            )
        found[part] = beside
    return found


def _part(
    family: Family, parts: Mapping[str, nn.Module], path: Path, said: str | None
) -> tuple[str, Beside]:
    """The part that a file is."""
    called = labels(family)
    names = {label: part for part, label in called.items()}
    if said is not None and said not in names:
        known = ", ".join(names)
        raise CheckpointError(
            f"{family.name} has no part {said!r}{nearest(said, names)}: its parts are {known}"
        )
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    listing = describe(one_file(path))
    wanted = [names[said]] if said is not None else list(called)
    tried = {part: _tried(family, parts, listing, part, said is not None) for part in wanted}
    fit = {part: beside for part, beside in tried.items() if isinstance(beside, Beside)}
    if len(fit) > 1:
        fits = " and ".join(called[part] for part in fit)
        first = called[next(iter(fit))]
        raise CheckpointError(f"{path}: fits {fits}: say which, as in --part {first}={path.name}")
    if not fit:
        raise CheckpointError(f"{path}: {_unfit(family, listing, tried)}")
    return next(iter(fit.items()))


def _tried(
    family: Family, parts: Mapping[str, nn.Module], listing: Listing, part: str, said: bool
) -> Beside | Misfit:
    """How a part lies in a file, or why it does not.  In the place of the autoencoder a tiny one
    may stand, where that is said."""
    if part == TINY:
        return _tiny(parts, listing, encoder=False)
    found = match(listing, _forms(family, part, parts[part]), parts[part].state_dict())
    if part == AUTOENCODER and said and isinstance(found, Misfit):
        tiny = [_tiny(parts, listing, encoder) for encoder in (True, False)]
        fit = [small for small in tiny if isinstance(small, Beside)]
        unfit = [found, *(small for small in tiny if isinstance(small, Misfit))]
        return fit[0] if fit else max(unfit, key=lambda misfit: misfit.known)
    return found


def _tiny(parts: Mapping[str, nn.Module], listing: Listing, encoder: bool) -> Beside | Misfit:
    """How a tiny autoencoder for a model's codes, or its decoder alone, lies in a file."""
    own = parts[AUTOENCODER].config
    config = TinyAutoencoderConfig(latent_channels=own.latent_channels, encoder=encoder)  # type: ignore[union-attr]
    if own.stride != config.stride:  # type: ignore[union-attr]
        return Misfit(f"its codes are {config.stride} times smaller, not {own.stride}", 0.0)  # type: ignore[union-attr]
    with torch.device("meta"):
        wanted = TinyAutoencoder(config).state_dict()
    return match(listing, _BOTH_HALVES if encoder else _DECODERS, wanted)


def tiny_halves(beside: Mapping[str, Beside]) -> dict[str, bool]:
    """Those parts in files of their own that are tiny autoencoders, and whether with an encoder."""
    known = [form.table for form in _DECODERS]
    return {
        part: not own.ignored and own.table is not tiny_autoencoder.DECODER
        for part, own in beside.items()
        if any(own.table is table for table in known)
    }


def _unfit(family: Family, listing: Listing, tried: Mapping[str, Beside | Misfit]) -> str:
    """What a file is, and how it differs from the parts that it is most like."""
    called, kind = labels(family), recognise(listing).kind
    misfits = {part: found for part, found in tried.items() if isinstance(found, Misfit)}
    most = max(found.known for found in misfits.values())
    near = [f"{called[part]}: {m.reason}" for part, m in misfits.items() if m.known == most > 0.5]
    what = f"is {kind}, and" if kind else "holds no weights that are known, and"
    parts = ", ".join(called[part] for part in tried)
    text = f"{what} does not fit {family.name}" if near else f"{what} is none of its {parts}"
    return f"{text} ({'; '.join(near)})" if near else f"{text} ({family.name})"


def lacking(family: Family, path: Path, beside: Collection[str]) -> list[str]:
    """The parts that neither a checkpoint has nor files beside it."""
    if path.is_dir():
        there = open_folder(path).networks
        absent = [part for part, place in family.folder.places.items() if place not in there]
    else:
        names, places = list(describe(path).tensors), family.file.places
        absent = [p for p, start in places.items() if not any(n.startswith(start) for n in names)]
        if len(absent) == len(places):  # the denoiser under its bare names, as it was released
            absent.remove(NETWORK)
    return [part for part in absent if part not in beside]


def incomplete(family: Family, path: Path, parts: Sequence[str]) -> CheckpointError:
    """That a checkpoint is not whole: each part that it lacks, with the option that gives it."""
    called = labels(family)
    names = ", ".join(called[part] for part in parts)
    options = " ".join(f"--part {called[part]}=FILE" for part in parts)
    return CheckpointError(f"{path}: is not whole, it lacks {names}: give {options}")


def replaced(family: Family, path: Path, beside: Mapping[str, Beside]) -> tuple[str, ...]:
    """What is said of parts that stand in the place of a checkpoint's own, a sentence each."""
    called, own = labels(family), set(lacking(family, path, ()))
    return tuple(
        f"previews are by {found.path}"
        if part == TINY
        else f"{called[part]} is from {found.path}, in place of its own"
        for part, found in beside.items()
        if part not in own and found.path != path
    )
