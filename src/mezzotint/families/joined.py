"""What networks with further inputs are told of pictures: mask and masked picture, an edit's
source, depth, edges.  Each is a row of a family: from a codec to what it joins.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.diffusion.level import Conditioning
from mezzotint.families.ldm import Family, Joining, ScaledCodec
from mezzotint.families.model import Joined


def _hard(mask: Tensor) -> Tensor:
    """1 where something new is to be made: these networks have seen no soft masks."""
    return (mask >= 0.5).float()


def inpainting(codec: ScaledCodec) -> Joined:
    """The mask and the code of the picture with grey in its place (Rombach et al. 2022, §4.5).

    The code's mask is the pixel at each corner, as in training.
    """

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        new = _hard(mask)
        code = codec.encode(picture * (1 - new))
        return Conditioning(concat=torch.cat([F.interpolate(new, size=code.shape[2:]), code], 1))

    return Joined(tell, masked=True)


def instructed(codec: ScaledCodec) -> Joined:
    """The code of the picture to edit, not scaled, which guides too (Brooks et al. 2023, §3.2)."""

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        return Conditioning(concat=codec.encode(picture) / codec.scale)

    return Joined(tell, guidance=1.5)


def variant(base: Family, said: str, channels: int, pipeline: str, joining: Joining) -> Family:
    """The family of a base whose U-Net has further input channels.

    said: what `inspect` calls it; channels: of the input; pipeline: its class in `diffusers`.
    """
    file, folder = base.file, base.folder
    return replace(
        base,
        unet=replace(base.unet, in_channels=channels),
        file=replace(file, kind=file.kind.replace(" checkpoint", f" {said} checkpoint")),
        folder=replace(
            folder, kind=folder.kind.replace(" U-Net", f" {said} U-Net"), pipeline=pipeline
        ),
        joining=joining,
    )
