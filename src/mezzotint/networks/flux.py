"""The transformer of FLUX.1.

After Black Forest Labs' FLUX.1 (2024): blocks with weights of their own for picture and text, as
in Esser et al. 2024, then blocks with one set of weights for the joined sequence, whose attention
and feed-forward layer run side by side (Dehghani et al. 2023, §2).  Positions are rotations by
ids (Su et al. 2021) with as many axes as the ids have, so the network knows no picture's shape:
the family cuts the picture into tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FluxConfig:
    """What a :class:`Flux` is made of; the defaults are FLUX.1 dev's.

    in_channels: of a token (its patch of latent pixels, and what is joined to them)
    depth, single: blocks with two sets of weights, and with one
    axes: how much of a head each axis of the ids turns
    context_width, vector_width: of the text's tokens, and of the pooled text
    guided: it is told a guidance scale, which it was distilled from
    """

    in_channels: int = 64
    out_channels: int = 64
    heads: int = 24
    axes: tuple[int, ...] = (16, 56, 56)
    depth: int = 19
    single: int = 38
    context_width: int = 4096
    vector_width: int = 768
    guided: bool = True

    @property
    def head_width(self) -> int:
        return sum(self.axes)

    @property
    def width(self) -> int:
        return self.heads * self.head_width


def embed_time(time: Tensor, width: int) -> Tensor:
    """``(B,) -> (B, width)``: cosines, then sines, at frequencies from 1 down to 1e-4."""
    time = time.to(torch.promote_types(time.dtype, torch.float32))
    half = width // 2
    index = torch.arange(half, device=time.device, dtype=time.dtype)
    angle = time[:, None] * (index * (-math.log(10_000) / half)).exp()  # (B, half)
    return torch.cat((angle.cos(), angle.sin()), dim=1)


def rotations(ids: Tensor, axes: Sequence[int]) -> Tensor:
    """The complex rotation of each pair of numbers of a head, ``(B, 1, N, d / 2)``.

    Args:
        ids: ``(B, N, len(axes))`` positions; an axis of width ``a`` turns by ``id * 1e4^(-2i/a)``.
    """
    wide = ids.to(torch.float64 if ids.device.type != "mps" else torch.float32)
    angles = []
    for axis, width in enumerate(axes):
        steps = torch.arange(0, width, 2, device=ids.device, dtype=wide.dtype) / width
        angles.append(wide[..., axis, None] * 10_000.0**-steps)  # (B, N, width / 2)
    angle = torch.cat(angles, dim=-1)[:, None].float()
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """``x (B, heads, N, d)`` with each pair of neighbours turned."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class Norm(nn.Module):
    """``x / rms(x) * gain`` over one head, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)


def _two_layers(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm without weights, then scale and shift ``(B, 1, C)``."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def attend(q: Tensor, k: Tensor, v: Tensor, turn: Tensor) -> Tensor:
    """Attention of rotated queries and keys ``(B, heads, N, d)``, joined to ``(B, N, C)``."""
    y = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v)
    return y.transpose(1, 2).flatten(2)


class Stream(nn.Module):
    """One sequence's half of a block."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = nn.Linear(width, 6 * width)  # shift, scale, gate, and again
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = Norm(config.head_width), Norm(config.head_width)
        self.out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, C)`` to queries, keys and values ``(B, heads, N, d)``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        return self.q_norm(q), self.k_norm(k), v

    def mlp(self, x: Tensor) -> Tensor:
        return self.mlp_out(F.gelu(self.mlp_in(x), approximate="tanh"))


class JointBlock(nn.Module):
    """Picture and text with their own weights and one attention."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        self.picture, self.text = Stream(config), Stream(config)

    def forward(
        self, x: Tensor, text: Tensor, vector: Tensor, turn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``x (B, N, C)``, ``text (B, M, C)``, ``vector (B, 1, C)`` after its activation."""
        told = [s.modulation(vector).chunk(6, dim=-1) for s in (self.text, self.picture)]
        split = [
            stream.split(_norm(tokens, scale, shift))
            for stream, tokens, (shift, scale, *_) in zip(
                (self.text, self.picture), (text, x), told, strict=True
            )
        ]
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*split, strict=True))
        y = attend(q, k, v, turn)
        both: list[Tensor] = []
        parts = y[:, : text.shape[1]], y[:, text.shape[1] :]
        for stream, tokens, part, (_, _, gate, shift, scale, mlp_gate) in zip(
            (self.text, self.picture), (text, x), parts, told, strict=True
        ):
            tokens = tokens + gate * stream.out(part)
            both.append(tokens + mlp_gate * stream.mlp(_norm(tokens, scale, shift)))
        return both[1], both[0]


