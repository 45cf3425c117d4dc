"""`convert`: a checkpoint of others in another layout, tensor by tensor, nothing dropped unsaid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError, Later, listed, save
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.layout import Beside, Layout, Opened, open_parts
from mezzotint.checkpoints.relayout import relay
from mezzotint.checkpoints.source import (
    MODEL_INDEX,
    Folder,
    describe,
    one_file,
    open_folder,
    read_json,
)
from mezzotint.diffusion.schedules import VarianceExploding
from mezzotint.families import catalogue, flow, folders, ldm, separate, t5_tokens
from mezzotint.families.catalogue import Family
from mezzotint.families.separate import Given
from mezzotint.files import WriteError, atomic_folder
from mezzotint.provenance.licences import of_card

Form = Literal["file", "folder"]
_HASH = "modelspec.hash_sha256"
_PROJECTION, _OURS = "text_projection.weight", "projection.weight"  # of CLIP, there and here
_TEXT, _TOKENS = "text_encoder", "tokenizer"  # how a folder's places begin
_TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)
_PAPERS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")


@dataclass(frozen=True)
class Converted:
    """family: what the source was; tensors: how many were written; notes: what was not carried."""

    path: Path
    family: str
    tensors: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """path, family, folder: what is read; networks: of the family, without weights.

    metadata: the source's text fields; kept: its scheduler's configuration, if it has one.
    """

    path: Path
    family: Family
    folder: Folder | None
    networks: Mapping[str, nn.Module]
    metadata: Mapping[str, str]
    kept: Mapping[str, Any]


def convert(
    source: Path,
    target: Path,
    form: Form,
    dtype: torch.dtype | None = None,
    family: str | None = None,
    force: bool = False,
    given: Sequence[Given] = (),
) -> Converted:
    """Write a checkpoint as its family's single file, or as its folder of `diffusers`.

    The target appears once it is whole; memory holds a tensor at a time, not the file.

    Args:
        dtype: of the floating-point tensors; None keeps each its own.
        family: what the checkpoint is, where its file cannot say.
        force: replace what stands at ``target``.
        given: files with parts that the source lacks, or that stand in the place of its own.

    Raises:
        CheckpointError: the source is damaged, of no family, not whole, or has numbers beyond
            ``dtype``.
        WriteError: there is something at ``target`` already, or it cannot be written.
    """
    _check_target(source, target, form, force)
    source = one_file(source)
    found, listing = catalogue.identify(source, family)
    beside = catalogue.located(found, source, listing, given)
    for part in separate.tiny_halves(beside):
        raise CheckpointError(
            f"{beside[part].path}: is a tiny autoencoder, for which a checkpoint has no place: "
            "leave it out, and give it to generate"
        )
    notes = list(separate.replaced(found, source, beside))
    if isinstance(found, flow.Family):
        found = _present(found, source, form, beside)
    elif missing := separate.lacking(found, source, beside):
        raise separate.incomplete(found, source, missing)
    if source.is_dir():
        folder = open_folder(source)
        metadata = _folder_metadata(folder, found.folder, beside, notes)
        kept = folder.configs.get("scheduler", {})
    else:
        folder, metadata = None, dict(listing.metadata)
        kept = json.loads(metadata.pop(marks.SCHEDULER, "{}"))
    opened = open_parts(source, found.file, found.folder, beside)
    wholly = _Source(source, found, folder, catalogue.parts(found), metadata, kept)
    written = _relaid(wholly, opened, found.file if form == "file" else found.folder, dtype, notes)
    if form == "file":
        _write_file(wholly, target, written, notes)
    else:
        _write_folder(wholly, target, written, force, notes)
    return Converted(target, found.name, sum(map(len, written.values())), tuple(notes))


def _check_target(source: Path, target: Path, form: Form, force: bool) -> None:
    """Nothing that stands there is lost by a slip."""
    if not source.exists():
        raise CheckpointError(f"{source}: no such file or folder")
    here, there = source.resolve(), target.resolve()
    if there == here or there in here.parents:
        raise WriteError(f"cannot write {target}: it is the source: choose another name")
    if form == "file":
        if target.is_file() and not force:
            raise WriteError(f"cannot write {target}: it is there already: --force replaces it")
        return
    taken = target.is_dir() and any(target.iterdir())
    if taken and not force:
        raise WriteError(f"cannot write {target}: there are files in it: --force replaces it")
    if taken and not (target / MODEL_INDEX).is_file():
        raise WriteError(
            f"cannot write {target}: there are files in it, and it is no folder of diffusers, "
            "which alone is replaced: choose another name"
        )


def _present(
    family: flow.Family, source: Path, form: Form, beside: Mapping[str, Beside]
) -> flow.Family:
    """The family with the text encoders that the source has."""
    found, tokenizer = flow.present(family, source, beside)
    if form == "file" and tokenizer is not t5_tokens.tokenizer():
        raise CheckpointError(
            f"{source}: its {found.t5.tokenizer} is another than T5's, for which a file has no "
            "place: write a folder"
        )
    return found


def _folder_metadata(
    folder: Folder, layout: Layout, beside: Mapping[str, Beside], notes: list[str]
) -> dict[str, str]:
    """The text fields of all parts; where they differ, the denoiser's, which comes first."""
    merged: dict[str, str] = {}
    for place in (place for part, place in layout.places.items() if part not in beside):
        said = describe(folder.weights(place)).metadata
        if unlike := [key for key in said if merged.get(key, said[key]) != said[key]]:
            notes.append(
                f"left out: metadata of {place}, other than the denoiser's: {listed(unlike)}"
            )
        merged = {**said, **merged}
    if licence := of_card(folder.path / _PAPERS[0]):
        merged.setdefault("modelspec.license", licence)
    unused = [part for part in folder.configs if part not in _used(folder, layout)]
    if unused:
        notes.append(f"left out: parts that the family does not use: {listed(unused)}")
    return merged


