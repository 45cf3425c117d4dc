"""One GPU: a step, decoding and whole pictures of ours and of diffusers, in bfloat16.

Ours has random weights made on the device; theirs has the same numbers, as `convert` maps them,
and mostly the same memory.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.tables import mmdit
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families import catalogue, flow, folders, ldm
from mezzotint.families.catalogue import Family
from mezzotint.families.clip_tokens import tokenizer
from mezzotint.families.flux1 import FLUX_DEV
from mezzotint.families.model import Model, NetworkCall
from mezzotint.families.precision import stored
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd3 import SD35_MEDIUM
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.flux import Flux
from mezzotint.networks.ldm_unet import LdmUNet
from mezzotint.networks.mmdit import MMDiT, MMDiTConfig
from peers.graphs import replayed
from peers.report import Bar, Row, Section
from peers.timing import in_turns, ratios, seconds

KIND, ERROR, MB = torch.bfloat16, 0.02, 1e6
STEPS, GUIDANCE, PROMPT = 20, 7.0, "a lighthouse on a cliff at dawn, oil on canvas"


@dataclass(frozen=True)
class Bench:
    """Where it is measured, at which sizes, and whether torch.compile is tried."""

    place: torch.device
    quick: bool
    compiled: bool

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 5

    def wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)

    def clock(self, action: Callable[[], object], times: int = 1) -> float:
        """Seconds of one of so many calls in a row, begun and ended with an idle device."""

        def row() -> None:
            for _ in range(times):
                action()
            self.wait()

        self.wait()
        return seconds(row) / times

    def turns(self, actions: Sequence[Callable[[], object]], times: int = 1) -> list[list[float]]:
        clocks = [partial(self.clock, action, times) for action in actions]
        return in_turns(clocks, self.rounds, warm=1 if self.quick else 2)


def peak(place: torch.device) -> float:
    """Operations a second of bfloat16 matrix products, the fastest of some."""
    edge = 8192 if place.type == "cuda" else 256
    a, b = (torch.randn(edge, edge, device=place).to(KIND) for _ in range(2))
    bench = Bench(place, False, False)
    return 2 * edge**3 / min(bench.turns([lambda: a @ b], 10)[0])


def release(place: torch.device) -> None:
    """Give back the memory of what nothing refers to."""
    gc.collect()
    if place.type == "cuda":
        torch.cuda.empty_cache()


# --- the same weights in both -------------------------------------------------------------------


def narrow(family: Family) -> Family:
    """With few channels and blocks."""
    if isinstance(family, ldm.Family):
        few = {"width": 64, "depth": 2, "heads": 2, "hidden": 64}
        texts = {
            part: replace(text, encoder=replace(text.encoder, projection=64 * text.pooled, **few))
            for part, text in family.texts.items()
        }
        unet = family.unet
        unet = replace(
            unet,
            width=64,
            multipliers=(1,) * len(unet.multipliers),
            depths=tuple(min(depth, 1) for depth in unet.depths),
            middle_depth=1,
            context_width=64 * len(texts),
            vector_width=unet.vector_width and 64 + 6 * 256,
        )
        return replace(family, unet=unet, texts=texts)
    network: Any = family.network
    few = {"heads": 2, "context_width": 64}
    if isinstance(family.network, MMDiTConfig):
        tables = {**family.folder.tables, "network": mmdit.diffusers(3)}
        network = replace(network, depth=3, dual=2, positions=12, **few)
        return replace(family, network=network, folder=replace(family.folder, tables=tables))
    return replace(family, network=replace(network, depth=2, single=2, **few))


def _fill(network: nn.Module, place: torch.device) -> None:
    """Random weights in the precision that ours has: gains near 1, matrices that keep a size."""
    for name, weight in network.named_parameters():
        weight.data = weight.data.to(stored(network, name, KIND))
    network.to_empty(device=place)
    generator = torch.Generator(place).manual_seed(0)
    for name, weight in network.named_parameters():
        bound = (3 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1
        weight.data.uniform_(-bound, bound, generator=generator)
        if weight.ndim == 1 and name.endswith("weight"):
            weight.data += 1
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _model(family: Family, place: torch.device, *wanted: str) -> Model:
    """A model of ours of which these parts have weights; all if none is named."""
    model = catalogue.shadow(family)
    for name in wanted or model.parts:
        _fill(model.parts[name], place)
    return model


def _state(family: Family, part: str, network: nn.Module) -> dict[str, Tensor]:
    named = to_theirs(network.state_dict(), family.folder.tables[part])
    return {name: weight.contiguous() for name, weight in named.items()}


def _theirs(family: Family, part: str, network: nn.Module, reader: Any) -> Any:
    """The network of diffusers with the same numbers, all of them in bfloat16."""
    state = _state(family, part, network)
    shapes = {name: tuple(weight.shape) for name, weight in state.items()}
    config = folders.describe(network, folders.facts(family), shapes).config
    with torch.device("meta"):
        made = reader.from_config(config)
    made.load_state_dict({n: weight.to(KIND) for n, weight in state.items()}, assign=True)
    return made.eval().requires_grad_(False)


def _encoder(family: Family, part: str, network: nn.Module, place: torch.device) -> Any:
    """The text encoder of transformers with the same numbers."""
    state = _state(family, part, network)
    config = folders.describe(network, folders.facts(family), {}).config
    names = {key: value for key, value in config.items() if key != "model_type"}
    made_of = CLIPTextConfig(**names)
    pooled = config["architectures"] == ["CLIPTextModelWithProjection"]
    with place:  # its buffers are not in its state dict
        made: Any = (CLIPTextModelWithProjection if pooled else CLIPTextModel)(made_of)
    own = set(made.state_dict())
    if not set(state) <= own:  # newer releases of CLIPTextModel leave the prefix out
        state = {name.removeprefix("text_model."): weight for name, weight in state.items()}
    made.load_state_dict(state, assign=True)
    return made.to(KIND).eval().requires_grad_(False)


# --- a step -------------------------------------------------------------------------------------


def _told(model: Model, family: Family, place: torch.device, batch: int) -> Conditioning:
    """What a network is told of prompts of the usual length, and of a guidance scale."""
    config: Any = model.network.config
    tokens = 77 if isinstance(family, ldm.Family) else family.t5.length
    tokens += 77 if isinstance(family, flow.Family) and family.joined else 0
    vector = None
    if config.vector_width:
        vector = torch.randn(batch, config.vector_width, device=place)
        if model.distilled:
            vector = torch.cat([vector, torch.full((batch, 1), 4.0, device=place)], 1)
    return Conditioning(
        vector, Tokens(torch.randn(batch, tokens, config.context_width, device=place))
    )


def _call_of_theirs(
    theirs: Any, model: Model, x: Tensor, time: Tensor, told: Conditioning
) -> Callable[[], Tensor]:
    """One call of diffusers' network, what its pipeline prepares once prepared before."""
    x = x.to(KIND)
    assert told.context is not None
    context = told.context.values.to(KIND)
    vector = None if told.vector is None else told.vector.to(KIND)
    if isinstance(model.network, LdmUNet):
        if vector is None:
            return lambda: theirs(x, time, context, return_dict=False)[0]
        pooled = vector.shape[1] - 6 * 256
        # Its own embedding of the sizes: ours is told it ready made.
        sizes = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]], device=x.device)
        more = {"text_embeds": vector[:, :pooled], "time_ids": sizes.expand(len(x), -1)}
        return lambda: theirs(x, time, context, added_cond_kwargs=more, return_dict=False)[0]
    if isinstance(model.network, MMDiT):
        return lambda: theirs(x, context, vector, time, return_dict=False)[0]
    assert isinstance(model.network, Flux) and vector is not None
    height, width = x.shape[2] // 2, x.shape[3] // 2
    ids = flow.positions(height, width, device=x.device)[0].to(KIND)
    text_ids = torch.zeros(context.shape[1], 3, device=x.device, dtype=KIND)
    scale = torch.full((len(x),), 4.0, device=x.device)  # × 1000, which they round
    packed = flow.pack(x)

    def call() -> Tensor:
        made = theirs(
            hidden_states=packed,
            timestep=(time / 1000).to(KIND),
            guidance=scale,
            pooled_projections=vector[:, :-1],
            encoder_hidden_states=context,
            txt_ids=text_ids,
            img_ids=ids,
            return_dict=False,
        )[0]
        return flow.unpack(made, height, width)

    return call


