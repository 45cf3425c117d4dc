"""The picture encoders of CLIP that image prompts are made with, from their files.

A folder of `transformers` says how its network is made; a file alone is known by its widths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load_into
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import Table, to_ours
from mezzotint.checkpoints.limits import shown
from mezzotint.checkpoints.source import read, read_json, weights_in, within
from mezzotint.checkpoints.streamed import finite, not_finite
from mezzotint.checkpoints.tables import clip
from mezzotint.networks.clip import ClipVision, ClipVisionConfig

VIT_L = ClipVisionConfig()
VIT_H = ClipVisionConfig(width=1280, depth=32, hidden=5120, projection=1024, activation="gelu")
VIT_BIGG = ClipVisionConfig(width=1664, depth=48, hidden=8192, projection=1280, activation="gelu")
_NAMES = {"CLIP ViT-L/14": VIT_L, "OpenCLIP ViT-H/14": VIT_H, "OpenCLIP ViT-bigG/14": VIT_BIGG}
_ALONE = (VIT_H, VIT_BIGG)
"""Those that a file alone is known for: of ViT-L/14 there are two, with different activations."""

_CONFIG: dict[str, tuple[str, int]] = {
    "size": ("image_size", 224),
    "patch": ("patch_size", 32),
    "width": ("hidden_size", 768),
    "depth": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "hidden": ("intermediate_size", 3072),
    "projection": ("projection_dim", 512),
}
"""What `transformers` calls each size, and its default, which it does not write down."""
_ACTIVATIONS = ("quick_gelu", "gelu")  # the first is the default
_MOST = 1 << 16  # of any size
_EPS = 1e-5


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder; name: of its architecture, for messages."""

    network: ClipVision
    name: str


def called(config: ClipVisionConfig) -> str:
    """The architecture's name, or its widths."""
    known = (name for name, row in _NAMES.items() if row == config)
    return next(known, f"CLIP of width {config.width}, projected to {config.projection}")


def giving(width: int, pooled: bool) -> str:
    """Which known encoder gives features of a width, as words; empty where none does.

    pooled: of the whole picture, projected; else of each patch.
    """
    found = [n for n, c in _NAMES.items() if width == (c.projection if pooled else c.width)]
    return f" ({' or '.join(found)})" if found else ""


def _said(path: Path, config: Mapping[str, Any]) -> ClipVisionConfig:
    """What a ``config.json`` says of the network, or the part of it that is about pictures."""
    inner = config.get("vision_config", config)
    if not isinstance(inner, dict):
        raise CheckpointError(f"{path}: its vision_config is {shown(inner)}, no table")
    if inner is not config and "projection_dim" in config:
        inner = {**inner, "projection_dim": config["projection_dim"]}
    sizes: dict[str, int] = {}
    for ours, (theirs, default) in _CONFIG.items():
        value = inner.get(theirs, default)
        if type(value) is not int or not 0 < value <= _MOST:
            raise CheckpointError(f"{path}: {theirs} is {shown(value)}: no possible size")
        sizes[ours] = value
    activation, eps = inner.get("hidden_act", _ACTIVATIONS[0]), inner.get("layer_norm_eps", _EPS)
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise CheckpointError(f"{path}: hidden_act is {shown(activation)}; known are {known}")
    if eps != _EPS or sizes["width"] % sizes["heads"] or sizes["size"] < sizes["patch"]:
        raise CheckpointError(f"{path}: describes no picture encoder of CLIP's: give another")
    return ClipVisionConfig(**sizes, activation=activation)


def _table(state: Mapping[str, object]) -> tuple[Table, str, str]:
    """The layout of a file: its table, its first convolution, and what a layer's name begins by."""
    if "visual.conv1.weight" in state:
        return clip.VISION_OPEN, "visual.conv1.weight", "visual.transformer.resblocks."
    start = "vision_model."
    return clip.VISION, f"{start}embeddings.patch_embedding.weight", f"{start}encoder.layers."


def _seen(path: Path, state: Mapping[str, Tensor | Packed]) -> ClipVisionConfig:
    """The network that a file alone is of, by its widths."""
    _, stem, layer = _table(state)
    if stem not in state:
        raise CheckpointError(f"{path}: is no picture encoder of CLIP's: it has no {stem!r}")
    numbers = {m[1] for name in state if (m := re.match(re.escape(layer) + r"(\d+)\.", name))}
    width = state[stem].shape[0]
    for config in _ALONE:
        if (config.width, config.depth) == (width, len(numbers)):
            return config
    known = ", ".join(called(config) for config in _ALONE)
    raise CheckpointError(
        f"{path}: a picture encoder of width {width} with {len(numbers)} layers; a file alone is "
        f"known for {known}: give the folder that has its config.json"
    )


def load_encoder(path: Path, kind: torch.dtype, place: torch.device) -> ImageEncoder:
    """A picture encoder from a file, or from a folder of `transformers`.

    Raises:
        CheckpointError: it is damaged, or of another network.
    """
    config = None
    file = path
    if path.is_dir():
        said = path / "config.json"
        config = _said(said, read_json(within(path, said)))
        file = within(path, weights_in(path))
    state = read(file)
    config = config or _seen(file, state)
    network = build_unfilled(lambda: ClipVision(config)).eval().requires_grad_(False)
    wanted = network.state_dict()
    plain = {n: t.unpack() if isinstance(t, Packed) else t for n, t in state.items()}
    try:
        ours = to_ours(plain, _table(state)[0], wanted)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    made: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        made[name] = tensor.to(kind).clone(memory_format=torch.contiguous_format)
        if not finite(made[name]):
            raise CheckpointError(not_finite(str(file), name))
    load_into(network, made, str(file), assign=True)
    return ImageEncoder(network.to(place), called(config))
