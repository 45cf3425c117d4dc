"""A picture as an SVG: its areas traced as curves.

vtracer follows what has one colour, knows no transparency but none and all, and takes grain for
areas.  So the picture is enlarged, brought to a few colours, of those parts alone that are to be
seen, and smoothed: each point has the colour that most of its neighbours have.
"""

from __future__ import annotations

import io
import math

import numpy as np
import vtracer
from PIL import Image, ImageFilter

_LEAST = 512
"""Pixels of the shorter edge when it is traced: of fewer the curves are steps."""
_MOST = 16
"""Times that it is enlarged: the median of the grain takes the fourth power of it."""
_COLOURS, _APART = 24, 18
"""At most so many colours, so far from each other in RGB."""
_NEIGHBOURS = 7
"""Pixels of an edge of the square whose commonest colour is taken."""
_SOLID = 128


def traced(image: Image.Image) -> bytes:
    """The SVG of a picture: the same pixels give the same bytes.

    What is less than half opaque is left out, all else is opaque.
    """
    factor = min(_MOST, max(1, -(-_LEAST // min(image.size))))
    size = (image.width * factor, image.height * factor)
    premultiplied = image.convert("RGBA").convert("RGBa")  # no colour of what is not seen bleeds in
    large = premultiplied.resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    given = io.BytesIO()
    _flat(large, 2 * factor + 1).save(given, "PNG")
    drawn = vtracer.convert_raw_image_to_svg(
        given.getvalue(),
        img_format="png",
        mode="spline",
        color_precision=8,
        layer_difference=0,
        filter_speckle=2 * factor,
        path_precision=1,
    )
    box = f'width="{size[0]}" height="{size[1]}"'
    return drawn.replace(box, f'viewBox="0 0 {size[0]} {size[1]}" {box}', 1).encode()


def _apart(picture: Image.Image) -> Image.Image:
    """A palette of the commonest colours of a picture in few, no two of them alike."""
    counts = np.bincount(np.asarray(picture).ravel(), minlength=_COLOURS)
    colours = np.asarray(picture.getpalette() or [], float).reshape(-1, 3)[:_COLOURS]
    kept: list[np.ndarray] = []
    for index in np.argsort(-counts[: len(colours)], kind="stable"):
        near = [np.linalg.norm(colours[index] - other) < _APART for other in kept]
        if counts[index] and not any(near):
            kept.append(colours[index])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(kept).astype(int).tolist())
    return palette


def _flat(image: Image.Image, grain: int) -> Image.Image:
    """An RGBA picture in few colours, without grain of so many pixels; opaque, or nothing."""
    pixels = np.asarray(image)
    solid = pixels[..., 3] >= _SOLID
    counted = (pixels[solid] if solid.any() else pixels.reshape(-1, 4))[:, :3]
    edge = math.ceil(math.sqrt(len(counted)))
    square = Image.fromarray(np.resize(counted, (edge, edge, 3)))
    options = {"method": Image.Quantize.MEDIANCUT, "kmeans": 8, "dither": Image.Dither.NONE}
    palette = _apart(square.quantize(_COLOURS, **options))
    smooth = image.convert("RGB").filter(ImageFilter.MedianFilter(grain))
    indices = smooth.quantize(palette=palette, dither=Image.Dither.NONE)
    colours = np.asarray(indices.filter(ImageFilter.ModeFilter(_NEIGHBOURS)).convert("RGB"))
    return Image.fromarray(np.dstack([colours, solid * np.uint8(255)]) * solid[..., None])
