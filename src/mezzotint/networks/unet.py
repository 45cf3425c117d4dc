"""A convolutional U-Net in the line of ADM and EDM2, over one, two or three spatial dimensions.

From ADM (Dhariwal & Nichol 2021, §3 and table 4): residual blocks with group normalization,
scale and shift from the embedding of time and condition, attention at the coarse levels, zero
initialization at the end of every branch.  From EDM2 (Karras et al. 2024, §2): queries and keys
normalized before the dot product.

Two departures make it light on a CPU.  The picture may be folded into ``patch``-wide pixels
(space to depth) before the first convolution and unfolded after the last.  And every residual
block keeps its width: a 1×1 convolution merges a skip connection *before* the decoder's block,
so that no 3×3 convolution ever sees the doubled width and a block left out is the identity.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}

Layer = TypeVar("Layer", bound=nn.Module)

WRITTEN_OUT = 1024**2
"""Up to so many pairs of query and key a head, attention on a CPU is written out."""


@dataclass(frozen=True)
class UNetConfig:
    """What a :class:`UNet` is made of; plain numbers and tuples only.

    in_channels, out_channels: of the data
    width: channels at the finest level
    multipliers: channels of each level, in units of ``width``; each level halves the size
    blocks: residual blocks a level, on the way down and again on the way up: one number for all
        levels, or one for each
    attention: for each level, whether its blocks attend (to themselves, and to the context);
        the middle does as the last level does
    head_width: channels of one attention head
    group_width: channels that are normalized together; below 16, PyTorch's CPU kernel for
        channels-last pictures is ten times slower
    dims: spatial dimensions, 1 to 3
    patch: data pixels a side of one pixel of the finest level
    vector_width: width of the conditioning vector (class, pooled text, size, …), 0 for none
    canvas: channels of a map that is drawn from the vector and laid beside the input, 0 for none:
        the modulation says the same to every pixel, and an embedding knows what stands where
    canvas_edge: points a side of that map; it is enlarged to the picture's size
    context_width: width of the context tokens of cross-attention, 0 for none
    dropout: probability inside the residual blocks
    time_frequencies: lowest and highest angular frequency of the time embedding, in radians per
        unit of ``time``: the default suits times of order one (t in [0, 1], log-SNR / 4), and
        (1e-4, 1) suits steps counted to 1000
    skip_scale: factor on the sum of a residual block and its input; 1 or sqrt(0.5)
    """

    in_channels: int
    out_channels: int
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int | tuple[int, ...] = 2
    attention: tuple[bool, ...] = (False, False, True, True)
    head_width: int = 64
    group_width: int = 16
    dims: int = 2
    patch: int = 1
    vector_width: int = 0
    canvas: int = 0
    canvas_edge: int = 8
    context_width: int = 0
    dropout: float = 0.0
    time_frequencies: tuple[float, float] = (0.5, 100.0)
    skip_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.dims not in CONVOLUTIONS:
            raise ValueError(f"dims is {self.dims}: a U-Net has 1, 2 or 3 spatial dimensions")
        counts = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "width": self.width,
            "blocks": min(self.depths, default=1),
            "head_width": self.head_width,
            "group_width": self.group_width,
            "patch": self.patch,
            "canvas_edge": self.canvas_edge,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}: it must be at least 1")
        if self.canvas < 0:
            raise ValueError(f"canvas is {self.canvas}: it must be at least 0")
        levels = {len(self.multipliers), len(self.attention), len(self.depths)}
        if len(levels) > 1 or not self.multipliers:
            raise ValueError(
                f"multipliers name {len(self.multipliers)} levels, attention "
                f"{len(self.attention)} and blocks {len(self.depths)}: one entry of each a level"
            )
        for multiplier, attends in zip(self.multipliers, self.attention, strict=True):
            channels = self.width * multiplier
            for name, unit in (("group_width", self.group_width), ("head_width", self.head_width)):
                if channels < 1 or (channels % unit and (attends or name == "group_width")):
                    raise ValueError(
                        f"a level of {channels} channels does not divide by {name} {unit}: "
                        f"change width or {name}"
                    )
        if not 0 < self.time_frequencies[0] < self.time_frequencies[1]:
            raise ValueError(f"time_frequencies {self.time_frequencies} must rise from above 0")

    @property
    def depths(self) -> tuple[int, ...]:
        """Residual blocks of each level, on either way."""
        if isinstance(self.blocks, int):
            return (self.blocks,) * len(self.multipliers)
        return self.blocks

    @property
    def stride(self) -> int:
        """Data pixels a side of one pixel of the coarsest level."""
        return self.patch * 2 ** (len(self.multipliers) - 1)


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """``(B, C, *spatial) -> (B, C * patch^D, *spatial / patch)``, any number D of dimensions."""
    if patch == 1:
        return x
    sizes = [n for size in x.shape[2:] for n in (size // patch, patch)]
    x = x.reshape(*x.shape[:2], *sizes)  # (B, C, H, p, W, p)
    coarse, fine = range(2, x.ndim, 2), range(3, x.ndim, 2)
    return x.permute(0, 1, *fine, *coarse).flatten(1, 1 + len(fine))


def depth_to_space(x: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`space_to_depth`."""
    if patch == 1:
        return x
    dims = x.ndim - 2
    x = x.unflatten(1, (-1, *(patch,) * dims))  # (B, C, p, p, H, W)
    order = [n for i in range(dims) for n in (2 + dims + i, 2 + i)]
    x = x.permute(0, 1, *order)  # (B, C, H, p, W, p)
    return x.reshape(*x.shape[:2], *(x.shape[i] * patch for i in range(2, x.ndim, 2)))


