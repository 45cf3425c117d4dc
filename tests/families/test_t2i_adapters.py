"""T2I-Adapters of Stable Diffusion 1 and XL: the pictures are those of `diffusers`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.adapter import MultiAdapter, T2IAdapter
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.t2i_adapter.pipeline_stable_diffusion_adapter import (
    StableDiffusionAdapterPipeline,
)
from diffusers.pipelines.t2i_adapter.pipeline_stable_diffusion_xl_adapter import (
    StableDiffusionXLAdapterPipeline,
)
from test_controls import FOX, SIZE, wish
from torch import Tensor

import measured
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.tables import t2i_adapter as tables
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Control
from mezzotint.families import controls
from mezzotint.families.ldm import Family, load
from mezzotint.families.model import Model
from pipelines import small, stable_diffusion
from variants import picture

# `diffusers`' pipeline calls a method of its own that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The decode_latents method:FutureWarning")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("sd1", {"channels": [32, 64, 64], "adapter_type": "full_adapter"}),
    "grey": ("sd1", {"channels": [32, 64, 64], "adapter_type": "full_adapter", "in_channels": 1}),
    "light": ("sd1", {"channels": [32, 64], "adapter_type": "light_adapter", "num_res_blocks": 4}),
    "xl": (
        "sdxl",
        {
            "channels": [32, 64, 64, 64],
            "adapter_type": "full_adapter_xl",
            "downscale_factor": 16,
        },
    ),
}


def kinds(layout: str) -> list[Any]:
    """Of each kind a test of its family's cell."""
    return [
        pytest.param(name, marks=pytest.mark.parity("T2I-Adapter", layout, family=family))
        for name, (family, _) in KINDS.items()
    ]


def base_of(name: str) -> tuple[Any, Family]:
    """A pipeline with three levels, as many as an adapter needs, and its family."""
    attends = (True, True, False) if name == "sd1" else (False, True, True)
    base, family = stable_diffusion(name), small(name)
    torch.manual_seed(1)
    told: dict[str, Any] = {"attention_head_dim": 8}
    if name == "sdxl":
        told = {"transformer_layers_per_block": (1, 2, 2), "attention_head_dim": (4, 8, 8)}
    base.unet = UNet2DConditionModel.from_config(
        base.unet.config,
        block_out_channels=(32, 64, 64),
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        **told,
    )
    depths = (1, 1, 0) if name == "sd1" else (0, 2, 2)
    return base, replace(family, unet=replace(family.unet, multipliers=(1, 2, 2), depths=depths))


def adapter(name: str, seed: int = 1) -> T2IAdapter:
    torch.manual_seed(seed)
    made = T2IAdapter(**KINDS[name][1]).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 0.08)
    return made


class Made:
    def __init__(self, name: str, place: Path) -> None:
        self.base, family = base_of(name)
        self.base.save_pretrained(place)
        self.place, self.name = place, name
        self.model: Model = load(family, place)

    def stored(self, network: T2IAdapter, name: str) -> Path:
        network.save_pretrained(self.place / name)
        return self.place / name

    def expected(self, used: Any, steps: int, scale: float, **told: Any) -> Tensor:
        parts = dict(self.base.components)
        if self.name == "sdxl":
            made: Any = StableDiffusionXLAdapterPipeline(**parts, adapter=used)
        else:
            parts.pop("image_encoder", None)
            made = StableDiffusionAdapterPipeline(
                **parts, adapter=used, requires_safety_checker=False
            )
        made.set_progress_bar_config(disable=True)
        image = picture(*SIZE)[None] / 2 + 0.5
        if isinstance(used, MultiAdapter):
            image = [image, 1 - image]
        elif used.config.in_channels == 1:
            image = (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, True)
        found = made(
            FOX,
            image=image,
            negative_prompt="blue" if scale > 1 else None,
            height=SIZE[0],
            width=SIZE[1],
            num_inference_steps=steps,
            guidance_scale=scale,
            latents=batch([3], "start", 0, (4, SIZE[0] // 8, SIZE[1] // 8)),
            output_type="pt",
            **told,
        ).images[0]
        if isinstance(found, Tensor):
            return found
        return torch.from_numpy(found).permute(2, 0, 1)  # whatever is asked for


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {name: Made(name, tmp_path_factory.mktemp(name)) for name in ("sd1", "sdxl")}


@pytest.mark.parametrize("name", kinds("diffusers folder"))
@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (4, 6.0), (20, 6.0)])
def test_from_prompt_and_picture_to_picture(
    bases: dict[str, Made], name: str, steps: int, scale: float
) -> None:
    made, theirs = bases[KINDS[name][0]], adapter(name)
    control = Control(controls.load(made.model, made.stored(theirs, name)), picture(*SIZE), 0.7)
    wanted = made.expected(theirs, steps, scale, adapter_conditioning_scale=0.7)
    found = generate(made.model, wish(steps, scale, control))[0]
    measured.close(found / 2 + 0.5, wanted, 1e-3)
    plain = generate(made.model, wish(steps, scale))[0]
    assert float((found - plain).abs().max()) > 0.01


