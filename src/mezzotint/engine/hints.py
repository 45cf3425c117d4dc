"""What control networks are told, made from a picture without any model: edges, greys, tiles.

Each takes and gives ``(3, H, W)`` in [−1, 1]; white lines on black are +1 on −1.  Depths and poses
come as pictures from elsewhere: their names tell a network of several kinds which it is told, and
depths are spread over all greys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.checkpoints.files import nearest

LOW, HIGH = 100 / 255, 200 / 255
"""Canny's thresholds of the gradient, of a full step between neighbours as 4: the usual ones."""
_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _grey(picture: Tensor) -> Tensor:
    """``(1, 1, H, W)`` in [0, 1]."""
    weights = torch.tensor(_LUMA).view(3, 1, 1)
    return ((picture / 2 + 0.5) * weights).sum(0)[None, None]


def _lines(strength: Tensor) -> Tensor:
    return strength[0].clamp(0, 1).expand(3, -1, -1) * 2 - 1


def _blurred(grey: Tensor, sigma: float) -> Tensor:
    """Convolved with a Gaussian, the border repeated."""
    reach = math.ceil(3 * sigma)
    x = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    wide = F.pad(grey, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _gradient(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Along x and along y, ``(1, 1, H, W)`` each (Sobel's)."""
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(wide, _SOBEL[None, None]), F.conv2d(wide, _SOBEL.T[None, None])


def canny(picture: Tensor) -> Tensor:
    """Lines one element wide where the gradient is steepest across them (Canny 1986).

    Smoothed (σ = 1), Sobel's gradient, only its maxima along itself, then all that hangs together
    above ``LOW`` with something above ``HIGH``.
    """
    along_x, along_y = _gradient(_blurred(_grey(picture), 1.0))
    size = along_x.abs() + along_y.abs()  # as OpenCV's: fast, and the thresholds are known for it
    # The direction of the gradient, to the nearest of four: along x, a diagonal, y, the other.
    turn = torch.atan2(along_y, along_x).mul(4 / math.pi).round().remainder(4)
    wide = F.pad(size, (1, 1, 1, 1))
    height, width = size.shape[2:]

    def at(down: int, right: int) -> Tensor:
        return wide[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    ridge = torch.zeros_like(size, dtype=torch.bool)
    for number, (down, right) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        # Of two equal neighbours one is kept: the line stays one element wide.
        top = (size > at(-down, -right)) & (size >= at(down, right))
        ridge |= (turn == number) & top
    weak, found = ridge & (size > LOW), ridge & (size > HIGH)
    while True:
        grown = weak & (F.max_pool2d(found.float(), 3, stride=1, padding=1) > 0)
        if torch.equal(grown, found):
            return _lines(found[0].float()[None][0])
        found = grown


def edges(picture: Tensor) -> Tensor:
    """The gradient's length, soft: what takes the place of a trained detector of soft edges."""
    along_x, along_y = _gradient(_blurred(_grey(picture), 1.0))
    return _lines(torch.hypot(along_x, along_y)[0])


def luminance(picture: Tensor) -> Tensor:
    """Greys: for what colours a picture anew, or makes it brighter."""
    return _lines(_grey(picture)[0])


def tile(picture: Tensor) -> Tensor:
    """The picture without its details, an eighth of its size and back: for what adds them anew."""
    size = picture.shape[1:]
    small = tuple(max(1, edge // 8) for edge in size)
    less = F.interpolate(picture[None], size=small, mode="area")
    return F.interpolate(less, size=tuple(size), mode="bicubic")[0].clamp(-1, 1)


def scribble(picture: Tensor) -> Tensor:
    """Thick lines, all white or all black, as if drawn by hand."""
    soft = edges(picture)[None]
    return torch.where(F.max_pool2d(soft, 5, stride=1, padding=2)[0] > 0, 1.0, -1.0)


def blur(picture: Tensor) -> Tensor:
    """The picture out of focus (σ = 8): for what makes it sharp anew."""
    return _blurred(picture[:, None], 8.0)[:, 0].clamp(-1, 1)


def depth(picture: Tensor) -> Tensor:
    """A given map of depth in greys, lighter is nearer, spread from black to white.

    Raises:
        ValueError: it is the same everywhere.
    """
    grey = _grey(picture)
    low, high = grey.amin(), grey.amax()
    if bool(high - low < 1e-6):
        raise ValueError("the depth map is the same everywhere: give one with near and far")
    return _lines(((grey - low) / (high - low))[0])


def pose(picture: Tensor) -> Tensor:
    """A given picture of poses, as it is."""
    return picture


HINTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "canny": canny,
    "edges": edges,
    "luminance": luminance,
    "tile": tile,
    "scribble": scribble,
    "blur": blur,
    "depth": depth,
    "pose": pose,
}
"""By the name that ``--control FILE=PICTURE,NAME`` has."""

INVERTED = "-inverted"
"""Behind a name: black for white, such as lines on paper and depths whose darker is nearer."""

_DETECTED: Mapping[str, str] = {
    **dict.fromkeys(("softedge", "hed", "pidinet", "teed"), "edges"),
    **dict.fromkeys(("lineart", "lineart_anime", "mlsd"), "canny"),
    **dict.fromkeys(("openpose", "dwpose"), "pose"),
    **dict.fromkeys(("midas", "zoe", "leres", "depth_anything"), "depth"),
}
"""What other programs make by trained detectors, and which of the names here is nearest."""


def base(name: str) -> str:
    """A name without what inverts it."""
    return name.removesuffix(INVERTED)


def find(name: str) -> Callable[[Tensor], Tensor]:
    """What makes a hint of a picture, by its name, perhaps with ``-inverted`` behind it.

    Raises:
        ValueError: no such hint; the message has the nearest.
    """
    own = base(name)
    known = f"choose from {', '.join(HINTS)}, or leave it out where the picture is one already"
    if own in _DETECTED:
        raise ValueError(
            f"no hint {name!r}, which takes a trained detector (nearest: {_DETECTED[own]}): {known}"
        )
    if own not in HINTS:
        raise ValueError(f"no hint {name!r}{nearest(own, HINTS)}: {known}")
    make = HINTS[own]
    return make if own == name else lambda picture: -make(picture)
