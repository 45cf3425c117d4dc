"""Stable Diffusion's U-Net: the original layout and that of `diffusers`, to ``LdmUNet``.

The original (Rombach et al.'s `ldm`, Stability's `sgm`) numbers all that lies on the way down and
up in one row; `diffusers` has levels, as we have.
"""

from __future__ import annotations

from collections.abc import Sequence

from mezzotint.checkpoints.keys import MATRIX, SAME, Part, Table, parts, prefixed

ORIGINAL_PREFIX = "model.diffusion_model."

_Q, _K, _V = parts("layers.{k}.attention.qkv.weight", 3)
_K2, _V2 = parts("layers.{k}.cross_attention.kv.weight", 2)
_LAYERS: Table = {
    "transformer_blocks.{k}.norm1.{p}": "layers.{k}.norm1.{p}",
    "transformer_blocks.{k}.attn1.to_q.weight": _Q,
    "transformer_blocks.{k}.attn1.to_k.weight": _K,
    "transformer_blocks.{k}.attn1.to_v.weight": _V,
    "transformer_blocks.{k}.attn1.to_out.0.{p}": "layers.{k}.attention.out.{p}",
    "transformer_blocks.{k}.norm2.{p}": "layers.{k}.norm2.{p}",
    "transformer_blocks.{k}.attn2.to_q.weight": "layers.{k}.cross_attention.q.weight",
    "transformer_blocks.{k}.attn2.to_k.weight": _K2,
    "transformer_blocks.{k}.attn2.to_v.weight": _V2,
    "transformer_blocks.{k}.attn2.to_out.0.{p}": "layers.{k}.cross_attention.out.{p}",
    "transformer_blocks.{k}.norm3.{p}": "layers.{k}.norm3.{p}",
    "transformer_blocks.{k}.ff.net.0.proj.{p}": "layers.{k}.mlp_in.{p}",
    "transformer_blocks.{k}.ff.net.2.{p}": "layers.{k}.mlp_out.{p}",
}
"""One for all: both layouts have these names from the same authors."""


def _transformer(convolutions: bool) -> Table:
    """convolutions: the projections are 1×1 convolutions (Stable Diffusion 1), not matrices."""
    view = MATRIX if convolutions else SAME
    return {
        "norm.{p}": "norm.{p}",
        "proj_in.weight": Part("proj_in.weight", view=view),
        "proj_in.bias": "proj_in.bias",
        "proj_out.weight": Part("proj_out.weight", view=view),
        "proj_out.bias": "proj_out.bias",
        **_LAYERS,
    }


_RES_ORIGINAL: Table = {
    "in_layers.0.{p}": "norm1.{p}",
    "in_layers.2.{p}": "conv1.{p}",
    "emb_layers.1.{p}": "time.{p}",
    "out_layers.0.{p}": "norm2.{p}",
    "out_layers.3.{p}": "conv2.{p}",
    "skip_connection.{p}": "skip.{p}",
}
_RES_DIFFUSERS: Table = {
    "norm1.{p}": "norm1.{p}",
    "conv1.{p}": "conv1.{p}",
    "time_emb_proj.{p}": "time.{p}",
    "norm2.{p}": "norm2.{p}",
    "conv2.{p}": "conv2.{p}",
    "conv_shortcut.{p}": "skip.{p}",
}


def original(depths: Sequence[int], blocks: int, convolutions: bool) -> Table:
    """The original layout, without its prefix.

    Args:
        depths: transformer layers in each block of a level.
        blocks: residual blocks a level on the way down.
        convolutions: see :func:`_transformer`.
    """
    table: dict[str, str | Part | None] = {
        "time_embed.{n}.{p}": "time.{n}.{p}",
        "time_embed.cond_proj.{p}": "guidance.{p}",
        "label_emb.0.{n}.{p}": "vector.{n}.{p}",
        "input_blocks.0.0.{p}": "stem.{p}",
        "out.0.{p}": "norm.{p}",
        "out.2.{p}": "head.{p}",
    }
    transformer = _transformer(convolutions)

    def block(theirs: str, ours: str, first: int, depth: int) -> None:
        table.update(prefixed(_RES_ORIGINAL, f"{theirs}{first}.", f"{ours}.res."))
        if depth:
            table.update(prefixed(transformer, f"{theirs}{first + 1}.", f"{ours}.transformer."))

    number = 1
    for level, depth in enumerate(depths):
        for n in range(blocks):
            block(f"input_blocks.{number}.", f"down.{level}.blocks.{n}", 0, depth)
            number += 1
        if level < len(depths) - 1:
            table[f"input_blocks.{number}.0.op.{{p}}"] = f"down.{level}.downsample.{{p}}"
            number += 1
    block("middle_block.", "middle.first", 0, 1)
    table.update(prefixed(_RES_ORIGINAL, "middle_block.2.", "middle.second.res."))
    number = 0
    for level, depth in enumerate(reversed(depths)):
        for n in range(blocks + 1):
            block(f"output_blocks.{number}.", f"up.{level}.blocks.{n}", 0, depth)
            number += 1
        if level < len(depths) - 1:
            place = f"output_blocks.{number - 1}.{2 if depth else 1}.conv.{{p}}"
            table[place] = f"up.{level}.upsample.{{p}}"
    return table


def diffusers(convolutions: bool) -> Table:
    """The layout of `diffusers`; see :func:`_transformer` on ``convolutions``."""
    table: dict[str, str | Part | None] = {
        "time_embedding.linear_1.{p}": "time.0.{p}",
        "time_embedding.linear_2.{p}": "time.2.{p}",
        "time_embedding.cond_proj.{p}": "guidance.{p}",
        "add_embedding.linear_1.{p}": "vector.0.{p}",
        "add_embedding.linear_2.{p}": "vector.2.{p}",
        "conv_in.{p}": "stem.{p}",
        "conv_norm_out.{p}": "norm.{p}",
        "conv_out.{p}": "head.{p}",
        "down_blocks.{l}.downsamplers.0.conv.{p}": "down.{l}.downsample.{p}",
        "up_blocks.{l}.upsamplers.0.conv.{p}": "up.{l}.upsample.{p}",
    }
    places = [
        ("down_blocks.{l}.resnets.{b}.", "down.{l}.blocks.{b}.res.", _RES_DIFFUSERS),
        ("up_blocks.{l}.resnets.{b}.", "up.{l}.blocks.{b}.res.", _RES_DIFFUSERS),
        ("mid_block.resnets.0.", "middle.first.res.", _RES_DIFFUSERS),
        ("mid_block.resnets.1.", "middle.second.res.", _RES_DIFFUSERS),
    ]
    transformer = _transformer(convolutions)
    places += [
        ("down_blocks.{l}.attentions.{b}.", "down.{l}.blocks.{b}.transformer.", transformer),
        ("up_blocks.{l}.attentions.{b}.", "up.{l}.blocks.{b}.transformer.", transformer),
        ("mid_block.attentions.0.", "middle.first.transformer.", transformer),
    ]
    for theirs, ours, inner in places:
        table.update(prefixed(inner, theirs, ours))
    return table
