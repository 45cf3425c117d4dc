"""The control network of a U-Net: its way down once more, told a picture (ControlNet).

Zhang et al. 2023, §3.2 and figure 3.  What the U-Net has on its way down and in its middle is
copied; the hint, a picture of edges, poses or depths, is added after the stem; and what stands at
every residual port goes through a 1×1 convolution that began as zero.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.ldm_unet import Down, LdmUNetConfig, Middle, Told, embed_time

HINT_WIDTHS = (16, 32, 96, 256)
"""Channels of the hint at full size, and after each halving."""


class HintEncoder(nn.Sequential):
    """``(B, channels, H, W) -> (B, width, H/8, W/8)``: convolutions, halving at every other."""

    def __init__(
        self, width: int, channels: int = 3, widths: tuple[int, ...] = HINT_WIDTHS
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), nn.SiLU()]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, narrow, 3, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(narrow, wide, 3, padding=1, stride=2), nn.SiLU()]
        super().__init__(*layers, nn.Conv2d(widths[-1], width, 3, padding=1))


class ControlUNet(nn.Module):
    """The network.  Its outputs are those of the residual ports of the U-Net of ``config``.

    ``hint`` is called once for a picture, ``forward`` at each step.
    """

    def __init__(self, config: LdmUNetConfig, hints: tuple[int, ...] = HINT_WIDTHS) -> None:
        """hints: channels of the picture at full size, and after each halving."""
        super().__init__()
        self.config = config
        widths = [config.width * m for m in config.multipliers]
        embedding = 4 * config.width

        def two_layers(width: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
            )

        self.time = two_layers(config.width)
        self.vector = two_layers(config.vector_width) if config.vector_width else None
        self.stem = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        self.hint = HintEncoder(config.width, widths=hints)
        self.down = nn.ModuleList(
            Down(config, widths[level - 1] if level else config.width, level)
            for level in range(len(widths))
        )
        self.middle = Middle(config)
        ports = [config.width]
        for level, width in enumerate(widths):
            ports += [width] * (config.blocks + (level < len(widths) - 1))
        self.ports = nn.ModuleList(nn.Conv2d(width, width, 1) for width in ports)
        self.middle_port = nn.Conv2d(widths[-1], widths[-1], 1)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        hint: Tensor,
        vector: Tensor | None = None,
        kind: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The residuals of ``x (B, in_channels, H, W)``, one a port, the middle's last.

        Args:
            time, context, vector: as the U-Net is told.
            hint: ``(B or 1, width, H, W)``, what ``self.hint`` makes of the picture.
            kind: ``(B or 1, K)``, added to the time's embedding (`networks.control_union`).

        Raises:
            ValueError: a vector is given or lacking against the configuration.
        """
        if (vector is None) != (self.vector is None):
            raise ValueError(
                f"this control network takes {'a' if self.vector is not None else 'no'} vector "
                f"of width {self.config.vector_width}"
            )
        embedding = self.time(embed_time(time, self.config.width).to(x.dtype))
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        if kind is not None:
            embedding = embedding + kind
        told = Told(F.silu(embedding), context, (), frozenset(), frozenset())
        x = self.stem(x.contiguous(memory_format=torch.channels_last)) + hint
        kept = [x]
        for level in self.down:
            for block in level.blocks:  # type: ignore[union-attr]
                x = block(x, told)
                kept.append(x)
            if level.downsample is not None:
                x = level.downsample(x)  # type: ignore[operator]
                kept.append(x)
        x = self.middle.second(self.middle.first(x, told), told)
        found = [port(y) for port, y in zip(self.ports, kept, strict=True)]
        return (*found, self.middle_port(x))
