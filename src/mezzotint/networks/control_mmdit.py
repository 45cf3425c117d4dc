"""The control network of Stable Diffusion 3: its first blocks once more, told a picture.

After InstantX' ControlNets of Stable Diffusion 3 and Stability's of 3.5 large (2024), which carry
Zhang et al. 2023, §3.2 over to transformers: what is told of the picture is added to the tokens
after the stem, and the tokens after every block go through a matrix that began as zero.  Those of
3.5 large do not read the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.mmdit import Block, MMDiTConfig, Stream, attend, embed_time


@dataclass(frozen=True)
class ControlMMDiTConfig:
    """What a :class:`ControlMMDiT` is made of.

    blocks: sizes and depth of its transformer.
    hinted: channels of the picture's code, and of what is joined to it.
    reads: whether its blocks read the text; else each has attention among the picture alone.
    """

    blocks: MMDiTConfig
    hinted: int = 16
    reads: bool = True


def _two_layers(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm without weights, then scale and shift ``(B, 1, C)``."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class PictureBlock(nn.Module):
    """A block that reads no text."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.picture = Stream(config)

    def forward(self, x: Tensor, text: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, N, C)``, ``vector (B, 1, C)`` after its activation; the text comes back."""
        own = self.picture
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = own.modulation(vector).chunk(6, -1)
        assert own.attention.out is not None
        y = attend(*own.attention.split(_norm(x, scale, shift)))
        x = x + gate * own.attention.out(y)
        return x + mlp_gate * own.mlp(_norm(x, mlp_scale, mlp_shift)), text


class ControlMMDiT(nn.Module):
    """The network.  ``told`` is called once for a picture's code, ``forward`` at each step."""

    def __init__(self, config: ControlMMDiTConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.blocks
        width = sizes.width
        self.stem = nn.Conv2d(sizes.in_channels, width, sizes.patch, stride=sizes.patch)
        self.positions = nn.Parameter(torch.zeros(sizes.positions**2, width))
        self.hint = nn.Conv2d(config.hinted, width, sizes.patch, stride=sizes.patch)
        self.time = _two_layers(256, width)
        self.vector = _two_layers(sizes.vector_width, width)
        self.context = nn.Linear(sizes.context_width, width) if config.reads else None
        self.blocks = nn.ModuleList(
            Block(sizes, n < sizes.dual, last=False) if config.reads else PictureBlock(sizes)
            for n in range(sizes.depth)
        )
        self.ports = nn.ModuleList(nn.Linear(width, width) for _ in range(sizes.depth))

    def told(self, code: Tensor) -> Tensor:
        """The hint ``(B, N, C)`` of a picture's code ``(B, hinted, H, W)``."""
        return self.hint(code).flatten(2).transpose(1, 2)

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, vector: Tensor, hint: Tensor
    ) -> tuple[Tensor, ...]:
        """The residuals ``(B, N, C)`` of ``x (B, in_channels, H, W)``, one a block.

        Args:
            time, context, vector: as :class:`~mezzotint.networks.mmdit.MMDiT` is told.
            hint: ``(B or 1, N, C)``, what ``self.told`` makes of the picture's code.

        Raises:
            ValueError: the picture does not divide into patches, or is larger than the positions.
        """
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self._positions(x) + hint  # (B, N, C)
        text = context if self.context is None else self.context(context)
        told = self.time(embed_time(time, 256).to(x.dtype)) + self.vector(vector)
        told = F.silu(told)[:, None]  # (B, 1, C)
        found: list[Tensor] = []
        for block, port in zip(self.blocks, self.ports, strict=True):
            tokens, text = block(tokens, text, told)
            found.append(port(tokens))
        return tuple(found)

    def _positions(self, x: Tensor) -> Tensor:
        """The middle of the square of positions, ``(N, C)``."""
        patch, edge = self.config.blocks.patch, self.config.blocks.positions
        height, width = x.shape[2:]
        if height % patch or width % patch or max(height, width) > edge * patch:
            raise ValueError(
                f"{height}x{width} latent pixels: this control network takes multiples of {patch} "
                f"up to {edge * patch}"
            )
        height, width = height // patch, width // patch
        top, left = (edge - height) // 2, (edge - width) // 2
        square = self.positions.unflatten(0, (edge, edge))
        return square[top : top + height, left : left + width].flatten(0, 1)
