"""The U-Net of latent diffusion: Stable Diffusion 1 and 2, SDXL and their variants.

Rombach et al. 2022, appendix E; Podell et al. 2023 (SDXL), §2.1.  On each level residual blocks,
and after each, where the level has a depth, a transformer: self-attention among the pixels,
cross-attention to the text, a gated feed-forward layer.

Query, key and value of the self-attention are one matrix here, key and value of the
cross-attention another, and the 1×1 convolutions around a transformer are matrices: the same
numbers in fewer products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.winograd import Convolution

Bank = Sequence[tuple[Tensor, Tensor]]
"""Further keys and values ``(B, M, C)`` for each cross-attention, in the order they run."""


class Told(NamedTuple):
    """What every block is told beside its input; see :meth:`LdmUNet.forward`.

    embedding: of time and vector, ``(B, 4 width)``, after its activation
    """

    embedding: Tensor
    context: Tensor
    banks: Sequence[Bank]
    perturb: frozenset[int]
    skip: frozenset[int]


@dataclass(frozen=True)
class LdmUNetConfig:
    """What an :class:`LdmUNet` is made of; the defaults are Stable Diffusion 1's.

    in_channels: of the latents, and of what is joined to them (mask, masked picture, depth)
    width: channels at the finest level; multipliers: of each level, each half as large
    depths: transformer layers in each block of a level, 0 for none; middle_depth: in the middle
    blocks: residual blocks a level on the way down; one more on the way up
    context_width: of the text's tokens
    vector_width: of pooled text, sizes and crops (SDXL), 0 for none
    heads: attention heads of every layer, or 0 and ``head_width`` says their width
    guided: it is told a guidance scale, which it was distilled from (LCM)
    """

    in_channels: int = 4
    out_channels: int = 4
    width: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int = 1
    blocks: int = 2
    context_width: int = 768
    vector_width: int = 0
    heads: int = 8
    head_width: int = 0
    guided: bool = False

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.multipliers):
            raise ValueError(
                f"{len(self.multipliers)} levels and {len(self.depths)} depths: give one a level"
            )
        if bool(self.heads) == bool(self.head_width):
            raise ValueError("give either the number of heads or their width")

    def heads_of(self, width: int) -> int:
        """Attention heads at a level of so many channels."""
        return self.heads or width // self.head_width

    def attended(self) -> tuple[tuple[int, ...], ...]:
        """Widths of the cross-attentions on the way down, in the middle and on the way up."""

        def level(number: int, blocks: int) -> tuple[int, ...]:
            return (self.width * self.multipliers[number],) * (self.depths[number] * blocks)

        levels = range(len(self.depths))
        down = sum((level(n, self.blocks) for n in levels), ())
        middle = (self.width * self.multipliers[-1],) * self.middle_depth
        return down, middle, sum((level(n, self.blocks + 1) for n in reversed(levels)), ())


def embed_time(time: Tensor, width: int) -> Tensor:
    """``(B,) -> (B, width)``: cosines, then sines, at frequencies from 1 down to 1e-4.

    Ho et al. 2020 after Vaswani et al. 2017, §3.5; in float32 or wider.
    """
    time = time.to(torch.promote_types(time.dtype, torch.float32))
    half = width // 2
    index = torch.arange(half, device=time.device, dtype=time.dtype)
    angle = time[:, None] * (index * (-math.log(10_000) / half)).exp()  # (B, half)
    return torch.cat((angle.cos(), angle.sin()), dim=1)


GUIDANCE_WIDTH = 256


def embed_guidance(scale: Tensor) -> Tensor:
    """``(B,) -> (B, 256)``: sines, then cosines, of ``1000 (w − 1)`` at frequencies from 1 down to
    1e-4, both visited (Luo et al. 2023, "LCM", §4.3, after Meng et al. 2023, §4)."""
    half = GUIDANCE_WIDTH // 2
    index = torch.arange(half, device=scale.device, dtype=torch.float32)
    steps = (index * (-math.log(10_000) / (half - 1))).exp()
    angle = 1000 * (scale.float() - 1)[:, None] * steps  # (B, half)
    return torch.cat((angle.sin(), angle.cos()), dim=1)


class Residual(nn.Module):
    """``skip(x) + conv(silu(norm(conv(silu(norm(x))) + time)))``."""

    def __init__(self, width_in: int, width: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, width_in)
        self.conv1 = Convolution(width_in, width)
        self.time = nn.Linear(embedding, width)
        self.norm2 = nn.GroupNorm(32, width)
        self.conv2 = Convolution(width, width)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``x (B, C_in, H, W)``, ``embedding (B, E)``."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = y + self.time(embedding)[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.skip is None else self.skip(x))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, identity: bool) -> Tensor:
        """``x (B, N, C)``.  ``identity``: each pixel attends to itself alone."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, N, h, d)
        if identity:
            return self.out(v.flatten(2))
        return self.out(attend(q, k, v))


