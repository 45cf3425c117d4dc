"""T2I-Adapter: a small network that makes features of a picture, once for all steps.

Mou et al. 2023, §3.3 and figure 3: the picture's pixels are folded into channels, then levels of
residual blocks give one tensor each, to be added where a level of the U-Net ends on its way down.
The light one has narrow levels between 1×1 convolutions (their §4.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class T2IAdapterConfig:
    """What a :class:`T2IAdapter` is made of; the defaults are those of Stable Diffusion 1.

    channels: of the picture, 1 grey or 3; fold: pixels a side that become channels.
    widths: of each level; halved: levels that begin with half the size.
    blocks: residual blocks a level.
    light: levels have a quarter of the width inside.
    """

    channels: int = 3
    fold: int = 8
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    halved: frozenset[int] = frozenset({1, 2, 3})
    blocks: int = 2
    light: bool = False


class Residual(nn.Module):
    """``x + conv(relu(conv(x)))``."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Level(nn.Module):
    def __init__(self, config: T2IAdapterConfig, width_in: int, number: int) -> None:
        super().__init__()
        width, light = config.widths[number], config.light
        inner = width // 4 if light else width
        self.halves = number in config.halved
        self.proj_in = nn.Conv2d(width_in, inner, 1) if light or width_in != width else None
        self.blocks = nn.ModuleList(
            Residual(inner, 3 if light else 1) for _ in range(config.blocks)
        )
        self.proj_out = nn.Conv2d(inner, width, 1) if light else None

    def forward(self, x: Tensor) -> Tensor:
        if self.halves:  # an odd size is rounded up, as the U-Net does it
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        if self.proj_in is not None:
            x = self.proj_in(x)
        for block in self.blocks:
            x = block(x)
        return x if self.proj_out is None else self.proj_out(x)


class T2IAdapter(nn.Module):
    """The network."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        self.config = config
        folded = config.channels * config.fold**2
        first = config.widths[0]
        self.stem = None if config.light else nn.Conv2d(folded, first, 3, padding=1)
        widths = (folded if config.light else first, *config.widths)
        self.levels = nn.ModuleList(
            Level(config, widths[number], number) for number in range(len(config.widths))
        )

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """``(B, channels, H, W)`` in [0, 1] to one ``(B, C, h, w)`` a level.

        Raises:
            ValueError: a side is no multiple of ``fold``.
        """
        fold = self.config.fold
        height, width = picture.shape[2:]
        if height % fold or width % fold:
            raise ValueError(
                f"this adapter needs a size in multiples of {fold}, not {width}x{height}"
            )
        x = F.pixel_unshuffle(picture, fold)
        if self.stem is not None:
            x = self.stem(x)
        features: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return tuple(features)
