"""Stable Diffusion 2 told of depth: 5 input channels, the last one a given map."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.families.joined import depth, variant
from mezzotint.families.sd2 import SD2_BASE

_WIDE = variant(SD2_BASE, "depth", 5, "StableDiffusionDepth2ImgPipeline", depth)

SD2_DEPTH = replace(
    _WIDE,
    name="sd2-depth",
    # The estimator of depth that lies in the release's file is another model: maps are given.
    file=replace(_WIDE.file, ignored=(*_WIDE.file.ignored, "depth_model.*")),
)