def pad_to(x: Tensor, stride: int) -> Tensor:
    """Repeat the last pixel of each dimension until its size is a multiple of ``stride``."""
    pad = [n for size in reversed(x.shape[2:]) for n in (0, -size % stride)]
    return F.pad(x, pad, mode="replicate") if any(pad) else x


def embed_time(time: Tensor, width: int, frequencies: tuple[float, float]) -> Tensor:
    """``(B,) -> (B, width)``: cosines and sines at geometrically spaced frequencies.

    The embedding of Ho et al. 2020 (after Vaswani et al. 2017, §3.5) with both ends of the
    frequency range given.  Computed in float32 or wider.
    """
    time = time.to(torch.promote_types(time.dtype, torch.float32))
    low, high = (math.log(f) for f in frequencies)
    steps = torch.linspace(low, high, width // 2, device=time.device, dtype=time.dtype)
    angle = time[:, None] * steps.exp()  # (B, width / 2)
    return torch.cat((angle.cos(), angle.sin()), dim=1)


def normalize_heads(x: Tensor, gain: Tensor) -> Tensor:
    """Root-mean-square normalization over the last dimension, in float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    return (wide * scale * gain).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` over ``(B, heads, N, d)``, rejoined to ``(B, N, C)``.

    Short sequences on a CPU are written out: the plain products are up to 1.6 times faster there
    than the fused kernel, and their backward three to five times.
    """
    if q.device.type == "cpu" and q.shape[-2] * k.shape[-2] <= WRITTEN_OUT:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, N, M)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        y = scores.softmax(-1) @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return y.transpose(1, 2).flatten(2)


def zero(layer: Layer) -> Layer:
    """Set a layer's weight and bias to 0, so that its branch adds nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class SelfAttention(nn.Module):
    """Every pixel looks at every pixel: ``x + out(softmax(q k^T / sqrt(d)) v)``."""

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.norm = nn.GroupNorm(width // config.group_width, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_gain = nn.Parameter(torch.ones(config.head_width))
        self.k_gain = nn.Parameter(torch.ones(config.head_width))
        self.out = zero(nn.Linear(width, width))

    def forward(self, x: Tensor, identity: bool = False) -> Tensor:
        """``x (B, C, *spatial)``.  ``identity``: each pixel attends to itself alone."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, C)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, -1, self.head_width)).unbind(2)
        if identity:
            y = v.flatten(2)  # (B, N, C)
        else:
            q = normalize_heads(q, self.q_gain).transpose(1, 2)  # (B, heads, N, d)
            k = normalize_heads(k, self.k_gain).transpose(1, 2)
            y = attend(q, k, v.transpose(1, 2))
        return x + self.out(y).transpose(1, 2).reshape(x.shape)


