"""Whole checkpoints taken apart: which tensors belong to which network, all of them accounted for.

A layout says where each part of a family stands, in one file behind a prefix or in a folder of
its own, and by which table its names are read.  A tensor that no part knows is an error, for it
may be the one that matters.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, forget
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import Table, origins
from mezzotint.checkpoints.source import open_folder, read_mapped
from mezzotint.checkpoints.streamed import Pieces


@dataclass(frozen=True)
class Layout:
    """kind: what `inspect` calls such a file, or the denoiser in such a folder.
    places: for each part, its prefix in the file or the name of its folder; tables: its names.
    ignored: patterns of names that are known and not needed (training's averages, noise tables).
    marks: names of empty tensors by which a file says what it predicts (`checkpoints.marks`).
    pipeline: of a folder, the class of `diffusers` that its ``model_index.json`` names.
    """

    kind: str
    places: Mapping[str, str]
    tables: Mapping[str, Table]
    ignored: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    pipeline: str = ""


@dataclass(frozen=True)
class Beside:
    """A part that lies in a file of its own.

    path: of the file, or of the index of its shards; prefix: what stands before its names.
    table: what they are called; ignored: patterns of names that are known and not needed.
    """

    path: Path
    table: Table
    prefix: str = ""
    ignored: tuple[str, ...] = ()


NOTHING: Mapping[str, Beside] = {}
"""No part lies in a file of its own."""


@dataclass(frozen=True)
class Opened:
    """A checkpoint taken apart, each part's tensors under the names of its table; none is read yet.

    paths: where each part was found; folder: the parts that lie in a folder's places.
    ignored: the names of tensors that are known and not needed.
    maps: the files that the tensors are mapped from.
    """

    states: dict[str, dict[str, Tensor | Packed]]
    tables: dict[str, Table]
    paths: dict[str, Path]
    folder: frozenset[str]
    ignored: tuple[str, ...]
    maps: tuple[mmap.mmap, ...]

    def forget(self) -> None:
        """Give the memory of what was read back to the system."""
        for mapped in self.maps:
            forget(mapped)


def read_parts(
    path: str | os.PathLike[str],
    file: Layout,
    folder: Layout,
    wanted: Mapping[str, Mapping[str, Tensor]],
    beside: Mapping[str, Beside] = NOTHING,
) -> dict[str, dict[str, Pieces]]:
    """The weights of a family's parts, under our names; none is read yet.

    Args:
        path: one file (or the index of its shards), or a folder of `diffusers`.
        wanted: each part's own state dict; every tensor of it must come out.
        beside: parts in files of their own.

    Raises:
        CheckpointError: the file is damaged; or a tensor is unknown, missing or of another network.
    """
    opened = open_parts(path, file, folder, beside)
    parts: dict[str, dict[str, Pieces]] = {}
    for part, state in opened.states.items():
        try:
            placed = origins(state, opened.tables[part], wanted[part])
        except CheckpointError as error:
            raise CheckpointError(f"{opened.paths[part]}: {part}: {error}") from None
        parts[part] = {
            name: Pieces(
                tuple((state[places[n][0]], places[n][1].view) for n in sorted(places)),
                opened.forget,
            )
            for name, places in placed.items()
        }
    return parts


def open_parts(
    path: str | os.PathLike[str],
    file: Layout,
    folder: Layout,
    beside: Mapping[str, Beside] = NOTHING,
) -> Opened:
    """The tensors of each of a family's parts, without its prefix; mapped, not read.

    Args:
        beside: parts in files of their own, in place of those at ``path``, which may be one of
            these files.

    Raises:
        CheckpointError: a file is damaged, or nothing of the family has a tensor's name.
    """
    path = Path(path)
    states: dict[str, dict[str, Tensor | Packed]] = {}
    ignored: tuple[str, ...] = ()
    maps: tuple[mmap.mmap, ...] = ()
    whole, parts = path.is_dir(), (folder if path.is_dir() else file).places
    if whole:
        found = open_folder(path)
        for part in (part for part in parts if part not in beside):
            states[part], mapped = read_mapped(found.weights(parts[part]))
            maps += mapped
    elif all(path != own.path for own in beside.values()):
        state, maps = read_mapped(path)
        states, ignored = _split(path, state, file)
    for part, own in beside.items():
        state, mapped = read_mapped(own.path)
        unused = dict.fromkeys(name for name in state if any_of(name, own.ignored))
        states[part] = {n.removeprefix(own.prefix): t for n, t in state.items() if n not in unused}
        ignored, maps = (*ignored, *unused), maps + mapped
    every = dict.fromkeys((*parts, *beside))  # a tiny autoencoder is no checkpoint's
    tables = {**(folder if whole else file).tables, **{p: own.table for p, own in beside.items()}}
    return Opened(
        {part: states[part] for part in every},
        tables,
        {part: beside[part].path if part in beside else path for part in every},
        frozenset(part for part in parts if part not in beside) if whole else frozenset(),
        ignored,
        maps,
    )


def _split(
    path: Path, state: Mapping[str, Tensor | Packed], layout: Layout
) -> tuple[dict[str, dict[str, Tensor | Packed]], tuple[str, ...]]:
    """Each part's tensors, without its prefix; and the names of those that are not needed."""
    parts: dict[str, dict[str, Tensor | Packed]] = {part: {} for part in layout.places}
    ignored: list[str] = []
    for name, tensor in state.items():
        part = next((p for p, prefix in layout.places.items() if name.startswith(prefix)), None)
        if part is not None:
            parts[part][name[len(layout.places[part]) :]] = tensor
        elif any_of(name, layout.ignored):
            ignored.append(name)
        elif name not in layout.marks:
            raise CheckpointError(f"{path}: nothing of this family is called {name!r}")
    return parts, tuple(ignored)


def any_of(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches one of several patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
