"""SDXL trained anew in EDM's terms: noise is added to codes whose variance stays (Karras 2022).

Playground v2.5 (Li et al. 2024, §2.2) predicts EDM's F of codes that are normed by each channel's
mean and deviation; CosXL predicts its negative, for SDXL's codes and up to more noise, so that its
path begins nearly in pure noise.  CosXL Edit is told the picture to edit as InstructPix2Pix is.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.checkpoints.marks import EDM_MEAN, EDM_STD, SIGMA_MAX, SIGMA_MIN
from mezzotint.diffusion.schedules import VarianceExploding
from mezzotint.families import linear
from mezzotint.families.joined import edited, variant
from mezzotint.families.sdxl import SDXL

PLAYGROUND = replace(
    SDXL,
    name="playground-v2.5",
    title="Playground v2.5",  # no file is taken for it that says nothing
    prediction="edm",
    schedule=VarianceExploding(0.002, 80.0),
    scale=0.5,
    mean=(-1.6574, 1.886, -1.383, 2.5155),
    std=(8.4927, 5.9022, 6.5498, 5.2299),
    linear=linear.PLAYGROUND,
    tiny_scale=SDXL.scale,
    defaults=replace(SDXL.defaults, guidance=3.0, steps=50),
    file=replace(SDXL.file, marks=(EDM_MEAN, EDM_STD)),
)
COSXL = replace(
    SDXL,
    name="cosxl",
    title="CosXL",
    prediction="edm_v",
    schedule=VarianceExploding(0.002, 120.0),
    defaults=replace(SDXL.defaults, sampler="euler", spacing="exponential"),
    file=replace(SDXL.file, marks=(SIGMA_MAX, SIGMA_MIN)),
)
COSXL_EDIT = replace(
    variant(COSXL, "InstructPix2Pix", 8, "StableDiffusionXLInstructPix2PixPipeline", edited),
    name="cosxl-edit",
)