@pytest.mark.parity("two T2I-Adapters, for a part of the way", "diffusers folder", family="sdxl")
def test_two_for_a_part_of_the_way(bases: dict[str, Made]) -> None:
    made = bases["sdxl"]
    theirs = [adapter("xl", seed) for seed in (1, 2)]
    first, second = (
        controls.load(made.model, made.stored(each, f"two{n}")) for n, each in enumerate(theirs)
    )
    told: dict[str, Any] = {
        "adapter_conditioning_scale": [0.7, 0.4],
        "adapter_conditioning_factor": 0.5,
    }
    wanted = made.expected(MultiAdapter(theirs), 4, 6.0, **told)
    two = (
        Control(first, picture(*SIZE), 0.7, 0.0, 0.5),
        Control(second, -picture(*SIZE), 0.4, 0.0, 0.5),
    )
    found = generate(made.model, wish(4, 6.0, *two))[0]
    measured.close(found / 2 + 0.5, wanted, 1e-3)


@pytest.mark.parametrize("name", kinds("single file"))
def test_both_layouts_are_the_same_network(
    bases: dict[str, Made], name: str, tmp_path: Path
) -> None:
    made = bases[KINDS[name][0]]
    folder = made.stored(adapter(name), name)
    network = controls.load(made.model, folder)
    levels = 4 if name == "xl" else 3
    table = tables.LIGHT if name == "light" else tables.full(levels, 2)
    path = tmp_path / "original.safetensors"
    save(path, to_theirs(network.network.state_dict(), table), {})
    assert str(inspect(path).kind).startswith("T2I-Adapter")
    assert str(inspect(folder / "diffusion_pytorch_model.safetensors").kind) == (
        "T2I-Adapter (diffusers)"
    )
    found = [
        generate(made.model, wish(2, 3.0, Control(used, picture(*SIZE))))[0]
        for used in (network, controls.load(made.model, path))
    ]
    measured.same(*found)


def test_what_does_not_fit_says_so(bases: dict[str, Made], tmp_path: Path) -> None:
    sd1, sdxl = bases["sd1"], bases["sdxl"]
    folder = sd1.stored(adapter("full"), "wrong")
    with pytest.raises(
        CheckpointError, match=r"makes 32 channels at 1/8, .*; it takes 32 channels"
    ):
        controls.load(sdxl.model, folder)
    state = dict(load_file(folder / "diffusion_pytorch_model.safetensors")[0])
    state["adapter.conv_inn.bias"] = state.pop("adapter.conv_in.bias")
    save(tmp_path / "a.safetensors", state, {})
    with pytest.raises(CheckpointError, match="unknown key 'conv_inn.bias'"):
        controls.load(sd1.model, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="knows one kind: leave mode= out"):
        controls.load(sd1.model, folder, "canny")
    odd = torch.zeros(8, 5, 3, 3)
    save(tmp_path / "b.safetensors", {**state, "adapter.conv_in.weight": odd}, {})
    with pytest.raises(CheckpointError, match="its first layer has 5 channels; known are 64, 192"):
        controls.load(sd1.model, tmp_path / "b.safetensors")
    network = controls.load(sdxl.model, sdxl.stored(adapter("xl"), "sizes"))
    size = (72, 96)
    request = replace(wish(1, 1.0, Control(network, picture(*size))), size=size)
    with pytest.raises(ValueError, match="a size in multiples of 16, not 96x72"):
        generate(sdxl.model, request)


def test_beside_a_control_network(bases: dict[str, Made], tmp_path: Path) -> None:
    """They act at other places of the same U-Net, in either order."""
    made = bases["sd1"]
    theirs = ControlNetModel.from_unet(made.base.unet)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(0, 0.05)
    theirs.save_pretrained(tmp_path)
    two = [
        Control(controls.load(made.model, path), picture(*SIZE), 0.7)
        for path in (tmp_path, made.stored(adapter("full"), "beside"))
    ]
    both, turned, *each = (
        generate(made.model, wish(2, 3.0, *used))[0] for used in (two, two[::-1], two[:1], two[1:])
    )
    assert torch.equal(both, turned)
    assert all(not torch.equal(both, one) for one in each)
