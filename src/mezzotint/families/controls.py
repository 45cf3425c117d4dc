"""Control networks beside a model: their files, and what they add at its ports.

Zhang et al. 2023, Mou et al. 2023.  At each step a control network sees what the model sees, and a
picture; what it says is added at the network's residual ports, and several add up.  Which kinds
there are is data of a family (`families.controls_ldm`, `families.controls_flow`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load_into
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.keys import Table
from mezzotint.checkpoints.layout import Layout, read_parts
from mezzotint.checkpoints.source import describe, read_json, weights_in
from mezzotint.checkpoints.streamed import give
from mezzotint.diffusion.level import Conditioning
from mezzotint.families.apart import apart
from mezzotint.families.model import WHOLE, ControlFile, ControlNet, Hint, Model, Weaker
from mezzotint.families.precision import stored, working

_PART = "network"
_CONFIG = "config.json"
_OF_A_FOLDER = "diffusion_pytorch_model"  # how the files of folders of `diffusers` begin
N = TypeVar("N", bound=nn.Module)


class Acting(NamedTuple):
    """A control network at work: what it was told of its picture, and how strongly it acts."""

    network: ControlNet
    hint: Hint
    strength: float


def load(
    model: Model, path: str | os.PathLike[str], mode: str | None = None, hint: str | None = None
) -> ControlNet:
    """A control network for a model, from its file (any layout) or its folder of `diffusers`.

    Args:
        mode: the kind of its pictures, by name or number, where the network knows several.
        hint: by which name the picture was made (`engine.hints`): says the mode if none is given.

    Raises:
        CheckpointError: it is damaged or none, or is one of another family; or the model takes
            none; or the mode is lacking, unknown or too much.
    """
    if not model.controls:
        raise CheckpointError(f"{model.name} takes no control network")
    given = Path(path)
    file = weights_in(given) if given.is_dir() else given
    listing = describe(file)
    kind = recognise(listing).kind or "nothing that is known"
    row = next((row for row in model.controls if kind.startswith(row.said)), None)
    if row is None:
        known = " or ".join(row.said for row in model.controls)
        raise CheckpointError(f"{given}: is {kind}, not a control network ({known})")
    beside = file.parent / _CONFIG
    told = beside.exists() and (given.is_dir() or file.name.startswith(_OF_A_FOLDER))
    config = read_json(beside) if told else {}
    return row.read(model, ControlFile(given.stem, file, kind, listing, config, mode, hint))


def filled(
    model: Model,
    file: ControlFile,
    build: Callable[[], N],
    table: Table,
    prefix: str = "",
    shared: Sequence[str] = (),
) -> N:
    """A control network with the weights of its file, in the model's precision and place.

    Args:
        build: makes it with fresh weights; table: its names in the file, behind ``prefix``.
        shared: weights that the file lacks and that are those of the model's network.

    Raises:
        CheckpointError: the file is damaged, or a tensor is unknown, missing or of another shape.
    """
    try:
        network = build_unfilled(build)
        layout = Layout("", {_PART: prefix}, {_PART: table})
        wanted = {k: v for k, v in network.state_dict().items() if k not in shared}
        state = read_parts(file.path, layout, layout, {_PART: wanted})[_PART]
        kinds = partial(stored, network, kind=working(model.network))
        weights = give(network, state, kinds, str(file.path))
        # By attribute: a weight that is read when it is used is in no state dict.
        weights |= {name: attrgetter(name)(model.network).detach() for name in shared}
        load_into(network, weights, str(file.path), assign=True)
    except CheckpointError as error:
        raise CheckpointError(f"{file.kind} does not fit {model.name}: {error}") from None
    place = next(model.network.parameters()).device
    return network.eval().requires_grad_(False).to(place)


def numbered(file: ControlFile, modes: Sequence[Sequence[str]]) -> int:
    """The number of the mode that is asked for, or that the hint's name says.

    Args:
        modes: the names of each.

    Raises:
        CheckpointError: it is lacking or unknown.
    """
    known = {name: number for number, names in enumerate(modes) for name in (*names, str(number))}
    if file.mode is None and file.hint in known:
        return known[file.hint]
    if file.mode not in known:
        names = ", ".join(
            f"{n} ({'/'.join(named)})" if named else str(n) for n, named in enumerate(modes)
        )
        said = "its mode is not said" if file.mode is None else f"there is no mode {file.mode!r}"
        raise CheckpointError(f"{file.path}: {said}: give mode=, one of {names}")
    return known[file.mode]


def without_mode(file: ControlFile) -> None:
    """Raise CheckpointError for a mode that a network of one kind is given."""
    if file.mode is not None:
        raise CheckpointError(f"{file.path}: this network knows one kind: leave mode= out")


def _add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def controlled(model: Model, acting: Sequence[Acting], before: int = 0) -> Model:
    """The model with control networks acting on it.

    Args:
        before: tokens of image prompts before those of the text, which these are not told.
    """
    if not acting:
        return model

    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        added = residuals(x, time, conditioning)
        return model.call(x, time, conditioning._replace(residuals=added), weaker)

    def residuals(x: Tensor, time: Tensor, told: Conditioning) -> tuple[Tensor | None, ...]:
        assert told.context is not None
        text = told.context._replace(values=told.context.values[:, before:])
        told = told._replace(context=text)
        found: list[tuple[Tensor | None, ...]] = []
        for control, hint, strength in acting:
            made = control.residuals(x, time, told, hint)
            found.append(tuple(None if r is None else r * strength for r in made))
        return tuple(reduce(_add, at) for at in zip(*found, strict=True))

    return replace(model, call=apart(call))
