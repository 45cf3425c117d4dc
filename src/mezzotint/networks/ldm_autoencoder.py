"""The autoencoder of latent diffusion: SD1, SD2, SDXL with 4 channels, SD3 and FLUX with 16.

Rombach et al. 2022, §3.1 and appendix G.  Convolutional but for one attention over all pixels at
the coarsest level.  What the latents are scaled and shifted by is the family's business.

Each of its convolutions computes in the precision of its own weights, so that those next to a
picture or a code may be wider (:data:`WIDE`): half a step of 8-bit colour would be lost there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.winograd import Convolution, convolve, pays

WIDE = ("encoder.head.", "decoder.head.", "mix_out.", "mix_in.")
"""What stays in float32 where the rest is rounded: the layers next to a picture or a code."""


@dataclass(frozen=True)
class LdmAutoencoderConfig:
    """What an :class:`LdmAutoencoder` is made of; the defaults are Stable Diffusion 1's.

    latent_channels: of the code
    multipliers: channels of each level, in units of ``width``; each level halves the size
    blocks: residual blocks a level of the encoder; the decoder has one more
    mixed: 1×1 convolutions on either side of the code, as SD1, SD2 and SDXL have
    """

    channels: int = 3
    latent_channels: int = 4
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    mixed: bool = True

    @property
    def stride(self) -> int:
        """Pixels a side of one pixel of the code."""
        return 2 ** (len(self.multipliers) - 1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def _as(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """``convolution(x)`` in the precision of its weights."""
    return convolution(x.to(convolution.weight.dtype))


class Residual(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = _norm(width_in)
        self.conv1 = Convolution(width_in, width)
        self.norm2 = _norm(width)
        self.conv2 = Convolution(width, width)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x), inplace=True))
        y = self.conv2(F.silu(self.norm2(y), inplace=True))
        return y.add_(x if self.skip is None else self.skip(x))


class Enlarge(nn.Conv2d):
    """A 3×3 convolution of a feature map enlarged twice, each pixel repeated.

    A window there sees four pixels of the small map, so the sums of the weights that meet one are
    a transposed convolution of it, with 4/9 of the products.  With ``a, b, c`` those of an axis,
    its even outputs are ``a x[i−1] + (b + c) x[i]``, its odd ones ``(a + b) x[i] + c x[i+1]``.
    Only float32 has room for the sums; in narrower precisions they would be rounded once more.
    Winograd's way has 1/4 of the products, where it pays.
    """

    _sums = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(B, C, H, W)`` to ``(B, C, 2H, 2W)``.  Along an axis without padding, ``x`` has a
        pixel more at both ends."""
        weight, bias = self.weight, self.bias
        rows, columns = (int(width) for width in self.padding)
        if bias is not None and pays(x, weight, (rows, columns), scale=2):
            return convolve(x, weight, bias, (rows, columns), scale=2)
        if weight.dtype == torch.float32:
            sums = torch.tensor(self._sums, device=weight.device)
            taps = torch.einsum("ka,lb,oiab->iokl", sums, sums, weight)
            taps = taps.contiguous(memory_format=torch.channels_last)
            ends = (3 - 2 * rows, 3 - 2 * columns)
            return F.conv_transpose2d(x, taps, bias, stride=2, padding=ends)
        y = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=(rows, columns))
        top, left = 1 - rows, 1 - columns
        return y[:, :, top : y.shape[2] - top, left : y.shape[3] - left]


class Attention(nn.Module):
    """All pixels look at all, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # (B, 1, N, C)
        y = F.scaled_dot_product_attention(*self.qkv(tokens).chunk(3, dim=-1))
        return x + self.out(y[:, 0]).transpose(1, 2).reshape(x.shape)


class Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Residual(width, width)
        self.attention = Attention(width)
        self.second = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.attention(self.first(x)))


class Level(nn.Module):
    """Residual blocks, then a convolution that changes the size, but for the last level."""

    def __init__(self, width_in: int, width: int, blocks: int, resample: nn.Conv2d | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Residual(width if n else width_in, width) for n in range(blocks)
        )
        self.resample = resample


class Encoder(nn.Module):
    def __init__(self, config: LdmAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        self.stem = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                widths[max(n - 1, 0)],
                width,
                config.blocks,
                nn.Conv2d(width, width, 3, stride=2) if n < len(widths) - 1 else None,
            )
            for n, width in enumerate(widths)
        )
        self.middle = Middle(widths[-1])
        self.norm = _norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = _as(self.stem, x)
        for level in self.levels:
            for block in level.blocks:  # type: ignore[union-attr]
                x = block(x)
            if level.resample is not None:
                x = level.resample(F.pad(x, (0, 1, 0, 1)))  # type: ignore[operator]
        return _as(self.head, F.silu(self.norm(self.middle(x)), inplace=True))


class Decoder(nn.Module):
    def __init__(self, config: LdmAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in reversed(config.multipliers)]
        self.stem = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0])
        self.levels = nn.ModuleList(
            Level(
                widths[max(n - 1, 0)],
                width,
                config.blocks + 1,
                Enlarge(width) if n < len(widths) - 1 else None,
            )
            for n, width in enumerate(widths)
        )
        self.norm = _norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.middle(_as(self.stem, z))
        for level in self.levels:
            for block in level.blocks:  # type: ignore[union-attr]
                x = block(x)
            if level.resample is not None:
                x = level.resample(x)  # type: ignore[operator]
        return _as(self.head, F.silu(self.norm(x), inplace=True))


class LdmAutoencoder(nn.Module):
    """Pictures ``(B, channels, H, W)`` in [−1, 1] to codes ``(B, latent, H / stride, …)``."""

    def __init__(self, config: LdmAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.mix_out = nn.Conv2d(2 * latent, 2 * latent, 1) if config.mixed else None
        self.mix_in = nn.Conv2d(latent, latent, 1) if config.mixed else None
        self.decoder = Decoder(config)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The code's mean and log variance."""
        moments = self.encoder(x.contiguous(memory_format=torch.channels_last))
        if self.mix_out is not None:
            moments = _as(self.mix_out, moments)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        z = z.contiguous(memory_format=torch.channels_last)
        return self.decoder(z if self.mix_in is None else _as(self.mix_in, z))

    def forward(self, x: Tensor) -> Tensor:
        """The picture by way of its code's mean."""
        return self.decode(self.encode(x)[0])
