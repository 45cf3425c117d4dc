"""A diffusion transformer for pictures, sounds, clips and volumes, on pixels or on latents.

Patches and text tokens form one sequence (joint attention); where a token stands is told by
rotary embeddings of position ids, so the network knows no fixed size, aspect or dimension.  Time
and pooled conditioning modulate every block (adaLN-single: one projection, a learned offset a
block).  On pixels with large patches it follows "Back to Basics: Let Denoising Generative Models
Denoise" (Li & He 2025): a bottleneck patch embedding and a prediction of x0.

Sources: Peebles & Xie 2023 (DiT, adaLN-zero), Chen et al. 2023 (PixArt-alpha, adaLN-single),
Zhang & Sennrich 2019 (RMSNorm), Su et al. 2021 (rotary embedding), Shazeer 2020 (SwiGLU),
Dehghani et al. 2023 (normalised queries and keys).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WRITTEN_OUT = 1024**2
"""Up to so many pairs of query and key a head, attention on a CPU is written out: the backward
pass of the fused kernel there takes 1.6 to 5 times as long."""


@dataclass(frozen=True)
class DiTConfig:
    """in_channels, out_channels: of ``x`` and of the output.
    patch: edge of a patch in elements; dims: spatial dimensions (1–3).
    width, depth, heads: of the transformer; ``width / heads`` must be a multiple of
        ``2 * (dims + 1)`` so that the rotary axes share it out.
    bottleneck: width of the patch embedding's bottleneck; 0 leaves it out.
    head: "linear", or "conv": a small convolutional decoder over the patches' features, so that
        neighbouring patches agree at their seams (2-D); head_width: its channels.
    vector_width: size of the pooled conditioning (0: none); token_width: of joined text tokens.
    """

    in_channels: int
    out_channels: int
    patch: int
    width: int
    depth: int
    heads: int
    dims: int = 2
    mlp_ratio: float = 8 / 3
    bottleneck: int = 0
    head: Literal["linear", "conv"] = "linear"
    head_width: int = 32
    vector_width: int = 0
    token_width: int = 0


def wide(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 as it was."""
    return x if x.dtype == torch.float64 else x.float()


