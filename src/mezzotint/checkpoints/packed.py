"""Quantized weights that stay packed in a network's memory, and are unpacked when they are used.

A weight of Q4_K takes 4.5 bits in the file, and here too; its numbers stand in memory only while
one layer multiplies them.  They are the same bits as if they had been unpacked when the file was
read, so a picture does not depend on which is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import View, joined

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pieces:
    """A weight of ours as the tensors of a file that make it up, of which some are packed.

    pieces: in their order along dimension 0, each with how it lies in ours.
    """

    pieces: tuple[tuple[Tensor | Packed, View], ...]

    def unpack(self) -> Tensor:
        """Its numbers, float32."""
        return joined(
            [
                view.ours(theirs.unpack() if isinstance(theirs, Packed) else theirs)
                for theirs, view in self.pieces
            ]
        )

    @property
    def shape(self) -> torch.Size:
        """The shape it has here."""
        shadows = [view.ours(torch.empty(t.shape, device="meta")) for t, view in self.pieces]
        return joined(shadows).shape

    @property
    def finite(self) -> bool:
        """Whether all of its numbers are finite."""
        return all(t.finite() if isinstance(t, Packed) else finite(t) for t, _ in self.pieces)


def finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity: its least and its largest number tell both.

    One reading of the memory, a tenth of a second a GB, and no copy.
    """
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    least, most = torch.aminmax(tensor)
    return bool(torch.isfinite(least) & torch.isfinite(most))


class PackedLinear(nn.Module):
    """``y = W x + b`` (`torch.nn.Linear`) of which ``W`` is unpacked each time.

    packed: the weight; kind: the precision it is multiplied in.
    finish: what else is done to a weight when a file is read, such as to align it.
    change: what adapters do to the weight, for as long as they are attached.
    """

    def __init__(
        self, packed: Pieces, bias: nn.Parameter | None, kind: torch.dtype, finish: Change
    ) -> None:
        super().__init__()
        self.packed, self.kind, self._finish = packed, kind, finish
        self.bias = bias
        self.change: Change | None = None

    @property
    def own(self) -> Tensor:
        """The weight without adapters, on the CPU."""
        return self._finish(self.packed.unpack().to(self.kind))

    @property
    def weight(self) -> Tensor:
        """The weight as it acts, on the CPU; a new tensor each time, which nothing keeps."""
        return self.own if self.change is None else self.change(self.own)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.device), self.bias)


def keep_packed(
    module: nn.Module,
    state: Mapping[str, Tensor | Pieces],
    kind: torch.dtype,
    finish: Change,
    source: str,
) -> dict[str, Tensor]:
    """Give a network's matrices their packed weights; the rest of ``state``, unpacked.

    Weights of other layers (convolutions, embeddings) are few, and are unpacked here.

    Raises:
        CheckpointError: a packed weight has another shape than its layer's.
    """
    rest: dict[str, Tensor] = {}
    for name, value in state.items():
        path, _, leaf = name.rpartition(".")
        layer = module.get_submodule(path) if isinstance(value, Pieces) else None
        if isinstance(value, Tensor):
            rest[name] = value
        elif not value.finite:
            raise CheckpointError(not_finite(source, name))
        elif leaf != "weight" or not isinstance(layer, nn.Linear):
            rest[name] = value.unpack()
        elif value.shape != layer.weight.shape:
            raise CheckpointError(
                f"{source} does not fit {type(module).__name__}: {name} is {list(value.shape)} in "
                f"the file, {list(layer.weight.shape)} here"
            )
        else:
            parent, _, own = path.rpartition(".")
            packed = PackedLinear(value, layer.bias, kind, finish)
            setattr(module.get_submodule(parent), own, packed)
    return rest


def not_finite(source: str, name: str) -> str:
    """What is wrong with a tensor that is not :func:`finite`."""
    return (
        f"{source}: tensor {name!r} has numbers that are not finite (NaN or infinity): the file is "
        "damaged, or they are too large for this precision"
    )


def shapes(module: nn.Module) -> dict[str, Tensor]:
    """A network's state dict by names and shapes alone, its packed weights too: on meta."""
    found = {name: value.to("meta") for name, value in module.state_dict().items()}
    for path, layer in module.named_modules():
        if isinstance(layer, PackedLinear):
            found[f"{path}.weight"] = torch.empty(layer.packed.shape, device="meta")
    return found
