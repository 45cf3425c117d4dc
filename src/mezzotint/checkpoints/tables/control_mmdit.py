"""The control network of Stable Diffusion 3: Stability's layout of 3.5 large and that of
`diffusers`, to ``ControlMMDiT``.

What is copied from the transformer has the transformer's names.
"""

from __future__ import annotations

from mezzotint.checkpoints.keys import Table
from mezzotint.checkpoints.tables import mmdit

KIND = "control_type"
"""A number in Stability's files: what the network follows."""

_LACKING = ("norm_out.", "proj_out.")
_PORTS: Table = {
    "pos_embed_input.proj.{p}": "hint.{p}",
    "controlnet_blocks.{n}.{p}": "ports.{n}.{p}",
}
DIFFUSERS: Table = {
    **{
        theirs: ours
        for theirs, ours in mmdit.diffusers(0).items()
        if not theirs.startswith(_LACKING)
    },
    **_PORTS,
}
ORIGINAL: Table = {
    **{theirs: ours for theirs, ours in DIFFUSERS.items() if theirs.startswith("time_text_embed.")},
    "transformer_blocks.{n}.adaLN_modulation.1.{p}": "blocks.{n}.picture.modulation.{p}",
    "transformer_blocks.{n}.attn.qkv.{p}": "blocks.{n}.picture.attention.qkv.{p}",
    "transformer_blocks.{n}.attn.proj.{p}": "blocks.{n}.picture.attention.out.{p}",
    "transformer_blocks.{n}.mlp.fc1.{p}": "blocks.{n}.picture.mlp_in.{p}",
    "transformer_blocks.{n}.mlp.fc2.{p}": "blocks.{n}.picture.mlp_out.{p}",
    **_PORTS,
    KIND: None,
}
