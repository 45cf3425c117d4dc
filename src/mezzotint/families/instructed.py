"""InstructPix2Pix (Brooks et al. 2023): 8 input channels, told the picture that is to be edited."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.families.joined import instructed, variant
from mezzotint.families.sd1 import SD1
from mezzotint.families.sdxl import SDXL

_CHANNELS, _SAID = 8, "InstructPix2Pix"

SD1_INSTRUCTED = replace(
    variant(SD1, _SAID, _CHANNELS, "StableDiffusionInstructPix2PixPipeline", instructed),
    name="sd1-pix2pix",
)
SDXL_INSTRUCTED = replace(
    variant(SDXL, _SAID, _CHANNELS, "StableDiffusionXLInstructPix2PixPipeline", instructed),
    name="sdxl-pix2pix",
)
