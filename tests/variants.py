"""Small pipelines of `diffusers` for models with further inputs, and the families they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux_control import FluxControlPipeline
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_depth2img import (
    StableDiffusionDepth2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import (
    StableDiffusionInpaintPipeline,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import (
    StableDiffusionXLInpaintPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_instruct_pix2pix import (
    StableDiffusionXLInstructPix2PixPipeline,
)
from torch import Tensor

from mezzotint.families.depth import SD2_DEPTH
from mezzotint.families.flow import Family as FlowFamily
from mezzotint.families.flux1 import FLUX_CONTROL, FLUX_FILL, FLUX_KONTEXT
from mezzotint.families.inpainting import SD1_INPAINTING, SD2_INPAINTING, SDXL_INPAINTING
from mezzotint.families.instructed import SD1_INSTRUCTED, SDXL_INSTRUCTED
from mezzotint.families.ldm import Family
from mezzotint.networks.flux import FluxConfig
from pipelines import flux, small, small_flow, stable_diffusion

BASES: dict[str, str] = {}
VARIANTS: dict[str, Family] = {}
for _base, _family in (
    ("sd1", SD1_INPAINTING),
    ("sd2", SD2_INPAINTING),
    ("sdxl", SDXL_INPAINTING),
    ("sd1", SD1_INSTRUCTED),
    ("sdxl", SDXL_INSTRUCTED),
    ("sd2", SD2_DEPTH),
):
    BASES[_family.name], VARIANTS[_family.name] = _base, _family

CLASSES: dict[str, Any] = {
    "StableDiffusionInpaintPipeline": StableDiffusionInpaintPipeline,
    "StableDiffusionXLInpaintPipeline": StableDiffusionXLInpaintPipeline,
    "StableDiffusionDepth2ImgPipeline": StableDiffusionDepth2ImgPipeline,
    "StableDiffusionInstructPix2PixPipeline": StableDiffusionInstructPix2PixPipeline,
    "StableDiffusionXLInstructPix2PixPipeline": StableDiffusionXLInstructPix2PixPipeline,
}


def certain(autoencoder: Any) -> Any:
    """The autoencoder without variance: what a pipeline draws of a code is its mean."""
    last = autoencoder.encoder.conv_out
    if autoencoder.quant_conv is not None:
        last = autoencoder.quant_conv
    half = last.out_channels // 2
    last.weight.data[half:] = 0
    last.bias.data[half:] = -30
    return autoencoder


def widened(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """A U-Net of the same sizes with other input channels, all random."""
    torch.manual_seed(1)
    return UNet2DConditionModel.from_config(unet.config, in_channels=channels)


def variant_pipeline(name: str, width: int = 8) -> Any:
    """The small pipeline of a variant of Stable Diffusion, by the family's name."""
    family = VARIANTS[name]
    base = stable_diffusion(BASES[name], width)
    parts = dict(base.components)
    parts["unet"] = widened(base.unet, family.unet.in_channels)
    certain(parts["vae"])
    kind = CLASSES[family.folder.pipeline]
    if kind is StableDiffusionXLInstructPix2PixPipeline:
        parts = {n: p for n, p in parts.items() if n not in ("image_encoder", "feature_extractor")}
    if kind is StableDiffusionDepth2ImgPipeline:
        taken = ("safety_checker", "image_encoder")
        parts = {n: p for n, p in parts.items() if n not in taken} | {"depth_estimator": None}
    elif kind in (StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline):
        parts["requires_safety_checker"] = False
    else:
        parts["add_watermarker"] = False
    made = kind(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def small_variant(name: str, width: int = 8) -> Family:
    """The family of that pipeline."""
    family, base = VARIANTS[name], small(BASES[name], width)
    own = base.unet
    return replace(
        family,
        unet=replace(own, in_channels=family.unet.in_channels),
        autoencoder=base.autoencoder,
        texts=base.texts,
        file=replace(family.file, tables=base.file.tables),
    )


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """``(3, height, width)`` in [−1, 1]."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def mask(height: int, width: int) -> Tensor:
    """``(1, height, width)``: 1 in a box whose edges lie on the code's pixels."""
    made = torch.zeros(1, height, width)
    made[:, 16:48, 24:] = 1
    return made


FLOWS = {family.name: family for family in (FLUX_FILL, FLUX_CONTROL, FLUX_KONTEXT)}
_FLOW_CLASSES: dict[str, Any] = {
    "flux-fill": FluxFillPipeline,
    "flux-control": FluxControlPipeline,
    "flux-kontext": FluxKontextPipeline,
}


def flow_pipeline(name: str) -> Any:
    """The small pipeline of a variant of FLUX.1, by the family's name."""
    family, base = FLOWS[name], flux("flux-dev")
    parts = dict(base.components)
    assert isinstance(family.network, FluxConfig)
    wide = family.network.in_channels
    torch.manual_seed(1)
    sizes = {"in_channels": wide, "out_channels": 64}
    parts["transformer"] = FluxTransformer2DModel.from_config(base.transformer.config, **sizes)
    certain(parts["vae"])
    if name != "flux-kontext":
        parts = {n: p for n, p in parts.items() if n not in ("image_encoder", "feature_extractor")}
    made = _FLOW_CLASSES[name](**parts)
    made.set_progress_bar_config(disable=True)
    return made


def small_flow_variant(name: str) -> FlowFamily:
    """The family of that pipeline."""
    family, base = FLOWS[name], small_flow("flux-dev")
    assert isinstance(family.network, FluxConfig) and isinstance(base.network, FluxConfig)
    return replace(
        family,
        network=replace(base.network, in_channels=family.network.in_channels),
        autoencoder=base.autoencoder,
        texts=base.texts,
        t5=base.t5,
        file=replace(family.file, tables=base.file.tables),
        folder=replace(family.folder, tables=base.folder.tables),
    )


def ragged(height: int, width: int) -> Tensor:
    """``(1, height, width)``: 1 in a box whose edges lie anywhere."""
    made = torch.zeros(1, height, width)
    made[:, 13:45, 27 : width - 5] = 1
    return made
