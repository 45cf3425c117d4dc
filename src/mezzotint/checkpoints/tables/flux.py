"""FLUX.1's transformer: the original layout and `diffusers`', to ``Flux``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import SWAPPED, Part, Table, parts

ORIGINAL_PREFIXES = ("", "model.diffusion_model.")
"""The release's own file has none; checkpoints put together by others have one."""


def _original() -> Table:
    table: dict[str, str | Part | None] = {
        "img_in.{p}": "stem.{p}",
        "txt_in.{p}": "context.{p}",
        "final_layer.adaLN_modulation.1.{p}": "modulation.{p}",
        "final_layer.linear.{p}": "head.{p}",
        "single_blocks.{n}.modulation.lin.{p}": "single.{n}.modulation.{p}",
        "single_blocks.{n}.linear1.{p}": "single.{n}.inward.{p}",
        "single_blocks.{n}.linear2.{p}": "single.{n}.out.{p}",
        "single_blocks.{n}.norm.query_norm.scale": "single.{n}.q_norm.weight",
        "single_blocks.{n}.norm.key_norm.scale": "single.{n}.k_norm.weight",
    }
    for name in ("time", "vector", "guidance"):
        table[f"{name}_in.in_layer.{{p}}"] = f"{name}.0.{{p}}"
        table[f"{name}_in.out_layer.{{p}}"] = f"{name}.2.{{p}}"
    for theirs, ours in (("img", "picture"), ("txt", "text")):
        block, mine = f"double_blocks.{{n}}.{theirs}_", f"joint.{{n}}.{ours}."
        table[f"{block}mod.lin.{{p}}"] = f"{mine}modulation.{{p}}"
        table[f"{block}attn.qkv.{{p}}"] = f"{mine}qkv.{{p}}"
        table[f"{block}attn.norm.query_norm.scale"] = f"{mine}q_norm.weight"
        table[f"{block}attn.norm.key_norm.scale"] = f"{mine}k_norm.weight"
        table[f"{block}attn.proj.{{p}}"] = f"{mine}out.{{p}}"
        table[f"{block}mlp.0.{{p}}"] = f"{mine}mlp_in.{{p}}"
        table[f"{block}mlp.2.{{p}}"] = f"{mine}mlp_out.{{p}}"
    return table


def _diffusers() -> Table:
    table: dict[str, str | Part | None] = {
        "x_embedder.{p}": "stem.{p}",
        "context_embedder.{p}": "context.{p}",
        "norm_out.linear.{p}": Part("modulation.{p}", view=SWAPPED),
        "proj_out.{p}": "head.{p}",
    }
    embedders = (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))
    for theirs, ours in embedders:
        table[f"time_text_embed.{theirs}_embedder.linear_1.{{p}}"] = f"{ours}.0.{{p}}"
        table[f"time_text_embed.{theirs}_embedder.linear_2.{{p}}"] = f"{ours}.2.{{p}}"
    block, attn = "transformer_blocks.{n}.", "transformer_blocks.{n}.attn."
    halves = (
        ("picture", "norm1", "ff", ("to_q", "to_k", "to_v"), "to_out.0", "norm_"),
        (
            "text",
            "norm1_context",
            "ff_context",
            ("add_q_proj", "add_k_proj", "add_v_proj"),
            "to_add_out",
            "norm_added_",
        ),
    )
    for ours, modulation, mlp, names, out, norm in halves:
        mine = f"joint.{{n}}.{ours}."
        table[f"{block}{modulation}.linear.{{p}}"] = f"{mine}modulation.{{p}}"
        for name, part in zip(names, parts(f"{mine}qkv.{{p}}", 3), strict=True):
            table[f"{attn}{name}.{{p}}"] = part
        table[f"{attn}{norm}q.weight"] = f"{mine}q_norm.weight"
        table[f"{attn}{norm}k.weight"] = f"{mine}k_norm.weight"
        table[f"{attn}{out}.{{p}}"] = f"{mine}out.{{p}}"
        table[f"{block}{mlp}.net.0.proj.{{p}}"] = f"{mine}mlp_in.{{p}}"
        table[f"{block}{mlp}.net.2.{{p}}"] = f"{mine}mlp_out.{{p}}"
    single = "single_transformer_blocks.{n}."
    inward = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    for index, name in enumerate(inward):
        table[f"{single}{name}.{{p}}"] = Part("single.{n}.inward.{p}", index, (1, 1, 1, 4))
    table[f"{single}norm.linear.{{p}}"] = "single.{n}.modulation.{p}"
    table[f"{single}proj_out.{{p}}"] = "single.{n}.out.{p}"
    table[f"{single}attn.norm_q.weight"] = "single.{n}.q_norm.weight"
    table[f"{single}attn.norm_k.weight"] = "single.{n}.k_norm.weight"
    return table


ORIGINAL: Table = _original()
DIFFUSERS: Table = _diffusers()
