"""Stable Diffusion 2: OpenCLIP's text encoder without its last layer, v prediction at 768 px.

The `base` releases predict eps at 512 px, and nothing in a single file tells the two apart.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.checkpoints.tables import clip, ldm_unet
from mezzotint.families.ldm import Text
from mezzotint.families.sd1 import SD1
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.ldm_unet import LdmUNetConfig

_UNET = LdmUNetConfig(context_width=1024, heads=0, head_width=64)
_LAYERS = 23  # of 24: what the last but one gives is what the U-Net was trained on

SD2 = replace(
    SD1,
    name="sd2",
    unet=_UNET,
    texts={
        "text": Text(
            ClipTextConfig(
                width=1024, depth=_LAYERS, heads=16, hidden=4096, projection=0, activation="gelu"
            ),
            pad=0,
            called="clip_h",
        )
    },
    prediction="v",
    defaults=replace(SD1.defaults, size=(768, 768), sizes=()),
    file=replace(
        SD1.file,
        kind="SD2 checkpoint",
        places={**SD1.file.places, "text": "cond_stage_model.model."},
        tables={
            **SD1.file.tables,
            "network": ldm_unet.original(_UNET.depths, _UNET.blocks, convolutions=False),
            "text": clip.text_open_without(_LAYERS),
        },
    ),
    folder=replace(
        SD1.folder,
        kind="SD2 U-Net (diffusers)",
        tables={**SD1.folder.tables, "network": ldm_unet.diffusers(convolutions=False)},
    ),
)
SD2_BASE = replace(
    SD2, name="sd2-base", prediction="eps", defaults=replace(SD2.defaults, size=(512, 512))
)
