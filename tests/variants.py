"""Small pipelines of `diffusers` for models with further inputs, and the families they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
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

from mezzotint.families.inpainting import SD1_INPAINTING, SD2_INPAINTING, SDXL_INPAINTING
from mezzotint.families.instructed import SD1_INSTRUCTED, SDXL_INSTRUCTED
from mezzotint.families.ldm import Family
from pipelines import small, stable_diffusion

BASES: dict[str, str] = {}
VARIANTS: dict[str, Family] = {}
for _base, _family in (
    ("sd1", SD1_INPAINTING),
    ("sd2", SD2_INPAINTING),
    ("sdxl", SDXL_INPAINTING),
    ("sd1", SD1_INSTRUCTED),
    ("sdxl", SDXL_INSTRUCTED),
):
    BASES[_family.name], VARIANTS[_family.name] = _base, _family

CLASSES: dict[str, Any] = {
    "StableDiffusionInpaintPipeline": StableDiffusionInpaintPipeline,
    "StableDiffusionXLInpaintPipeline": StableDiffusionXLInpaintPipeline,
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
    if kind in (StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline):
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
