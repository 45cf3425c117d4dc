"""A drawing on one colour, cut out: of JPEG and of screenshots, which have no transparency."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mezzotint.modalities.image import ImageError

_LARGEST = 256  # pixels of an edge: a larger picture is shrunk first
_NEAR = 24
"""Of 255 in each channel: how far JPEG takes a plain ground from its colour.

Of 150 drawings on white, the nearest of the ledger is then the same one for 94 % (at 40: 90 %, at
56: 84 %; not cut out: 5 %).
"""
MOST = 0.5
"""Share of the border that has to be the ground."""
_VISIBLE = 8  # alpha from which a pixel is content


def flooded(near: Tensor) -> Tensor:
    """What of a mask ``(H, W)`` is connected to the border, by the four sides of its pixels."""
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    allowed = near.float()[None, None]
    inner = torch.zeros_like(allowed)
    inner[..., 1:-1, 1:-1] = 1
    reached = allowed * (1 - inner)
    while True:  # each round goes a pixel farther
        more = (F.conv2d(reached, cross, padding=1) > 0).float() * allowed
        if torch.equal(more, reached):
            return reached[0, 0] > 0
        reached = more


def cut_out(image: Image.Image, margin: float, least: float = MOST) -> Image.Image:
    """A drawing without the ground that it lies on, in the middle of a transparent square.

    A picture that is transparent somewhere lies on none.  Of another one, what is connected to the
    border and of about the border's usual colour is made transparent.

    Args:
        margin: around the content on each side, of the square's edge.
        least: share of the border that has to be of the ground's colour.

    Raises:
        ImageError: the border is of many colours, or there is nothing on the ground.
    """
    image = image.convert("RGBA")
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    pixels = np.array(image)
    if pixels[..., 3].min() > 250:
        _clear_ground(pixels, least)
    rows, columns = (np.flatnonzero((pixels[..., 3] >= _VISIBLE).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise ImageError("there is nothing on its ground")
    content = Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    edge = round(max(content.size) / (1 - 2 * margin))
    square = Image.new("RGBA", (edge, edge))
    square.paste(content, ((edge - content.width) // 2, (edge - content.height) // 2))
    return square


def _clear_ground(pixels: NDArray[np.uint8], least: float) -> None:
    colours = pixels[..., :3].astype(np.int16)
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    ground = np.median(border, axis=0)
    if (np.abs(border - ground).max(1) <= _NEAR).mean() < least:
        raise ImageError(
            "its border is of many colours: drawings are compared without what they lie on, so "
            "give one with transparency, or on one colour"
        )
    near = torch.from_numpy(np.abs(colours - ground).max(2) <= _NEAR)
    pixels[..., 3][flooded(near).numpy()] = 0
