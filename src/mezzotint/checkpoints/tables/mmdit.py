"""Stable Diffusion 3's transformer: the original layout and `diffusers`', to ``MMDiT``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import ROW, SWAPPED, Part, Table, parts

ORIGINAL_PREFIX = "model.diffusion_model."


def original() -> Table:
    """The original layout, without its prefix."""
    table: dict[str, str | Part | None] = {
        "pos_embed": Part("positions", view=ROW),
        "x_embedder.proj.{p}": "stem.{p}",
        "t_embedder.mlp.{n}.{p}": "time.{n}.{p}",
        "y_embedder.mlp.{n}.{p}": "vector.{n}.{p}",
        "context_embedder.{p}": "context.{p}",
        "final_layer.adaLN_modulation.1.{p}": "modulation.{p}",
        "final_layer.linear.{p}": "head.{p}",
    }
    for theirs, ours in (("x_block", "picture"), ("context_block", "text")):
        block, mine = f"joint_blocks.{{n}}.{theirs}", f"blocks.{{n}}.{ours}"
        table[f"{block}.adaLN_modulation.1.{{p}}"] = f"{mine}.modulation.{{p}}"
        table[f"{block}.mlp.fc1.{{p}}"] = f"{mine}.mlp_in.{{p}}"
        table[f"{block}.mlp.fc2.{{p}}"] = f"{mine}.mlp_out.{{p}}"
        for attn, attention in (("attn", "attention"), ("attn2", "attention2")):
            table[f"{block}.{attn}.qkv.{{p}}"] = f"{mine}.{attention}.qkv.{{p}}"
            table[f"{block}.{attn}.proj.{{p}}"] = f"{mine}.{attention}.out.{{p}}"
            table[f"{block}.{attn}.ln_q.weight"] = f"{mine}.{attention}.q_norm.weight"
            table[f"{block}.{attn}.ln_k.weight"] = f"{mine}.{attention}.k_norm.weight"
    return table


def diffusers(depth: int) -> Table:
    """The layout of `diffusers`; the last block's text is modulated in another order there.

    depth: number of blocks; 0 of a network whose last block is as the others.
    """
    table: dict[str, str | Part | None] = {
        "pos_embed.pos_embed": Part("positions", view=ROW),
        "pos_embed.proj.{p}": "stem.{p}",
        "time_text_embed.timestep_embedder.linear_1.{p}": "time.0.{p}",
        "time_text_embed.timestep_embedder.linear_2.{p}": "time.2.{p}",
        "time_text_embed.text_embedder.linear_1.{p}": "vector.0.{p}",
        "time_text_embed.text_embedder.linear_2.{p}": "vector.2.{p}",
        "context_embedder.{p}": "context.{p}",
        "norm_out.linear.{p}": Part("modulation.{p}", view=SWAPPED),
        "proj_out.{p}": "head.{p}",
    }
    if depth:
        last = f"transformer_blocks.{depth - 1}.norm1_context.linear.{{p}}"
        table[last] = Part(f"blocks.{depth - 1}.text.modulation.{{p}}", view=SWAPPED)
    block = "transformer_blocks.{n}."
    table[f"{block}norm1.linear.{{p}}"] = "blocks.{n}.picture.modulation.{p}"
    table[f"{block}norm1_context.linear.{{p}}"] = "blocks.{n}.text.modulation.{p}"
    rows = (
        ("attn", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "picture.attention"),
        ("attn2", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "picture.attention2"),
        (
            "attn",
            ("add_q_proj", "add_k_proj", "add_v_proj"),
            "to_add_out",
            ("norm_added_q", "norm_added_k"),
            "text.attention",
        ),
    )
    for attn, names, out, norms, attention in rows:
        mine = f"blocks.{{n}}.{attention}"
        for name, part in zip(names, parts(f"{mine}.qkv.{{p}}", 3), strict=True):
            table[f"{block}{attn}.{name}.{{p}}"] = part
        table[f"{block}{attn}.{out}.{{p}}"] = f"{mine}.out.{{p}}"
        for name, norm in zip(norms, ("q_norm", "k_norm"), strict=True):
            table[f"{block}{attn}.{name}.weight"] = f"{mine}.{norm}.weight"
    for theirs, ours in (("ff", "picture"), ("ff_context", "text")):
        table[f"{block}{theirs}.net.0.proj.{{p}}"] = f"blocks.{{n}}.{ours}.mlp_in.{{p}}"
        table[f"{block}{theirs}.net.2.{{p}}"] = f"blocks.{{n}}.{ours}.mlp_out.{{p}}"
    return table
