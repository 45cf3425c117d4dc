"""Control networks (ControlNet) beside a U-Net of latent diffusion: their files, and what they add.

Zhang et al. 2023.  At each step a control network sees what the U-Net sees, and a picture; what
it says is added at the U-Net's residual ports, and several add up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load_into
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.layout import Layout, read_parts
from mezzotint.checkpoints.source import Listing, describe, weights_in
from mezzotint.checkpoints.streamed import give
from mezzotint.checkpoints.tables import control_unet
from mezzotint.diffusion.level import Conditioning
from mezzotint.families.apart import apart
from mezzotint.families.model import WHOLE, Model, Weaker
from mezzotint.families.precision import rounded, stored, working
from mezzotint.networks.control_unet import ControlUNet
from mezzotint.networks.ldm_unet import LdmUNet, LdmUNetConfig

_PART = "network"
_ALONE = "input_hint_block."  # the original layout, without the prefix that it mostly has


@dataclass(frozen=True)
class ControlNet:
    """A control network that fits a model."""

    name: str
    network: ControlUNet

    def hint(self, picture: Tensor) -> Tensor:
        """What is told of a picture ``(3, H, W)`` in [−1, 1], at the code's size."""
        weight = self.network.stem.weight
        return self.network.hint((picture[None] / 2 + 0.5).to(weight.device, weight.dtype))


class Acting(NamedTuple):
    """A control network at work: what it was told of its picture, and how strongly it acts."""

    network: ControlUNet
    hint: Tensor
    strength: float


def _config(model: Model) -> LdmUNetConfig:
    """Of the control networks that fit a model: its U-Net's, which sees the code alone."""
    if not isinstance(model.network, LdmUNet):
        raise CheckpointError(f"{model.name} takes no control network: those with a U-Net do")
    latents = model.codec.shape(model.defaults.size)[0]
    return replace(model.network.config, in_channels=latents, guided=False)


def _layout(listing: Listing, config: LdmUNetConfig) -> Layout:
    """How a file names its tensors."""
    proj = (entry for name, entry in listing.tensors.items() if name.endswith("proj_in.weight"))
    convolutions = any(len(entry.shape) == 4 for entry in proj)
    original = control_unet.original(config.depths, config.blocks, convolutions)
    prefix, table = "", control_unet.diffusers(convolutions)
    if any(name.startswith(control_unet.ORIGINAL_PREFIX) for name in listing.tensors):
        prefix, table = control_unet.ORIGINAL_PREFIX, original
    elif any(name.startswith(_ALONE) for name in listing.tensors):
        table = original
    return Layout("", {_PART: prefix}, {_PART: table})


def load(model: Model, path: str | os.PathLike[str]) -> ControlNet:
    """A control network for a model, from its file (either layout) or its folder of `diffusers`.

    Raises:
        CheckpointError: it is damaged or none, or is one of another family; or the model takes
            none.
    """
    config, given = _config(model), Path(path)
    file = weights_in(given) if given.is_dir() else given
    listing = describe(file)
    kind = recognise(listing).kind or "nothing that is known"
    if not kind.startswith("ControlNet"):
        raise CheckpointError(f"{given}: is {kind}, not a control network")
    network = build_unfilled(lambda: ControlUNet(config))
    layout = _layout(listing, config)
    try:
        state = read_parts(file, layout, layout, {_PART: network.state_dict()})[_PART]
        kinds = partial(stored, network, kind=working(model.network))
        load_into(network, give(network, state, kinds, str(file)), str(file), assign=True)
    except CheckpointError as error:
        raise CheckpointError(f"{kind} does not fit {model.name}: {error}") from None
    place = next(model.network.parameters()).device
    return ControlNet(given.stem, network.eval().requires_grad_(False).to(place))


def controlled(model: Model, acting: Sequence[Acting], before: int = 0) -> Model:
    """The model with control networks acting on it.

    Args:
        before: tokens of image prompts before those of the text, which these are not told.
    """
    if not acting:
        return model
    config = _config(model)

    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        added = residuals(x, time, conditioning)
        return model.call(x, time, conditioning._replace(residuals=added), weaker)

    def residuals(x: Tensor, time: Tensor, told: Conditioning) -> tuple[Tensor, ...]:
        vector = told.vector
        if vector is not None:  # the scale that a distilled network is told is not for these
            vector = vector[:, : config.vector_width] if config.vector_width else None
        found: list[tuple[Tensor, ...]] = []
        for network, hint, strength in acting:
            given, same = rounded(network, x, Conditioning(vector, told.context))
            assert same.context is not None
            context = same.context.values[:, before:]
            made = network(given, time, context, hint, same.vector)
            found.append(tuple(residual * strength for residual in made))
        return tuple(reduce(add, at) for at in zip(*found, strict=True))

    return replace(model, call=apart(call))