def _sized(told: Conditioning, model: Model) -> Conditioning:
    """SDXL's vector with the sizes that theirs is told."""
    if model.framing is None or told.vector is None:
        return told
    framed = model.framing((1024, 1024)).to(told.vector).expand(len(told.vector), -1)
    return told._replace(vector=torch.cat([told.vector[:, : -framed.shape[1]], framed], 1))


def _ways(bench: Bench, call: NetworkCall) -> dict[str, NetworkCall]:
    """Ours as it is, and otherwise run."""
    ways = {"as it is": call}
    if bench.place.type == "cuda":
        ways["CUDA graph"] = replayed(call)
    if bench.compiled:
        ways["torch.compile"] = torch.compile(call)
    return ways


def _step(
    bench: Bench, family: Family, pixels: int, batch: int, reader: Any, times: int
) -> list[Row]:
    place, pixels = bench.place, 64 if bench.quick else pixels
    family = narrow(family) if bench.quick else family
    model = _model(family, place, "network")
    theirs = _theirs(family, "network", model.network, reader)
    x = torch.randn(batch, *model.codec.shape((pixels, pixels)), device=place)
    time, told = torch.full((batch,), 500.0, device=place), _told(model, family, place, batch)
    told = _sized(told, model)
    other = _call_of_theirs(theirs, model, x, time, told)
    actions = {way: partial(call, x, time, told) for way, call in _ways(bench, model.call).items()}
    name = f"{family.name}, {pixels} px, batch {batch}"
    expected = other().float()
    found = {way: action() for way, action in actions.items()}
    mine = found["as it is"]
    error = float((mine - expected).norm() / expected.norm())
    rows = [Row(f"{name}: difference of both", (error,), "difference", Bar("at most", ERROR))]
    if "CUDA graph" in found:
        off = float((found["CUDA graph"] - mine).abs().max())
        title = f"{name}: CUDA graph, difference from as it is"
        rows.append(Row(title, (off,), "difference", Bar("at most", 0)))
    *ours, others = bench.turns([*actions.values(), other], times)
    with FlopCounterMode(display=False) as counter:
        model.call(x, time, told)
    best = peak(place)
    rows.append(Row(f"{name}: a step of diffusers", tuple(1e3 * t for t in others), "ms"))
    for way, spent in zip(actions, ours, strict=True):
        share = tuple(counter.get_total_flops() / t / best for t in spent)
        rows += [
            Row(f"{name}: a step of ours, {way}", tuple(1e3 * t for t in spent), "ms"),
            Row(f"{name}: diffusers ÷ ours, {way}", ratios(others, spent), "×"),
            Row(f"{name}: share of the peak, ours, {way}", share, "%"),
        ]
    return rows


