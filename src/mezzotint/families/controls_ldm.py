"""What controls a U-Net of latent diffusion: ControlNet and T2I-Adapter."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.keys import Table
from mezzotint.checkpoints.source import Listing
from mezzotint.checkpoints.tables import control_unet, t2i_adapter
from mezzotint.diffusion.level import Conditioning
from mezzotint.families.control_lora import beside
from mezzotint.families.controls import filled, numbered, without_mode
from mezzotint.families.joined import hard
from mezzotint.families.model import ControlFile, ControlKind, ControlNet, Hint, Model
from mezzotint.families.precision import rounded, working
from mezzotint.networks.control_unet import HINT_WIDTHS, ControlUNet
from mezzotint.networks.control_union import ControlUnion
from mezzotint.networks.ldm_unet import LdmUNet, LdmUNetConfig
from mezzotint.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig

_ALONE = "input_hint_block."  # the original layout, without the prefix that it mostly has
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_FOLDED = {64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)}
"""Channels of an adapter's first layer: of its picture, and pixels a side folded into them."""

UNION = (
    ("pose", "openpose"),
    ("depth",),
    ("edges", "scribble", "hed", "softedge"),
    ("canny", "lineart", "mlsd"),
    ("normal",),
    ("segment",),
    ("tile",),
    ("repaint", "inpaint"),
)
"""The modes of xinsir's Union networks of SDXL, by number; ProMax has the last two."""
_REPAINT = 7


def _unet(model: Model) -> LdmUNet:
    assert isinstance(model.network, LdmUNet)  # the families of these rows have one
    return model.network


def _placed(model: Model, picture: Tensor) -> Tensor:
    """A picture ``(3, H, W)`` in [−1, 1] as ``(1, 3, H, W)`` in [0, 1], where the network is."""
    place = next(model.network.parameters()).device
    return (picture[None] / 2 + 0.5).to(place, working(model.network))


# --- ControlNet -------------------------------------------------------------------------------


def _layout(listing: Listing, config: LdmUNetConfig) -> tuple[str, Table]:
    """How a file names its tensors: behind which prefix, by which table."""
    ends = ("proj_in.weight", "proj_in.up")
    proj = (entry for name, entry in listing.tensors.items() if name.endswith(ends))
    convolutions = any(len(entry.shape) == 4 for entry in proj)
    original = control_unet.original(config.depths, config.blocks, convolutions)
    if any(name.startswith(control_unet.ORIGINAL_PREFIX) for name in listing.tensors):
        return control_unet.ORIGINAL_PREFIX, original
    if any(name.startswith(_ALONE) for name in listing.tensors):
        return "", original
    return "", control_unet.diffusers(convolutions)


def union_sizes(listing: Listing) -> tuple[int, int, tuple[int, ...]]:
    """Of a network of several kinds of pictures how many, the layers of its hint, and the hint's
    widths; no kinds of one that knows one."""
    kinds = listing.tensors.get("task_embedding")
    if kinds is None or len(kinds.shape) != 2 or not kinds.shape[1]:
        return 0, 0, HINT_WIDTHS
    layers = _numbers(listing, r"transformer_layes\.(\d+)\.ln_1\.weight")
    names = ["conv_in", *(f"blocks.{2 * n + 1}" for n in range(len(HINT_WIDTHS) - 1))]
    found = [listing.tensors.get(f"controlnet_cond_embedding.{name}.weight") for name in names]
    widths = tuple(entry.shape[0] for entry in found if entry is not None and entry.shape)
    return kinds.shape[0], layers, widths if len(widths) == len(names) else HINT_WIDTHS


def _control_net(model: Model, file: ControlFile) -> ControlNet:
    unet = _unet(model)
    latents = model.codec.shape(model.defaults.size)[0]  # it sees the code alone
    config = replace(unet.config, in_channels=latents, guided=False)
    prefix, table = _layout(file.listing, config)
    kinds, layers, widths = union_sizes(file.listing)
    kind: int | None = None
    if kinds:
        kind = numbered(file, [*UNION, *[()] * kinds][:kinds])
        table = {**table, **control_unet.UNION}
    else:
        without_mode(file)

    def build() -> ControlUNet:
        return ControlUnion(config, kinds, layers, widths) if kinds else ControlUNet(config)

    fill = beside if control_unet.LOW_RANK in file.listing.tensors else filled
    network = fill(model, file, build, table, prefix)

    def read(shown: Tensor) -> Hint:
        if isinstance(network, ControlUnion) and kind is not None:
            return network.told(shown, kind)
        return (network.hint(shown),)

    def hint(picture: Tensor) -> Hint:
        return read(_placed(model, picture))

    def residuals(
        x: Tensor, time: Tensor, told: Conditioning, hint: Hint
    ) -> tuple[Tensor | None, ...]:
        vector = told.vector
        if vector is not None:  # the scale that a distilled network is told is not for these
            vector = vector[:, : config.vector_width] if config.vector_width else None
        given, same = rounded(network, x, Conditioning(vector, told.context))
        assert same.context is not None
        found = network(given, time, same.context.values, hint[0], same.vector, *hint[1:])
        return *found, *(None for _ in unet.ends)

    def masked(picture: Tensor, mask: Tensor) -> Hint:
        shown = _placed(model, picture)
        # Where it is to be painted −1, below all colours, or black: as they were trained.
        new = hard(mask).to(shown.device) == 1
        return read(torch.where(new, -1.0 if kind is None else 0.0, shown))

    paints = kind is None or kind == _REPAINT
    return ControlNet(file.name, network, hint, residuals, masked if paints else None)


