"""Control networks that are kept as a difference to the model's own U-Net (Control-LoRA).

Stability's control-lora-*-rank128 and -rank256 of SDXL (2023): each matrix of the way down and of
the middle is ``W + up · down``, ``W`` the U-Net's; a kernel of a convolution is such a matrix with
a row a channel of its output.  All else, the hint and the ports too, is there as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TypeVar

from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load_into, nearest
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import Table, to_ours, to_theirs
from mezzotint.checkpoints.source import read
from mezzotint.checkpoints.streamed import finite
from mezzotint.checkpoints.tables.control_unet import ALONE, LOW_RANK
from mezzotint.families.model import ControlFile, Model
from mezzotint.families.precision import stored, working

_UP, _DOWN = ".up", ".down"
N = TypeVar("N", bound=nn.Module)


def whole(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a control network, where matrices are given as ``up · down`` beside a model's.

    Args:
        own: the model's, by the names of the file; state: the file's.

    Raises:
        CheckpointError: one of a pair is missing, or its shape or name is not the model's.
    """
    found: dict[str, Tensor] = {}
    for name, up in state.items():
        if name.endswith(_DOWN):
            if name.removesuffix(_DOWN) + _UP not in state:
                raise CheckpointError(f"{name!r} is without its {_UP}")
            continue
        if not name.endswith(_UP):
            found[name] = up
            continue
        stem = name.removesuffix(_UP)
        weight, down = own.get(f"{stem}.weight"), state.get(stem + _DOWN)
        if weight is None:
            stems = [key.removesuffix(".weight") for key in own]
            raise CheckpointError(f"unknown key {name!r}{nearest(stem, stems)}")
        if down is None:
            raise CheckpointError(f"{name!r} is without its {_DOWN}")
        shapes = up.shape, down.shape
        if min(map(len, shapes)) < 2 or (
            (len(up), up[0].numel(), down[0].numel()) != (len(weight), len(down), weight[0].numel())
        ):
            raise CheckpointError(
                f"{name!r} and its {_DOWN} have shapes {list(up.shape)} and {list(down.shape)}, "
                f"which make no {list(weight.shape)}"
            )
        delta = up.flatten(1).float() @ down.flatten(1).float()
        found[f"{stem}.weight"] = (weight.float() + delta.view(weight.shape)).to(weight.dtype)
    return found


def beside(
    model: Model, file: ControlFile, build: Callable[[], N], table: Table, prefix: str = ""
) -> N:
    """A control network of the model's own weights and of the differences in a file.

    Args:
        build: makes it with fresh weights; table: its names in the file, behind ``prefix``.

    Raises:
        CheckpointError: the file is damaged, or a tensor is unknown, missing or of another shape.
    """
    network = build_unfilled(build)
    wanted = network.state_dict()
    # By attribute: a weight that is read when it is used is in no state dict.
    own = {
        name: attrgetter(name)(model.network).detach()
        for name in wanted
        if not name.startswith(ALONE)
    }
    place = next(model.network.parameters()).device
    state: dict[str, Tensor] = {}
    for name, tensor in read(file.path).items():
        if name == LOW_RANK:
            continue
        value = (tensor.unpack() if isinstance(tensor, Packed) else tensor).to(place)
        if not finite(value):
            raise CheckpointError(f"{file.path}: {name!r} has numbers that are not finite")
        state[name.removeprefix(prefix)] = value
    try:
        weights = to_ours(whole(to_theirs(own, table), state), table, wanted)
        kinds = {name: stored(network, name, kind=working(model.network)) for name in weights}
        load_into(
            network,
            {name: weight.to(kinds[name]) for name, weight in weights.items()},
            str(file.path),
            assign=True,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{file.kind} does not fit {model.name}: {error}") from None
    return network.eval().requires_grad_(False).to(place)
