"""Parts in files of their own: whether a file is a certain network, told by its header alone.

A file is a network's if a table knows all of its names, and together they are all tensors of the
network in their shapes.  So nothing is guessed: what fits has the weights that are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.keys import Part, Reader, Table, origins
from mezzotint.checkpoints.layout import Beside, any_of
from mezzotint.checkpoints.source import Entry, Listing


@dataclass(frozen=True)
class Form:
    """How a network may lie in a file of its own.

    table: its names; prefixes: one of them stands before all of these.
    ignored: patterns of whole names that are known and not needed, such as another network's.
    """

    table: Table
    prefixes: tuple[str, ...] = ("",)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Misfit:
    """Why a file is not a network; known: the share of its names that the nearest table has."""

    reason: str
    known: float


def match(listing: Listing, forms: Sequence[Form], wanted: Mapping[str, Tensor]) -> Beside | Misfit:
    """How a network lies in a file, or why it does not.

    Args:
        wanted: the network's own state dict, such as on the meta device.
    """
    nearest = Misfit("has none of its names", 0.0)
    for form in forms:
        needed = [name for name in listing.tensors if not any_of(name, form.ignored)]
        reader = Reader(form.table)
        for prefix in form.prefixes:
            if not needed or not all(name.startswith(prefix) for name in needed):
                continue
            inside = {name.removeprefix(prefix): listing.tensors[name] for name in needed}
            share = sum(map(reader.knows, inside)) / len(inside)
            if not share:
                continue
            reason = _other(inside, reader, wanted)
            if reason is None:
                return Beside(listing.path, form.table, prefix, form.ignored)
            if share > nearest.known:
                nearest = Misfit(reason, share)
    return nearest


def _other(
    entries: Mapping[str, Entry], reader: Reader, wanted: Mapping[str, Tensor]
) -> str | None:
    """What is other than in the network that is wanted: the first size, else the first name."""
    for name, entry in entries.items():
        part = reader.find(name) if reader.knows(name) else None
        if part is None or part.name not in wanted:
            continue
        own = part.of(wanted[part.name].to("meta"))
        if _shape(entry, part) != own.shape:
            expected = list(part.view.theirs(own).shape)
            return f"its {name} is {list(entry.shape)}, {expected} is expected"
    try:
        origins(entries, reader.table, wanted)
    except CheckpointError as error:
        return str(error)
    return None


def _shape(entry: Entry, part: Part) -> tuple[int, ...] | None:
    """The shape that a tensor has here; None where it cannot lie so."""
    try:
        return tuple(part.view.ours(torch.empty(entry.shape, device="meta")).shape)
    except (RuntimeError, IndexError, ValueError):
        return None
