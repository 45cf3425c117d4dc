"""FLUX.1 (Black Forest Labs 2024): T5, the whole of CLIP-L, a transformer of two kinds of blocks.

Of `dev` the guidance is distilled into the network, which is told its scale; `schnell` was
distilled to few steps without it.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.checkpoints.layout import Layout
from mezzotint.checkpoints.tables import flux, ldm_autoencoder, redux
from mezzotint.families import controls_flow, linear
from mezzotint.families.flow import T5, ByTokens, Family, LongText
from mezzotint.families.joined import beside, filling, followed
from mezzotint.families.ldm import Text
from mezzotint.families.model import Defaults
from mezzotint.families.sd3 import AUTOENCODER, SD3
from mezzotint.families.sizes import both_ways
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.flux import FluxConfig
from mezzotint.networks.t5 import T5Config

_FILE, _FOLDER = SD3.file, SD3.folder

FLUX_DEV = Family(
    name="flux-dev",
    network=FluxConfig(),
    autoencoder=AUTOENCODER,
    texts={"text": Text(ClipTextConfig(projection=0), pooled=True)},
    t5=LongText(T5Config(), 512, "tokenizer_2"),
    joined=False,
    shift=ByTokens(),
    scale=0.3611,
    offset=0.1159,
    defaults=Defaults((1024, 1024), 28, 3.5, "euler", "trailing"),
    file=Layout(
        kind="FLUX.1 model with guidance (dev)",
        places={
            "network": flux.ORIGINAL_PREFIXES[1],
            "text": _FILE.places["text"],
            T5: _FILE.places[T5],
            "autoencoder": ldm_autoencoder.ORIGINAL_PREFIXES[1],
        },
        tables={**_FILE.tables, "network": flux.ORIGINAL},
        ignored=_FILE.ignored,
    ),
    folder=Layout(
        kind="FLUX transformer with guidance (diffusers)",
        pipeline="FluxPipeline",
        places={
            "network": "transformer",
            "text": "text_encoder",
            T5: "text_encoder_2",
            "autoencoder": "vae",
        },
        tables={**_FOLDER.tables, "network": flux.DIFFUSERS},
    ),
    controls=controls_flow.FLUX,
    pictured=redux.KIND,
    linear=linear.FLUX,
)

FLUX_SCHNELL = replace(
    FLUX_DEV,
    name="flux-schnell",
    network=FluxConfig(guided=False),
    t5=replace(FLUX_DEV.t5, length=256),
    shift=1.0,
    defaults=replace(FLUX_DEV.defaults, steps=4, guidance=1.0),
    file=replace(FLUX_DEV.file, kind="FLUX.1 model without guidance (schnell)"),
    folder=replace(FLUX_DEV.folder, kind="FLUX transformer (diffusers)"),
)

FLUX_FILL = replace(
    FLUX_DEV,
    name="flux-fill",
    network=FluxConfig(in_channels=64 + 64 + 256),  # and the masked picture's, and the mask's
    joining=filling,
    defaults=replace(FLUX_DEV.defaults, steps=50, guidance=30.0),
    file=replace(FLUX_DEV.file, kind="FLUX.1 Fill model"),
    folder=replace(
        FLUX_DEV.folder, kind="FLUX Fill transformer (diffusers)", pipeline="FluxFillPipeline"
    ),
)
FLUX_CONTROL = replace(
    FLUX_DEV,
    name="flux-control",
    network=FluxConfig(in_channels=64 + 64),  # and those of edges or depth
    joining=followed,
    defaults=FLUX_FILL.defaults,
    file=replace(FLUX_DEV.file, kind="FLUX.1 Canny or Depth model"),
    folder=replace(
        FLUX_DEV.folder,
        kind="FLUX Canny or Depth transformer (diffusers)",
        pipeline="FluxControlPipeline",
    ),
)
_EDITED = both_ways(
    *((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328)),
    *((832, 1248), (880, 1184), (944, 1104), (1024, 1024)),
)
"""What the reference code fits a picture to that Kontext is to edit."""

FLUX_KONTEXT = replace(
    FLUX_DEV,
    name="flux-kontext",
    joining=beside,
    title="Kontext",  # nothing in its tensors tells it from dev
    defaults=replace(FLUX_DEV.defaults, guidance=2.5, sizes=_EDITED),
    folder=replace(FLUX_DEV.folder, pipeline="FluxKontextPipeline"),
)
