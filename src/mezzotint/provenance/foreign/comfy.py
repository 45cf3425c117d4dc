"""ComfyUI: ``prompt``, the graph as it was run, or ``workflow``, as it was drawn.

    {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0], …}}, …}

An input is a value, or a link: the number of a node and which of its outputs.  From the node that
saves the picture the links lead back to the sampler, and from there to all else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mezzotint.provenance.foreign.names import Draft, Foreign, file_name, literal, table, told
from mezzotint.provenance.foreign.workflow import nodes_of
from mezzotint.provenance.recipe import RecipeError

_MOST_NODES, _MOST_STEPS = 5000, 500
_SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
_SAVES = ("Save", "Preview", "VHS_VideoCombine", "Image Save")
_EMPTY = ("EmptyLatentImage", "EmptySD3LatentImage", "EmptyHunyuanLatentVideo")
_ON = ("model", "clip", "samples", "latent_image", "latent", "conditioning", "conditioning_1")
_ON += ("conditioning_to", "positive", "value", "any", "", "input", "image", "images", "pixels")
"""By which input one goes on through a node that is not known."""
_VALUE = ("value", "text", "string", "int", "float", "seed", "number", "noise_seed", "Text")


class Node(NamedTuple):
    number: str
    kind: str
    inputs: Mapping[str, Any]


class Graph:
    """Nodes by their numbers."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self.nodes: dict[str, Node] = {}
        for number, found in list(document.items())[:_MOST_NODES]:
            kind = found.get("class_type") if isinstance(found, dict) else None
            inputs = found.get("inputs") if isinstance(found, dict) else None
            if isinstance(kind, str) and isinstance(inputs, dict):
                self.nodes[number] = Node(number, kind, inputs)

    def at(self, node: Node | None, name: str) -> Node | None:
        """The node that an input leads to."""
        value = None if node is None else node.inputs.get(name)
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            return self.nodes.get(str(value[0]))
        return None

    def value(self, node: Node | None, name: str) -> object:
        """The value of an input, also of one that a node with nothing but a value gives."""
        for _ in range(_MOST_STEPS):
            found = None if node is None else node.inputs.get(name)
            if not isinstance(found, list):
                return found
            node = self.at(node, name)
            name = next((n for n in _VALUE if node is not None and n in node.inputs), "")
        return None

    def back(self, node: Node | None, first: str) -> Iterator[Node]:
        """The nodes behind an input, one after the other, along the kind of what flows there."""
        seen: set[str] = set()
        name = first
        while (node := self.at(node, name)) is not None and node.number not in seen:
            seen.add(node.number)
            yield node
            links = [n for n in (first, *_ON) if self.at(node, n) is not None]
            if not links:
                return
            name = links[0]

    def sampler(self) -> Node | None:
        """The sampler of the picture: the nearest one behind a node that saves."""
        ends = [node for node in self.nodes.values() if node.kind.startswith(_SAVES)]
        wave, seen = ends or list(self.nodes.values()), set[str]()
        while wave:
            for node in wave:
                if node.kind in _SAMPLERS:
                    return node
            seen.update(node.number for node in wave)
            behind = [self.at(node, name) for node in wave for name in node.inputs]
            found = {n.number: n for n in behind if n is not None and n.number not in seen}
            wave = list(found.values())
        return None


# --- prompts ----------------------------------------------------------------------------------

_TEXTS = {
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("text",),
    "CLIPTextEncodeFlux": ("t5xxl", "clip_l"),
    "CLIPTextEncodeSD3": ("clip_g", "clip_l", "t5xxl"),
}
_CONTROLS = ("ControlNetApply", "ControlNetApplyAdvanced", "ControlNetApplySD3")


