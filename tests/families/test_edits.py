"""Image to image and inpainting by models that were not trained for it, equal to `diffusers`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

import measured
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Known, Request, Start
from mezzotint.families import flow, ldm
from mezzotint.families.model import Model
from pipelines import flux, small, small_flow, stable_diffusion, stable_diffusion_3
from variants import certain, mask, picture

SIZE = (64, 96)
FOX = "a red fox, flat style"
MODULES = {
    "sd1": "stable_diffusion.pipeline_stable_diffusion_{}.StableDiffusion{}Pipeline",
    "sd2": "stable_diffusion.pipeline_stable_diffusion_{}.StableDiffusion{}Pipeline",
    "sdxl": "stable_diffusion_xl.pipeline_stable_diffusion_xl_{}.StableDiffusionXL{}Pipeline",
    "sd3": "stable_diffusion_3.pipeline_stable_diffusion_3_{}.StableDiffusion3{}Pipeline",
    "flux-dev": "flux.pipeline_flux_{}.Flux{}Pipeline",
    "flux-schnell": "flux.pipeline_flux_{}.Flux{}Pipeline",
}
Edit = Callable[..., Tensor]


@pytest.fixture(scope="module", params=MODULES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(name: str) -> Any:
    if name.startswith("flux"):
        made = flux(name)
    else:
        made = stable_diffusion_3(name) if name == "sd3" else stable_diffusion(name)
    certain(made.vae)
    return made


@pytest.fixture(scope="module")
def ours(name: str, base: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp(name) / "folder"
    base.save_pretrained(path)
    if name in ("sd1", "sd2", "sdxl"):
        return ldm.load(small(name), path)
    return flow.load(small_flow(name), path)


@pytest.fixture
def edit(name: str, base: Any, ours: Model, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Their picture in [−1, 1] of a task ("img2img", "inpaint"), of our noise."""

    def make(task: str, steps: int, strength: float, scale: float, **given: Any) -> Tensor:
        short = "Img2Img" if task == "img2img" else "Inpaint"
        place, _, kind = MODULES[name].format(task, short).rpartition(".")
        module = import_module(f"diffusers.pipelines.{place}")
        noise = batch([3], "start", 0, ours.codec.shape(SIZE))
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise)
        parts = dict(base.components)
        taken = ("image_encoder", "feature_extractor", "safety_checker")
        if name == "sd3":
            parts = {n: p for n, p in parts.items() if n not in taken}
        if name in ("sd1", "sd2"):
            parts["requires_safety_checker"] = False
        pipeline = getattr(module, kind)(**parts)
        pipeline.set_progress_bar_config(disable=True)
        unshifted = (task, name) == ("inpaint", "sd3")  # it forgets to: decoded here instead
        told: dict[str, Any] = {"guidance_scale": scale}
        if name == "flux-schnell":
            told = {"max_sequence_length": 256}
        elif scale > 1 and name != "flux-dev":
            told["negative_prompt"] = "blue"
        if task == "inpaint" or name in ("sd3", "flux-dev", "flux-schnell"):
            told |= {"height": SIZE[0], "width": SIZE[1]}
        made = pipeline(
            FOX,
            image=picture(*SIZE)[None] / 2 + 0.5,
            num_inference_steps=steps,
            strength=strength,
            output_type="latent" if unshifted else "pt",
            **told,
            **given,
        )
        if unshifted:
            config = pipeline.vae.config
            code = made.images / config.scaling_factor + config.shift_factor
            with torch.no_grad():
                return pipeline.vae.decode(code).sample[0].clamp(-1, 1)
        return made.images[0] * 2 - 1

    return make


def wish(name: str, steps: int, strength: float, scale: float, **more: Any) -> Request:
    negative = "blue" if scale > 1 and not name.startswith("flux") else ""
    usual = {"sampler": "ddim", "spacing": "trailing"} if name in ("sd1", "sd2", "sdxl") else {}
    start = Start(picture(*SIZE), strength)
    told = Guidance(None if name == "flux-schnell" else scale)
    return Request(FOX, (3,), negative, SIZE, steps, guidance=told, start=start, **usual, **more)


@pytest.mark.parity("image to image", "diffusers folder")
@pytest.mark.parametrize(("steps", "strength"), [(4, 0.5), (5, 0.8), (4, 0.25), (20, 0.5)])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_image_to_image(
    name: str, ours: Model, edit: Edit, steps: int, strength: float, scale: float
) -> None:
    expected = edit("img2img", steps, strength, scale)
    found = generate(ours, wish(name, steps, strength, scale))[0]
    measured.close(found / 2 + 0.5, expected / 2 + 0.5, 1e-3)
    assert float(found.std()) > 0.01


@pytest.mark.parity("inpainting", "diffusers folder")
@pytest.mark.parametrize(("steps", "strength"), [(4, 0.5), (5, 0.8), (20, 0.8)])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_inpainting(
    name: str, ours: Model, edit: Edit, steps: int, strength: float, scale: float
) -> None:
    """Where the noise of the start is what the known part is noised with, both definitions are
    one; the mask ends on the code's pixels."""
    new = mask(*SIZE)
    expected = edit("inpaint", steps, strength, scale, mask_image=new[None])
    known = Known(picture(*SIZE), new)
    found = generate(ours, wish(name, steps, strength, scale, known=known))[0]
    measured.close(found * new / 2, expected * new / 2, 1e-3)
    assert torch.equal(found * (1 - new), picture(*SIZE) * (1 - new))
