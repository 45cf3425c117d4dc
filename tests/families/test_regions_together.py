"""One prompt a region beside what else acts on a picture: a LoRA, a control network, an image
prompt, tiles, a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mezzotint.adapters.image_prompt import ImageAdapter
from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.tables import control_unet
from mezzotint.engine.attach import open_adapter
from mezzotint.engine.generate import generate
from mezzotint.engine.regions import box
from mezzotint.engine.request import (
    Attached,
    Control,
    Guidance,
    ImagePrompt,
    Region,
    Request,
    RequestError,
)
from mezzotint.families import controls, ldm
from mezzotint.families.model import Model
from mezzotint.networks.control_unet import ControlUNet
from mezzotint.networks.image_prompt import Banks
from pipelines import small
from variants import picture, small_variant

SIZE = (64, 64)
LEFT = box(SIZE, 0, 0, 0.5, 1)
FOX, OWL = "a red fox", "two owls"


def random(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        made = torch.randn(weight.shape, generator=generator)
        scale = 0.1 if weight.ndim == 1 else weight[0].numel() ** -0.5
        weight.data = made * scale + (weight.ndim == 1 and "weight" in name)
    return module.eval().requires_grad_(False)


def make(edits: bool = False) -> Model:
    model = ldm.build(small_variant("sd1-pix2pix") if edits else small("sd1"))
    for part in model.parts.values():
        random(part)
    return model


def lora(model: Model, place: Path) -> dict[str, Any]:
    path = place / "a.safetensors"
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    down, up = torch.randn(2, 8), torch.randn(32, 2)
    save(path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, {})
    return {"adapters": (Attached("a", open_adapter(model, path).fitted, 0.8),)}


def control(model: Model, place: Path) -> dict[str, Any]:
    network = random(ControlUNet(model.network.config))  # type: ignore[arg-type]
    state = to_theirs(network.state_dict(), control_unet.diffusers(convolutions=True))
    save(place / "c.safetensors", state, {})
    loaded = controls.load(model, place / "c.safetensors")
    return {"controls": (Control(loaded, picture(*SIZE), 0.5),)}


def image_prompt(model: Model, place: Path) -> dict[str, Any]:
    assert model.banked is not None
    ports = model.banked.ports
    banks = random(Banks(ports.context, ports.widths))
    adapter = ImageAdapter(nn.Identity(), banks, 8, pooled=True)  # type: ignore[arg-type]
    yes, no = torch.randn(2, 1, 4, ports.context)
    return {"image_prompts": (ImagePrompt("picture", adapter, yes, no, 0.7),)}


def tile(model: Model, place: Path) -> dict[str, Any]:
    return {"tiled": frozenset({0, 1})}


def reference(model: Model, place: Path) -> dict[str, Any]:
    return {"reference": picture(*SIZE), "guidance": Guidance(3.0, image=1.5)}


@pytest.mark.parametrize("beside", [lora, control, image_prompt, tile, reference])
def test_a_region_over_all_is_its_prompt_bit_for_bit(
    beside: Callable[[Model, Path], dict[str, Any]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make(beside is reference)
    more = beside(model, tmp_path)
    wish = Request(FOX, (1,), "blue", SIZE, 2, Guidance(3.0))

    def made(prompt: str, *regions: Region, **told: Any) -> Tensor:
        return generate(model, replace(wish, prompt=prompt, regions=regions, **told))[0]

    fox, owl = (made(prompt, **more) for prompt in (FOX, OWL))
    all_over = made(FOX, Region(OWL, torch.ones_like(LEFT)), **more)
    assert torch.equal(all_over, owl)
    half = made(FOX, Region(OWL, LEFT), **more)
    assert not torch.equal(half, fox) and not torch.equal(half, owl)
    if beside is not reference:  # which it cannot do without
        assert not torch.equal(half, made(FOX, Region(OWL, LEFT)))


def test_a_region_asks_for_no_adapter(tmp_path: Path) -> None:
    model = make()
    request = Request(FOX, (1,), size=SIZE, regions=(Region("an owl <lora:a:1>", LEFT),))
    with pytest.raises(RequestError, match="an adapter acts on the whole picture: ask for it in"):
        generate(model, replace(request, **lora(model, tmp_path)))
