"""Stable Diffusion 1 (Rombach et al. 2022), and all that was trained on from it."""

from __future__ import annotations

from mezzotint.checkpoints.layout import Layout
from mezzotint.checkpoints.tables import clip, ldm_autoencoder, ldm_unet
from mezzotint.diffusion.schedules import scaled_linear_beta
from mezzotint.families import controls_ldm, linear
from mezzotint.families.ldm import Family, Text
from mezzotint.families.model import Defaults
from mezzotint.families.sizes import both_ways
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig
from mezzotint.networks.ldm_unet import LdmUNetConfig

_UNET = LdmUNetConfig()
_AUTOENCODER = LdmAutoencoderConfig()
_SIZES = both_ways(
    *((512, 512), (576, 640), (512, 704), (512, 768), (448, 832)),
    *((384, 896), (384, 960), (384, 1024), (320, 1024), (256, 1024)),
)
"""The release was trained on squares; by aspect its fine-tunes were, first those of NovelAI (2022):
multiples of 64 of at most 512 × 768 pixels."""

SD1 = Family(
    name="sd1",
    unet=_UNET,
    autoencoder=_AUTOENCODER,
    texts={"text": Text(ClipTextConfig(projection=0))},
    prediction="eps",
    schedule=scaled_linear_beta(),
    scale=0.18215,
    defaults=Defaults((512, 512), 25, 7.0, "dpmpp_2m", "karras", sizes=_SIZES),
    file=Layout(
        kind="SD1 checkpoint",
        places={
            "network": ldm_unet.ORIGINAL_PREFIX,
            "text": "cond_stage_model.transformer.",
            "autoencoder": ldm_autoencoder.ORIGINAL_PREFIXES[0],
        },
        tables={
            "network": ldm_unet.original(_UNET.depths, _UNET.blocks, convolutions=True),
            "text": clip.text(),
            "autoencoder": ldm_autoencoder.original(len(_AUTOENCODER.multipliers)),
        },
        ignored=("model_ema.*", "*alphas_cumprod*", "betas", "posterior_*", "lvlb_weights"),
    ),
    folder=Layout(
        kind="SD1 U-Net (diffusers)",
        places={"network": "unet", "text": "text_encoder", "autoencoder": "vae"},
        tables={
            "network": ldm_unet.diffusers(convolutions=True),
            "text": {**clip.text(), **clip.text("")},  # newer releases leave the prefix out
            "autoencoder": ldm_autoencoder.DIFFUSERS,
        },
        pipeline="StableDiffusionPipeline",
    ),
    controls=controls_ldm.CONTROLS,
    linear=linear.SD,
)
