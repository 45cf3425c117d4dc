"""IP-Adapter: plain, Plus and full-face, pictures equal to `diffusers`; what does not fit."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import measured
from mezzotint.adapters.image_prompt import read
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.inspect import inspect
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.image_prompts import open_image_adapter, prepared
from mezzotint.engine.request import Guidance, ImagePrompt, Refiner, Request, RequestError
from mezzotint.families import catalogue
from mezzotint.families.image_encoder import load_encoder
from mezzotint.families.ldm import load
from mezzotint.families.model import Model
from mezzotint.modalities.image import for_clip
from mezzotint.networks.ldm_unet import TransformerLayer
from pipelines import Pipeline, small, stable_diffusion

CPU = torch.device("cpu")
IMAGE, POOLED = 32, 24  # widths of the encoder's patches, and of the whole
KINDS = ("plain", "plus", "full")
Halves = dict[str, dict[str, Tensor]]


# --- adapters with random weights, by the names that their authors give them ---------------------


def _image_half(kind: str, context: int) -> dict[str, tuple[int, ...]]:
    if kind == "plain":
        shapes = {"proj.weight": (4 * context, POOLED), "proj.bias": (4 * context,)}
        return shapes | {"norm.weight": (context,), "norm.bias": (context,)}
    if kind == "full":
        return {
            "proj.0.weight": (IMAGE, IMAGE),
            "proj.0.bias": (IMAGE,),
            "proj.2.weight": (context, IMAGE),
            "proj.2.bias": (context,),
            "proj.3.weight": (context,),
            "proj.3.bias": (context,),
        }
    width, heads = 16, 2
    shapes = {
        "latents": (1, 16, width),
        "proj_in.weight": (width, IMAGE),
        "proj_in.bias": (width,),
        "proj_out.weight": (context, width),
        "proj_out.bias": (context,),
        "norm_out.weight": (context,),
        "norm_out.bias": (context,),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{p}": (width,) for p in ("weight", "bias")}
        shapes |= {
            f"layers.{layer}.0.to_q.weight": (heads * 64, width),
            f"layers.{layer}.0.to_kv.weight": (2 * heads * 64, width),
            f"layers.{layer}.0.to_out.weight": (width, heads * 64),
            f"layers.{layer}.1.1.weight": (4 * width, width),
            f"layers.{layer}.1.3.weight": (width, 4 * width),
        }
    return shapes


def _attention_half(unet: UNet2DConditionModel) -> dict[str, tuple[int, ...]]:
    """Numbered as the U-Net of `diffusers` lists its attentions, which is what was stored."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, name in enumerate(unet.attn_processors):
        module = unet.get_submodule(name.removesuffix(".processor"))
        if name.endswith("attn2.processor"):
            for kind in ("k", "v"):
                shape = tuple(module.get_submodule(f"to_{kind}").weight.shape)
                shapes[f"{number}.to_{kind}_ip.weight"] = shape
    return shapes


def halves(kind: str, unet: UNet2DConditionModel, seed: int = 0) -> Halves:
    generator = torch.Generator().manual_seed(seed)
    context = unet.config["cross_attention_dim"]

    def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {
            name: torch.randn(shape, generator=generator) * (shape[-1] ** -0.5)
            for name, shape in shapes.items()
        }

    return {
        "image_proj": filled(_image_half(kind, context)),
        "ip_adapter": filled(_attention_half(unet)),
    }


def flat(found: Halves) -> dict[str, Tensor]:
    return {
        f"{half}.{n}": t.contiguous() for half, inner in found.items() for n, t in inner.items()
    }


class Ready(NamedTuple):
    """A pipeline of theirs, our model of the same weights, and the encoder of both in a folder."""

    name: str
    theirs: Pipeline
    folder: Path
    encoder: Path

    def model(self) -> Model:
        return load(small(self.name), self.folder)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    path = tmp_path_factory.mktemp(request.param)
    theirs = stable_diffusion(request.param)
    theirs.save_pretrained(path / "folder")
    torch.manual_seed(1)
    sees = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=IMAGE,
            intermediate_size=64,
            projection_dim=POOLED,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=16,
            patch_size=4,
            hidden_act="gelu",
        )
    ).eval()
    sees.save_pretrained(path / "encoder")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
    theirs.register_modules(image_encoder=sees, feature_extractor=processor)
    theirs.set_progress_bar_config(disable=True)
    return Ready(request.param, theirs, path / "folder", path / "encoder")


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(ready: Ready, model: Model, path: Path, strength: float, seed: int = 0) -> ImagePrompt:
    encoder = load_encoder(ready.encoder, torch.float32, CPU)
    image = for_clip(picture(seed), encoder.network.config.size)
    return prepared(open_image_adapter(model, path), encoder, image, "picture", strength)


