"""The control network of FLUX.1: XLabs' layout and that of `diffusers`, to ``ControlFlux``.

What is copied from the transformer has the transformer's names.
"""

from __future__ import annotations

from mezzotint.checkpoints.keys import Table
from mezzotint.checkpoints.tables import control_unet, flux

_LACKING = ("final_layer.", "norm_out.", "proj_out.")


def _copied(table: Table) -> Table:
    return {theirs: ours for theirs, ours in table.items() if not theirs.startswith(_LACKING)}


ORIGINAL: Table = {
    **_copied(flux.ORIGINAL),
    "input_hint_block.{n}.{p}": "encoder.{n}.{p}",
    "pos_embed_input.{p}": "hint.{p}",
    "controlnet_blocks.{n}.{p}": "joint_ports.{n}.{p}",
}
DIFFUSERS: Table = {
    **_copied(flux.DIFFUSERS),
    **control_unet.hint("input_hint_block.", "encoder."),
    "controlnet_x_embedder.{p}": "hint.{p}",
    "controlnet_mode_embedder.weight": "mode.weight",
    "controlnet_blocks.{n}.{p}": "joint_ports.{n}.{p}",
    "controlnet_single_blocks.{n}.{p}": "single_ports.{n}.{p}",
}
