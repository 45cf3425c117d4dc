"""SigLIP's picture encoder.

Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", §4: a vision transformer
(Dosovitskiy et al. 2021) without a token for the whole.  The head that pools its patches is not
here: who is told a picture by it reads the patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6


@dataclass(frozen=True)
class SiglipConfig:
    """Widths of a picture encoder; the defaults are those of so400m/14 at 384 pixels."""

    size: int = 384
    patch: int = 14
    width: int = 1152
    depth: int = 27
    heads: int = 16
    hidden: int = 4304


class Layer(nn.Module):
    """Attention, then two matrices with an activation between; both on the normalized input."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp_in = nn.Linear(width, config.hidden)
        self.mlp_out = nn.Linear(config.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, N, C)``."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)), approximate="tanh"))


class Siglip(nn.Module):
    """A picture to features of its patches."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.config = config
        count = (config.size // config.patch) ** 2
        self.stem = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.positions = nn.Embedding(count, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, 3, size, size)`` in [−1, 1] to ``(B, patches, C)``, after the last norm.

        What is left at the right and at the bottom beside whole patches is not seen.
        """
        h = self.stem(x).flatten(2).transpose(1, 2) + self.positions.weight  # (B, N, C)
        for layer in self.layers:
            h = layer(h)
        return self.norm(h)