def _prompt(draft: Draft, graph: Graph, node: Node | None, name: str, option: str) -> None:
    """What is behind a conditioning: text, and what was done to it."""
    for found in graph.back(node, name):
        if found.kind in _TEXTS:
            texts = [graph.value(found, key) for key in _TEXTS[found.kind]]
            said = [text for text in texts if isinstance(text, str) and text.strip()]
            if len(set(said)) > 1:
                draft.leave(f"{option}: each text encoder was told something else: the first is it")
            if not said and any(text is None for text in texts):
                draft.leave(f"{option}: its text was made by nodes that are not known here")
            draft.text(option, literal(said[0] if said else "", "[]{}<"))
            if found.kind == "CLIPTextEncodeFlux" and option == "prompt":
                draft.number("guidance", graph.value(found, "guidance"), 0, 1000)
            return
        if found.kind == "ConditioningZeroOut":
            return
        if found.kind == "FluxGuidance":
            draft.number("guidance", graph.value(found, "guidance"), 0, 1000)
        elif found.kind in _CONTROLS:
            if option == "prompt":
                _control(draft, graph, found)
        elif found.kind != "Reroute":
            draft.leave(f"{found.kind}: what it does to the {option} is not known here")
    draft.leave(f"{option}: no text was found in the graph")


def _control(draft: Draft, graph: Graph, node: Node) -> None:
    network = next(
        (n for n in graph.back(node, "control_net") if "control_net_name" in n.inputs), None
    )
    picture = graph.at(node, "image")
    if network is None or picture is None or picture.kind != "LoadImage":
        draft.leave(f"{node.kind}: what it follows is made by nodes: give it with --control")
        return
    name, shown = file_name(graph.value(network, "control_net_name")), graph.value(picture, "image")
    if name is None or file_name(shown) is None:
        draft.leave(f"{node.kind}: its files have no names that can be typed: see --control")
        return
    parts = [f"{name}={file_name(shown)}"]
    for key, ours, usual in (
        ("strength", "strength", 1),
        ("start_percent", "from", 0),
        ("end_percent", "to", 1),
    ):
        value = graph.value(node, key)
        if isinstance(value, int | float) and math.isfinite(value) and value != usual:
            parts.append(f"{ours}={value:g}")
    known = draft.options.setdefault("control", [])
    assert isinstance(known, list)
    known.append(",".join(parts))
    draft.leave("control: the picture that it follows is not in the file: it is looked for by name")


# --- models -----------------------------------------------------------------------------------

_LOADS = {"ckpt_name": "model", "unet_name": "model", "vae_name": "part", "clip_name": "part"}
_LOADS |= {f"clip_name{number}": "part" for number in (1, 2, 3, 4)}


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and math.isfinite(value) else "1"


def _models(draft: Draft, graph: Graph, node: Node | None, name: str) -> None:
    """Loaders and adapters behind a sampler's model, a text's encoder or a decoder's VAE."""
    for found in graph.back(node, name):
        loads = [key for key in _LOADS if key in found.inputs]
        if found.kind in ("LoraLoader", "LoraLoaderModelOnly"):
            strength = _plain(graph.value(found, "strength_model"))
            text = (
                _plain(graph.value(found, "strength_clip"))
                if "strength_clip" in found.inputs
                else "0"
            )
            rule = "" if text == strength else f":te={text}"
            if name == "model":
                draft.file("lora", graph.value(found, "lora_name"), f":{strength}{rule}")
        elif loads:
            for key in loads:
                if key != "ckpt_name" or name == "model":
                    draft.file(_LOADS[key], graph.value(found, key))
        elif found.kind == "RescaleCFG":
            draft.number("rescale", graph.value(found, "multiplier"), 0, 1)
        elif found.kind == "CLIPSetLastLayer":
            layer = graph.value(found, "stop_at_clip_layer")
            draft.leave(f"CLIPSetLastLayer: {told(layer)}: the usual layer is used here")
        elif found.kind != "Reroute" and not found.kind.startswith("CLIPTextEncode"):
            draft.leave(f"{found.kind}: what it does to the {name} is not known here")


# --- the way ----------------------------------------------------------------------------------


