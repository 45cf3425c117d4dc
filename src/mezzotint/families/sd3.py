"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): two CLIP encoders, T5 and an MMDiT.

The reference code reads CLIP-L's features of the whole without their projection, and a single
file has none; in a folder of `diffusers` that projection is the identity.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.checkpoints.layout import Layout
from mezzotint.checkpoints.tables import clip, ldm_autoencoder, mmdit
from mezzotint.checkpoints.tables.t5 import T5 as T5_TABLE
from mezzotint.families import controls_flow, linear
from mezzotint.families.flow import T5, Family, LongText
from mezzotint.families.ldm import Text
from mezzotint.families.sd1 import SD1
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig
from mezzotint.networks.mmdit import MMDiTConfig
from mezzotint.networks.t5 import T5Config

_NETWORK = MMDiTConfig()
_SPACING = "linspace_sigma"
AUTOENCODER = LdmAutoencoderConfig(latent_channels=16, mixed=False)
"""FLUX.1's is of the same sizes."""

_TEXT = {**clip.text(), **clip.text("")}  # newer releases leave the prefix out

SD3 = Family(
    name="sd3",
    network=_NETWORK,
    autoencoder=AUTOENCODER,
    texts={
        "text": Text(ClipTextConfig(), skip=1, pooled=True),
        "text2": SDXL.texts["text2"],
    },
    t5=LongText(T5Config(), 256, "tokenizer_3", optional=True),
    joined=True,
    identity=("text",),
    shift=3.0,
    scale=1.5305,
    offset=0.0609,
    # Buckets of 1024² pixels too (Esser et al. 2024, §5.3.2), of which no list is published.
    defaults=replace(SDXL.defaults, steps=28, guidance=7.0, sampler="euler", spacing=_SPACING),
    file=Layout(
        kind="SD3 checkpoint",
        places={
            "network": mmdit.ORIGINAL_PREFIX,
            "text": "text_encoders.clip_l.transformer.",
            "text2": "text_encoders.clip_g.transformer.",
            T5: "text_encoders.t5xxl.transformer.",
            "autoencoder": ldm_autoencoder.ORIGINAL_PREFIXES[0],
        },
        tables={
            "network": mmdit.original(),
            "text": {**clip.text(), "text_projection.weight": None},
            "text2": clip.text(),
            T5: T5_TABLE,
            "autoencoder": SD1.file.tables["autoencoder"],
        },
        ignored=("text_encoders.*.logit_scale",),  # of CLIP's own training
    ),
    folder=Layout(
        kind="SD3 transformer (diffusers)",
        pipeline="StableDiffusion3Pipeline",
        places={
            "network": "transformer",
            "text": "text_encoder",
            "text2": "text_encoder_2",
            T5: "text_encoder_3",
            "autoencoder": "vae",
        },
        tables={
            "network": mmdit.diffusers(_NETWORK.depth),
            "text": _TEXT,
            "text2": _TEXT,
            T5: T5_TABLE,
            "autoencoder": ldm_autoencoder.DIFFUSERS,
        },
    ),
    controls=controls_flow.MMDIT,
    linear=linear.SD3,
)

_MEDIUM = MMDiTConfig(positions=384, normalized=True, dual=13)
SD35_MEDIUM = replace(
    SD3,
    name="sd35-medium",
    network=_MEDIUM,
    defaults=replace(SD3.defaults, steps=40, guidance=4.5),
    file=replace(SD3.file, kind="SD3.5 medium checkpoint"),
    folder=replace(SD3.folder, kind="SD3.5 medium transformer (diffusers)"),
)

_LARGE = MMDiTConfig(depth=38, heads=38, normalized=True)
SD35_LARGE = replace(
    SD3,
    name="sd35-large",
    network=_LARGE,
    defaults=replace(SD3.defaults, guidance=3.5),
    file=replace(SD3.file, kind="SD3.5 large checkpoint"),
    folder=replace(
        SD3.folder,
        kind="SD3.5 large transformer (diffusers)",
        tables={**SD3.folder.tables, "network": mmdit.diffusers(_LARGE.depth)},
    ),
)