class RMSNorm(nn.Module):
    """``x / rms(x) * gain`` over the last dimension, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return (F.rms_norm(wide(x), x.shape[-1:], None, 1e-6) * self.gain).to(x.dtype)


def normalise(x: Tensor) -> Tensor:
    """RMSNorm without a gain: adaLN supplies it."""
    return F.rms_norm(x, x.shape[-1:], None, 1e-6)


def rotary(ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``(B, 1, N, width / 2)`` of ``ids (B, N, axes)``; axes share the width."""
    axes = ids.shape[-1]
    count = width // 2 // axes
    frequencies = 100.0 ** (-torch.arange(count, device=ids.device) / count)  # (count,)
    angles = (ids.float()[..., None] * frequencies).flatten(2)  # (B, N, width / 2)
    return angles.cos()[:, None], angles.sin()[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs ``(x[i], x[i + width / 2])`` by the tokens' angles; ``x (B, H, N, width)``."""
    a, b = wide(x).chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def grid_ids(shape: Sequence[int], device: torch.device) -> Tensor:
    """Position ids ``(1, prod(shape), len(shape) + 1)``: axis 0 is the text's, 0 for patches."""
    axes = [torch.arange(n, device=device) for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    return F.pad(grid, (1, 0))[None]


def text_ids(count: int, dims: int, device: torch.device) -> Tensor:
    """Position ids ``(1, count, dims + 1)`` of text tokens: 1, 2, … on axis 0, 0 on the others."""
    return F.pad(torch.arange(1, count + 1, device=device)[:, None], (0, dims))[None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` for ``(B, heads, N, d)``; the mask is True where to look."""
    if q.device.type != "cpu" or q.shape[-2] * k.shape[-2] > WRITTEN_OUT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, N, N)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1).to(v.dtype) @ v


class Embed(nn.Module):
    """Sinusoidal embedding of a time in [0, 1] (any unit works), then a two-layer perceptron."""

    def __init__(self, width: int, features: int = 256) -> None:
        super().__init__()
        self.features = features
        self.inner = nn.Linear(features, width)
        self.outer = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        half = self.features // 2
        rates = torch.exp(torch.linspace(0, math.log(10000.0), half, device=time.device))
        angles = wide(time)[:, None] * (rates * 2 * math.pi / 10)  # (B, half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.inner.weight.dtype)
        return self.outer(F.silu(self.inner(waves)))


class Block(nn.Module):
    """Joint self-attention and a SwiGLU perceptron, each scaled, shifted and gated by adaLN."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        hidden = int(width * config.mlp_ratio / 32) * 32
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = RMSNorm(width // config.heads)
        self.key_norm = RMSNorm(width // config.heads)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, 2 * hidden, bias=False)
        self.mlp_out = nn.Linear(hidden, width, bias=False)
        self.modulation = nn.Parameter(torch.zeros(6, width))

    def attention(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, perturb: bool
    ) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(x).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if perturb:  # attention as the identity: every token sees itself only (PAG)
            mixed = v
        else:
            q = rotate(self.query_norm(q), cos, sin)
            k = rotate(self.key_norm(k), cos, sin)
            mixed = attend(q, k, v, mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        perturb: bool,
    ) -> Tensor:
        rows = (modulation + self.modulation).to(x.dtype)  # (B, 6, C)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows[:, :, None].unbind(1)  # (B, 1, C)
        h = normalise(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(h, cos, sin, mask, perturb)
        h = normalise(x) * (1 + scale2) + shift2
        gate, value = self.mlp_in(h).chunk(2, dim=-1)
        return x + gate2 * self.mlp_out(F.silu(gate) * value)


class ConvHead(nn.Module):
    """Patch features → pixels by convolutions at half resolution, across the patches' borders."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.cells = config.patch // 2  # half-resolution cells along a patch
        self.unfold = nn.Linear(config.width, self.cells**2 * config.head_width)
        self.inner = nn.Conv2d(config.head_width, config.head_width, 3, padding=1)
        self.outer = nn.Conv2d(config.head_width, 4 * config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        features = F.pixel_shuffle(
            self.unfold(x).transpose(1, 2).unflatten(2, list(grid)), self.cells
        )  # (B, head_width, H / 2, W / 2)
        hidden = features + F.silu(self.inner(F.silu(features)))
        return F.pixel_shuffle(self.outer(hidden), 2)


class LinearHead(nn.Module):
    """Patch features → the elements of the patch."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.patch, self.channels = config.patch, config.out_channels
        self.project = nn.Linear(config.width, config.patch**config.dims * config.out_channels)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return unpatchify(self.project(x), grid, self.patch, self.channels)


def patchify(x: Tensor, patch: int) -> Tensor:
    """``(B, C, *spatial)`` → ``(B, N, C * patch^dims)``, row-major over patches."""
    batch, channels, *spatial = x.shape
    dims = len(spatial)
    split = [n for size in spatial for n in (size // patch, patch)]
    x = x.view(batch, channels, *split)
    outer, inner = [2 + 2 * d for d in range(dims)], [3 + 2 * d for d in range(dims)]
    return x.permute(0, *outer, 1, *inner).reshape(batch, -1, channels * patch**dims)


def unpatchify(x: Tensor, grid: Sequence[int], patch: int, channels: int) -> Tensor:
    """The inverse of :func:`patchify`, for a grid of ``prod(grid)`` patches."""
    dims = len(grid)
    x = x.view(x.shape[0], *grid, channels, *[patch] * dims)
    order = [i for d in range(dims) for i in (1 + d, dims + 2 + d)]
    sizes = [n * patch for n in grid]
    return x.permute(0, dims + 1, *order).reshape(x.shape[0], channels, *sizes)


class DiT(nn.Module):
    """The transformer; see the module's text and :class:`DiTConfig`.

    Raises:
        ValueError: the configuration cannot be built (head width, a conv head off two dimensions).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.width % config.heads or config.width // config.heads % (2 * (config.dims + 1)):
            raise ValueError(
                f"width {config.width} over {config.heads} heads does not divide into "
                f"{config.dims + 1} rotary axes: make width / heads a multiple of "
                f"{2 * (config.dims + 1)}"
            )
        if config.head == "conv" and (config.dims != 2 or config.patch % 2):
            raise ValueError("the conv head needs two dimensions and an even patch")
        self.config = config
        elements = config.in_channels * config.patch**config.dims
        self.embed = (
            nn.Sequential(
                nn.Linear(elements, config.bottleneck, bias=False),
                nn.Linear(config.bottleneck, config.width),
            )
            if config.bottleneck
            else nn.Linear(elements, config.width)
        )
        self.time = Embed(config.width)
        if config.vector_width:
            self.vector = nn.Linear(config.vector_width, config.width)
        if config.token_width:
            self.token_norm = RMSNorm(config.token_width)
            self.token = nn.Linear(config.token_width, config.width)
        self.modulation = nn.Linear(config.width, 6 * config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final = nn.Linear(config.width, 2 * config.width)
        self.head = ConvHead(config) if config.head == "conv" else LinearHead(config)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier for projections; adaLN and the output start at zero (Peebles & Xie 2023, §3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last = self.head.outer if isinstance(self.head, ConvHead) else self.head.project
        for layer in (self.modulation, self.final, last):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def _sequence(
        self, x: Tensor, tokens: Tensor | None, tokens_mask: Tensor | None, ids: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, list[int]]:
        """Patches then text: the sequence, its position ids, its attention mask, the grid."""
        grid = [size // self.config.patch for size in x.shape[2:]]
        sequence = self.embed(patchify(x, self.config.patch))  # (B, N, C)
        places = grid_ids(grid, x.device).expand(x.shape[0], -1, -1)
        if tokens is None:
            return sequence, places, None, grid
        if not self.config.token_width:
            raise ValueError("this network was built without text tokens (token_width = 0)")
        count = tokens.shape[1]
        if ids is None:
            ids = text_ids(count, self.config.dims, x.device).expand(x.shape[0], -1, -1)
        text = self.token(self.token_norm(tokens.to(x.dtype)))
        mask = None
        if tokens_mask is not None:
            mask = F.pad(tokens_mask, (sequence.shape[1], 0), value=True)[:, None, None]
        joined = torch.cat([sequence, text.to(sequence.dtype)], dim=1)
        return joined, torch.cat([places, ids], dim=1), mask, grid

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        tokens_mask: Tensor | None = None,
        tokens_ids: Tensor | None = None,
        perturb: frozenset[int] = frozenset(),
        skip: frozenset[int] = frozenset(),
    ) -> Tensor:
        """The network's output for ``x (B, in_channels, *spatial)`` at ``time (B,)``.

        Args:
            vector: ``(B, vector_width)`` pooled conditioning.
            tokens, tokens_mask, tokens_ids: ``(B, M, token_width)`` text tokens, True where real,
                and position ids ``(B, M, dims + 1)`` if not 1, 2, … on the text axis.
            perturb: blocks whose attention becomes the identity (perturbed-attention guidance).
            skip: blocks left out (skip-layer guidance).
        Returns:
            ``(B, out_channels, *spatial)``.
        Raises:
            ValueError: a number has no block.
        """
        for name, numbers in (("perturb", perturb), ("skip", skip)):
            if not numbers <= frozenset(range(len(self.blocks))):
                raise ValueError(
                    f"{name} {sorted(numbers)} is out of range: there are {len(self.blocks)}, "
                    "from 0"
                )
        size, patch = x.shape[2:], self.config.patch
        padding = [n for edge in reversed(size) for n in (0, -edge % patch)]
        if any(padding):
            x = F.pad(x, padding, mode="replicate")
        sequence, places, mask, grid = self._sequence(x, tokens, tokens_mask, tokens_ids)
        cos, sin = rotary(places, self.config.width // self.config.heads)
        signal = self.time(time)  # (B, C)
        if vector is not None:
            signal = signal + self.vector(vector.to(signal.dtype))
        signal = F.silu(signal)
        modulation = self.modulation(signal).unflatten(1, (6, -1))
        for number, block in enumerate(self.blocks):
            if number not in skip:
                sequence = block(sequence, modulation, cos, sin, mask, number in perturb)
        shift, scale = self.final(signal)[:, None].chunk(2, dim=-1)
        patches = sequence[:, : math.prod(grid)]
        output = self.head(normalise(patches) * (1 + scale) + shift, grid)
        return output[(..., *[slice(edge) for edge in size])]
