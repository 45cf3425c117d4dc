"""A residual multilayer perceptron that denoises vectors, such as embeddings of pictures.

The network of the second half of a two-stage model: words to an embedding (the prior of unCLIP,
Ramesh et al. 2022, §2.2), the embedding to a picture.  Blocks and modulation as in RCG's
generator of representations (Li et al. 2024, §3.2); one projection modulates all blocks and each
adds a learned offset (adaLN-single, Chen et al. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MLPConfig:
    """in_channels, out_channels: length of the vectors.
    width, depth: of the residual stream, and how many blocks; hidden: units of a block.
    vector_width: size of the conditioning vector (0: none).
    dropout: probability inside the blocks.
    """

    in_channels: int
    out_channels: int
    width: int
    depth: int
    hidden: int
    vector_width: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "width", "depth", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: it must lie in [0, 1)")


_FREQUENCIES = 32  # of the time embedding
_LOWEST, _HIGHEST = 0.5, 100.0  # radians per unit of time, which is of order one


def embed_time(time: Tensor) -> Tensor:
    """``(B,) -> (B, 64)``: cosines and sines, in float32 or wider (Vaswani et al. 2017, §3.5)."""
    time = time.to(torch.promote_types(time.dtype, torch.float32))
    steps = torch.linspace(
        math.log(_LOWEST), math.log(_HIGHEST), _FREQUENCIES, device=time.device, dtype=time.dtype
    )
    angle = time[:, None] * steps.exp()
    return torch.cat((angle.cos(), angle.sin()), dim=1)


class Block(nn.Module):
    """``x + gate * MLP(norm(x) (1 + scale) + shift)``; the gate starts at 0."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3 * config.width))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.expand = nn.Linear(config.width, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.contract = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale, shift, gate = (modulation + self.offset).chunk(3, dim=1)  # (B, width) each
        y = torch.addcmul(shift, self.norm(x), 1 + scale)
        return torch.addcmul(x, gate, self.contract(self.dropout(F.silu(self.expand(y)))))


class MLP(nn.Module):
    """The network; see the module's docstring for its line of descent."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.time = nn.Linear(2 * _FREQUENCIES, width)
        self.vector = nn.Linear(config.vector_width, width) if config.vector_width else None
        self.embedding = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation = nn.Linear(width, 3 * width)
        self.stem = nn.Linear(config.in_channels, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.out_channels)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        vector: Tensor | None = None,
        skip: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Map ``x (B, in_channels)`` to ``(B, out_channels)``.

        Args:
            time: ``(B,)``, of order one.
            vector: ``(B, vector_width)``, needed where the network has a ``vector_width``.
            skip: numbers of blocks to leave out (skip-layer guidance).

        Raises:
            ValueError: an argument does not fit the configuration, or a number has no block.
        """
        config, batch = self.config, x.shape[:1]
        given = [tuple(x.shape), tuple(time.shape), None if vector is None else tuple(vector.shape)]
        wanted = [
            (*batch, config.in_channels),
            tuple(batch),
            (*batch, config.vector_width) if config.vector_width else None,
        ]
        if given != wanted:
            raise ValueError(f"x, time and vector have shapes {given}, this MLP takes {wanted}")
        if not skip <= frozenset(range(config.depth)):
            raise ValueError(
                f"skip {sorted(skip)} is out of range: there are {config.depth}, from 0"
            )
        told = self.time(embed_time(time).to(self.time.weight.dtype))
        if self.vector is not None:
            told = told + self.vector(vector)
        modulation = self.modulation(self.embedding(told))
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = x if number in skip else block(x, modulation)
        return self.head(self.norm(x))
