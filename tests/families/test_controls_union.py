"""Union networks of SDXL: one network for several kinds of pictures; equal to `diffusers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from diffusers.models.controlnets.multicontrolnet_union import MultiControlNetUnionModel
from diffusers.pipelines.controlnet.pipeline_controlnet_union_sd_xl import (
    StableDiffusionXLControlNetUnionPipeline,
)
from torch import Tensor

import measured
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.source import Entry, Listing
from mezzotint.checkpoints.tables import control_unet
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Control, Guidance, Known, Request, RequestError
from mezzotint.families import controls
from mezzotint.families.controls_ldm import union_sizes
from mezzotint.families.ldm import load
from mezzotint.families.model import Model
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.control_union import ControlUnion
from pipelines import small, stable_diffusion
from variants import mask, picture

SIZE = (64, 96)
FOX = "a red fox, flat style"
KINDS = {"six": 6, "promax": 8}


def union(base: Any, kinds: int, seed: int = 1) -> ControlNetUnionModel:
    """With numbers where training begins with zeros."""
    made = ControlNetUnionModel.from_config(
        base.unet.config,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(16, 32, 96, 256),
        num_control_type=kinds,
        num_trans_channel=32,
        num_proj_channel=32,
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(0, 0.05)
            if weight.ndim == 1 and ("norm" in name or "ln_" in name) and name.endswith("weight"):
                weight.add_(1)
        made.task_embedding.normal_(0, 1)
    return made.eval()


class Made(NamedTuple):
    base: Any
    networks: dict[str, ControlNetUnionModel]
    place: Path
    model: Model

    def expected(self, used: Any, kinds: Any, steps: int, scale: float, **told: Any) -> Tensor:
        parts = {key: part for key, part in self.base.components.items() if key != "image_encoder"}
        theirs: Any = StableDiffusionXLControlNetUnionPipeline(
            **parts, controlnet=used, add_watermarker=False
        )
        theirs.set_progress_bar_config(disable=True)
        image = picture(*SIZE)[None] / 2 + 0.5
        return theirs(
            FOX,
            control_image=[image, 1 - image] if isinstance(kinds, list) else image,
            control_mode=kinds,
            negative_prompt="blue" if scale > 1 else None,
            height=SIZE[0],
            width=SIZE[1],
            num_inference_steps=steps,
            guidance_scale=scale,
            latents=batch([3], "start", 0, (4, 8, 12)),
            output_type="pt",
            **told,
        ).images[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    base, place = stable_diffusion("sdxl"), tmp_path_factory.mktemp("sdxl")
    base.save_pretrained(place)
    networks = {name: union(base, kinds) for name, kinds in KINDS.items()}
    for name, network in networks.items():
        network.save_pretrained(place / name)
    return Made(base, networks, place, load(small("sdxl"), place))


def wish(steps: int, scale: float, *used: Control, **more: Any) -> Request:
    negative = "blue" if scale > 1 else ""
    guidance = Guidance(scale)
    return Request(
        FOX, (3,), negative, SIZE, steps, guidance, "ddim", "trailing", controls=used, **more
    )


@pytest.mark.parity("ControlNet, Union", "diffusers folder", family="sdxl")
@pytest.mark.parametrize(
    ("name", "kind", "number", "steps", "scale"),
    [("six", "canny", 3, 1, 1.0), ("promax", "tile", 6, 4, 5.0)],
)
def test_of_one_kind(
    made: Made, name: str, kind: str, number: int, steps: int, scale: float
) -> None:
    network = controls.load(made.model, made.place / name, kind)
    found = generate(made.model, wish(steps, scale, Control(network, picture(*SIZE), 0.7)))[0]
    told = {"controlnet_conditioning_scale": 0.7}
    wanted = made.expected(made.networks[name], number, steps, scale, **told)
    measured.close(found / 2 + 0.5, wanted, 1e-3)
    other = controls.load(made.model, made.place / name, "depth")
    assert not torch.equal(
        found, generate(made.model, wish(steps, scale, Control(other, picture(*SIZE), 0.7)))[0]
    )


@pytest.mark.parity("two ControlNets, Union", "diffusers folder", family="sdxl")
def test_of_two_kinds_each_by_itself(made: Made) -> None:
    """Both pictures are read as by two networks, whose residuals add up."""
    both = MultiControlNetUnionModel([made.networks["promax"]] * 2)
    wanted = made.expected(both, [3, 1], 4, 5.0, controlnet_conditioning_scale=[0.7, 0.4])
    canny, depth = (controls.load(made.model, made.place / "promax", k) for k in ("canny", "1"))
    two = Control(canny, picture(*SIZE), 0.7), Control(depth, -picture(*SIZE), 0.4)
    measured.close(generate(made.model, wish(4, 5.0, *two))[0] / 2 + 0.5, wanted, 1e-3)


def test_repainting_is_told_black_where_it_is_painted(made: Made) -> None:
    repaint = controls.load(made.model, made.place / "promax", "repaint")
    new = mask(*SIZE)
    black = torch.where(new == 1, -1.0, picture(*SIZE))
    known = Known(picture(*SIZE), new)
    given, shown = (
        generate(made.model, wish(2, 3.0, Control(repaint, image), known=known))[0]
        for image in (None, black)
    )
    assert torch.equal(given, shown)
    tile = controls.load(made.model, made.place / "promax", "tile")
    with pytest.raises(RequestError, match="promax follows a picture: give one"):
        generate(made.model, wish(2, 3.0, Control(tile, None), known=known))


def test_modes(made: Made) -> None:
    for told in ({"hint": "scribble"}, {"mode": "2"}, {"hint": "canny", "mode": "normal"}):
        controls.load(made.model, made.place / "six", **told)
    for name, told, message in (
        ("six", {}, r"its mode is not said: give mode=, one of 0 \(pose/openpose\), 1 \(depth\)"),
        ("six", {"mode": "tile"}, "there is no mode 'tile': give mode=, one of"),
        ("six", {"hint": "luminance"}, "its mode is not said"),
    ):
        with pytest.raises(CheckpointError, match=message):
            controls.load(made.model, made.place / name, **told)
    kind = inspect(made.place / "six/diffusion_pytorch_model.safetensors").kind
    assert kind == "ControlNet Union for SDXL (diffusers)"


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_true_sizes(kinds: int) -> None:
    """xinsir6/ControlNetPlus, models/controlnet_union.py and the pages of both releases: SDXL's
    own sizes, hints of (16, 32, 96, 256), one layer of width 320, 6 kinds or ProMax's 8."""
    with torch.device("meta"):
        theirs = ControlNetUnionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            conditioning_embedding_out_channels=(16, 32, 96, 256),
            num_control_type=kinds,
        ).state_dict()
    entries = {name: Entry("F16", tuple(value.shape)) for name, value in theirs.items()}
    listing = Listing(Path("x.safetensors"), "safetensors", entries, {}, 0)
    found = union_sizes(listing)
    assert found == (kinds, 1, (16, 32, 96, 256))
    with torch.device("meta"):
        own = ControlUnion(SDXL.unet, *found).state_dict()
    table = {**control_unet.diffusers(convolutions=False), **control_unet.UNION}
    taken = to_ours(theirs, table, own)
    assert {k: v.shape for k, v in taken.items()} == {k: v.shape for k, v in own.items()}
    back = to_theirs(own, table)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in theirs.items()}
