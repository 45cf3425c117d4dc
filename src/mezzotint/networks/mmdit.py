"""The multimodal diffusion transformer of Stable Diffusion 3 and 3.5.

Esser et al. 2024, §4 and figure 2: picture and text each have their own weights, and meet in one
attention over both sequences.  Stable Diffusion 3.5 normalizes queries and keys, and its medium
size has a second attention, among the picture's tokens alone, in its first blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MMDiTConfig:
    """What an :class:`MMDiT` is made of; the defaults are Stable Diffusion 3 medium's.

    patch: latent pixels a side of a token
    positions: edge of the square of learned positions, of which the middle is used
    head_width: of one attention head
    context_width, vector_width: of the text's tokens, and of the pooled text
    normalized: queries and keys are normalized
    dual: the first so many blocks have a second attention
    """

    in_channels: int = 16
    out_channels: int = 16
    patch: int = 2
    positions: int = 192
    depth: int = 24
    heads: int = 24
    head_width: int = 64
    context_width: int = 4096
    vector_width: int = 2048
    normalized: bool = False
    dual: int = 0

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


def _two_layers(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm without weights, then scale and shift ``(B, 1, C)``."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Norm(nn.Module):
    """``x / rms(x) * gain`` over one head, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)


class Attention(nn.Module):
    """Query, key and value of one sequence, and what becomes of the result."""

    def __init__(self, config: MMDiTConfig, last: bool = False) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.q_norm = Norm(config.head_width) if config.normalized else nn.Identity()
        self.k_norm = Norm(config.head_width) if config.normalized else nn.Identity()
        self.out = None if last else nn.Linear(config.width, config.width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, C)`` to queries, keys and values ``(B, heads, N, d)``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        return self.q_norm(q), self.k_norm(k), v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v``, joined to ``(B, N, C)``."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Stream(nn.Module):
    """One sequence's half of a block.

    modulation: shift, scale and gate of the attention, then of the feed-forward layer, then of
        the second attention; of the last block's text only the first shift and scale
    """

    def __init__(self, config: MMDiTConfig, dual: bool = False, last: bool = False) -> None:
        super().__init__()
        width = config.width
        self.modulation = nn.Linear(width, (2 if last else 9 if dual else 6) * width)
        self.attention = Attention(config, last)
        self.attention2 = Attention(config) if dual else None
        self.mlp_in = None if last else nn.Linear(width, 4 * width)
        self.mlp_out = None if last else nn.Linear(4 * width, width)

    def mlp(self, x: Tensor) -> Tensor:
        assert self.mlp_in is not None and self.mlp_out is not None
        return self.mlp_out(F.gelu(self.mlp_in(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: MMDiTConfig, dual: bool, last: bool) -> None:
        super().__init__()
        self.picture = Stream(config, dual)
        self.text = Stream(config, last=last)

    def forward(self, x: Tensor, text: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, N, C)``, ``text (B, M, C)``, ``vector (B, 1, C)`` after its activation."""
        shift, scale, gate, *rest = self.picture.modulation(vector).split(x.shape[-1], -1)
        text_shift, text_scale, *text_rest = self.text.modulation(vector).split(x.shape[-1], -1)
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        picture_qkv = self.picture.attention.split(normed * (1 + scale) + shift)
        text_qkv = self.text.attention.split(_norm(text, text_scale, text_shift))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(text_qkv, picture_qkv, strict=True))
        y = attend(q, k, v)
        y_text, y = y[:, : text.shape[1]], y[:, text.shape[1] :]
        assert self.picture.attention.out is not None
        x = x + gate * self.picture.attention.out(y)
        if self.picture.attention2 is not None:
            shift2, scale2, gate2 = rest[3:]
            own = self.picture.attention2
            assert own.out is not None
            x = x + gate2 * own.out(attend(*own.split(normed * (1 + scale2) + shift2)))
        x = x + rest[2] * self.picture.mlp(_norm(x, rest[1], rest[0]))
        if self.text.attention.out is None:
            return x, text  # nobody reads the text any more
        text_gate, mlp_shift, mlp_scale, mlp_gate = text_rest
        text = text + text_gate * self.text.attention.out(y_text)
        return x, text + mlp_gate * self.text.mlp(_norm(text, mlp_scale, mlp_shift))


class MMDiT(nn.Module):
    """The network.  Its residual ports are the picture's tokens after each block."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = nn.Conv2d(config.in_channels, width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.zeros(config.positions**2, width))
        self.time = _two_layers(256, width)
        self.vector = _two_layers(config.vector_width, width)
        self.context = nn.Linear(config.context_width, width)
        self.blocks = nn.ModuleList(
            Block(config, n < config.dual, n == config.depth - 1) for n in range(config.depth)
        )
        self.modulation = nn.Linear(width, 2 * width)  # shift and scale of the head
        self.head = nn.Linear(width, config.patch**2 * config.out_channels)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        vector: Tensor,
        residuals: Sequence[Tensor | None] | None = None,
        skip: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Map ``x (B, in_channels, H, W)`` to ``(B, out_channels, H, W)``.

        Args:
            time: ``(B,)``, from 0 to 1000.
            context: ``(B, M, context_width)``; vector: ``(B, vector_width)``.
            residuals: one ``(B, N, C)`` a block but the last, or None, added to the picture's
                tokens.
            skip: numbers of blocks to leave out (skip-layer guidance).

        Raises:
            ValueError: the picture does not divide into patches, or is larger than the positions,
                or a number has no block.
        """
        count = len(self.blocks)
        if not skip <= frozenset(range(count)):
            raise ValueError(f"skip {sorted(skip)} is out of range: there are {count}, from 0")
        size = self._tokens(x)
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self._positions(*size)  # (B, N, C)
        text = self.context(context)
        told = self.time(embed_time(time, 256).to(x.dtype)) + self.vector(vector)
        told = F.silu(told)[:, None]  # (B, 1, C)
        if residuals is not None and len(residuals) != len(self.blocks) - 1:
            raise ValueError(
                f"{len(residuals)} residuals for {len(self.blocks) - 1} blocks: give one each"
            )
        for n, block in enumerate(self.blocks):
            if n not in skip:
                tokens, text = block(tokens, text, told)
            residual = residuals[n] if residuals is not None and n < len(residuals) else None
            if residual is not None:
                tokens = tokens + residual
        shift, scale = self.modulation(told).chunk(2, dim=-1)
        return self._picture(self.head(_norm(tokens, scale, shift)), *size)

    def _tokens(self, x: Tensor) -> tuple[int, int]:
        """The size in tokens."""
        patch, most = self.config.patch, self.config.positions
        height, width = x.shape[2:]
        if height % patch or width % patch:
            raise ValueError(f"{height}x{width} latent pixels do not divide by the patch, {patch}")
        if max(height, width) > most * patch:
            raise ValueError(
                f"{height}x{width} latent pixels are more than the positions, {most * patch}: "
                "take a smaller size"
            )
        return height // patch, width // patch

    def _positions(self, height: int, width: int) -> Tensor:
        """The middle of the square of positions, ``(height * width, C)``."""
        edge = self.config.positions
        top, left = (edge - height) // 2, (edge - width) // 2
        square = self.positions.unflatten(0, (edge, edge))
        return square[top : top + height, left : left + width].flatten(0, 1)

    def _picture(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """``(B, N, patch^2 * C)`` to ``(B, C, H, W)``."""
        patch = self.config.patch
        x = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (height, width))
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, height * patch, width * patch)
