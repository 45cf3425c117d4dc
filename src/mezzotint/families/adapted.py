"""The names that trainers of adapters give a family's weights, in all their styles."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mezzotint.adapters.lora import Style, Target, index
from mezzotint.checkpoints.layout import Layout
from mezzotint.checkpoints.streamed import shapes
from mezzotint.checkpoints.tables import clip
from mezzotint.families.separate import NO_TEXT
from mezzotint.networks.clip import ClipText
from mezzotint.networks.t5 import T5Encoder

_DENOISER = (
    Style("lora_unet_", dotted=False),  # kohya, of transformers too
    Style("lora_transformer_", dotted=False),
    Style("unet.", dotted=True),  # diffusers
    Style("transformer.", dotted=True),
    Style("diffusion_model.", dotted=True),
    Style("base_model.model.", dotted=True),  # PEFT
    Style("", dotted=True),
)


def _styles(place: str, module: nn.Module, alone: bool) -> tuple[Style, ...]:
    """Of a text encoder by its folder: "text_encoder_2" is kohya's "te2", but T5 always "te3"."""
    number = place.removeprefix("text_encoder").removeprefix("_") or "1"
    kohya = [f"lora_te{3 if isinstance(module, T5Encoder) else number}_"]
    kohya += ["lora_te_"] if alone else []
    return (Style(f"{place}.", dotted=True), *(Style(name, dotted=False) for name in kohya))


def targets(parts: Mapping[str, nn.Module], file: Layout, folder: Layout) -> dict[str, Target]:
    """Every place of the denoiser and of the text encoders, by every name it has in any style."""
    found = index(
        "network",
        shapes(parts["network"]),
        (folder.tables["network"], file.tables["network"]),
        _DENOISER,
    )
    texts = [name for name in parts if name not in NO_TEXT]
    for name in texts:
        module, tables = parts[name], [folder.tables[name]]
        if isinstance(module, ClipText):
            tables.append(clip.text(""))  # newer releases leave the prefix out
        styles = _styles(folder.places[name], module, alone=len(texts) == 1)
        found |= index(name, shapes(module), tables, styles)
    return found
