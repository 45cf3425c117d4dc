"""The tiny autoencoder's layouts, to ``TinyAutoencoder``: its author's, whose layers are numbered,
`diffusers`', and both halves in one file as ComfyUI reads them."""

from __future__ import annotations

from mezzotint.checkpoints.keys import Part, Table, prefixed
from mezzotint.checkpoints.signature import Signature

_BLOCKS = (3, 3, 3, 1)  # of the decoder's levels; the encoder's the other way round


def _numbered(half: str, blocks: tuple[int, ...], stem: int, first: int, gap: int) -> Table:
    """The layers of a half by their numbers.

    Args:
        stem, first: numbers of its first convolution and of its first block.
        gap: numbers that a change of size takes beside its convolution's.
    """
    table: dict[str, str | Part | None] = {f"{stem}.{{p}}": f"{half}.stem.{{p}}"}
    number = first
    for level, count in enumerate(blocks):
        ours = f"{half}.levels.{level}."
        for block in range(count):
            for conv in range(3):  # there are activations between them
                theirs = f"{number}.conv.{2 * conv}.{{p}}"
                table[theirs] = f"{ours}blocks.{block}.convs.{conv}.{{p}}"
            number += 1
        if level < len(blocks) - 1:
            table[f"{number + gap}.weight"] = f"{ours}resample.weight"
            number += gap + 1
    table[f"{number}.{{p}}"] = f"{half}.head.{{p}}"
    return table


ENCODER: Table = _numbered("encoder", _BLOCKS[::-1], 0, 1, 0)
"""``taesd_encoder``, ``taef1_encoder``, …: the encoder alone."""
DECODER: Table = _numbered("decoder", _BLOCKS, 1, 3, 1)
"""``taesd_decoder``, …: the decoder alone; what bounds the code is its layer 0."""
DIFFUSERS: Table = {
    **prefixed(ENCODER, "encoder.layers."),
    **prefixed(_numbered("decoder", _BLOCKS, 0, 2, 1), "decoder.layers."),
}
"""The layout of `diffusers`."""
COMBINED: Table = {
    **prefixed(ENCODER, "taesd_encoder."),
    **prefixed(DECODER, "taesd_decoder."),
    "vae_scale": None,  # by which its user would scale the code, as the family does here
    "vae_shift": None,
}
"""Both halves in one file, as ComfyUI reads them."""


def _signatures(channels: int, one: str, other: str) -> tuple[Signature, ...]:
    """Of a number of channels, which the codes of two kinds of families have."""
    what = f"with {channels} latent channels, as of {one} and {other}"
    note = f"the weights do not tell whether it knows {one}'s codes or {other}'s"
    return (
        Signature(
            f"tiny autoencoder (TAESD) {what} (diffusers)",
            ("encoder.layers.1.conv.0.weight", "decoder.layers.2.conv.0.weight"),
            (("decoder.layers.0.weight", 1, channels),),
            note=note,
        ),
        Signature(
            f"tiny autoencoder (TAESD) {what}",
            ("taesd_encoder.1.conv.0.weight", "taesd_decoder.3.conv.0.weight"),
            (("taesd_decoder.1.weight", 1, channels),),
            note=note,
        ),
        Signature(
            f"decoder of the tiny autoencoder (TAESD) {what}",
            ("3.conv.0.weight", "18.conv.0.weight"),
            (("1.weight", 1, channels), ("19.weight", 0, 3)),
            note=note,
        ),
        Signature(
            f"encoder of the tiny autoencoder (TAESD) {what}",
            ("1.conv.0.weight", "13.conv.0.weight"),
            (("0.weight", 1, 3), ("14.weight", 0, channels)),
            note=note,
        ),
    )


SIGNATURES = (*_signatures(4, "SD1", "SDXL"), *_signatures(16, "SD3", "FLUX"))
