"""Under which licences the families' own weights were released.

What a family's weights were released under says nothing of a fine-tune's: it is told as likely, and
counts as unknown (:mod:`mezzotint.engine.licences`).
"""

from __future__ import annotations

_RAIL, _RAIL2 = "CreativeML-OpenRAIL-M", "CreativeML-OpenRAIL++-M"
_COMMUNITY, _RESEARCH = "stabilityai-ai-community", "sai-nc-community"
_FLUX_DEV = "flux-1-dev-non-commercial-license"

FAMILIES: dict[str, str] = {
    **dict.fromkeys(("sd1", "sd1-inpainting"), _RAIL),
    **dict.fromkeys(("sd1-lcm", "sd1-pix2pix"), "MIT"),
    **dict.fromkeys(("sd2", "sd2-base", "sd2-depth", "sd2-inpainting"), _RAIL2),
    **dict.fromkeys(("sdxl", "sdxl-refiner", "sdxl-inpainting", "sdxl-pix2pix"), _RAIL2),
    **dict.fromkeys(("sdxl-lcm", "sdxl-lightning"), _RAIL2),
    **dict.fromkeys(("sd-turbo", "sdxl-turbo", "cosxl", "cosxl-edit"), _RESEARCH),
    "playground-v2.5": "playground-v2dot5-community",
    **dict.fromkeys(("sd3", "sd35-medium", "sd35-large"), _COMMUNITY),
    **dict.fromkeys(("flux-dev", "flux-fill", "flux-control", "flux-kontext"), _FLUX_DEV),
    "flux-schnell": "Apache-2.0",
}
"""Of each family the licence under which its own weights were released."""

KINDS: tuple[tuple[str, str], ...] = (
    ("text encoder T5", "Apache-2.0"),
    ("text encoder BERT", "Apache-2.0"),
    ("text encoder", "MIT"),
    ("image encoder SigLIP", "Apache-2.0"),
    ("image encoder", "MIT"),
    ("tiny autoencoder", "MIT"),
    ("encoder of the tiny autoencoder", "MIT"),
    ("decoder of the tiny autoencoder", "MIT"),
    ("ControlNet for SD1", _RAIL),
    ("T2I-Adapter", "Apache-2.0"),
    ("IP-Adapter", "Apache-2.0"),
    ("Redux", _FLUX_DEV),
)
"""The same of what is no model by itself, by how its kind begins; the first row that fits.  Of what
people train at home, such as a LoRA, nothing is likely."""
