"""A KL-regularized convolutional autoencoder over one, two or three spatial dimensions.

The first stage of latent diffusion (Rombach et al. 2022, §3.1 and appendix G): residual blocks
with group normalization, attention at the coarsest level, a diagonal Gaussian as the code.

Two departures make it light on a CPU: the picture is folded into ``patch``-wide pixels (space to
depth) before the first convolution and unfolded after the last, so that nothing runs at full
resolution; and the decoder may be wider and deeper than the encoder, which has the easier task.
"""

from __future__ import annotations

import itertools
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

LOG_VARIANCE_RANGE = (-30.0, 20.0)
"""Where the log variance is clamped, so that its exponential stays finite."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """What an :class:`Autoencoder` is made of; plain numbers and tuples only.

    channels: of the data (4 for RGBA)
    latent_channels: of the code
    width, decoder_width: channels of the finest level of the encoder, of the decoder
    multipliers: channels of each level, in units of the width; each level halves the size
    blocks, decoder_blocks: residual blocks a level
    attention: whether the coarsest level attends
    head_width: channels of one attention head
    group_width: channels that are normalized together; below 16, PyTorch's CPU kernel for
        channels-last pictures is ten times slower
    dims: spatial dimensions, 1 to 3
    patch: data pixels a side of one pixel of the finest level
    """

    channels: int = 3
    latent_channels: int = 16
    width: int = 64
    decoder_width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    decoder_blocks: int = 2
    attention: bool = True
    head_width: int = 64
    group_width: int = 16
    dims: int = 2
    patch: int = 2

    def __post_init__(self) -> None:
        if self.dims not in CONVOLUTIONS:
            raise ValueError(f"dims is {self.dims}: an autoencoder has 1, 2 or 3 dimensions")
        counts = {
            "channels": self.channels,
            "latent_channels": self.latent_channels,
            "blocks": self.blocks,
            "decoder_blocks": self.decoder_blocks,
            "head_width": self.head_width,
            "group_width": self.group_width,
            "patch": self.patch,
            "the number of multipliers": len(self.multipliers),
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}: it must be at least 1")
        for name, width in (("width", self.width), ("decoder_width", self.decoder_width)):
            for channels in (width * multiplier for multiplier in self.multipliers):
                if channels < 1 or channels % self.group_width:
                    raise ValueError(
                        f"{name} gives a level of {channels} channels, which do not divide by "
                        f"group_width {self.group_width}: change either"
                    )
            if self.attention and width * self.multipliers[-1] % self.head_width:
                raise ValueError(
                    f"{name} gives {width * self.multipliers[-1]} channels at the coarsest level, "
                    f"which do not divide by head_width {self.head_width}: change either"
                )

    @property
    def stride(self) -> int:
        """Data pixels a side of one pixel of the code."""
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


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, variance) || N(0, I))`` in nats, one a sample: ``(B, …) -> (B,)``.

    ``sum(mean^2 + variance − 1 − log variance) / 2`` (Kingma & Welling 2014, appendix B).
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` over ``(B, heads, N, d)``, rejoined to ``(B, N, C)``.

    Short sequences on a CPU are written out: the plain products are up to 1.6 times faster there
    than the fused kernel, and their backward three to five times.
    """
    if q.device.type == "cpu" and q.shape[-2] * k.shape[-2] <= WRITTEN_OUT:
        y = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).flatten(2)