def _passes(draft: Draft, graph: Graph, node: Node, most: int = 8) -> Node:
    """The sampler of the first pass; what came after it, and what it began with, is noted."""
    enlarged = False
    latent = "latent_image" if "latent_image" in node.inputs else "latent"
    for found in graph.back(node, latent):
        if found.kind in _SAMPLERS:
            if enlarged:
                draft.options["enlarge-latent"] = True
                draft.number("enlarge-strength", graph.value(node, "denoise"), 0, 1)
            else:
                draft.leave(f"{node.kind}: a second sampler went on: only the first is repeated")
                draft.options.pop("enlarge", None)
            return _passes(draft, graph, found, most - 1) if most else found
        if found.kind in _EMPTY or {"width", "height", "batch_size"} <= found.inputs.keys():
            draft.size(graph.value(found, "width"), graph.value(found, "height"))
            return node
        if found.kind == "LatentUpscaleBy":
            draft.number("enlarge", graph.value(found, "scale_by"), 1, 16)
            enlarged = "enlarge" in draft.options
        elif found.kind == "LoadImage":
            draft.file("image", graph.value(found, "image"))
            draft.number("strength", graph.value(node, "denoise"), 0, 1)
            draft.leave("image: it is not in the file: it is looked for by its name")
        elif found.kind in ("SetLatentNoiseMask", "VAEEncodeForInpaint"):
            draft.leave("mask: it was made within a mask: give it with --mask")
        elif found.kind not in ("VAEEncode", "Reroute"):
            draft.leave(f"{found.kind}: what it does to the latent is not known here")
    return node


def _settings(draft: Draft, graph: Graph, node: Node) -> None:
    """Seed, steps, guidance, sampler and spacing, of the sampler or of nodes that it is made of."""
    guider, noise, sigmas, chosen = (
        graph.at(node, name) or node for name in ("guider", "noise", "sigmas", "sampler")
    )
    seed = "noise_seed" if "noise_seed" in noise.inputs else "seed"
    draft.whole("seed", graph.value(noise, seed), 0, 2**64 - 1)
    draft.whole("steps", graph.value(sigmas, "steps"), 1, 10_000)
    if "guidance" not in draft.options and "cfg" in guider.inputs:
        draft.number("guidance", graph.value(guider, "cfg"), 0, 1000)
    draft.sampler(graph.value(chosen, "sampler_name"))
    draft.spacing(graph.value(sigmas, "scheduler"))
    if "image" not in draft.options and graph.value(sigmas, "denoise") not in (None, 1, 1.0):
        draft.leave(
            f"denoise: {told(graph.value(sigmas, 'denoise'))} of pure noise: not known here"
        )
    if node.kind == "KSamplerAdvanced":
        begin, end = (graph.value(node, key) for key in ("start_at_step", "end_at_step"))
        steps = graph.value(node, "steps")
        whole = isinstance(end, int) and isinstance(steps, int) and end >= steps
        if begin not in (0, None) or not whole:
            draft.leave(f"KSamplerAdvanced: from step {told(begin)} to {told(end)}: all are taken")


def read(text: str, what: str = "prompt") -> Foreign:
    """A graph as a command; what: ``prompt`` or ``workflow``.

    Raises:
        RecipeError: it cannot be read, or has no sampler that is known.
    """
    document = table(text, what)
    draft = Draft("ComfyUI")
    if what == "workflow":
        document, notes = nodes_of(document)
        for note in notes:
            draft.leave(note)
    graph = Graph(document)
    last = graph.sampler()
    if last is None:
        raise RecipeError(f"its {what} has no sampler that is known: {', '.join(_SAMPLERS)}")
    node = _passes(draft, graph, last)
    guider = graph.at(node, "guider") or node
    positive = "conditioning" if "conditioning" in guider.inputs else "positive"
    _prompt(draft, graph, guider, positive, "prompt")
    if "negative" in guider.inputs:
        _prompt(draft, graph, guider, "negative", "negative")
    _models(draft, graph, guider if "model" in guider.inputs else node, "model")
    for found in graph.back(guider, positive):
        if "clip" in found.inputs:
            _models(draft, graph, found, "clip")
            break
    decoder = next((n for n in graph.nodes.values() if n.kind.startswith("VAEDecode")), None)
    _models(draft, graph, decoder, "vae")
    _settings(draft, graph, node)
    if "model" not in draft.options:
        draft.leave("model: none was found in the graph: give it with --model")
    return draft.done()
