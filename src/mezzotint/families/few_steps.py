"""Stable Diffusion distilled to few steps.

LCM (Luo et al. 2023) is told the guidance scale that it was distilled from.  Turbo (Sauer et al.
2023) and Lightning (Lin et al. 2024) have the tensors of what they were distilled from, so a
checkpoint is taken for one if its title says so, or by its name.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.families.ldm import Family
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2_BASE
from mezzotint.families.sdxl import SDXL


def _consistent(base: Family, pipeline: str) -> Family:
    file, folder = base.file, base.folder
    return replace(
        base,
        name=f"{base.name}-lcm",
        unet=replace(base.unet, guided=True),
        defaults=replace(base.defaults, steps=4, guidance=8.0, sampler="lcm", spacing="lcm"),
        file=replace(file, kind=file.kind.replace(" checkpoint", " LCM checkpoint")),
        folder=replace(folder, kind=folder.kind.replace(" U-Net", " LCM U-Net"), pipeline=pipeline),
    )


def _distilled(base: Family, name: str, title: str, sampler: str, edge: int) -> Family:
    """Four steps without guidance, from the schedule's end."""
    return replace(
        base,
        name=name,
        title=title,
        defaults=replace(
            base.defaults,
            size=(edge, edge),
            sizes=base.defaults.sizes if base.defaults.size == (edge, edge) else (),
            steps=4,
            guidance=1.0,
            sampler=sampler,
            spacing="trailing",
        ),
        notes=(f"distilled to few steps ({title}): 4 of them without guidance are its defaults",),
    )


SD1_LCM = _consistent(SD1, "LatentConsistencyModelPipeline")
SDXL_LCM = _consistent(SDXL, "StableDiffusionXLPipeline")
SD_TURBO = _distilled(SD2_BASE, "sd-turbo", "turbo", "euler_ancestral", 512)
SDXL_TURBO = _distilled(SDXL, "sdxl-turbo", "turbo", "euler_ancestral", 512)
SDXL_LIGHTNING = _distilled(SDXL, "sdxl-lightning", "lightning", "euler", 1024)
