"""Control networks for inpainting, told what is painted over: the pictures are `diffusers`'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_controls as of_unet
import test_controls_flow as of_flow
import torch
from diffusers.pipelines.controlnet import pipeline_controlnet_inpaint as of_sd1
from diffusers.pipelines.controlnet import pipeline_controlnet_inpaint_sd_xl as of_sdxl
from diffusers.pipelines.controlnet_sd3 import (
    pipeline_stable_diffusion_3_controlnet_inpainting as of_sd3,
)
from torch import Tensor, nn

import measured
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.files import load as load_file
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import (
    Control,
    Enlarge,
    Guidance,
    Known,
    Request,
    RequestError,
    Start,
)
from mezzotint.families import controls, ldm
from mezzotint.families.flow import pack
from pipelines import small, stable_diffusion
from variants import certain, mask, picture, ragged

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
SIZE = (64, 96)
FOX = "a red fox, flat style"
SHOWN = picture(*SIZE)


def close_inside(found: Tensor, expected: Tensor, new: Tensor) -> None:
    """Where it is painted it is theirs; elsewhere it is the known picture, exactly."""
    measured.close((found / 2 + 0.5) * new, expected * new, 1e-3)
    assert torch.equal(found * (1 - new), SHOWN * (1 - new))


# --- U-Nets: the same tensors as of any other, told −1 where it is painted ----------------------


class OfUNet:
    """A pipeline, the model of it, and a control network in a folder."""

    def __init__(self, name: str, place: Path) -> None:
        self.base: Any = stable_diffusion(name)
        certain(self.base.vae)
        self.base.save_pretrained(place)
        self.control = of_unet.network(self.base, 1)
        self.control.save_pretrained(place / "control")
        self.model, self.folder = ldm.load(small(name), place), place / "control"

    def pipeline(self) -> Any:
        parts = {key: part for key, part in self.base.components.items() if part is not None}
        if "text_encoder_2" in parts:
            made: Any = of_sdxl.StableDiffusionXLControlNetInpaintPipeline(
                **parts, controlnet=self.control, add_watermarker=False
            )
        else:
            empty = {"safety_checker": None, "feature_extractor": None}
            made = of_sd1.StableDiffusionControlNetInpaintPipeline(
                **parts, **empty, controlnet=self.control, requires_safety_checker=False
            )
        made.set_progress_bar_config(disable=True)
        return made


@pytest.fixture(scope="module")
def unets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OfUNet]:
    return {name: OfUNet(name, tmp_path_factory.mktemp(name)) for name in ("sd1", "sdxl")}


def painted(new: Tensor) -> Tensor:
    """As the pages of control_v11p_sd15_inpaint and EcomXL_controlnet_inpaint (SDXL) have it."""
    condition = SHOWN / 2 + 0.5
    condition[:, new[0] > 0.5] = -1.0
    return condition[None]


@pytest.mark.parametrize(
    ("name", "steps", "scale"),
    [
        pytest.param(
            *row,
            marks=pytest.mark.parity("ControlNet, inpainting", "diffusers folder", family=row[0]),
        )
        for row in (("sd1", 2, 1.0), ("sd1", 5, 5.0), ("sdxl", 5, 5.0))
    ],
)
def test_unets(
    unets: dict[str, OfUNet],
    name: str,
    steps: int,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the noise of the start is what the known part is noised with, both definitions of
    what is known are one."""
    made, new = unets[name], mask(*SIZE)
    noise = batch([3], "start", 0, (4, 8, 12))
    for module in (of_sd1, of_sdxl):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise)
    expected = made.pipeline()(
        FOX,
        image=SHOWN[None] / 2 + 0.5,
        mask_image=new[None],
        control_image=painted(new),
        negative_prompt="blue" if scale > 1 else None,
        height=SIZE[0],
        width=SIZE[1],
        strength=0.8,
        num_inference_steps=steps,
        guidance_scale=scale,
        controlnet_conditioning_scale=0.7,
        output_type="pt",
    ).images[0]
    network = controls.load(made.model, made.folder)
    request = Request(
        FOX,
        (3,),
        "blue" if scale > 1 else "",
        SIZE,
        steps,
        Guidance(scale),
        "ddim",
        "trailing",
        start=Start(SHOWN, 0.8),
        known=Known(SHOWN, new),
        controls=(Control(network, None, 0.7),),
    )
    found = generate(made.model, request)[0]
    close_inside(found, expected, new)
    assert not torch.equal(found, generate(made.model, replace(request, controls=()))[0])


# --- Stable Diffusion 3 and FLUX.1: a mask beside the code --------------------------------------


def sd3_control() -> Any:
    of_flow.SD3["inpainting"] = ("sd3", {"num_layers": 2, "extra_conditioning_channels": 1})
    return of_flow.sd3_control("inpainting")


def flux_control() -> Any:
    """`diffusers`' network, with the channels that alimama-creative's own class of it has."""
    made = of_flow.flux_control("Union-Pro-2")
    torch.manual_seed(2)
    made.controlnet_x_embedder = nn.Linear(64 + 4, 32).requires_grad_(False)
    return made


