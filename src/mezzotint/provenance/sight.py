"""A picture as a watermark in its pixels, and whoever looks for it, see it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mezzotint.provenance.codeword import Floats, WatermarkError

MARKED, SMALLEST, LARGEST = 96, 64, 8192
"""Edges, in pixels: the least of a picture that is marked (in less hardly any mark is found), the
least of one that is searched, and the largest of both."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Planes(NamedTuple):
    luminance: Floats
    """``(H, W)`` in [0, 255], on white."""
    alpha: Floats | None
    """``(H, W)`` in [0, 1]; None if all is opaque."""


def planes_of(image: Image.Image) -> Planes:
    if image.mode == "L":
        return Planes(np.asarray(image).astype(np.float32), None)
    if image.mode == "RGB":
        return Planes(np.asarray(image).astype(np.float32) @ _LUMA, None)
    pixels = np.asarray(image).astype(np.float32)
    alpha = pixels[..., 3] / 255
    return Planes(floats(255 + alpha * (pixels[..., :3] @ _LUMA - 255)), floats(alpha))


def floats(values: NDArray[np.floating]) -> Floats:
    return values.astype(np.float32, copy=False)


def _blur(values: Floats, power: int) -> Floats:
    """Mean with triangular weights over 2^(power + 1) − 1 pixels each way, the edges repeated."""
    reach = (1 << power) - 1
    padded = np.pad(values, reach, mode="edge")
    for axis in (0, 1):
        for _ in range(2):
            for step in range(power):
                ahead = [slice(None), slice(None)]
                behind = [slice(None), slice(None)]
                ahead[axis], behind[axis] = slice(1 << step, None), slice(None, -(1 << step))
                padded = padded[tuple(ahead)] + padded[tuple(behind)]
    return padded / np.float32(1 << 4 * power)


def _detail(luminance: Floats) -> tuple[Floats, Floats]:
    """What is finer than some pixels, and its local standard deviation."""
    fine = luminance - _blur(luminance, 2)
    return fine, np.sqrt(_blur(floats(fine * fine), 3))


_REACH = 3  # pixels of the neighbours that a detector expects a pixel to be like
_ALIKE = np.float32(24.0)  # grey levels from which on a neighbour is something else
_QUIET = np.float32(2.0)  # of detail below which a detector trusts no more
_HALF = [
    (row, column)
    for row in range(_REACH + 1)
    for column in range(-_REACH, _REACH + 1)
    if row > 0 or column > 0
]


def _unexpected(luminance: Floats) -> Floats:
    """A pixel less the mean of those around that are like it (a sigma filter: Lee 1983).

    Unlike a linear filter's it has no trace of edges: what is left of flats is the mark.
    """
    height, width = luminance.shape
    total, weight = np.zeros_like(luminance), np.ones_like(luminance)
    for row, column in _HALF:
        near = luminance[: height - row, max(0, -column) : width - max(0, column)]
        far = luminance[row:, max(0, column) : width + min(0, column)]
        apart = far - near
        like = np.maximum(1 - (apart / _ALIKE) ** 2, 0)
        apart *= like
        for values, more, sign in ((total, apart, 1), (weight, like, 0)):
            values[: height - row, max(0, -column) : width - max(0, column)] += more
            there = values[row:, max(0, column) : width + min(0, column)]
            there += -more if sign else more
    return -total / weight


def whitened(planes: Planes) -> Floats:
    """The picture as a detector sees it: fine detail over its variance, times the mark's strength
    (maximal ratio)."""
    fine = _unexpected(planes.luminance)
    variance = _blur(floats(fine * fine), 3)
    return floats(fine * strength_of(planes) / (variance + _QUIET**2))


def strength_of(planes: Planes) -> Floats:
    """How strong the mark may be, relatively: much in texture, little in flats.

    In a flat at the very end of the range half of what is added would be cut off, and the other
    half be seen: there it is quieter still.
    """
    _, loudness = _detail(planes.luminance)
    strength = np.clip(loudness + 1.5, 1.5, 20) ** np.float32(0.3)
    end = np.minimum(planes.luminance, 255 - planes.luminance)
    return floats(strength * np.clip((end + loudness * 2 + 2) / 12, 0.3, 1))


def check(image: Image.Image, least: int = SMALLEST) -> None:
    if image.mode not in ("L", "RGB", "RGBA"):
        raise WatermarkError(f"a picture of mode {image.mode}: convert it to L, RGB or RGBA")
    if min(image.size) < least or max(image.size) > LARGEST:
        raise WatermarkError(
            f"a picture of {image.width}x{image.height} pixels carries no watermark: "
            f"each edge must have {least} to {LARGEST}"
        )