# --- decoding -----------------------------------------------------------------------------------


def _decode(bench: Bench) -> list[Row]:
    place, rows = bench.place, list[Row]()
    model = _model(SD1, place, "autoencoder")
    ours = model.parts["autoencoder"]
    theirs = _theirs(SD1, "autoencoder", ours, AutoencoderKL)
    for pixels in (64,) if bench.quick else (512, 1024):
        code = torch.randn(1, *model.codec.shape((pixels, pixels)), device=place)
        rounded = code.to(KIND)
        mine = partial(ours.decode, code)  # type: ignore[arg-type]

        def other(rounded: Tensor = rounded) -> Tensor:
            return theirs.decode(rounded, return_dict=False)[0]

        expected = other().float()
        error = float((mine().float() - expected).norm() / expected.norm())
        spent, others = bench.turns([mine, other], 3)
        name = f"autoencoder of sd1, {pixels} px"
        rows += [
            Row(f"{name}: difference of both", (error,), "difference", Bar("at most", ERROR)),
            Row(f"{name}: decoding, diffusers", tuple(1e3 * t for t in others), "ms"),
            Row(f"{name}: decoding, ours", tuple(1e3 * t for t in spent), "ms"),
            Row(f"{name}: diffusers ÷ ours", ratios(others, spent), "×"),
        ]
    return rows


# --- whole pictures -----------------------------------------------------------------------------


def _tokenizer(pad: int) -> CLIPTokenizer:
    own = tokenizer()
    merges: Any = [tuple(pair) for pair in json.loads(own.to_str())["model"]["merges"]]
    vocabulary = own.get_vocab()
    padding = next(name for name, number in vocabulary.items() if number == pad)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=padding)