def expected_sd3(made: of_flow.Made, control: Any, new: Tensor, steps: int, scale: float) -> Tensor:
    parts = {n: p for n, p in made.base.components.items() if not n.startswith(("image", "feat"))}
    theirs: Any = of_sd3.StableDiffusion3ControlNetInpaintingPipeline(**parts, controlnet=control)
    theirs.set_progress_bar_config(disable=True)
    return theirs(
        FOX,
        control_image=SHOWN[None],
        control_mask=new[None],
        negative_prompt="blue" if scale > 1 else None,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        guidance_scale=scale,
        controlnet_conditioning_scale=0.7,
        latents=batch([3], "start", 0, (16, 8, 12)),
        output_type="pt",
    ).images[0]


def expected_flux(
    made: of_flow.Made, control: Any, new: Tensor, steps: int, scale: float
) -> Tensor:
    """Told what `prepare_image_with_mask` of alimama-creative's pipeline gives."""
    vae = made.base.vae
    black = SHOWN[None].clone()
    black[(new[None] > 0.5).repeat(1, 3, 1, 1)] = -1
    with torch.no_grad():
        code = vae.encode(black).latent_dist.mean
    code = (code - vae.config.shift_factor) * vae.config.scaling_factor
    kept = 1 - nn.functional.interpolate(new[None], size=code.shape[2:])
    told, plain = pack(torch.cat([code, kept], 1)), control.forward
    control.forward = lambda **rest: plain(**{**rest, "controlnet_cond": told})
    size, of_flow.SIZE = of_flow.SIZE, SIZE
    try:
        return made.expected(control, steps, scale, controlnet_conditioning_scale=0.7)
    finally:
        of_flow.SIZE, control.forward = size, plain


FLOWS: dict[str, tuple[Callable[[], Any], Callable[..., Tensor]]] = {
    "sd3": (sd3_control, expected_sd3),
    "flux-dev": (flux_control, expected_flux),
}


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, of_flow.Made]:
    return {name: of_flow.Made(name, tmp_path_factory.mktemp(name)) for name in FLOWS}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=pytest.mark.parity("ControlNet, inpainting", "diffusers folder", family=n)
        )
        for n in FLOWS
    ],
)
@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (4, 5.0)])
def test_flows(flows: dict[str, of_flow.Made], name: str, steps: int, scale: float) -> None:
    made, (build, expected) = flows[name], FLOWS[name]
    control, new = build(), ragged(*SIZE)
    network = controls.load(made.model, made.stored(control, "inpainting"))
    request = Request(
        FOX,
        (3,),
        "blue" if scale > 1 and name == "sd3" else "",
        SIZE,
        steps,
        Guidance(scale),
        known=Known(SHOWN, new),
        controls=(Control(network, None, 0.7),),
    )
    found = generate(made.model, request)[0]
    close_inside(found, expected(made, control, new, steps, scale), new)
    # Without it, or once it acts no more, the known part is held as for any other model.
    plain, none = (
        generate(made.model, replace(request, controls=used))[0]
        for used in ((), (Control(network, None, 0.0),))
    )
    assert torch.equal(plain, none)
    half = replace(request, controls=(Control(network, None, 0.7, 0.0, 0.75),))
    if steps == 1:  # it acts in whole steps
        with pytest.raises(RequestError, match="in which none of the 1 steps lies"):
            generate(made.model, half)
    else:
        some = generate(made.model, half)[0]
        assert not torch.equal(some, found) and not torch.equal(some, plain)
    with pytest.raises(RequestError, match="is told the picture that is painted over: give it no"):
        generate(made.model, replace(request, controls=(Control(network, SHOWN),)))
    with pytest.raises(RequestError, match="told what is painted over, and where: give --image an"):
        generate(made.model, replace(request, known=None))


# --- beside all else ----------------------------------------------------------------------------


def test_the_masked_area_alone_and_a_second_pass(unets: dict[str, OfUNet]) -> None:
    ours = unets["sd1"].model
    control = Control(controls.load(ours, unets["sd1"].folder), None)
    known = Known(SHOWN, mask(*SIZE))
    plain = Request(FOX, (3,), size=SIZE, steps=2, known=known)
    for request in (
        replace(plain, known=replace(known, around=8)),
        replace(plain, enlarge=Enlarge(1.5, 0.5)),
    ):
        found = generate(ours, replace(request, controls=(control,)))[0]
        assert bool(found.isfinite().all())
        assert not torch.equal(found, generate(ours, request)[0])


def test_what_does_not_fit_says_so(flows: dict[str, of_flow.Made], tmp_path: Path) -> None:
    made = flows["flux-dev"]
    follows = controls.load(made.model, made.stored(of_flow.flux_control("InstantX"), "plain"))
    request = Request(FOX, (3,), size=SIZE, steps=1, known=Known(SHOWN, mask(*SIZE)))
    with pytest.raises(RequestError, match="plain follows a picture: give one .--control FILE=PI"):
        generate(made.model, replace(request, controls=(Control(follows, None),)))
    state, _ = load_file(made.stored(flux_control(), "a") / "diffusion_pytorch_model.safetensors")
    wide = {**state, "controlnet_x_embedder.weight": torch.zeros(32, 72)}
    save(tmp_path / "a.safetensors", wide, {})
    with pytest.raises(
        CheckpointError, match="told 72 channels of a picture: known are 64, and 68"
    ):
        controls.load(made.model, tmp_path / "a.safetensors")
