"""CLIP: the layouts of `transformers` and OpenCLIP, to ``ClipText`` and ``ClipVision``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import TRANSPOSED, Part, Table, parts, prefixed

_Q, _K, _V = parts("layers.{n}.qkv.{p}", 3)
LAYER: Table = {
    "layer_norm1.{p}": "layers.{n}.norm1.{p}",
    "self_attn.q_proj.{p}": _Q,
    "self_attn.k_proj.{p}": _K,
    "self_attn.v_proj.{p}": _V,
    "self_attn.out_proj.{p}": "layers.{n}.out.{p}",
    "layer_norm2.{p}": "layers.{n}.norm2.{p}",
    "mlp.fc1.{p}": "layers.{n}.mlp_in.{p}",
    "mlp.fc2.{p}": "layers.{n}.mlp_out.{p}",
}
_LAYER_OPEN: Table = {
    "ln_1.{p}": "layers.{n}.norm1.{p}",
    "attn.in_proj_weight": "layers.{n}.qkv.weight",
    "attn.in_proj_bias": "layers.{n}.qkv.bias",
    "attn.out_proj.{p}": "layers.{n}.out.{p}",
    "ln_2.{p}": "layers.{n}.norm2.{p}",
    "mlp.c_fc.{p}": "layers.{n}.mlp_in.{p}",
    "mlp.c_proj.{p}": "layers.{n}.mlp_out.{p}",
}


def text(prefix: str = "text_model.") -> Table:
    """The text encoder as `transformers` stores it; newer releases leave the prefix out."""
    inner: Table = {
        "embeddings.position_ids": None,
        "embeddings.token_embedding.weight": "words.weight",
        "embeddings.position_embedding.weight": "positions.weight",
        **prefixed(LAYER, "encoder.layers.{n}."),
        "final_layer_norm.{p}": "norm.{p}",
    }
    return {**prefixed(inner, prefix), "text_projection.weight": "projection.weight"}


TEXT_OPEN: Table = {
    "token_embedding.weight": "words.weight",
    "positional_embedding": "positions.weight",
    **prefixed(_LAYER_OPEN, "transformer.resblocks.{n}."),
    "ln_final.{p}": "norm.{p}",
    "text_projection": Part("projection.weight", view=TRANSPOSED),
    "logit_scale": None,  # of CLIP's own training
}
"""The text encoder as OpenCLIP stores it (in checkpoints of Stable Diffusion 2 and SDXL)."""


def text_open_without(layer: int) -> Table:
    """:data:`TEXT_OPEN` for an encoder that lacks ``layer``, the last, and the projection."""
    left_out = dict.fromkeys(prefixed(_LAYER_OPEN, f"transformer.resblocks.{layer}."))
    return {**left_out, **TEXT_OPEN, "text_projection": None}


VISION: Table = {
    **dict.fromkeys(text()),  # of a file with both encoders
    "logit_scale": None,
    "vision_model.embeddings.position_ids": None,
    "vision_model.embeddings.class_embedding": "whole",
    "vision_model.embeddings.patch_embedding.weight": "stem.weight",
    "vision_model.embeddings.position_embedding.weight": "positions.weight",
    "vision_model.pre_layrnorm.{p}": "norm_in.{p}",  # sic
    **prefixed(LAYER, "vision_model.encoder.layers.{n}."),
    "vision_model.post_layernorm.{p}": "norm.{p}",
    "visual_projection.weight": "projection.weight",
}
"""The picture encoder as `transformers` stores it."""

_VISION_OPEN: Table = {
    "class_embedding": "whole",
    "conv1.weight": "stem.weight",
    "positional_embedding": "positions.weight",
    "ln_pre.{p}": "norm_in.{p}",
    **prefixed(_LAYER_OPEN, "transformer.resblocks.{n}."),
    "ln_post.{p}": "norm.{p}",
    "proj": Part("projection.weight", view=TRANSPOSED),
}
VISION_OPEN: Table = {**dict.fromkeys(TEXT_OPEN), **prefixed(_VISION_OPEN, "visual.")}
"""The picture encoder as OpenCLIP stores it, beside its text encoder."""