def _pipeline(family: ldm.Family, model: Model, place: torch.device) -> Any:
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    given: dict[str, Any] = {
        "vae": _theirs(family, "autoencoder", model.parts["autoencoder"], AutoencoderKL),
        "unet": _theirs(family, "network", model.network, UNet2DConditionModel),
        "scheduler": scheduler,
    }
    for number, (part, text) in enumerate(family.texts.items(), start=1):
        end = "" if number == 1 else f"_{number}"
        given[f"text_encoder{end}"] = _encoder(family, part, model.parts[part], place)
        given[f"tokenizer{end}"] = _tokenizer(text.pad)
    if len(family.texts) == 2:
        made: Any = StableDiffusionXLPipeline(**given, add_watermarker=False)
    else:
        less: dict[str, Any] = dict.fromkeys(("safety_checker", "feature_extractor"))
        made = StableDiffusionPipeline(**given, **less, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def _bytes(parts: Sequence[nn.Module]) -> int:
    return sum(weight.nbytes for part in parts for weight in part.parameters())


def _memory(bench: Bench, weights: int, action: Callable[[], object]) -> float:
    """Megabytes at the peak of a picture: its weights, and what is taken beside them."""
    if bench.place.type != "cuda":
        return 0.0
    release(bench.place)
    torch.cuda.reset_peak_memory_stats(bench.place)
    before = torch.cuda.memory_allocated(bench.place)
    action()
    bench.wait()
    return (weights + torch.cuda.max_memory_allocated(bench.place) - before) / MB


def _picture(bench: Bench, family: ldm.Family, pixels: int) -> list[Row]:
    place, pixels = bench.place, 64 if bench.quick else pixels
    used = narrow(family) if bench.quick else family
    assert isinstance(used, ldm.Family)
    model = _model(used, place)
    pipeline = _pipeline(used, model, place)
    steps = 2 if bench.quick else STEPS
    request = Request(
        PROMPT,
        (0,),
        size=(pixels, pixels),
        steps=steps,
        guidance=Guidance(GUIDANCE),
        sampler="euler",
        spacing="trailing",
    )

    def other() -> Tensor:
        made = pipeline(
            PROMPT,
            height=pixels,
            width=pixels,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            output_type="pt",
        )
        return made.images[0].float().cpu()

    actions: dict[str, Callable[[], object]] = {
        way: partial(generate, replace(model, call=call), request)
        for way, call in _ways(replace(bench, compiled=False), model.call).items()
    }
    *ours, others = bench.turns([*actions.values(), other])
    name = f"{family.name}, {pixels} px, a picture at {steps} steps"
    rows = [Row(f"{name}: diffusers", tuple(others), "s")]
    for way, spent in zip(actions, ours, strict=True):
        rows += [
            Row(f"{name}: ours, {way}", tuple(spent), "s"),
            Row(f"{name}: diffusers ÷ ours, {way}", ratios(others, spent), "×"),
        ]
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    mine = _memory(bench, _bytes(list(model.parts.values())), actions["as it is"])
    rows += [
        Row(f"{name}: peak memory, diffusers", (_memory(bench, _bytes(parts), other),), "MB"),
        Row(f"{name}: peak memory, ours", (mine,), "MB"),
    ]
    return rows


def _icons(bench: Bench) -> list[Row]:
    needed = ("icons.safetensors", "minilm.safetensors")
    if lacking := [name for name in needed if not (catalogue.DATA / name).exists()]:
        raise FileNotFoundError(f"{' and '.join(lacking)} did not travel to this machine")
    model = catalogue.load("icons", str(bench.place))
    rows: list[Row] = []
    for count in (1, 8):
        request = Request(
            "a red fox",
            tuple(range(count)),
            size=(128, 128),
            steps=2 if bench.quick else STEPS,
            guidance=Guidance(3.0),
        )
        (spent,) = bench.turns([partial(generate, model, request)])
        name = f"icons, 128 px: {count} picture{'s' if count > 1 else ''}"
        rows.append(Row(name, tuple(spent), "s"))
    return rows


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "sd1": lambda bench: _step(bench, SD1, 512, 2, UNet2DConditionModel, 5),
    "sdxl": lambda bench: _step(bench, SDXL, 1024, 2, UNet2DConditionModel, 3),
    "picture-sd1": lambda bench: _picture(bench, SD1, 512),
    "decode": _decode,
    "sd35": lambda bench: _step(bench, SD35_MEDIUM, 1024, 2, SD3Transformer2DModel, 3),
    "flux": lambda bench: _step(bench, FLUX_DEV, 1024, 1, FluxTransformer2DModel, 2),
    "picture-sdxl": lambda bench: _picture(bench, SDXL, 1024),
    "icons": _icons,
}
"""The groups of rows, the most telling first: what is cut off is missed least."""


def section(rows: Sequence[Row]) -> Section:
    text = (
        "Networks of the released sizes with random weights, the same numbers in both, in "
        "bfloat16; a step is one call of the network in a row of several, between two moments at "
        "which the GPU is idle. *CUDA graph* and *torch.compile* are ways to run the same call "
        "that the program itself does not take. The share counts the operations of products, "
        "convolutions and attention against products of two 8192×8192 matrices. A whole picture "
        "has its text encoders and its decoding in it (guidance 7, Euler); its peak memory is "
        "what its weights take and what torch gave out beside them."
    )
    return Section("gpu", "On a GPU", text, tuple(rows))
