"""3×3 convolutions with a quarter of the products, for float32 on a processor.

Winograd's F(4×4, 3×3) (Lavin, Gray 2016, §4): six numbers ``d`` of an axis and three weights ``g``
make four outputs with six products,

    y = A [(G g) · (B d)],

and a square of 6×6 pixels makes 4×4 with 36 instead of 144.  It is a way to multiply polynomials by
their values at five points and at infinity.  The points 0, ±1/√2, ±√2 keep numbers of one size, so
the rounding of the result is that of the sums of 9 C products that it saves (Barabasz et al. 2020);
with 0, ±1, ±2, which is what one reads most, it is twice as much.

Nothing is measured: whether it is used follows from shapes alone, and a sample's numbers do not
depend on those beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NEAR, _FAR = math.sqrt(0.5), math.sqrt(2.0)
_CHANNELS = 64  # of the narrower side, at least: with fewer the products are not what costs
_TILES = 128  # squares of a sample, at least: with fewer the weights' transform costs too much
_STRIP = 1 << 16  # numbers of a point in a strip of squares, about: its buffers stay in the cache


@cache
def _weighing() -> Tensor:
    """``G (6, 3)``: what a point has of three weights."""
    points = (0.0, _NEAR, -_NEAR, _FAR, -_FAR)
    rows: list[list[float]] = []
    for point in points:
        apart = math.prod(point - other for other in points if other != point)
        rows.append([point**power / apart for power in range(3)])
    found = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)
    found[1:3] /= 2  # which `_inward` takes back: it saves a pass there
    return found


@cache
def _weighing_squares() -> Tensor:
    """``G ⊗ G (36, 9)``, of a window's nine weights."""
    return torch.kron(_weighing(), _weighing()).float()


def _outward(d: Sequence[Tensor], out: Sequence[Tensor], s: Tensor, t: Tensor) -> None:
    """``out = B d`` along an axis, in twelve passes; ``s`` and ``t`` are room for sums."""
    for far, near, at in ((2.0, _NEAR, 1), (0.5, _FAR, 3)):
        torch.sub(d[4], d[2], alpha=far, out=s)
        torch.sub(d[3], d[1], alpha=far, out=t)
        torch.add(s, t, alpha=near, out=out[at])
        torch.sub(s, t, alpha=near, out=out[at + 1])
    for at, end in ((0, 0), (1, 5)):
        torch.add(d[at], d[at + 4], out=s)
        torch.sub(s, d[at + 2], alpha=2.5, out=out[end])


def _inward(m: Sequence[Tensor], out: Sequence[Tensor], s: Tensor, t: Tensor) -> None:
    """``out = A m`` along an axis, the values at ±1/√2 being half of what they are."""
    torch.add(m[1], m[2], out=s)
    torch.add(m[3], m[4], out=t)
    torch.add(m[0], s, alpha=2, out=out[0]).add_(t)
    torch.add(s, t, alpha=2, out=out[2])
    torch.sub(m[1], m[2], out=s)
    torch.sub(m[3], m[4], out=t)
    torch.add(s, t, out=out[1]).mul_(_FAR)
    torch.add(m[5], s, alpha=_NEAR, out=out[3]).add_(t, alpha=2 * _FAR)


