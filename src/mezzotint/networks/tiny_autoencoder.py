"""The tiny autoencoder (TAESD, O. B. Bohan 2023): another's codes by convolutions alone.

It was distilled from latent diffusion's autoencoder, once for the codes of each family (TAESD,
TAESDXL, TAESD3, TAEF1): 1.2 million weights a half, no norms and no attention.  Its details are
coarser, and it takes a small share of the time.

Its own conventions end here: it was taught pictures in [0, 1], and codes as they are diffused,
``(mean − offset) * scale``, which are led softly into [−3, 3] before they are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BOUND = 3.0  # of the codes that it was taught


@dataclass(frozen=True)
class TinyAutoencoderConfig:
    """What a :class:`TinyAutoencoder` is made of; the defaults are those of TAESD.

    blocks: residual blocks a level of the decoder, the coarsest level first; the encoder's are the
        same the other way round.  Each level but the last doubles the size.
    encoder: whether it has one; a file may hold the decoder alone.
    scale, offset: of the codes that it was taught.
    """

    channels: int = 3
    latent_channels: int = 4
    width: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)
    encoder: bool = True
    scale: float = 1.0
    offset: float = 0.0

    @property
    def stride(self) -> int:
        """Pixels a side of one pixel of the code."""
        return 2 ** (len(self.blocks) - 1)


def _as(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """``convolution(x)`` in the precision of its weights."""
    return convolution(x.to(convolution.weight.dtype))


class Block(nn.Module):
    """Three convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.convs
        y = F.relu(first(x), inplace=True)
        y = F.relu(second(y), inplace=True)
        return F.relu(third(y).add_(x), inplace=True)


class Level(nn.Module):
    """Residual blocks, then a convolution where the size changes, but for the last level."""

    def __init__(self, width: int, blocks: int, resample: nn.Conv2d | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def _levels(width: int, blocks: Sequence[int], stride: int) -> nn.ModuleList:
    """``stride``: of the convolutions between the levels."""
    between = [nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in blocks[1:]]
    return nn.ModuleList(
        Level(width, count, resample)
        for count, resample in zip(blocks, [*between, None], strict=True)
    )


class Encoder(nn.Module):
    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Conv2d(config.channels, width, 3, padding=1)
        self.levels = _levels(width, config.blocks[::-1], stride=2)
        self.head = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = _as(self.stem, x)
        for level in self.levels:
            x = level(x)
            if level.resample is not None:
                x = level.resample(x)  # type: ignore[operator]
        return _as(self.head, x)


class Decoder(nn.Module):
    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.levels = _levels(width, config.blocks, stride=1)
        self.head = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(_as(self.stem, z), inplace=True)
        for level in self.levels:
            x = level(x)
            if level.resample is not None:
                x = level.resample(F.interpolate(x, scale_factor=2.0))  # type: ignore[operator]
        return _as(self.head, x)


class TinyAutoencoder(nn.Module):
    """Pictures ``(B, channels, H, W)`` in [−1, 1] to the means ``(B, latent, H / stride, …)`` of
    the autoencoder that it was taught by, and back."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.encoder else None
        self.decoder = Decoder(config)

    def encode(self, x: Tensor) -> Tensor:
        """The code's mean.

        Raises:
            ValueError: it has no encoder.
        """
        if self.encoder is None:
            raise ValueError(
                "a picture is to be encoded, and the tiny autoencoder given as the vae is the "
                "decoder alone: give a file with both halves, or leave it out"
            )
        x = (x + 1) / 2
        code = self.encoder(x.contiguous(memory_format=torch.channels_last))
        return code / self.config.scale + self.config.offset

    def decode(self, z: Tensor) -> Tensor:
        code = (z - self.config.offset) * self.config.scale
        bounded = _BOUND * torch.tanh(code / _BOUND)
        return 2 * self.decoder(bounded.contiguous(memory_format=torch.channels_last)) - 1

    def forward(self, x: Tensor) -> Tensor:
        """The picture by way of its code."""
        return self.decode(self.encode(x))
