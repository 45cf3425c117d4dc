"""The control network of a U-Net: the original layout and that of `diffusers`, to ``ControlUNet``.

What is copied from the U-Net has the U-Net's names.
"""

from __future__ import annotations

from collections.abc import Sequence

from mezzotint.checkpoints.keys import Part, Table
from mezzotint.checkpoints.tables import ldm_unet

ORIGINAL_PREFIX = "control_model."
LOW_RANK = "lora_controlnet"
"""An empty tensor of files that hold differences to the model's own U-Net (Control-LoRA)."""
ALONE = ("hint.", "ports.", "middle_port.")
"""How our names begin of what a control network has and the U-Net has not."""
_LACKING = ("up.", "norm.", "head.")
_HINT = 8  # convolutions of the hint, each followed by an activation but the last


def _copied(table: Table) -> dict[str, str | Part | None]:
    """The rows of a U-Net's way down and middle."""

    def name(target: str | Part | None) -> str:
        return target.name if isinstance(target, Part) else target or ""

    return {theirs: ours for theirs, ours in table.items() if not name(ours).startswith(_LACKING)}


def original(depths: Sequence[int], blocks: int, convolutions: bool) -> Table:
    """The original layout, without its prefix; the arguments are those of the U-Net's table."""
    return {
        **_copied(ldm_unet.original(depths, blocks, convolutions)),
        "input_hint_block.{n}.{p}": "hint.{n}.{p}",
        "zero_convs.{n}.0.{p}": "ports.{n}.{p}",
        "middle_block_out.0.{p}": "middle_port.{p}",
    }


def hint(theirs: str, ours: str) -> Table:
    """The convolutions of a picture as `diffusers` has them, behind a prefix each."""
    names = ["conv_in", *(f"blocks.{n}" for n in range(_HINT - 2)), "conv_out"]
    return {f"{theirs}{name}.{{p}}": f"{ours}{2 * n}.{{p}}" for n, name in enumerate(names)}


UNION: Table = {
    "task_embedding": "kinds",
    "control_add_embedding.linear_1.{p}": "kind.0.{p}",
    "control_add_embedding.linear_2.{p}": "kind.2.{p}",
    "transformer_layes.{n}.attn.in_proj_{p}": "layers.{n}.qkv.{p}",  # sic
    "transformer_layes.{n}.attn.out_proj.{p}": "layers.{n}.out.{p}",
    "transformer_layes.{n}.ln_1.{p}": "layers.{n}.norm1.{p}",
    "transformer_layes.{n}.ln_2.{p}": "layers.{n}.norm2.{p}",
    "transformer_layes.{n}.mlp.c_fc.{p}": "layers.{n}.mlp_in.{p}",
    "transformer_layes.{n}.mlp.c_proj.{p}": "layers.{n}.mlp_out.{p}",
    "spatial_ch_projs.{p}": "shift.{p}",
}
"""What a network of several kinds of pictures has beside all that any has (xinsir's Union)."""


def diffusers(convolutions: bool) -> Table:
    """The layout of `diffusers`."""
    return {
        **_copied(ldm_unet.diffusers(convolutions)),
        **hint("controlnet_cond_embedding.", "hint."),
        "controlnet_down_blocks.{n}.{p}": "ports.{n}.{p}",
        "controlnet_mid_block.{p}": "middle_port.{p}",
    }