def _used(folder: Folder, layout: Layout) -> set[str]:
    places = set(layout.places.values())
    return places | {place.replace(_TEXT, _TOKENS) for place in places} | {"scheduler"}


def _relaid(
    source: _Source,
    opened: Opened,
    layout: Layout,
    dtype: torch.dtype | None,
    notes: list[str],
) -> dict[str, dict[str, Later]]:
    """Each part's tensors in the new layout, to be made when they are written."""
    written: dict[str, dict[str, Later]] = {}
    family, file = source.family, source.family.file
    unprojected = family.identity if isinstance(family, flow.Family) else ()
    for part, state in opened.states.items():
        wanted = source.networks[part].state_dict()
        bare = part not in opened.folder  # a file has no place for a projection of these
        alone = part in unprojected and (bare or layout is file)
        if alone:
            del wanted[_OURS]
        try:
            if alone and not bare:
                state = _without_identity(state)
            relaid = relay(state, opened.tables[part], layout.tables[part], wanted, dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{opened.paths[part]}: {part}: {error}") from None
        written[part] = relaid.tensors
        if alone and layout is not file:
            written[part][_PROJECTION] = _identity(relaid.tensors)
        if relaid.left_out:
            notes.append(f"left out: {_tensors(relaid.left_out)} of {part} that is not used")
    if ignored := [name for name in opened.ignored if name not in file.marks]:
        notes.append(f"left out: {_tensors(ignored)} beside the networks")
    return written


def _without_identity(state: Mapping[str, Tensor | Packed]) -> dict[str, Tensor | Packed]:
    """A text encoder without its projection, which a single file of the family leaves out."""
    found = state.get(_PROJECTION)
    weight = found.unpack() if isinstance(found, Packed) else found
    if weight is not None and not torch.equal(weight, torch.eye(len(weight)).to(weight.dtype)):
        raise CheckpointError(
            f"its {_PROJECTION} is not the identity, and a file has no place for it: write a folder"
        )
    return {name: tensor for name, tensor in state.items() if name != _PROJECTION}


def _identity(written: Mapping[str, Later]) -> Later:
    """The projection that changes nothing, as wide as the encoder and of its type."""
    words = next(t for name, t in written.items() if name.endswith("token_embedding.weight"))
    width = words.shape[1]
    return Later(words.dtype, (width, width), lambda: torch.eye(width).to(words.dtype))


def _tensors(names: Sequence[str]) -> str:
    """``2 tensors (a, b)``."""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({listed(names)})"


def _said(source: _Source, notes: list[str]) -> dict[str, str]:
    """The metadata of what is written: the source's, and what it predicts in ModelSpec's words."""
    metadata = dict(source.metadata)
    if metadata.pop(_HASH, None) is not None:
        notes.append(f"left out: metadata that no longer holds: {_HASH}")
    prediction = {"eps": "epsilon", "v": "v"}.get(source.family.prediction)
    if prediction is not None:
        metadata[marks.PREDICTION] = prediction
    if source.family.title and source.family.title not in marks.named(metadata):
        tags = [tag for tag in (metadata.get(marks.TAGS), source.family.title) if tag]
        metadata[marks.TAGS] = ", ".join(tags)  # nothing else in a file tells it from its kin
    return metadata


def _marks(family: ldm.Family) -> dict[str, torch.Tensor]:
    """The tensors by which a file says how its family is sampled."""
    schedule, empty = family.schedule, torch.zeros(0)
    if isinstance(schedule, VarianceExploding):
        ends = {marks.SIGMA_MAX: schedule.sigma_max, marks.SIGMA_MIN: schedule.sigma_min}
        code = {marks.EDM_MEAN: family.mean, marks.EDM_STD: family.std}
        return {name: torch.tensor(number) for name, number in ends.items()} | {
            name: torch.tensor(row)[None, :, None, None] for name, row in code.items()
        }
    zero = float(schedule.alphas_cumprod[-1]) == 0
    said = {marks.V_PRED: family.prediction == "v", marks.ZERO_SNR: zero}
    return {name: empty for name, marked in said.items() if marked}


def _write_file(
    source: _Source, target: Path, written: Mapping[str, Mapping[str, Later]], notes: list[str]
) -> None:
    layout, family = source.family.file, source.family
    tensors: dict[str, torch.Tensor | Later] = {
        layout.places[part] + name: tensor
        for part, state in written.items()
        for name, tensor in state.items()
    }
    if isinstance(family, ldm.Family):
        marked = _marks(family)
        tensors |= {name: marked[name] for name in layout.marks if name in marked}
    metadata = _said(source, notes)
    if source.kept:
        metadata[marks.SCHEDULER] = json.dumps(source.kept, sort_keys=True)
    save(target, tensors, metadata)


# --- folders ----------------------------------------------------------------------------------


def _write_folder(
    source: _Source,
    target: Path,
    written: Mapping[str, Mapping[str, Later]],
    force: bool,
    notes: list[str],
) -> None:
    family, facts = source.family, folders.facts(source.family)
    index: dict[str, Any] = {"_class_name": facts.pipeline, "_diffusers_version": "0.30.0"}
    metadata = {"format": "pt"} | _said(source, notes)  # without a format transformers refuses
    with atomic_folder(target, force) as fresh:
        for part, place in family.folder.places.items():
            shapes = {name: tensor.shape for name, tensor in written[part].items()}
            row = folders.describe(source.networks[part], facts, shapes)
            config = row.config
            said = {} if source.folder is None else source.folder.configs.get(place, {})
            if said:
                config = {k: v for k, v in said.items() if k not in ("torch_dtype", "dtype")}
            (fresh / place).mkdir()
            _write_json(fresh / place / "config.json", config)
            own = metadata if part == "network" else {"format": "pt"}
            save(fresh / place / row.file, written[part], own)
            index[place] = list(row.names)
            if place.startswith(_TEXT):
                tokens = place.replace(_TEXT, _TOKENS)
                index[tokens] = _write_tokenizer(source, fresh / tokens, facts.tokenizers[part])
        kept = source.kept
        scheduler = kept if "_class_name" in kept else {**facts.scheduler, **kept}
        (fresh / "scheduler").mkdir()
        _write_json(fresh / "scheduler" / "scheduler_config.json", scheduler)
        index["scheduler"] = _class(source, "scheduler", "diffusers", scheduler["_class_name"])
        _write_json(fresh / MODEL_INDEX, {**facts.told, **index})
        if source.folder is not None:
            _copy(source.path, fresh, _PAPERS)


def _class(source: _Source, part: str, library: str, name: object) -> list[str | None]:
    """What ``model_index.json`` says of a part: a class of a known library, never other code."""
    if not (isinstance(name, str) and name.isidentifier() and not name.startswith("_")):
        raise CheckpointError(f"{source.path}: its {part} is of the odd class {name!r}: correct it")
    return [library, name]


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path, names: Sequence[str]) -> int:
    """Copy those of the named files that are there; how many."""
    found = [name for name in names if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, target / name)
    return len(found)


def _write_tokenizer(source: _Source, folder: Path, own: folders.Tokens) -> list[str | None]:
    """The source's tokenizer, or our own; what ``model_index.json`` says of it."""
    if source.folder is not None and folder.name in source.folder.configs:
        folder.mkdir()
        _copy(source.path / folder.name, folder, _TOKENIZER_FILES)
        names = read_json(source.path / MODEL_INDEX)[folder.name]  # a list, or it had no config
        return _class(source, folder.name, "transformers", names[-1])
    folder.mkdir()
    for name, text in own.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return ["transformers", own.name]
