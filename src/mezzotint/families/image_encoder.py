"""The picture encoders that image prompts are made with, CLIP's and SigLIP's, from their files.

A folder of `transformers` says how its network is made; a file alone is known by its sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load_into
from mezzotint.checkpoints.keys import Table
from mezzotint.checkpoints.layout import Layout, read_parts
from mezzotint.checkpoints.limits import shown
from mezzotint.checkpoints.source import Listing, describe, read_json, weights_in, within
from mezzotint.checkpoints.streamed import give
from mezzotint.checkpoints.tables import clip, siglip
from mezzotint.modalities.image import for_clip, for_siglip
from mezzotint.networks.clip import ClipVision, ClipVisionConfig
from mezzotint.networks.siglip import Siglip, SiglipConfig

Config = ClipVisionConfig | SiglipConfig
VIT_L = ClipVisionConfig()
VIT_H = ClipVisionConfig(width=1280, depth=32, hidden=5120, projection=1024, activation="gelu")
VIT_BIGG = ClipVisionConfig(width=1664, depth=48, hidden=8192, projection=1280, activation="gelu")
SO400M = SiglipConfig()
_NAMES: dict[str, Config] = {
    "CLIP ViT-L/14": VIT_L,
    "OpenCLIP ViT-H/14": VIT_H,
    "OpenCLIP ViT-bigG/14": VIT_BIGG,
    "SigLIP so400m/14 at 384 px": SO400M,
}
_ALONE: tuple[Config, ...] = (VIT_H, VIT_BIGG, SO400M)
"""Those that a file alone is known for: of ViT-L/14 there are two, with different activations."""
_MOST = 1 << 16  # of any size
_PART = "encoder"


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder.

    name: of its architecture, for messages; ready: makes of a picture, at ``config.size``, what
    the network takes.
    """

    network: ClipVision | Siglip
    name: str
    ready: Callable[[Image.Image, int], Tensor]


@dataclass(frozen=True)
class _Kind:
    """What `transformers` writes of a kind of encoders into ``config.json``.

    models: how it calls their networks; defaults: of each size of ours, its name there and what it
    is where it is not written down; activations: of which the first is the default.
    """

    said: str
    models: tuple[str, ...]
    defaults: Mapping[str, tuple[str, int]]
    activations: tuple[str, ...]
    eps: float


_CLIP = _Kind(
    "CLIP",
    ("clip_vision_model", "clip"),
    {
        "size": ("image_size", 224),
        "patch": ("patch_size", 32),
        "width": ("hidden_size", 768),
        "depth": ("num_hidden_layers", 12),
        "heads": ("num_attention_heads", 12),
        "hidden": ("intermediate_size", 3072),
        "projection": ("projection_dim", 512),
    },
    ("quick_gelu", "gelu"),
    1e-5,
)
_SIGLIP = _Kind(
    "SigLIP",
    ("siglip_vision_model", "siglip"),
    {
        **{name: row for name, row in _CLIP.defaults.items() if name != "projection"},
        "patch": ("patch_size", 16),
    },
    ("gelu_pytorch_tanh",),
    1e-6,
)


def called(config: Config) -> str:
    """The architecture's name, or its widths."""
    known = next((name for name, row in _NAMES.items() if row == config), None)
    if known is not None:
        return known
    if isinstance(config, SiglipConfig):
        return f"SigLIP of width {config.width}"
    return f"CLIP of width {config.width}, projected to {config.projection}"


def giving(width: int, pooled: bool, kind: type[Config] = ClipVisionConfig) -> str:
    """Which known encoder gives features of a width, as words; empty where none does.

    pooled: of the whole picture, projected; else of each patch.  kind: of the encoder.
    """

    def fits(config: Config) -> bool:
        if pooled and isinstance(config, ClipVisionConfig):
            return config.projection == width
        return config.width == width

    found = [name for name, c in _NAMES.items() if isinstance(c, kind) and fits(c)]
    return f" ({' or '.join(found)})" if found else ""


