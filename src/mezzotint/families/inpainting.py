"""Stable Diffusion 1, 2 and XL for inpainting: 9 input channels, told mask and masked picture."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.families.joined import inpainting, variant
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2_BASE
from mezzotint.families.sdxl import SDXL

_CHANNELS, _SAID, _PIPELINE = 9, "inpainting", "StableDiffusionInpaintPipeline"

SD1_INPAINTING = replace(
    variant(SD1, _SAID, _CHANNELS, _PIPELINE, inpainting), name="sd1-inpainting"
)
SD2_INPAINTING = replace(
    variant(SD2_BASE, _SAID, _CHANNELS, _PIPELINE, inpainting), name="sd2-inpainting"
)
SDXL_INPAINTING = replace(
    variant(SDXL, _SAID, _CHANNELS, "StableDiffusionXLInpaintPipeline", inpainting),
    name="sdxl-inpainting",
)
