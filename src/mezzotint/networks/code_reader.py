"""A network that gives back the code a picture was decoded from, though the picture was spoiled.

An encoder is trained together with a decoder on pictures as they are.  This one is trained
afterwards, on pictures that the decoder made of known codes and that were then laid on white and
compressed: its loss is the squared error of the code.  So what it gives is the code's posterior
mean, in which what was lost is not guessed but left out.

It sees the picture on white, the picture as it was cut out of the white again, and the encoder's
code of the latter, which it corrects.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mezzotint.networks.autoencoder import (
    AutoencoderConfig,
    Block,
    space_to_depth,
    zero,
)

FLAT = 3
"""Channels of the picture on white."""


@dataclass(frozen=True)
class CodeReaderConfig:
    """What a :class:`CodeReader` is made of.

    channels: of the media (4 for RGBA); latent_channels: of the code
    fine_width, fine_blocks: at ``1 / patch`` of the media's size
    width, blocks: at half of that, where the code lies
    patch: media pixels a side of one pixel of the finest level
    """

    channels: int = 4
    latent_channels: int = 8
    fine_width: int = 64
    fine_blocks: int = 3
    width: int = 128
    blocks: int = 4
    patch: int = 4


class CodeReader(nn.Module):
    """Pictures and their encoder's codes to the codes that they were made of."""

    def __init__(self, config: CodeReaderConfig) -> None:
        super().__init__()
        self.config = config
        block = AutoencoderConfig()  # of which a block takes the dimensions and the group width
        seen = (FLAT + config.channels) * config.patch**2
        self.stem = nn.Conv2d(seen, config.fine_width, 3, padding=1)
        self.fine = nn.Sequential(
            *(Block(block, config.fine_width) for _ in range(config.fine_blocks))
        )
        self.down = nn.Conv2d(config.fine_width, config.width, 2, stride=2)
        self.code = nn.Conv2d(config.latent_channels, config.width, 1)
        self.coarse = nn.Sequential(*(Block(block, config.width) for _ in range(config.blocks)))
        self.norm = nn.GroupNorm(config.width // block.group_width, config.width)
        self.head = zero(nn.Conv2d(config.width, config.latent_channels, 1))

    def forward(self, flat: Tensor, cut: Tensor, code: Tensor) -> Tensor:
        """The code, ``(B, latent_channels, H / 2 patch, W / 2 patch)``.

        Args:
            flat: the pictures on white, ``(B, 3, H, W)`` in [−1, 1].
            cut: with their transparency, ``(B, channels, H, W)`` in [−1, 1], premultiplied.
            code: what the encoder makes of ``cut``, in units of its spread.
        """
        x = space_to_depth(torch.cat([flat, cut], 1), self.config.patch)
        x = self.fine(self.stem(x.contiguous(memory_format=torch.channels_last)))
        x = self.coarse(self.down(x) + self.code(code))
        return code + self.head(F.silu(self.norm(x)))