class SingleBlock(nn.Module):
    """The joined sequence; attention and feed-forward layer side by side."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = nn.Linear(width, 3 * width)  # shift, scale, gate
        self.inward = nn.Linear(width, 7 * width)  # query, key, value, and 4 of the feed-forward
        self.q_norm, self.k_norm = Norm(config.head_width), Norm(config.head_width)
        self.out = nn.Linear(5 * width, width)

    def forward(self, x: Tensor, vector: Tensor, turn: Tensor) -> Tensor:
        """``x (B, M + N, C)``, the text first."""
        width = x.shape[-1]
        shift, scale, gate = self.modulation(vector).chunk(3, dim=-1)
        qkv, hidden = self.inward(_norm(x, scale, shift)).split([3 * width, 4 * width], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        y = attend(self.q_norm(q), self.k_norm(k), v, turn)
        return x + gate * self.out(torch.cat((y, F.gelu(hidden, approximate="tanh")), dim=2))


def _added(tokens: Tensor, residual: Tensor | None, start: int = 0) -> Tensor:
    """``tokens (B, M, C)`` with ``residual (B, n, C)`` added to those from ``start`` on."""
    if residual is None:
        return tokens
    if residual.shape[1] == tokens.shape[1]:
        return tokens + residual
    before, same, after = tokens.tensor_split((start, start + residual.shape[1]), dim=1)
    return torch.cat([before, same + residual, after], dim=1)


class Flux(nn.Module):
    """The network.  Its residual ports are the picture's tokens after each block."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = nn.Linear(config.in_channels, width)
        self.context = nn.Linear(config.context_width, width)
        self.time = _two_layers(256, width)
        self.vector = _two_layers(config.vector_width, width)
        self.guidance = _two_layers(256, width) if config.guided else None
        self.joint = nn.ModuleList(JointBlock(config) for _ in range(config.depth))
        self.single = nn.ModuleList(SingleBlock(config) for _ in range(config.single))
        self.modulation = nn.Linear(width, 2 * width)  # shift and scale of the head
        self.head = nn.Linear(width, config.out_channels)

    def forward(
        self,
        x: Tensor,
        ids: Tensor,
        time: Tensor,
        context: Tensor,
        vector: Tensor,
        guidance: Tensor | None = None,
        residuals: Sequence[Tensor | None] | None = None,
        skip: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Map ``x (B, N, in_channels)`` to ``(B, N, out_channels)``.

        Args:
            ids: ``(B, N, len(axes))``, positions of the tokens; the text's are 0.
            time: ``(B,)``, from 0 to 1000.
            context: ``(B, M, context_width)``; vector: ``(B, vector_width)``.
            guidance: ``(B,)``, as a scale (3.5 is usual), where the network is told one.
            residuals: one ``(B, n, C)`` a block, or None, added after it to the picture's first n
                tokens (those of further pictures stand behind).
            skip: numbers of blocks to leave out, the single ones counted on.

        Raises:
            ValueError: an argument does not fit the configuration, or a number has no block.
        """
        told = self.time(embed_time(time, 256).to(x.dtype)) + self.vector(vector)
        if (guidance is None) != (self.guidance is None):
            raise ValueError(
                f"this network is told {'no' if self.guidance is None else 'a'} guidance scale"
            )
        if self.guidance is not None and guidance is not None:
            told = told + self.guidance(embed_time(guidance * 1000, 256).to(x.dtype))
        told = F.silu(told)[:, None]  # (B, 1, C)
        count = len(self.joint) + len(self.single)
        if residuals is not None and len(residuals) != count:
            raise ValueError(f"{len(residuals)} residuals for {count} blocks: give one each")
        if not skip <= frozenset(range(count)):
            raise ValueError(f"skip {sorted(skip)} is out of range: there are {count}, from 0")
        tokens, text = self.stem(x), self.context(context)
        joined = torch.cat([ids.new_zeros(len(ids), text.shape[1], ids.shape[2]), ids], dim=1)
        turn = rotations(joined, self.config.axes)
        for n, block in enumerate(self.joint):
            if n not in skip:
                tokens, text = block(tokens, text, told, turn)
            if residuals is not None:
                tokens = _added(tokens, residuals[n])
        start = text.shape[1]
        tokens = torch.cat([text, tokens], dim=1)
        for n, block in enumerate(self.single, len(self.joint)):
            if n not in skip:
                tokens = block(tokens, told, turn)
            if residuals is not None:
                tokens = _added(tokens, residuals[n], start)
        shift, scale = self.modulation(told).chunk(2, dim=-1)
        return self.head(_norm(tokens[:, start:], scale, shift))