def asked(*prompts: ImagePrompt, steps: int = 3, scale: float = 5.0, **more: object) -> Request:
    return Request(
        "a red fox",
        (3,),
        "blue" if scale > 1 else "",
        (64, 64),
        steps,
        Guidance(scale),
        "ddim",
        "trailing",
        image_prompts=prompts,
        **more,  # type: ignore[arg-type]
    )


def _expected(
    theirs: Pipeline,
    found: list[Halves],
    strengths: list[float],
    steps: int = 3,
    scale: float = 5.0,
) -> Tensor:
    count = len(found)
    theirs.load_ip_adapter(
        found, subfolder=[""] * count, weight_name=["x.bin"] * count, image_encoder_folder=None
    )
    theirs.set_ip_adapter_scale(strengths)
    return theirs(
        "a red fox",
        negative_prompt="blue",
        ip_adapter_image=[picture(seed) for seed in range(count)],
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=batch([3], "start", 0, (4, 8, 8)),
        output_type="pt",
    ).images[0]


def _theirs(ready: Ready) -> Pipeline:
    """With a U-Net of its own: taking an adapter out again leaves theirs without some settings."""
    theirs = stable_diffusion(ready.name)
    theirs.register_modules(
        image_encoder=ready.theirs.image_encoder, feature_extractor=ready.theirs.feature_extractor
    )
    theirs.set_progress_bar_config(disable=True)
    return theirs


def _weights(model: Model) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part, module in model.parts.items()
        for name, value in module.state_dict().items()
    }


CELLS = [
    pytest.param(kind, steps, scale, id=f"{kind}-{steps}-{scale:g}")
    for kind, steps, scale in (
        ("plain", 20, 5.0),
        ("plain", 1, 1.0),
        ("plus", 4, 5.0),
        ("plus", 4, 1.0),
        ("full", 3, 5.0),
    )
]


@pytest.mark.parity("image prompt (IP-Adapter)", "diffusers folder", family="sd1")
@pytest.mark.parametrize(("kind", "steps", "scale"), CELLS)
@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
def test_sd1_equals_diffusers(
    ready: Ready, kind: str, steps: int, scale: float, tmp_path: Path
) -> None:
    _assert_equals(ready, kind, steps, scale, tmp_path)


@pytest.mark.parity("image prompt (IP-Adapter)", "diffusers folder", family="sdxl")
@pytest.mark.parametrize(("kind", "steps", "scale"), CELLS)
@pytest.mark.parametrize("ready", ["sdxl"], indirect=True)
def test_sdxl_equals_diffusers(
    ready: Ready, kind: str, steps: int, scale: float, tmp_path: Path
) -> None:
    _assert_equals(ready, kind, steps, scale, tmp_path)


