"""IP-Adapter's files, as its authors store them, to the modules of ``networks.image_prompt``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import Part, Table, parts, prefixed

IMAGE, ATTENTION = "image_proj.", "ip_adapter."
"""What the two halves of a file are called."""

PLAIN: Table = {"proj.{p}": "proj.{p}", "norm.{p}": "norm.{p}"}
FULL: Table = {
    "proj.0.{p}": "proj_in.{p}",
    "proj.2.{p}": "proj_out.{p}",
    "proj.3.{p}": "norm.{p}",
}
PLUS: Table = {
    "latents": "latents",
    "proj_in.{p}": "proj_in.{p}",
    "layers.{n}.0.norm1.{p}": "layers.{n}.norm_image.{p}",
    "layers.{n}.0.norm2.{p}": "layers.{n}.norm_latents.{p}",
    "layers.{n}.0.to_q.weight": "layers.{n}.q.weight",
    "layers.{n}.0.to_kv.weight": "layers.{n}.kv.weight",
    "layers.{n}.0.to_out.weight": "layers.{n}.out.weight",
    "layers.{n}.1.0.{p}": "layers.{n}.norm.{p}",
    "layers.{n}.1.1.weight": "layers.{n}.mlp_in.weight",
    "layers.{n}.1.3.weight": "layers.{n}.mlp_out.weight",
    "proj_out.{p}": "proj_out.{p}",
    "norm_out.{p}": "norm_out.{p}",
}


def banks(down: int, middle: int, up: int) -> Table:
    """The matrices of the cross-attentions of a U-Net.

    A file numbers all attentions, self and cross in turns, in the order down, up, middle in which
    its U-Net lists them; ours come in the order in which they run.

    Args:
        down, middle, up: how many cross-attentions there are in each part.
    """
    order = [*range(down), *range(down + middle, down + middle + up)]
    order += range(down, down + middle)
    table: dict[str, str | Part | None] = {}
    for place, ours in enumerate(order):
        keys, values = parts(f"kv.{ours}.weight", 2)
        table[f"{2 * place + 1}.to_k_ip.weight"] = keys
        table[f"{2 * place + 1}.to_v_ip.weight"] = values
    return table


def whole(image: Table, attention: Table) -> Table:
    """Both halves of a file, ours under ``project.`` and ``banks.``."""
    return {
        **prefixed(image, IMAGE, "project."),
        **prefixed(attention, ATTENTION, "banks."),
    }
