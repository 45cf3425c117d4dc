"""Large pictures through an autoencoder in bands of rows: the same numbers in less memory.

Nothing is blended and no band has an edge.  A convolution of some rows is given the rows beside
them; a group norm has the mean and variance of all rows, added up while these are made; attention
sees the whole code.  So the result differs from the whole's by the rounding of sums alone.

What is in memory is the input and the output of a residual block; all between exists a band at a
time.  At the finest level of a decoder the first block's input is twice as wide as the rest: it
is never there as a whole but computed twice, first for its mean and variance and what skips the
block, then for the block.  A band's height depends on the picture's size and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.ldm_autoencoder import Decoder, Encoder, LdmAutoencoder, Residual
from mezzotint.networks.winograd import convolved

AREA = 1024 * 1024
"""Pixels above which a picture is decoded and encoded in bands, however much memory there is: so
a limit of memory changes no bit of it."""
_BAND = 1 << 22  # numbers of a band, about: a few of them are alive at a time


class Rows(NamedTuple):
    """An activation ``shape (B, C, H, W)`` of which some rows are read at a time.

    read: ``(first, last)`` → ``(B, C, last − first, W)``.
    """

    read: Callable[[int, int], Tensor]
    shape: tuple[int, int, int, int]


class Moments:
    """Mean and variance of each group of channels, of rows that come one after the other.

    Chan, Golub, LeVeque 1979, eq. 1.1: those of two sets from those of each.
    """

    def __init__(self, groups: int) -> None:
        self.groups, self.count = groups, 0
        self.mean = self.squares = torch.zeros(())  # (B, groups); squared deviations from the mean

    def add(self, rows: Tensor) -> None:
        parts = rows.float().unflatten(1, (self.groups, -1))  # (B, groups, C / groups, h, W)
        count = parts[0, 0].numel()
        variance, mean = torch.var_mean(parts, dim=(2, 3, 4), correction=0)
        squares = variance * count
        if self.count:
            apart, total = mean - self.mean, self.count + count
            squares = self.squares + squares + apart.square() * (self.count * count / total)
            mean = self.mean + apart * (count / total)
        self.mean, self.squares, self.count = mean, squares, self.count + count

    def affine(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """What the norm multiplies each channel by and adds to it, each ``(B, C, 1, 1)``."""
        width = norm.num_channels // self.groups
        inverse = (self.squares / self.count + norm.eps).rsqrt()
        scale = inverse.repeat_interleave(width, 1) * norm.weight.float()
        shift = norm.bias.float() - self.mean.repeat_interleave(width, 1) * scale
        return scale[..., None, None], shift[..., None, None]


# --- activations made of others ----------------------------------------------------------------


def _there(x: Tensor) -> Rows:
    batch, width, *size = x.shape
    return Rows(lambda first, last: x[:, :, first:last], (batch, width, *size))  # type: ignore[arg-type]


def _active(x: Rows, norm: nn.GroupNorm, moments: Moments) -> Rows:
    """``silu(norm(x))``, rounded where torch rounds it."""
    scale, shift = moments.affine(norm)

    def read(first: int, last: int) -> Tensor:
        rows = x.read(first, last)
        normed = torch.addcmul(shift, rows.float(), scale).to(rows.dtype)
        return F.silu(normed, inplace=True)

    return Rows(read, x.shape)


def _doubled(x: Rows) -> Rows:
    """Each pixel as a square of 2×2."""
    batch, width, height, across = x.shape

    def read(first: int, last: int) -> Tensor:
        large = F.interpolate(x.read(first // 2, (last + 1) // 2), scale_factor=2.0)
        begin = first % 2
        return large[:, :, begin : begin + last - first]

    return Rows(read, (batch, width, 2 * height, 2 * across))


def _beside(x: Rows, first: int, last: int, wraps: bool) -> Tensor:
    """Rows of which some lie beyond the ends: there is nothing, or the other end comes again."""
    height = x.shape[2]
    if first >= 0 and last <= height:
        return x.read(first, last)
    inner = x.read(max(first, 0), min(last, height))
    above, below = max(-first, 0), max(last - height, 0)
    if not wraps:
        return F.pad(inner, (0, 0, above, below))
    pieces = [x.read(height - above, height)] if above else []
    return torch.cat([*pieces, inner, *([x.read(0, below)] if below else [])], dim=2)


def _convolved(x: Rows, convolution: nn.Conv2d) -> Rows:
    """A convolution that keeps the size, in the precision of its weights.

    One that was told to pad nothing has no border (:mod:`mezzotint.adapters.seamless`).
    """
    weight, bias = convolution.weight, convolution.bias  # of one that is streamed: read once
    reach = convolution.kernel_size[0] // 2
    down, across = (padded != reach for padded in cast(tuple[int, int], convolution.padding))

    def read(first: int, last: int) -> Tensor:
        rows = _beside(x, first - reach, last + reach, down).to(weight.dtype)
        if across:
            rows = F.pad(rows, (reach, reach, 0, 0), mode="circular")
        return convolved(rows, weight, bias, (0, 0 if across else reach))

    return Rows(read, (x.shape[0], len(weight), *x.shape[2:]))


def _halved(x: Rows, convolution: nn.Conv2d) -> Rows:
    """The encoder's convolution of stride 2, with one row and one column of nothing at the end."""
    weight, bias = convolution.weight, convolution.bias
    batch, _, height, across = x.shape

    def read(first: int, last: int) -> Tensor:
        rows = F.pad(_beside(x, 2 * first, 2 * last + 1, False), (0, 1))
        return F.conv2d(rows, weight, bias, stride=2)

    return Rows(read, (batch, len(weight), height // 2, across // 2))


def _watched(x: Rows, moments: Moments) -> Rows:
    """The same, which adds up mean and variance of what is read."""

    def read(first: int, last: int) -> Tensor:
        rows = x.read(first, last)
        moments.add(rows)
        return rows

    return Rows(read, x.shape)


def _sum(x: Rows, y: Rows) -> Rows:
    return Rows(lambda first, last: x.read(first, last).add_(y.read(first, last)), x.shape)


def _keep(x: Rows, into: Tensor | None = None) -> Tensor:
    """All rows, made a band at a time.

    into: where they are put; it may be what a band is made of, as long as only the same rows of
        it are.
    """
    batch, width, height, across = x.shape
    step = max(4, _BAND // (batch * width * across) // 4 * 4)  # whole squares of a convolution
    for first in range(0, height, step):
        band = x.read(first, min(first + step, height))
        if into is None:
            order = torch.channels_last  # as the convolutions are fastest with
            into = torch.empty(x.shape, dtype=band.dtype, device=band.device, memory_format=order)
        into[:, :, first : first + band.shape[2]] = band
    assert into is not None
    return into


# --- the networks -------------------------------------------------------------------------------


def _residual(block: Residual, x: Tensor, moments: Moments) -> tuple[Tensor, Moments]:
    """A block's output, where nothing changes the width in the place of its input, and its
    moments; of those of its input."""
    skip = _there(x) if block.skip is None else _convolved(_there(x), block.skip)
    into = x if block.skip is None else None
    return _through(block, _there(x), moments, skip, into)


def _through(
    block: Residual, x: Rows, moments: Moments, skip: Rows, into: Tensor | None
) -> tuple[Tensor, Moments]:
    groups = moments.groups
    inner, outer = Moments(groups), Moments(groups)
    made = _watched(_convolved(_active(x, block.norm1, moments), block.conv1), inner)
    y = _keep(made)
    made = _sum(_convolved(_active(_there(y), block.norm2, inner), block.conv2), skip)
    return _keep(_watched(made, outer), into), outer


def _narrowing(block: Residual, x: Rows) -> tuple[Tensor, Moments]:
    """A block whose input is not kept but computed twice; what skips it is."""
    assert block.skip is not None
    moments = Moments(block.norm1.num_groups)
    skip = _keep(_convolved(_watched(x, moments), block.skip))
    return _through(block, x, moments, _there(skip), skip)


def _whole(x: Tensor, norm: nn.GroupNorm) -> Moments:
    moments = Moments(norm.num_groups)
    moments.add(x)
    return moments


def _decoded(decoder: Decoder, z: Tensor) -> Tensor:
    stem = decoder.stem
    x = decoder.middle(stem(z.to(stem.weight.dtype)))
    moments = _whole(x, decoder.norm)
    grown: Rows | None = None
    for number, level in enumerate(decoder.levels, start=1):
        blocks = cast(list[Residual], list(level.blocks))  # type: ignore[arg-type]
        if grown is not None and number == len(decoder.levels) and blocks[0].skip is not None:
            x, moments = _narrowing(blocks.pop(0), grown)
        elif grown is not None:
            moments = Moments(moments.groups)
            x = _keep(_watched(grown, moments))
        grown = None
        for block in blocks:
            x, moments = _residual(block, x, moments)
        if level.resample is not None:
            grown = _convolved(_doubled(_there(x)), cast(nn.Conv2d, level.resample))
    return _keep(_convolved(_active(_there(x), decoder.norm, moments), decoder.head))


def _encoded(encoder: Encoder, x: Tensor) -> Tensor:
    moments = Moments(encoder.norm.num_groups)
    x = _keep(_watched(_convolved(_there(x), encoder.stem), moments))
    for level in encoder.levels:
        for block in level.blocks:  # type: ignore[union-attr]
            x, moments = _residual(cast(Residual, block), x, moments)
        if level.resample is not None:
            moments = Moments(moments.groups)
            x = _keep(_watched(_halved(_there(x), cast(nn.Conv2d, level.resample)), moments))
    y, head = F.silu(encoder.norm(encoder.middle(x))), encoder.head
    return head(y.to(head.weight.dtype))


def decode(autoencoder: LdmAutoencoder, z: Tensor) -> Tensor:
    """``autoencoder.decode(z)`` in bands of rows."""
    z = z.contiguous(memory_format=torch.channels_last)
    if (mix := autoencoder.mix_in) is not None:
        z = mix(z.to(mix.weight.dtype))
    return _decoded(autoencoder.decoder, z)


def encode(autoencoder: LdmAutoencoder, x: Tensor) -> Tensor:
    """The mean of ``autoencoder.encode(x)`` in bands of rows."""
    moments = _encoded(autoencoder.encoder, x.contiguous(memory_format=torch.channels_last))
    if (mix := autoencoder.mix_out) is not None:
        moments = mix(moments.to(mix.weight.dtype))
    return moments.chunk(2, dim=1)[0]
