"""T2I-Adapter: its authors' layout and that of `diffusers`, to ``T2IAdapter``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import Table

DIFFUSERS_PREFIX = "adapter."

DIFFUSERS: Table = {
    "conv_in.{p}": "stem.{p}",
    "body.{n}.in_conv.{p}": "levels.{n}.proj_in.{p}",
    "body.{n}.resnets.{m}.block1.{p}": "levels.{n}.blocks.{m}.conv1.{p}",
    "body.{n}.resnets.{m}.block2.{p}": "levels.{n}.blocks.{m}.conv2.{p}",
    "body.{n}.out_conv.{p}": "levels.{n}.proj_out.{p}",
}
"""Without its prefix."""
LIGHT: Table = {
    "body.{n}.in_conv.{p}": "levels.{n}.proj_in.{p}",
    "body.{n}.body.{m}.block1.{p}": "levels.{n}.blocks.{m}.conv1.{p}",
    "body.{n}.body.{m}.block2.{p}": "levels.{n}.blocks.{m}.conv2.{p}",
    "body.{n}.out_conv.{p}": "levels.{n}.proj_out.{p}",
}
"""The authors' layout of the light one."""


def full(levels: int, blocks: int) -> Table:
    """The authors' layout of the full one: the blocks of all levels in one row."""
    table: dict[str, str] = {"conv_in.{p}": "stem.{p}"}
    for level in range(levels):
        table[f"body.{level * blocks}.in_conv.{{p}}"] = f"levels.{level}.proj_in.{{p}}"
        for block in range(blocks):
            theirs, ours = f"body.{level * blocks + block}", f"levels.{level}.blocks.{block}"
            table[f"{theirs}.block1.{{p}}"] = f"{ours}.conv1.{{p}}"
            table[f"{theirs}.block2.{{p}}"] = f"{ours}.conv2.{{p}}"
    return table
