"""Stable Diffusion XL (Podell et al. 2023): two text encoders, told the picture's size.

Its refiner, trained on the last fifth of the noise levels, has the second encoder only and is told
an aesthetic score.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.checkpoints.marks import V_PRED, ZERO_SNR
from mezzotint.checkpoints.tables import clip, ldm_unet
from mezzotint.families import linear
from mezzotint.families.ldm import Text
from mezzotint.families.sd1 import SD1
from mezzotint.families.sizes import both_ways
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.ldm_unet import LdmUNetConfig

_UNET = LdmUNetConfig(
    multipliers=(1, 2, 4),
    depths=(0, 2, 10),
    middle_depth=10,
    context_width=2048,
    vector_width=1280 + 6 * 256,
    heads=0,
    head_width=64,
)
_SIZES = both_ways(
    *((512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664)),
    *((640, 1600), (640, 1536), (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280)),
    *((832, 1216), (832, 1152), (896, 1152), (896, 1088), (960, 1088), (960, 1024), (1024, 1024)),
)
"""Podell et al. 2023, appendix I."""

SDXL = replace(
    SD1,
    name="sdxl",
    unet=_UNET,
    texts={
        "text": Text(ClipTextConfig(projection=0), skip=1),
        "text2": Text(
            ClipTextConfig(
                width=1280, depth=32, heads=20, hidden=5120, projection=1280, activation="gelu"
            ),
            pad=0,
            skip=1,
            pooled=True,
            called="clip_g",
        ),
    },
    scale=0.13025,
    framed=True,
    linear=linear.SDXL,
    defaults=replace(SD1.defaults, size=(1024, 1024), guidance=5.0, sizes=_SIZES),
    file=replace(
        SD1.file,
        kind="SDXL checkpoint",
        places={
            **SD1.file.places,
            "text": "conditioner.embedders.0.transformer.",
            "text2": "conditioner.embedders.1.model.",
        },
        tables={
            **SD1.file.tables,
            "network": ldm_unet.original(_UNET.depths, _UNET.blocks, convolutions=False),
            "text2": clip.TEXT_OPEN,
        },
        marks=(V_PRED, ZERO_SNR),
    ),
    folder=replace(
        SD1.folder,
        kind="SDXL U-Net (diffusers)",
        places={**SD1.folder.places, "text2": "text_encoder_2"},
        tables={
            **SD1.folder.tables,
            "network": ldm_unet.diffusers(convolutions=False),
            "text2": SD1.folder.tables["text"],
        },
        pipeline="StableDiffusionXLPipeline",
    ),
)

_REFINING = LdmUNetConfig(
    width=384,
    depths=(0, 4, 4, 0),
    middle_depth=4,
    context_width=1280,
    vector_width=1280 + 5 * 256,
    heads=0,
    head_width=64,
)

SDXL_REFINER = replace(
    SDXL,
    name="sdxl-refiner",
    unet=_REFINING,
    texts={"text2": SDXL.texts["text2"]},
    framed=False,
    scores=(6.0, 2.5),
    file=replace(
        SDXL.file,
        kind="SDXL refiner checkpoint",
        places={
            "network": SDXL.file.places["network"],
            "text2": "conditioner.embedders.0.model.",
            "autoencoder": SDXL.file.places["autoencoder"],
        },
        tables={
            **SDXL.file.tables,
            "network": ldm_unet.original(_REFINING.depths, _REFINING.blocks, convolutions=False),
        },
    ),
    folder=replace(
        SDXL.folder,
        kind="SDXL refiner U-Net (diffusers)",
        places={part: place for part, place in SDXL.folder.places.items() if part != "text"},
        pipeline="StableDiffusionXLImg2ImgPipeline",
    ),
)