def _said(path: Path, config: Mapping[str, Any]) -> Config:
    """What a ``config.json`` says of the network, or the part of it that is about pictures."""
    inner = config.get("vision_config", config)
    if not isinstance(inner, dict):
        raise CheckpointError(f"{path}: its vision_config is {shown(inner)}, no table")
    if inner is not config and "projection_dim" in config:
        inner = {**inner, "projection_dim": config["projection_dim"]}
    model = inner.get("model_type", config.get("model_type", _CLIP.models[0]))
    kind = next((kind for kind in (_CLIP, _SIGLIP) if model in kind.models), None)
    if kind is None:
        known = ", ".join((*_CLIP.models, *_SIGLIP.models))
        raise CheckpointError(f"{path}: model_type is {shown(model)}; known are {known}")
    sizes: dict[str, int] = {}
    for ours, (theirs, default) in kind.defaults.items():
        value = inner.get(theirs, default)
        if type(value) is not int or not 0 < value <= _MOST:
            raise CheckpointError(f"{path}: {theirs} is {shown(value)}: no possible size")
        sizes[ours] = value
    activation = inner.get("hidden_act", kind.activations[0])
    if activation not in kind.activations:
        known = ", ".join(kind.activations)
        raise CheckpointError(f"{path}: hidden_act is {shown(activation)}; known are {known}")
    odd = sizes["width"] % sizes["heads"] or sizes["size"] < sizes["patch"]
    if odd or inner.get("layer_norm_eps", kind.eps) != kind.eps:
        raise CheckpointError(
            f"{path}: describes no picture encoder of {kind.said}'s: give another"
        )
    if kind is _SIGLIP:
        return SiglipConfig(**sizes)
    return ClipVisionConfig(**sizes, activation=activation)


def _table(names: Collection[str]) -> tuple[Table, str, str]:
    """The layout of a file: its table, its first convolution, and what a layer's name begins by."""
    if "visual.conv1.weight" in names:
        return clip.VISION_OPEN, "visual.conv1.weight", "visual.transformer.resblocks."
    start = "" if "embeddings.patch_embedding.weight" in names else siglip.PREFIX
    biased = f"{start}embeddings.patch_embedding.bias" in names  # CLIP's has none
    table = siglip.vision(start) if biased else clip.VISION
    return table, f"{start}embeddings.patch_embedding.weight", f"{start}encoder.layers."


def _seen(file: Listing) -> Config:
    """The network that a file alone is of, by its sizes."""
    table, stem, layer = _table(file.tensors)
    if stem not in file.tensors:
        raise CheckpointError(
            f"{file.path}: is no picture encoder of CLIP's or SigLIP's: it has no {stem!r}"
        )
    numbers = {
        m[1] for name in file.tensors if (m := re.match(rf"{re.escape(layer)}(\d+)\.", name))
    }
    width, depth = file.tensors[stem].shape[0], len(numbers)
    of_clip = table in (clip.VISION, clip.VISION_OPEN)
    for config in _ALONE:
        same = isinstance(config, ClipVisionConfig) == of_clip
        if same and (config.width, config.depth) == (width, depth):
            return config
    known = ", ".join(called(config) for config in _ALONE)
    raise CheckpointError(
        f"{file.path}: a picture encoder of width {width} with {depth} layers; a file alone is "
        f"known for {known}: give the folder that has its config.json"
    )


def load_encoder(path: Path, kind: torch.dtype, place: torch.device) -> ImageEncoder:
    """A picture encoder from a file, or from a folder of `transformers`.

    A picture is read once, so on a processor its matrices are read when they are used.

    Raises:
        CheckpointError: it is damaged, or of another network.
    """
    config = None
    file = path
    if path.is_dir():
        said = path / "config.json"
        config = _said(said, read_json(within(path, said)))
        file = within(path, weights_in(path))
    listing = describe(file)
    config = config or _seen(listing)

    def build() -> ClipVision | Siglip:
        return Siglip(config) if isinstance(config, SiglipConfig) else ClipVision(config)

    network = build_unfilled(build)
    layout = Layout("", {_PART: ""}, {_PART: _table(listing.tensors)[0]})
    state = read_parts(file, layout, layout, {_PART: network.state_dict()})[_PART]
    room = 0 if place.type == "cpu" else None
    weights = give(network, state, lambda name: kind, str(file), room)
    load_into(network, weights, str(file), assign=True)
    ready = for_siglip if isinstance(config, SiglipConfig) else for_clip
    return ImageEncoder(network.eval().requires_grad_(False).to(place), called(config), ready)
