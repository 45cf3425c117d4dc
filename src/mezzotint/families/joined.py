"""What networks with further inputs are told of pictures: mask and masked picture, an edit's
source, depth, edges.  Each is a row of a family: from a codec to what it joins.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.families import flow
from mezzotint.families.codec import ScaledCodec
from mezzotint.families.ldm import Family, Joining
from mezzotint.families.model import Joined


def hard(mask: Tensor) -> Tensor:
    """1 where something new is to be made: these networks have seen no soft masks."""
    return (mask >= 0.5).float()


def inpainting(codec: ScaledCodec) -> Joined:
    """The mask and the code of the picture with grey in its place (Rombach et al. 2022, §4.5).

    The code's mask is the pixel at each corner, as in training.
    """

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        new = hard(mask)
        code = codec.encode(picture * (1 - new))
        return Conditioning(concat=torch.cat([F.interpolate(new, size=code.shape[2:]), code], 1))

    return Joined(tell, masked=True)


def instructed(codec: ScaledCodec) -> Joined:
    """The code of the picture to edit, not scaled, which guides too (Brooks et al. 2023, §3.2)."""

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        return Conditioning(concat=codec.encode(picture) / codec.scale)

    return Joined(tell, guidance=1.5)


def edited(codec: ScaledCodec) -> Joined:
    """The same of a code that is scaled as what is diffused is (CosXL Edit, Stability AI 2024)."""

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        return Conditioning(concat=codec.encode(picture))

    return Joined(tell, guidance=1.5)


def depth(codec: ScaledCodec) -> Joined:
    """A map of depth, lighter is nearer, at the code's size and spread over [−1, 1], as `ldm` has
    it for Stable Diffusion 2.

    Raises (when told): ValueError: the map has one depth only.
    """

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        grey = picture.mean(1, keepdim=True)
        size = codec.shape(picture.shape[2:])[1:]
        small = F.interpolate(grey, size=size, mode="bicubic", align_corners=False)
        low, high = small.amin(), small.amax()
        if bool(high - low < 1e-6):
            raise ValueError("the depth map is the same everywhere: give one with near and far")
        return Conditioning(concat=2 * (small - low) / (high - low) - 1)

    return Joined(tell)


def filling(codec: ScaledCodec) -> Joined:
    """The code of the picture with grey in the mask's place, and the mask at full size, the pixels
    of each of the code's as channels (FLUX.1 Fill)."""

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        new = hard(mask)
        code = codec.encode(picture * (1 - new))
        stride = picture.shape[2] // code.shape[2]
        return Conditioning(concat=torch.cat([code, F.pixel_unshuffle(new, stride)], dim=1))

    return Joined(tell, masked=True)


def followed(codec: ScaledCodec) -> Joined:
    """The code of a picture of edges or depth (FLUX.1 Canny and Depth)."""

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        return Conditioning(concat=codec.encode(picture))

    return Joined(tell)


def beside(codec: ScaledCodec) -> Joined:
    """The tokens of a picture to edit, as picture number 1 (FLUX.1 Kontext, 2025, §3); of any
    size, and it may be left out."""

    def tell(picture: Tensor, mask: Tensor) -> Conditioning:
        code = codec.encode(picture)
        values = flow.pack(code)
        height, width = (edge // codec.patch for edge in code.shape[2:])
        ids = flow.positions(height, width, number=1, device=values.device)
        return Conditioning(tokens=Tokens(values, None, ids))

    return Joined(tell, optional=True, free_size=True)


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
