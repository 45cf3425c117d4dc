"""A graph of ComfyUI as it was drawn, as one that was run: values in the order of their widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mezzotint.provenance.foreign.names import told

_MOST = 5000
_AGAIN = "control_after_generate"
_WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", _AGAIN, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", _AGAIN, "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "RandomNoise": ("noise_seed", _AGAIN),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height"),
        *("text_g", "text_l"),
    ),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "CLIPLoader": ("clip_name", "type"),
    "DualCLIPLoader": ("clip_name1", "clip_name2", "type"),
    "TripleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "ControlNetLoader": ("control_net_name",),
    "ControlNetApply": ("strength",),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "LoadImage": ("image",),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "RescaleCFG": ("multiplier",),
    "PrimitiveNode": ("value",),
}
_OFF = (2, 4)  # muted, bypassed


def nodes_of(document: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The nodes as ``prompt`` has them, and a note for each that is left out."""
    notes: list[str] = []
    links = _links(document.get("links"))
    found: dict[str, object] = {}
    drawn = document.get("nodes")
    for node in drawn[:_MOST] if isinstance(drawn, list) else ():
        kind = node.get("type") if isinstance(node, dict) else None
        if not isinstance(kind, str):
            continue
        if node.get("mode") in _OFF:
            notes.append(f"{told(kind)}: was switched off: what lies behind it is left out")
            continue
        found[str(node.get("id"))] = {"class_type": kind, "inputs": _inputs(node, kind, links)}
    return found, notes


def _links(raw: object) -> dict[object, list[object]]:
    """Where a link comes from, by its number: ``[number, node, output, node, input, kind]``."""
    found: dict[object, list[object]] = {}
    for link in raw[: 4 * _MOST] if isinstance(raw, list) else ():
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int):
            found[link[0]] = [str(link[1]), link[2]]
    return found


def _inputs(node: Mapping[str, Any], kind: str, links: Mapping[object, list[object]]) -> object:
    values = node.get("widgets_values")
    inputs: dict[str, object] = {}
    if isinstance(values, list):
        inputs.update(zip(_WIDGETS.get(kind, ()), values, strict=False))
    elif isinstance(values, dict):
        inputs.update(values)
    inputs.pop(_AGAIN, None)
    entries = node.get("inputs")
    for entry in entries[:200] if isinstance(entries, list) else ():
        name = entry.get("name") if isinstance(entry, dict) else None
        if (
            isinstance(name, str)
            and isinstance(number := entry.get("link"), int)
            and number in links
        ):
            inputs[name] = links[number]
    return inputs
