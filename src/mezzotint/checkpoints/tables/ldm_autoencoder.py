"""Latent diffusion's autoencoder: the original layout and `diffusers`', to ``LdmAutoencoder``."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.checkpoints.keys import MATRIX, Part, Table, parts, prefixed

ORIGINAL_PREFIXES = ("first_stage_model.", "vae.")
"""In whole checkpoints: of Stable Diffusion 1 to 3, and of some that others put together."""

_RES: Table = {f"{n}.{{p}}": f"{n}.{{p}}" for n in ("norm1", "conv1", "norm2", "conv2")}
_RES_ORIGINAL: Table = {**_RES, "nin_shortcut.{p}": "skip.{p}"}
_RES_DIFFUSERS: Table = {**_RES, "conv_shortcut.{p}": "skip.{p}"}
_WEIGHTS, _BIASES = parts("qkv.weight", 3), parts("qkv.bias", 3)


def _qkv(names: tuple[str, str, str], out: str, convolutions: bool) -> Table:
    table: dict[str, str | Part | None] = {f"{out}.bias": "out.bias"}
    weights = [*_WEIGHTS, Part("out.weight")]
    for name, part in zip((*names, out), weights, strict=True):
        table[f"{name}.weight"] = replace(part, view=MATRIX) if convolutions else part
    for name, part in zip(names, _BIASES, strict=True):
        table[f"{name}.bias"] = part
    return table


_ATTENTION_ORIGINAL: Table = {"norm.{p}": "norm.{p}", **_qkv(("q", "k", "v"), "proj_out", True)}
_ATTENTION_DIFFUSERS: Table = {
    "group_norm.{p}": "norm.{p}",
    **_qkv(("to_q", "to_k", "to_v"), "to_out.0", False),
    **_qkv(("query", "key", "value"), "proj_attn", False),  # releases before 2023
}


def original(levels: int) -> Table:
    """The original layout, without its prefix; the decoder's levels are counted from the finest."""
    table: dict[str, str | Part | None] = {
        "quant_conv.{p}": "mix_out.{p}",
        "post_quant_conv.{p}": "mix_in.{p}",
        "encoder.down.{l}.downsample.conv.{p}": "encoder.levels.{l}.resample.{p}",
        **prefixed(_RES_ORIGINAL, "encoder.down.{l}.block.{b}.", "encoder.levels.{l}.blocks.{b}."),
    }
    for half in ("encoder", "decoder"):
        table[f"{half}.conv_in.{{p}}"] = f"{half}.stem.{{p}}"
        table[f"{half}.norm_out.{{p}}"] = f"{half}.norm.{{p}}"
        table[f"{half}.conv_out.{{p}}"] = f"{half}.head.{{p}}"
        for theirs, ours, inner in (
            ("block_1", "first", _RES_ORIGINAL),
            ("attn_1", "attention", _ATTENTION_ORIGINAL),
            ("block_2", "second", _RES_ORIGINAL),
        ):
            table |= prefixed(inner, f"{half}.mid.{theirs}.", f"{half}.middle.{ours}.")
    for level in range(levels):
        theirs, ours = f"decoder.up.{levels - 1 - level}.", f"decoder.levels.{level}."
        table |= prefixed(_RES_ORIGINAL, theirs + "block.{b}.", ours + "blocks.{b}.")
        table[theirs + "upsample.conv.{p}"] = ours + "resample.{p}"
    return table


def _diffusers() -> Table:
    table: dict[str, str | Part | None] = {
        "quant_conv.{p}": "mix_out.{p}",
        "post_quant_conv.{p}": "mix_in.{p}",
        "encoder.down_blocks.{l}.downsamplers.0.conv.{p}": "encoder.levels.{l}.resample.{p}",
        "decoder.up_blocks.{l}.upsamplers.0.conv.{p}": "decoder.levels.{l}.resample.{p}",
    }
    for half, blocks in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        table[f"{half}.conv_in.{{p}}"] = f"{half}.stem.{{p}}"
        table[f"{half}.conv_norm_out.{{p}}"] = f"{half}.norm.{{p}}"
        table[f"{half}.conv_out.{{p}}"] = f"{half}.head.{{p}}"
        for theirs, ours, inner in (
            (f"{blocks}.{{l}}.resnets.{{b}}", "levels.{l}.blocks.{b}", _RES_DIFFUSERS),
            ("mid_block.resnets.0", "middle.first", _RES_DIFFUSERS),
            ("mid_block.attentions.0", "middle.attention", _ATTENTION_DIFFUSERS),
            ("mid_block.resnets.1", "middle.second", _RES_DIFFUSERS),
        ):
            table |= prefixed(inner, f"{half}.{theirs}.", f"{half}.{ours}.")
    return table


DIFFUSERS: Table = _diffusers()
"""The layout of `diffusers`."""