def zero(layer: Layer) -> Layer:
    """Set a layer's weight and bias to 0, so that its branch adds nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Block(nn.Module):
    """A residual block of two convolutions; the identity when initialized."""

    def __init__(self, config: AutoencoderConfig, width: int) -> None:
        super().__init__()
        conv, groups = CONVOLUTIONS[config.dims], width // config.group_width
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = conv(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width)
        self.conv2 = zero(conv(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    """Every pixel looks at every pixel: ``x + out(softmax(q k^T / sqrt(d)) v)``."""

    def __init__(self, config: AutoencoderConfig, width: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.norm = nn.GroupNorm(width // config.group_width, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zero(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, C)
        qkv = self.qkv(tokens).unflatten(-1, (3, -1, self.head_width))
        y = attend(*qkv.transpose(1, 3).unbind(2))
        return x + self.out(y).transpose(1, 2).reshape(x.shape)


def stack(config: AutoencoderConfig, width: int, count: int) -> nn.Sequential:
    """The blocks of one level."""
    return nn.Sequential(*(Block(config, width) for _ in range(count)))


def middle(config: AutoencoderConfig, width: int, count: int) -> nn.Sequential:
    """The blocks of the coarsest level, with attention after the first if there is any."""
    blocks: list[nn.Module] = [Block(config, width) for _ in range(count)]
    if config.attention:
        blocks.insert(1, Attention(config, width))
    return nn.Sequential(*blocks)


class Encoder(nn.Module):
    """Folded data to the code's mean and log variance."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        conv = CONVOLUTIONS[config.dims]
        widths = [config.width * m for m in config.multipliers]
        self.stem = conv(config.channels * config.patch**config.dims, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(stack(config, w, config.blocks) for w in widths[:-1])
        self.downsample = nn.ModuleList(
            conv(fine, coarse, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        self.middle = middle(config, widths[-1], config.blocks)
        self.norm = nn.GroupNorm(widths[-1] // config.group_width, widths[-1])
        self.head = conv(widths[-1], 2 * config.latent_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for level, downsample in zip(self.levels, self.downsample, strict=True):
            x = downsample(level(x))
        return self.head(F.silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    """The code to folded data."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        conv = CONVOLUTIONS[config.dims]
        widths = [config.decoder_width * m for m in reversed(config.multipliers)]
        self.stem = conv(config.latent_channels, widths[0], 3, padding=1)
        self.middle = middle(config, widths[0], config.decoder_blocks)
        self.upsample = nn.ModuleList(
            conv(coarse, fine, 1) for coarse, fine in itertools.pairwise(widths)
        )
        self.levels = nn.ModuleList(stack(config, w, config.decoder_blocks) for w in widths[1:])
        self.norm = nn.GroupNorm(widths[-1] // config.group_width, widths[-1])
        self.head = conv(widths[-1], config.channels * config.patch**config.dims, 3, padding=1)

    def features(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is made of a code on the way: after the coarsest level, before the head, and at
        the end; ``(B, width, *n)`` each, of its own width and size."""
        x = coarse = self.middle(self.stem(z))
        for upsample, level in zip(self.upsample, self.levels, strict=True):
            x = level(F.interpolate(upsample(x), scale_factor=2.0))
        fine = F.silu(self.norm(x))
        return coarse, fine, self.head(fine)

    def forward(self, z: Tensor) -> Tensor:
        return self.features(z)[-1]


class Autoencoder(nn.Module):
    """Data to a diagonal Gaussian over codes, and a code to data."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, channels, *spatial)`` to mean and log variance, ``(B, latent_channels, *n)``.

        ``n = ceil(size / stride)`` in each dimension: the last row and column are repeated until
        the size is a multiple of the stride.

        Raises:
            ValueError: ``x`` has other channels or dimensions, or is empty.
        """
        self._check(x, "x", self.config.channels)
        x = space_to_depth(pad_to(x, self.config.stride), self.config.patch)
        mean, log_variance = self.encoder(self._order(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """A code ``(B, latent_channels, *n)`` to data ``(B, channels, *(n * stride))``.

        Raises:
            ValueError: ``z`` has other channels or dimensions, or is empty.
        """
        self._check(z, "the code", self.config.latent_channels)
        return depth_to_space(self.decoder(self._order(z)), self.config.patch)

    def features(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder makes of a code ``(B, latent_channels, *n)`` on its way to data.

        Raises:
            ValueError: ``z`` has other channels or dimensions, or is empty.
        """
        self._check(z, "the code", self.config.latent_channels)
        return self.decoder.features(self._order(z))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct ``x`` through its code; return reconstruction, mean and log variance.

        ``noise``, standard normal and of the mean's shape, draws the code ``mean + exp(log
        variance / 2) * noise``; without it the code is the mean.
        """
        mean, log_variance = self.encode(x)
        if noise is not None and noise.shape != mean.shape:
            raise ValueError(
                f"the noise has shape {tuple(noise.shape)}: the code's is {tuple(mean.shape)}"
            )
        z = mean if noise is None else mean + (log_variance / 2).exp() * noise
        return self.decode(z)[(..., *(slice(n) for n in x.shape[2:]))], mean, log_variance

    def _order(self, x: Tensor) -> Tensor:
        two = self.config.dims == 2
        return x.contiguous(memory_format=torch.channels_last) if two else x

    def _check(self, x: Tensor, name: str, channels: int) -> None:
        if x.ndim != self.config.dims + 2 or x.shape[1] != channels or 0 in x.shape:
            raise ValueError(
                f"{name} of shape {tuple(x.shape)} does not fit: this autoencoder takes a batch "
                f"of {channels} channels over {self.config.dims} dimensions"
            )