class _Strip:
    """Rows of squares, through ``y = A [(G g) · (B d)]`` at once, and the room that it takes."""

    def __init__(
        self, like: Tensor, rows: int, across: int, widths: tuple[int, int], scale: int
    ) -> None:
        wide, narrow = widths  # channels that come and go
        self.rows, self.across, self.step = rows, across, 4 // scale
        self.begins = [(i + scale - 1) // scale for i in range(6)]  # of a square's numbers
        length = self.step * across + 2
        self.down = like.new_empty(6, rows, length, wide)
        self.spare_down = like.new_empty(2, rows, length, wide)
        self.points = like.new_empty(6, 6, rows, across, wide)
        self.spare_points = like.new_empty(2, 6, rows, across, wide)
        self.products = like.new_empty(36, rows * across, narrow)
        self.up = like.new_empty(4, 6, rows, across, narrow)
        self.spare_up = like.new_empty(2, 6, rows, across, narrow)
        self.spare_out = like.new_empty(2, 4, rows, across, narrow)

    def convolve(self, d: Tensor, weight: Tensor, out: Tensor, border: int) -> None:
        """``d (step rows + 2, W, C)`` to ``out (4 rows, 4 across, C')``; ``weight (36, C, C')``.

        border: columns of nothing on either side of ``d``.
        """
        rows, across, step = self.rows, self.across, self.step
        inner = slice(border, self.down.shape[2] - border)
        if border:
            self.down[:, :, 0] = self.down[:, :, -1] = 0
        _outward(
            [d[i : i + step * rows - step + 1 : step] for i in self.begins],
            [part[:, inner] for part in self.down],
            *self.spare_down[:, :, inner],
        )
        _outward(
            [self.down[:, :, i : i + step * across - step + 1 : step] for i in self.begins],
            self.points.transpose(0, 1).unbind(),
            *self.spare_points,
        )
        torch.bmm(self.points.view(36, rows * across, -1), weight, out=self.products)
        products = self.products.view(6, 6, rows, across, -1)
        _inward(products.unbind(), self.up.unbind(), *self.spare_up)
        squares = out.view(rows, 4, across, 4, -1)
        _inward(
            self.up.transpose(0, 1).unbind(),
            [squares[:, :, :, i].transpose(0, 1) for i in range(4)],
            *self.spare_out,
        )


def _size(x: Tensor, padding: tuple[int, int], scale: int) -> tuple[int, int]:
    """The output's."""
    height, width = x.shape[2:]
    return scale * (height + 2 * padding[0] - 2), scale * (width + 2 * padding[1] - 2)


def pays(x: Tensor, weight: Tensor, padding: tuple[int, int], scale: int = 1) -> bool:
    """Whether :func:`convolve` is the quicker way: 3×3 windows in float32 on a processor, many
    channels and pixels, no gradients, and an output whose sides are multiples of 4."""
    size = _size(x, padding, scale)
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type in ("cpu", "meta")
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _CHANNELS
        and not any(side % 4 for side in size)
        and math.prod(size) >= 16 * _TILES
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    )


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int], scale: int = 1
) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=padding)``, of what :func:`pays`.

    Args:
        x: ``(B, C, H, W)``, best with channels last.
        padding: 0 or 1 along each axis.
        scale: 2 is the convolution of ``x`` with each pixel repeated; so are those of nothing
            beyond its ends, where it is padded.
    """
    height, width = _size(x, padding, scale)
    narrow, wide = weight.shape[:2]
    by_place = weight.permute(2, 3, 0, 1).reshape(9, -1)  # (9, C' C)
    weights = torch.mm(_weighing_squares().to(x), by_place).view(36, narrow, wide).transpose(1, 2)
    out = x.new_empty(len(x), height, width, narrow)
    down, across, step = height // 4, width // 4, 4 // scale
    strips = math.ceil(down / max(1, _STRIP // (across * max(wide, narrow))))
    rows = math.ceil(down / strips)
    strip = _Strip(x, rows, across, (wide, narrow), scale)
    if x.is_meta:  # memory is counted: all of it is there
        return out.permute(0, 3, 1, 2)
    for sample, made in zip(x.permute(0, 2, 3, 1), out, strict=True):
        for number in range(strips):
            first = min(number * rows, down - rows)  # the last may lie over the one before
            begin = step * first - padding[0]
            end = begin + step * rows + 2
            beyond = (max(0, -begin), max(0, end - len(sample)))
            d = sample[max(0, begin) : end]
            if any(beyond):
                d = F.pad(d, (0, 0, 0, 0, *beyond))
            band = made[4 * first : 4 * (first + rows)]
            strip.convolve(d, weights, band, padding[1])
            band.add_(bias)
    return out.permute(0, 3, 1, 2)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=padding)`` in the way that is quicker."""
    if bias is not None and pays(x, weight, padding):
        return convolve(x, weight, bias, padding)
    return F.conv2d(x, weight, bias, padding=padding)


class Convolution(nn.Conv2d):
    """A 3×3 convolution that keeps the size, in the way that is quicker."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(B, C, H, W)`` to ``(B, C', H, W)``."""
        return convolved(x, self.weight, self.bias, cast(tuple[int, int], self.padding))