class CrossAttention(nn.Module):
    """Every pixel looks at the context's tokens, or at nothing.

    A zero key with a zero value always stands beside the tokens (``softmax`` with a one added to
    its denominator), and no bias follows: a context without a single real token adds exactly 0.
    """

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.norm = nn.GroupNorm(width // config.group_width, width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(config.context_width, 2 * width)
        self.q_gain = nn.Parameter(torch.ones(config.head_width))
        self.k_gain = nn.Parameter(torch.ones(config.head_width))
        self.out = zero(nn.Linear(width, width, bias=False))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """``x (B, C, *spatial)``, ``context (B, M, C_context)``, ``mask (B, M)`` True if real."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, C)
        q = self.q(tokens).unflatten(-1, (-1, self.head_width))
        k, v = self.kv(context).unflatten(-1, (2, -1, self.head_width)).unbind(2)
        q = normalize_heads(q, self.q_gain).transpose(1, 2)  # (B, heads, N, d)
        k = F.pad(normalize_heads(k, self.k_gain), (0, 0, 0, 0, 0, 1)).transpose(1, 2)
        v = F.pad(v, (0, 0, 0, 0, 0, 1)).transpose(1, 2)  # (B, heads, M + 1, d)
        if mask is not None:
            mask = F.pad(mask, (0, 1), value=True)[:, None, None]  # (B, 1, 1, M + 1)
        return x + self.out(attend(q, k, v, mask)).transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    """A residual block of two convolutions, then attention to the picture and to the context."""

    def __init__(self, config: UNetConfig, width: int, embedding: int, attends: bool) -> None:
        super().__init__()
        conv = CONVOLUTIONS[config.dims]
        groups = width // config.group_width
        self.skip_scale = config.skip_scale
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = conv(width, width, 3, padding=1)
        self.modulation = zero(nn.Linear(embedding, 2 * width))
        self.norm2 = nn.GroupNorm(groups, width, affine=False)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero(conv(width, width, 3, padding=1))
        self.attention = SelfAttention(config, width) if attends else None
        crosses = attends and config.context_width > 0
        self.cross_attention = CrossAttention(config, width) if crosses else None

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        identity: bool,
    ) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)  # (B, C) each
        shape = (*scale.shape, *(1,) * (x.ndim - 2))
        y = self.conv1(F.silu(self.norm1(x)))
        y = torch.addcmul(shift.view(shape), self.norm2(y), 1 + scale.view(shape))
        y = self.conv2(self.dropout(F.silu(y)))
        x = x + y if self.skip_scale == 1 else (x + y) * self.skip_scale
        if self.attention is not None:
            x = self.attention(x, identity)
        if self.cross_attention is not None and context is not None:
            x = self.cross_attention(x, context, mask)
        return x


def add(ports: list[Tensor], residuals: tuple[Tensor | None, ...]) -> list[Tensor]:
    """Each port's tensor with its residual added."""
    given = [None if x is None else tuple(x.shape) for x in residuals]
    wanted = [tuple(port.shape) for port in ports]
    if len(given) != len(wanted) or any(
        found not in (None, shape) for found, shape in zip(given, wanted, strict=True)
    ):
        raise ValueError(f"the residuals have shapes {given}, the ports take {wanted}")
    return [
        port if residual is None else port + residual
        for port, residual in zip(ports, residuals, strict=True)
    ]


class UNet(nn.Module):
    """The network; see the module's docstring for its line of descent.

    Blocks are numbered in the order they run: those of ``down`` from the finest level, the two of
    ``middle``, those of ``up`` from the coarsest; attention layers likewise, among the blocks
    that attend (``attending`` has the block of each).  The residual ports are the outputs of the
    blocks of ``down``, in that order, and of the middle; ``ports`` has the channels of each.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        conv = CONVOLUTIONS[config.dims]
        widths = [config.width * m for m in config.multipliers]
        area = config.patch**config.dims
        embedding = 4 * config.width
        down = [
            (width, attends)
            for width, attends, depth in zip(widths, config.attention, config.depths, strict=True)
            for _ in range(depth)
        ]
        middle = [(widths[-1], config.attention[-1]), (widths[-1], False)]
        up = down[::-1]

        self.time = nn.Sequential(
            nn.Linear(2 * config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.vector = nn.Linear(config.vector_width, embedding) if config.vector_width else None
        if config.canvas and not config.vector_width:
            raise ValueError(f"canvas is {config.canvas}, and there is no vector to draw it from")
        points = config.canvas * config.canvas_edge**config.dims
        self.canvas = nn.Linear(config.vector_width, points) if points else None
        self.stem = conv(config.in_channels * area + config.canvas, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(config, w, embedding, a) for w, a in down)
        self.downsample = nn.ModuleList(
            conv(fine, coarse, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        self.middle = nn.ModuleList(Block(config, w, embedding, a) for w, a in middle)
        self.merge = nn.ModuleList(conv(2 * w, w, 1) for w, _ in up)
        self.up = nn.ModuleList(Block(config, w, embedding, a) for w, a in up)
        self.upsample = nn.ModuleList(
            conv(coarse, fine, 1) for coarse, fine in itertools.pairwise(widths[::-1])
        )
        self.norm = nn.GroupNorm(widths[0] // config.group_width, widths[0])
        self.head = zero(conv(widths[0], config.out_channels * area, 3, padding=1))
        # the blocks of either way before which the size changes
        self.descents = tuple(itertools.accumulate(config.depths[:-1]))
        self.ascents = tuple(itertools.accumulate(config.depths[:0:-1]))
        blocks = [*down, *middle, *up]
        self.block_count = len(blocks)
        self.attending = tuple(n for n, (_, attends) in enumerate(blocks) if attends)
        self.ports = (*(w for w, _ in down), widths[-1])

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        vector: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        residuals: tuple[Tensor | None, ...] | None = None,
        perturb: frozenset[int] = frozenset(),
        skip: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Map ``x (B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``.

        Sizes need not be multiples of the stride: the picture is padded inside with its last row
        and column, and the output cropped.

        Args:
            time: ``(B,)``, in the unit that ``time_frequencies`` suits.
            vector: ``(B, vector_width)``, needed where the network has a ``vector_width``.
            context: ``(B, M, context_width)``; None is the same as no token.
            context_mask: ``(B, M)`` bool, True at real tokens; None takes all as real.
            residuals: one tensor a port, of the port's shape (at the padded size), added to the
                skip connections and to the middle's output (Zhang et al. 2023, §3.2).
            perturb: numbers of attention layers in which every pixel attends to itself alone
                (perturbed-attention guidance, Ahn et al. 2024, §4.2).
            skip: numbers of blocks to leave out (skip-layer guidance).

        Raises:
            ValueError: an argument does not fit the configuration, or a number has no layer.
        """
        self._check(x, time, vector, context, context_mask, perturb, skip)
        size = x.shape[2:]
        embedding = self._embed(time, vector)
        identity = {self.attending[n] for n in perturb}
        numbers = itertools.count()

        def run(block: nn.Module, x: Tensor) -> Tensor:
            n = next(numbers)
            return x if n in skip else block(x, embedding, context, context_mask, n in identity)

        x = space_to_depth(pad_to(x, self.config.stride), self.config.patch)
        if self.canvas is not None:
            x = torch.cat((x, self._draw(vector, x.shape[2:])), dim=1)
        if self.config.dims == 2:
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        ports: list[Tensor] = []
        for n, block in enumerate(self.down):
            if n in self.descents:
                x = self.downsample[self.descents.index(n)](x)
            x = run(block, x)
            ports.append(x)
        for block in self.middle:
            x = run(block, x)
        ports.append(x)
        if residuals is not None:
            ports = add(ports, residuals)
        x = ports.pop()
        for n, (merge, block) in enumerate(zip(self.merge, self.up, strict=True)):
            if n in self.ascents:
                x = F.interpolate(self.upsample[self.ascents.index(n)](x), scale_factor=2.0)
            x = run(block, merge(torch.cat((x, ports.pop()), dim=1)))
        x = depth_to_space(self.head(F.silu(self.norm(x))), self.config.patch)
        return x[(..., *(slice(n) for n in size))]

    def _embed(self, time: Tensor, vector: Tensor | None) -> Tensor:
        """The embedding that modulates every block, ``(B, 4 * width)``."""
        embedding = embed_time(time, 2 * self.config.width, self.config.time_frequencies)
        embedding = self.time(embedding.to(self.stem.weight.dtype))
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        return F.silu(embedding)

    def _draw(self, vector: Tensor | None, size: torch.Size) -> Tensor:
        """The vector's map, ``(B, canvas, *size)``."""
        assert self.canvas is not None
        edges = (self.config.canvas_edge,) * self.config.dims
        return F.interpolate(self.canvas(vector).unflatten(1, (self.config.canvas, *edges)), size)

    def _check(
        self,
        x: Tensor,
        time: Tensor,
        vector: Tensor | None,
        context: Tensor | None,
        context_mask: Tensor | None,
        perturb: frozenset[int],
        skip: frozenset[int],
    ) -> None:
        config, batch = self.config, x.shape[:1]
        if x.ndim != config.dims + 2 or x.shape[1] != config.in_channels or 0 in x.shape:
            raise ValueError(
                f"x of shape {tuple(x.shape)} does not fit: this U-Net takes a batch of "
                f"{config.in_channels} channels over {config.dims} dimensions"
            )
        if time.shape != batch:
            raise ValueError(f"time has shape {tuple(time.shape)}: give one a sample, {batch[0]}")
        given = None if vector is None else tuple(vector.shape)
        wanted = (*batch, config.vector_width) if config.vector_width else None
        if given != wanted:
            raise ValueError(f"the vector has shape {given}, this U-Net takes {wanted}")
        if context is not None and not config.context_width:
            raise ValueError("a context was given to a U-Net without cross-attention")
        if context is not None and (
            context.ndim != 3
            or context.shape[:1] != batch
            or context.shape[2] != config.context_width
        ):
            raise ValueError(
                f"the context has shape {tuple(context.shape)}, this U-Net takes "
                f"({batch[0]}, tokens, {config.context_width})"
            )
        if context_mask is not None and (
            context is None
            or context_mask.shape != context.shape[:2]
            or context_mask.dtype != torch.bool
        ):
            raise ValueError("context_mask must be bool, with one entry a token of the context")
        for name, numbers, count in (
            ("perturb", perturb, len(self.attending)),
            ("skip", skip, self.block_count),
        ):
            if not numbers <= frozenset(range(count)):
                raise ValueError(
                    f"{name} {sorted(numbers)} is out of range: there are {count}, from 0"
                )
