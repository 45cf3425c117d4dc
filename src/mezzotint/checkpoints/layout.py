"""Whole checkpoints taken apart: which tensors belong to which network, all of them accounted for.

A layout says where each part of a family stands, in one file behind a prefix or in a folder of
its own, and by which table its names are read.  A tensor that no part knows is an error, for it
may be the one that matters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import Table, to_ours
from mezzotint.checkpoints.source import open_folder, read


@dataclass(frozen=True)
class Layout:
    """kind: what `inspect` calls such a file, or the denoiser in such a folder.
    places: for each part, its prefix in the file or the name of its folder; tables: its names.
    ignored: patterns of names that are known and not needed (training's averages, noise tables).
    """

    kind: str
    places: Mapping[str, str]
    tables: Mapping[str, Table]
    ignored: tuple[str, ...] = ()


def read_parts(
    path: str | os.PathLike[str],
    file: Layout,
    folder: Layout,
    wanted: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, dict[str, Tensor]]:
    """The state dicts of a family's parts, under our names.

    Args:
        path: one file (or the index of its shards), or a folder of `diffusers`.
        wanted: each part's own state dict; every tensor of it must come out.

    Raises:
        CheckpointError: the file is damaged; or a tensor is unknown, missing or of another network.
    """
    path = Path(path)
    if path.is_dir():
        found = open_folder(path)
        theirs = {part: _whole(read(found.weights(place))) for part, place in folder.places.items()}
        layout = folder
    else:
        theirs, layout = _split(path, _whole(read(path)), file), file
    parts: dict[str, dict[str, Tensor]] = {}
    for part, state in theirs.items():
        try:
            parts[part] = to_ours(state, layout.tables[part], wanted[part])
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {part}: {error}") from None
    return parts


def _whole(state: Mapping[str, Tensor | Packed]) -> dict[str, Tensor]:
    return {name: t.unpack() if isinstance(t, Packed) else t for name, t in state.items()}


def _split(path: Path, state: Mapping[str, Tensor], layout: Layout) -> dict[str, dict[str, Tensor]]:
    """Each part's tensors, without its prefix."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in layout.places}
    for name, tensor in state.items():
        part = next((p for p, prefix in layout.places.items() if name.startswith(prefix)), None)
        if part is not None:
            parts[part][name[len(layout.places[part]) :]] = tensor
        elif not _any(name, layout.ignored):
            raise CheckpointError(f"{path}: nothing of this family is called {name!r}")
    return parts


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
