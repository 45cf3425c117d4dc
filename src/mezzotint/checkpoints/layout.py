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
class Opened:
    """A checkpoint taken apart, its tensors under the names of ``layout``; none is read yet.

    ignored: the names of tensors that are known and not needed.
    maps: the files that the tensors are mapped from.
    """

    states: dict[str, dict[str, Tensor | Packed]]
    layout: Layout
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
) -> dict[str, dict[str, Pieces]]:
    """The weights of a family's parts, under our names; none is read yet.

    Args:
        path: one file (or the index of its shards), or a folder of `diffusers`.
        wanted: each part's own state dict; every tensor of it must come out.

    Raises:
        CheckpointError: the file is damaged; or a tensor is unknown, missing or of another network.
    """
    opened = open_parts(path, file, folder)
    parts: dict[str, dict[str, Pieces]] = {}
    for part, state in opened.states.items():
        try:
            placed = origins(state, opened.layout.tables[part], wanted[part])
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {part}: {error}") from None
        parts[part] = {
            name: Pieces(
                tuple((state[places[n][0]], places[n][1].view) for n in sorted(places)),
                opened.forget,
            )
            for name, places in placed.items()
        }
    return parts


def open_parts(path: str | os.PathLike[str], file: Layout, folder: Layout) -> Opened:
    """The tensors of each of a family's parts, without its prefix; mapped, not read.

    Raises:
        CheckpointError: the file is damaged, or nothing of the family has a tensor's name.
    """
    path = Path(path)
    if path.is_dir():
        found = open_folder(path)
        read = {part: read_mapped(found.weights(place)) for part, place in folder.places.items()}
        maps = tuple(mapped for _, own in read.values() for mapped in own)
        return Opened({part: state for part, (state, _) in read.items()}, folder, (), maps)
    state, maps = read_mapped(path)
    parts, ignored = _split(path, state, file)
    return Opened(parts, file, ignored, maps)


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
        elif _any(name, layout.ignored):
            ignored.append(name)
        elif name not in layout.marks:
            raise CheckpointError(f"{path}: nothing of this family is called {name!r}")
    return parts, tuple(ignored)


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