def _assert_equals(ready: Ready, kind: str, steps: int, scale: float, tmp_path: Path) -> None:
    theirs, model = _theirs(ready), ready.model()
    found = halves(kind, theirs.unet)
    save(tmp_path / "adapter.safetensors", flat(found), {})
    before = _weights(model)
    plain = generate(model, asked(steps=steps, scale=scale))[0]
    prompt = shown(ready, model, tmp_path / "adapter.safetensors", 0.7)
    ours = generate(model, asked(prompt, steps=steps, scale=scale))[0]
    assert (ours - plain).abs().max() > 1e-3  # the picture does something
    assert torch.equal(generate(model, asked(steps=steps, scale=scale))[0], plain)
    after = _weights(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    expected = _expected(theirs, [found], [0.7], steps, scale)
    measured.close(ours / 2 + 0.5, expected, 1e-3)


@pytest.mark.parity("image prompt (IP-Adapter)", "diffusers folder", family="sd1")
@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
def test_two_adapters_at_once(ready: Ready, tmp_path: Path) -> None:
    theirs, model = _theirs(ready), ready.model()
    found = [halves("plain", theirs.unet), halves("plus", theirs.unet, seed=1)]
    prompts = []
    for number, (own, strength) in enumerate(zip(found, (0.7, 0.4), strict=True)):
        save(tmp_path / f"{number}.safetensors", flat(own), {})
        path = tmp_path / f"{number}.safetensors"
        prompts.append(shown(ready, model, path, strength, seed=number))
    ours = generate(model, asked(*prompts))[0]
    measured.close(ours / 2 + 0.5, _expected(theirs, found, [0.7, 0.4]), 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_and_safetensors_are_one(ready: Ready, kind: str, tmp_path: Path) -> None:
    model, found = ready.model(), halves(kind, ready.theirs.unet)
    torch.save(found, tmp_path / "a.bin")
    save(tmp_path / "a.safetensors", flat(found), {})
    assert (inspect(tmp_path / "a.safetensors").kind or "").startswith("IP-Adapter")
    pictures = [
        generate(model, asked(shown(ready, model, tmp_path / name, 1.0)))[0]
        for name in ("a.bin", "a.safetensors")
    ]
    assert torch.equal(*pictures)


@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
def test_strength_zero_is_without_it_and_seeds_stay_apart(ready: Ready, tmp_path: Path) -> None:
    model, found = ready.model(), halves("plain", ready.theirs.unet)
    save(tmp_path / "a.safetensors", flat(found), {})
    plain = generate(model, asked())[0]
    off = shown(ready, model, tmp_path / "a.safetensors", 0.0)
    assert torch.equal(generate(model, asked(off))[0], plain)
    on = off._replace(strength=0.8)
    several = Request("a fox", (7, 3), size=(64, 64), steps=2, image_prompts=(on,))
    alone = Request("a fox", (3,), size=(64, 64), steps=2, image_prompts=(on,))
    assert torch.equal(generate(model, several)[1], generate(model, alone)[0])
    assert str(on) == "picture:0.8"


@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
@pytest.mark.parametrize("ratio", [30, 60])
def test_a_prompt_longer_than_the_negative_one(ready: Ready, ratio: int, tmp_path: Path) -> None:
    """The picture's tokens are found before texts of different length."""
    model, found = ready.model(), halves("plain", ready.theirs.unet)
    save(tmp_path / "a.safetensors", flat(found), {})
    on = shown(ready, model, tmp_path / "a.safetensors", 0.8)
    request = Request("fox " * ratio, (3,), "blue", (64, 64), 2, image_prompts=(on,))
    off = Request("fox " * ratio, (3,), "blue", (64, 64), 2)
    assert not torch.equal(generate(model, request)[0], generate(model, off)[0])


# --- names and numbers of full-size files ------------------------------------------------------

SD1_UNET = {"cross_attention_dim": 768}
SDXL_UNET = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.mark.parametrize(
    ("family", "unet", "count"), [("sd1", SD1_UNET, 16), ("sdxl", SDXL_UNET, 70)]
)
def test_every_attention_of_a_full_size_file_has_its_place(
    family: str, unet: dict[str, object], count: int
) -> None:
    """Its number is that of the attention in the U-Net of `diffusers`, found by the key's name."""
    found = next(f for f in catalogue.FAMILIES if f.name == family)
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**unet)  # type: ignore[arg-type]
    model = catalogue.shadow(found)
    assert model.banked is not None and model.targets is not None
    ports, targets = model.banked.ports, model.targets()
    assert len(ports.widths) == count and ports.context == unet["cross_attention_dim"]
    order = [
        name
        for name, module in model.network.named_modules()
        if isinstance(module, TransformerLayer)
    ]
    stored = _attention_half(theirs)
    assert set(stored) == set(ports.table)
    for number, name in enumerate(theirs.attn_processors):
        if not name.endswith("attn2.processor"):
            continue
        module = name.removesuffix(".processor")
        ours = targets[f"unet.{module}.to_k"].part.name
        place = order.index(ours.removesuffix(".cross_attention.kv.weight"))
        part = ports.table[f"{number}.to_k_ip.weight"]
        assert part is not None and not isinstance(part, str)
        assert part.name == f"kv.{place}.weight" and part.index == 0
        assert ports.widths[place] == stored[f"{number}.to_k_ip.weight"][0]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("kind", ["plain", "plus"])
def test_full_size_files_are_complete(family: str, kind: str) -> None:
    """The shapes of the releases: none is left over, none is missing (nothing is allocated)."""
    found = next(f for f in catalogue.FAMILIES if f.name == family)
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**(SD1_UNET if family == "sd1" else SDXL_UNET))
    ports = catalogue.shadow(found).banked
    assert ports is not None
    context = ports.ports.context
    width, heads = (768, 12) if family == "sd1" else (1280, 20)
    image: dict[str, tuple[int, ...]] = _image_half(kind, context)
    sizes = {IMAGE: 1280, POOLED: 1024, 16: width, 128: heads * 64, 256: 128 * heads, 64: 4 * width}
    if kind == "plus":
        image = {n: tuple(sizes.get(e, e) for e in shape) for n, shape in image.items()}
        image["latents"] = (1, 16, width)
        image |= {n: s for n, s in _image_half(kind, context).items() if n.startswith("norm_out")}
        image |= {"proj_out.weight": (context, width), "proj_out.bias": (context,)}
    else:
        image["proj.weight"] = (4 * context, 1024)
    shapes = {f"image_proj.{n}": s for n, s in image.items()}
    shapes |= {f"ip_adapter.{n}": s for n, s in _attention_half(theirs).items()}
    state = {n: torch.zeros(1).expand(shape) for n, shape in shapes.items()}
    adapter = read(state, ports.ports, torch.bfloat16, torch.device("meta"))
    assert adapter.pooled == (kind == "plain")
    assert adapter.image == (1024 if kind == "plain" else 1280)


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
def test_keys_are_strict(ready: Ready, tmp_path: Path) -> None:
    model, path = ready.model(), tmp_path / "a.safetensors"
    good = flat(halves("plus", ready.theirs.unet))

    def refused(state: dict[str, Tensor], message: str) -> None:
        save(path, state, {})
        with pytest.raises(CheckpointError, match=f"a.safetensors: .*{message}"):
            open_image_adapter(model, path)

    one = "ip_adapter.1.to_k_ip.weight"
    refused({**good, "ip_adapter.1.to_q_ip.weight": good[one]}, r"unknown key .* \(nearest: ip_")
    refused({**good, "ip_adapter.99.to_k_ip.weight": good[one]}, "unknown key 'ip_adapter.99")
    refused({n: t for n, t in good.items() if n != one}, "1 key is missing, the first for 'banks")
    refused({**good, one: good[one][:3].clone()}, "shape")
    refused({**good, one: good[one] * float("nan")}, "not finite")
    refused({n: t for n, t in good.items() if n[:2] == "im"}, "is no IP-Adapter")
    refused({n: t for n, t in good.items() if "proj_in" not in n}, "incomplete or damaged")
    refused({**good, "image_proj.latents": torch.ones(3)}, "incomplete or damaged")
    face = {"image_proj.proj.0.weight": torch.ones(2, 2), "image_proj.norm.weight": torch.ones(2)}
    refused(face | {one: good[one]}, "is a FaceID adapter")
    odd = {"image_proj.other.weight": torch.ones(2, 2)}
    refused(odd | {one: good[one]}, "of no known kind")


