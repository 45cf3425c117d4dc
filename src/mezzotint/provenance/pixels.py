"""What tells the pixels of a picture from others, and how far two pictures are apart."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
from PIL import Image


def digest(image: Image.Image) -> str:
    """``sha256:`` of the mode, the size and the pixels row by row: what is seen, however stored."""
    head = f"{image.mode} {image.width}x{image.height}\n".encode()
    return f"sha256:{hashlib.sha256(head + image.tobytes()).hexdigest()}"


def pixels_of(image: Image.Image) -> dict[str, str]:
    """What a document says of the pixels that it belongs to."""
    size = f"{image.width}x{image.height}"
    return {"hash": digest(image), "mode": image.mode, "size": size}


class Difference(NamedTuple):
    """Between two pictures of one size, in steps of 255: the largest, the mean of all, and the
    ratio of the peak to the noise in decibels, ``10 log10(255² / mean of squares)``."""

    largest: int
    mean: float
    psnr: float

    def __str__(self) -> str:
        return f"by at most {self.largest} of 255, {self.mean:.3g} on average, {self.psnr:.1f} dB"

    def as_data(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: the ratio of equal pictures is None."""
        return {**self._asdict(), "psnr": self.psnr if math.isfinite(self.psnr) else None}


def difference(one: Image.Image, other: Image.Image) -> Difference:
    """How far two pictures are apart, channel by channel of RGBA.

    Raises:
        ValueError: they have not the same size.
    """
    if one.size != other.size:
        raise ValueError(
            f"{one.width}x{one.height} and {other.width}x{other.height} cannot be compared"
        )
    apart = np.abs(_values(one) - _values(other))
    square = float((apart**2).mean())
    psnr = math.inf if square == 0 else 10 * math.log10(255**2 / square)
    return Difference(int(apart.max()), float(apart.mean()), psnr)


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGBA"), dtype=np.float64)