# --- T2I-Adapter ------------------------------------------------------------------------------


def _numbers(listing: Listing, pattern: str) -> int:
    """How many numbers stand at a place of the names."""
    compiled = re.compile(pattern)
    return len({found[1] for name in listing.tensors if (found := compiled.fullmatch(name))})


def adapter_sizes(file: ControlFile) -> tuple[T2IAdapterConfig, str, Table]:
    """What an adapter is made of, and how its file names its tensors.

    Raises:
        CheckpointError: its first convolution is none that is known.
    """
    listing, prefix = file.listing, ""
    if any(name.startswith(t2i_adapter.DIFFUSERS_PREFIX) for name in listing.tensors):
        prefix = t2i_adapter.DIFFUSERS_PREFIX
    at, light = re.escape(prefix), f"{prefix}body.0.out_conv.weight" in listing.tensors

    def shape(name: str) -> tuple[int, ...]:
        entry = listing.tensors.get(f"{prefix}{name}.weight")
        return (0, 0) if entry is None or len(entry.shape) != 4 else tuple(entry.shape)

    first = shape("body.0.in_conv" if light else "conv_in")
    if first[1] not in _FOLDED:
        raise CheckpointError(
            f"{file.path}: its first layer has {first[1]} channels; known are "
            f"{', '.join(map(str, _FOLDED))}"
        )
    channels, fold = _FOLDED[first[1]]
    rows = _numbers(listing, rf"{at}body\.(\d+)\.(?:.+\.)?block1\.weight")
    if light:
        inner = "resnets" if prefix else "body"
        blocks = _numbers(listing, rf"{at}body\.0\.{inner}\.(\d+)\.block1\.weight")
        widths = tuple(shape(f"body.{n}.out_conv")[0] for n in range(rows))
        table = t2i_adapter.DIFFUSERS if prefix else t2i_adapter.LIGHT
    elif prefix:
        blocks = _numbers(listing, rf"{at}body\.0\.resnets\.(\d+)\.block1\.weight")
        widths = tuple(shape(f"body.{n}.resnets.0.block1")[0] for n in range(rows))
        table = t2i_adapter.DIFFUSERS
    else:
        blocks = T2IAdapterConfig.blocks  # of all releases; nothing in the row's names tells
        widths = tuple(shape(f"body.{n}.block1")[0] for n in range(0, rows, blocks))
        table = t2i_adapter.full(len(widths), blocks)
    once = fold == 16 and not light  # SDXL's
    halved = {2} if once else range(1, len(widths))
    return T2IAdapterConfig(channels, fold, widths, frozenset(halved), blocks, light), prefix, table


def _check_ends(model: Model, file: ControlFile, config: T2IAdapterConfig) -> None:
    """Raise CheckpointError for features that the U-Net has no ends for."""
    made = tuple(
        (width, config.fold * 2 ** sum(n in config.halved for n in range(level + 1)))
        for level, width in enumerate(config.widths)
    )
    ends = tuple((width, model.codec.multiple * factor) for width, factor in _unet(model).ends)
    if made != ends[: len(made)]:

        def said(places: tuple[tuple[int, int], ...]) -> str:
            return ", ".join(f"{width} channels at 1/{factor}" for width, factor in places)

        raise CheckpointError(
            f"{file.kind} does not fit {model.name}: {file.path} makes {said(made)}; it takes "
            f"{said(ends)}"
        )


def _adapter(model: Model, file: ControlFile) -> ControlNet:
    without_mode(file)
    config, prefix, table = adapter_sizes(file)
    _check_ends(model, file, config)
    network = filled(model, file, lambda: T2IAdapter(config), table, prefix)
    ports, ends = len(_unet(model).ports), len(_unet(model).ends)

    def hint(picture: Tensor) -> Hint:
        given = _placed(model, picture)
        if config.channels == 1:
            given = (given * given.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        return network(given)

    def residuals(
        x: Tensor, time: Tensor, told: Conditioning, hint: Hint
    ) -> tuple[Tensor | None, ...]:
        each = tuple(feature.expand(len(x), -1, -1, -1) for feature in hint)
        return *(None for _ in range(ports)), *each, *(None for _ in range(ends - len(each)))

    return ControlNet(file.name, network, hint, residuals)


CONTROLS = (ControlKind("ControlNet", _control_net), ControlKind("T2I-Adapter", _adapter))