@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
def test_other_models_and_encoders_are_named(ready: Ready, tmp_path: Path) -> None:
    model, path = ready.model(), tmp_path / "a.safetensors"
    save(path, flat(halves("plain", stable_diffusion("sdxl").unet)), {})
    with pytest.raises(CheckpointError, match="tokens of width 16 and this model attends to 8"):
        open_image_adapter(model, path)
    with pytest.raises(CheckpointError, match="a.safetensors: the model 'icons' takes no image"):
        open_image_adapter(catalogue.load("icons", "cpu"), path)
    found = halves("plain", ready.theirs.unet)
    found["image_proj"]["proj.weight"] = torch.randn(32, 1024)
    save(path, flat(found), {})
    with pytest.raises(RequestError, match=r"of width 1024 \(OpenCLIP ViT-H/14\), and .* gives 24"):
        shown(ready, model, path, 1.0)
    save(path, flat(halves("plain", ready.theirs.unet)), {})
    prompt = shown(ready, model, path, 1.0)
    adapter = prompt.adapter
    encoder = load_encoder(ready.encoder, torch.float32, CPU)
    with pytest.raises(RequestError, match="its encoder takes .3, 16, 16."):
        prepared(adapter, encoder, torch.zeros(3, 8, 8), "a", 1.0)
    with pytest.raises(RequestError, match="icons takes no image prompts"):
        generate(catalogue.load("icons", "cpu"), Request("", (1,), image_prompts=(prompt,)))
    for change, message in (
        ({"tokens": prompt.tokens[..., :3]}, "has tokens of shape"),
        ({"strength": float("nan")}, "is no number"),
    ):
        with pytest.raises(RequestError, match=message):
            generate(model, asked(prompt._replace(**change)))  # type: ignore[arg-type]
    less = deepcopy(adapter)
    del less.banks.kv[0]
    with pytest.raises(RequestError, match="the adapter of 'picture' was not read for sd1"):
        generate(model, asked(prompt._replace(adapter=less)))


@pytest.mark.parametrize("ready", ["sd1"], indirect=True)
def test_a_refiner_is_told_no_picture(ready: Ready, tmp_path: Path) -> None:
    model = ready.model()
    save(tmp_path / "a.safetensors", flat(halves("plain", ready.theirs.unet)), {})
    prompt = shown(ready, model, tmp_path / "a.safetensors", 1.0)
    request = Request("a fox", (1,), size=(64, 64), steps=4, image_prompts=(prompt,))
    refined = Request(
        "a fox",
        (1,),
        size=(64, 64),
        steps=4,
        image_prompts=(prompt,),
        refiner=Refiner(model, 0.5),
    )
    assert not torch.equal(generate(model, request)[0], generate(model, refined)[0])
