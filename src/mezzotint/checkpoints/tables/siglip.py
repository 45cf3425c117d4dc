"""SigLIP's picture encoder, as `transformers` stores it, to ``networks.siglip.Siglip``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import Table, prefixed
from mezzotint.checkpoints.signature import Signature
from mezzotint.checkpoints.tables import clip

PREFIX = "vision_model."
"""Of the releases' names; newer versions of `transformers` leave it out."""
_HEAD: Table = {  # pools the patches
    "probe": None,
    "attention.in_proj_weight": None,
    "attention.in_proj_bias": None,
    "attention.out_proj.{p}": None,
    "layernorm.{p}": None,
    "mlp.fc1.{p}": None,
    "mlp.fc2.{p}": None,
}
_TEXTS: Table = {  # of a file with both encoders
    **dict.fromkeys(clip.text()),
    "text_model.head.{p}": None,
    "logit_scale": None,
    "logit_bias": None,
}


def vision(prefix: str = PREFIX) -> Table:
    """The picture encoder behind a prefix, perhaps beside the text encoder."""
    inner: Table = {
        "embeddings.position_ids": None,
        "embeddings.patch_embedding.{p}": "stem.{p}",
        "embeddings.position_embedding.weight": "positions.weight",
        **prefixed(clip.LAYER, "encoder.layers.{n}."),
        "post_layernorm.{p}": "norm.{p}",
        **prefixed(_HEAD, "head."),
    }
    return {**_TEXTS, **prefixed(inner, prefix)}


def _signatures(prefix: str) -> tuple[Signature, ...]:
    """A bias of the first convolution tells it from CLIP's, and the places its size."""
    keys = f"{prefix}embeddings.patch_embedding.bias", f"{prefix}post_layernorm.weight"
    places = f"{prefix}embeddings.position_embedding.weight"
    sizes = (places, 0, 27 * 27), (places, 1, 1152)
    return (
        Signature("image encoder SigLIP so400m/14 at 384 px", keys, sizes),
        Signature("image encoder SigLIP", keys),
    )


SIGNATURES = (*_signatures(PREFIX), *_signatures(""))
