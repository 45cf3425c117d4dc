"""State dicts from one layout to another, tensor by tensor: what is written is made when written.

The way goes through our names, since both tables lead there; where both layouts cut a tensor of
ours in the same pieces, a piece goes over by itself, else it is cut from, or joined of, those it
lies in.  So memory holds the largest tensor of ours, never a whole file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, Later
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import Part, Reader, Table, joined, origins, targets


@dataclass(frozen=True)
class Relaid:
    """The tensors under their new names, and the old names that have no place in the new layout."""

    tensors: dict[str, Later]
    left_out: tuple[str, ...]


def relay(
    state: Mapping[str, Tensor | Packed],
    source: Table,
    target: Table,
    wanted: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
) -> Relaid:
    """A network's state dict in another layout (or the same), not computed yet.

    Args:
        source, target: the layouts' tables.
        wanted: the network's own state dict, such as on the meta device: every tensor of it must
            be there in its shape.
        dtype: of the floating-point tensors; None keeps each its own (packed ones as float32).

    Raises:
        CheckpointError: a name is unknown or missing, or a shape is of another network.  Later,
            when a tensor is made: ``dtype`` cannot hold one of its numbers.
    """
    places = origins(state, source, wanted)
    shadows = {name: _shadow(tensor, dtype) for name, tensor in state.items()}
    for name, own in wanted.items():
        kinds = {shadows[theirs].dtype for theirs, _ in places[name].values()}
        if len(kinds) > 1 and any(kind.itemsize == 1 for kind in kinds):
            raise CheckpointError(
                f"the parts of {name!r} are of several types, one of 8 bits: choose one --dtype"
            )
        shape = _whole(places[name], shadows).shape
        if shape != own.shape:
            first = places[name][0][0]
            raise CheckpointError(
                f"key {first!r} is of another network: {name!r} has the shape {list(shape)} in "
                f"the file, {list(own.shape)} here"
            )
    reader = Reader(source)
    return Relaid(
        {
            name: _later(name, part, places[part.name], state, shadows, dtype)
            for name, part in targets(wanted, target).items()
        },
        tuple(name for name in state if reader.find(name) is None),
    )


def _shadow(tensor: Tensor | Packed, dtype: torch.dtype | None) -> Tensor:
    """Its shape and type without its numbers."""
    own = torch.float32 if isinstance(tensor, Packed) else tensor.dtype
    kind = dtype if dtype is not None and own.is_floating_point else own
    return torch.empty(tensor.shape, dtype=kind, device="meta")


def _whole(pieces: Mapping[int, tuple[str, Part]], tensors: Mapping[str, Tensor]) -> Tensor:
    return joined([pieces[n][1].view.ours(tensors[pieces[n][0]]) for n in sorted(pieces)])


def _later(
    name: str,
    part: Part,
    pieces: Mapping[int, tuple[str, Part]],
    state: Mapping[str, Tensor | Packed],
    shadows: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> Later:
    """One tensor of the new layout."""
    alike = pieces[0][1].shares == part.shares
    used = [pieces[part.index]] if alike else [pieces[n] for n in sorted(pieces)]

    def cut(tensors: Sequence[Tensor]) -> Tensor:
        ours = [piece.view.ours(tensor) for (_, piece), tensor in zip(used, tensors, strict=True)]
        return part.view.theirs(ours[0] if alike else part.of(joined(ours)))

    def make() -> Tensor:
        return cut([_numbers(name, state[theirs], shadows[theirs].dtype) for theirs, _ in used])

    shape = cut([shadows[theirs] for theirs, _ in used])
    return Later(shape.dtype, tuple(shape.shape), make)


def _numbers(name: str, tensor: Tensor | Packed, dtype: torch.dtype) -> Tensor:
    """A tensor in another type; that a number has no place in it is an error, not infinity."""
    wide = tensor.unpack() if isinstance(tensor, Packed) else tensor
    narrow = wide.to(dtype)
    if not (wide.numel() and dtype.is_floating_point):
        return narrow
    most = torch.finfo(dtype).max
    if most >= torch.finfo(wide.dtype).max:
        return narrow
    # Two numbers tell it of most tensors, without a second copy; NaN compares with nothing.
    low, high = (float(end) for end in wide.aminmax())
    if not (-most <= low and high <= most) and bool((narrow.isinf() & wide.isfinite()).any()):
        raise CheckpointError(
            f"tensor {name!r} has numbers beyond {str(dtype).removeprefix('torch.')}: take "
            "another type, such as bfloat16"
        )
    return narrow