class CrossAttention(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, banks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """``x (B, N, C)``, ``context (B, M, C_context)``; each bank is attended to on its own."""
        q = self.q(x).unflatten(-1, (self.heads, -1))  # (B, N, h, d)
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).unbind(2)
        y = attend(q, k, v)
        for keys, values in banks:
            split = (self.heads, -1)
            y = y + attend(q, keys.unflatten(-1, split), values.unflatten(-1, split))
        return self.out(y)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` over ``(B, N, heads, d)``, joined to ``(B, N, C)``."""
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return y.transpose(1, 2).flatten(2)


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention, gated feed-forward, each on the normalized input."""

    number = 0  # among the network's layers, in the order they run

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, context, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 8 * width)  # values, then gates
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        x = x + self.attention(self.norm1(x), self.number in told.perturb)
        banks = [bank[self.number] for bank in told.banks]
        x = x + self.cross_attention(self.norm2(x), told.context, banks)
        return x + self.mlp_out(self._gated(self.norm3(x)))

    def _gated(self, x: Tensor) -> Tensor:
        """``value * gelu(gate)`` (Shazeer 2020, GEGLU): two products are as fast as one, and what
        follows is faster on whole tensors than on halves of one."""
        values, gates = self.mlp_in.weight.to(x.device).chunk(2)
        value_bias, gate_bias = self.mlp_in.bias.chunk(2)
        return F.linear(x, values, value_bias) * F.gelu(F.linear(x, gates, gate_bias))


class Transformer(nn.Module):
    """Transformer layers over the pixels of a feature map, added to it."""

    def __init__(self, config: LdmUNetConfig, width: int, depth: int) -> None:
        super().__init__()
        heads = config.heads_of(width)
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.context_width, heads) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (B, N, C)
        for layer in self.layers:
            tokens = layer(tokens, told)
        return x + self.proj_out(tokens).transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    """A residual block and, where the level has a depth, a transformer."""

    number = 0  # among the network's blocks, in the order they run

    def __init__(self, config: LdmUNetConfig, width_in: int, width: int, depth: int) -> None:
        super().__init__()
        self.res = Residual(width_in, width, 4 * config.width)
        self.transformer = Transformer(config, width, depth) if depth else None

    def forward(self, x: Tensor, told: Told) -> Tensor:
        x = self.res(x, told.embedding)
        if self.transformer is None or self.number in told.skip:
            return x
        return self.transformer(x, told)


class Down(nn.Module):
    """A level on the way down."""

    def __init__(self, config: LdmUNetConfig, width_in: int, level: int) -> None:
        super().__init__()
        width, depth = config.width * config.multipliers[level], config.depths[level]
        self.blocks = nn.ModuleList(
            Block(config, width if n else width_in, width, depth) for n in range(config.blocks)
        )
        last = level == len(config.multipliers) - 1
        self.downsample = None if last else nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.ends_before = depth > 0  # before the downsampling, where it has transformers


class Middle(nn.Module):
    def __init__(self, config: LdmUNetConfig) -> None:
        super().__init__()
        width = config.width * config.multipliers[-1]
        self.first = Block(config, width, width, config.middle_depth)
        self.second = Block(config, width, width, 0)


class Up(nn.Module):
    """A level on the way up; every block takes one of the tensors kept on the way down."""

    def __init__(
        self, config: LdmUNetConfig, width_in: int, kept: Sequence[int], level: int
    ) -> None:
        super().__init__()
        width, depth = config.width * config.multipliers[level], config.depths[level]
        self.blocks = nn.ModuleList(
            Block(config, (width if n else width_in) + extra, width, depth)
            for n, extra in enumerate(kept)
        )
        self.upsample = Convolution(width, width) if level else None


class LdmUNet(nn.Module):
    """The network.  Attention layers and blocks are numbered in the order they run.

    The residual ports are the stem, every block and every downsampling on the way down, and the
    middle: what a control network adds to (Zhang et al. 2023, §3.2); ``ports`` has the channels
    and the factor by which each is smaller than ``x``.  ``ends`` has the same of where features
    are added: the end of each level on the way down (before its downsampling, if the level has
    transformers, else after it), and the middle.
    """

    def __init__(self, config: LdmUNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * m for m in config.multipliers]
        embedding = 4 * config.width
        self.time = nn.Sequential(
            nn.Linear(config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.vector = (
            nn.Sequential(
                nn.Linear(config.vector_width, embedding),
                nn.SiLU(),
                nn.Linear(embedding, embedding),
            )
            if config.vector_width
            else None
        )
        self.guidance = (
            nn.Linear(GUIDANCE_WIDTH, config.width, bias=False) if config.guided else None
        )
        self.stem = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        levels = range(len(widths))
        self.down = nn.ModuleList(
            Down(config, widths[level - 1] if level else config.width, level) for level in levels
        )
        kept = [(config.width, 1)]
        for level, width in enumerate(widths):
            kept += [(width, 2**level)] * config.blocks
            kept += [(width, 2 ** (level + 1))] * (level < len(widths) - 1)
        self.ports = (*kept, (widths[-1], 2 ** (len(widths) - 1)))
        self.ends = (
            tuple(
                (width, 2 ** (level + (not config.depths[level] and level < len(widths) - 1)))
                for level, width in enumerate(widths)
            )
            + self.ports[-1:]
        )
        self.middle = Middle(config)
        ups: list[Up] = []
        for level in reversed(levels):
            taken = [kept.pop()[0] for _ in range(config.blocks + 1)]
            ups.append(Up(config, widths[min(level + 1, len(widths) - 1)], taken, level))
        self.up = nn.ModuleList(ups)
        self.norm = nn.GroupNorm(32, config.width)
        self.head = nn.Conv2d(config.width, config.out_channels, 3, padding=1)
        for kind in (Block, TransformerLayer):
            for number, module in enumerate(m for m in self.modules() if isinstance(m, kind)):
                module.number = number
        transformers = (m for m in self.modules() if isinstance(m, Block) and m.transformer)
        layers = (m for m in self.modules() if isinstance(m, TransformerLayer))
        self.skippable = frozenset(block.number for block in transformers)
        self.perturbable = frozenset(layer.number for layer in layers)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        residuals: Sequence[Tensor | None] | None = None,
        banks: Sequence[Bank] = (),
        perturb: frozenset[int] = frozenset(),
        skip: frozenset[int] = frozenset(),
        guidance: Tensor | None = None,
        features: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Map ``x (B, in_channels, H, W)`` to ``(B, out_channels, H, W)``.

        Args:
            time: ``(B,)``, counted in steps of training, 0 to 999; fractions are fine.
            context: ``(B, M, context_width)``.
            vector: ``(B, vector_width)``, needed where the network has one.
            residuals: one tensor a port, or None, added to what is kept there for the way up.
            banks: further keys and values, for every cross-attention (Ye et al. 2023, §3.2).
            perturb: numbers of transformer layers whose pixels attend to themselves alone.
            skip: numbers of blocks whose transformer is left out.
            guidance: ``(B,)``, a scale (8 is usual), needed where the network is told one.
            features: one tensor an end of ``ends``, or None, added to what goes on from there (Mou
                et al. 2023, §3.3).

        Raises:
            ValueError: an argument does not fit the configuration, or a number has no layer.
        """
        for name, numbers, known in (
            ("perturb", perturb, self.perturbable),
            ("skip", skip, self.skippable),
        ):
            if not numbers <= known:
                raise ValueError(f"{name} {sorted(numbers)} is out of range: give {sorted(known)}")
        told = Told(self._embed(time, vector, guidance), context, banks, perturb, skip)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        given = [None] * len(self.ends) if features is None else list(features)
        if len(given) != len(self.ends):
            raise ValueError(f"{len(given)} features for {len(self.ends)} ends: give one each")
        kept = [x]
        for level, feature in zip(self.down, given, strict=False):
            for block in level.blocks:  # type: ignore[union-attr]
                x = block(x, told)
                kept.append(x)
            if level.downsample is not None and not level.ends_before:
                x = level.downsample(x)  # type: ignore[operator]
                kept.append(x)
            x = kept[-1] = _featured(x, feature)
            if level.downsample is not None and level.ends_before:
                x = level.downsample(x)  # type: ignore[operator]
                kept.append(x)
        x = self.middle.second(self.middle.first(x, told), told)
        x = _featured(x, given[-1])
        if residuals is not None:
            kept, x = _controlled(kept, x, residuals)
        for level in self.up:
            for block in level.blocks:  # type: ignore[union-attr]
                x = block(torch.cat((x, kept.pop()), dim=1), told)
            if level.upsample is not None:
                # An odd size on the way down comes back by the size of what was kept there.
                x = level.upsample(F.interpolate(x, size=kept[-1].shape[2:]))  # type: ignore[operator]
        return self.head(F.silu(self.norm(x)))

    def _embed(self, time: Tensor, vector: Tensor | None, guidance: Tensor | None) -> Tensor:
        """What is added in every residual block, ``(B, 4 width)``, after its activation."""
        if (vector is None) != (self.vector is None):
            raise ValueError(
                f"this U-Net takes {'a' if self.vector is not None else 'no'} vector "
                f"of width {self.config.vector_width}"
            )
        embedding = embed_time(time, self.config.width).to(self.stem.weight.dtype)
        if (guidance is None) != (self.guidance is None):
            raise ValueError(
                f"this U-Net is told {'no' if self.guidance is None else 'a'} guidance scale"
            )
        if self.guidance is not None and guidance is not None:
            embedding = embedding + self.guidance(embed_guidance(guidance).to(embedding.dtype))
        embedding = self.time(embedding)
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        return F.silu(embedding)


def _featured(x: Tensor, feature: Tensor | None) -> Tensor:
    if feature is None:
        return x
    if feature.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"a feature has shape {tuple(feature.shape)}, that end takes {tuple(x.shape)}"
        )
    return x + feature


def _controlled(
    kept: list[Tensor], x: Tensor, residuals: Sequence[Tensor | None]
) -> tuple[list[Tensor], Tensor]:
    ports = [*kept, x]
    wanted = [tuple(port.shape) for port in ports]
    given = [None if residual is None else tuple(residual.shape) for residual in residuals]
    if len(given) != len(wanted) or any(
        g not in (None, w) for g, w in zip(given, wanted, strict=True)
    ):
        raise ValueError(f"the residuals have shapes {given}, the ports take {wanted}")
    summed = [
        port if residual is None else port + residual
        for port, residual in zip(ports, residuals, strict=True)
    ]
    return summed[:-1], summed[-1]
