"""SVG or WebP to a square RGBA picture: cropped to its content, centred, with a small margin."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import resvg
from numpy.typing import NDArray
from PIL import Image

MARGIN = 0.04  # of the side, on each side
CURRENT_COLOUR = "#3a3a3a"  # what a drawing that asks for the text colour gets
VISIBLE = 8  # alpha from which a pixel counts as content; fainter is the skirt of a blur

_SVG_TAG = re.compile(r"<(?:svg:)?svg\b[^>]*>", re.DOTALL)
_SIZE = re.compile(r"""\s(?:width|height)\s*=\s*(?:"[^"]*"|'[^']*')""")


class RenderError(Exception):
    """The drawing is malformed, empty, or asks for something that is not there."""


def wrap_icon(icon: Mapping[str, Any], defaults: Mapping[str, Any], size: int) -> str:
    """An icon of an Iconify set (a body and its box) as a complete SVG of `size` pixels."""
    box = {key: icon.get(key, defaults.get(key)) for key in ("left", "top", "width", "height")}
    left, top = box["left"] or 0, box["top"] or 0
    width, height = box["width"] or 16, box["height"] or 16
    body = str(icon["body"]).replace("currentColor", CURRENT_COLOUR)
    if "<animate" in body:  # what fades in is invisible in the first frame, which is drawn here
        body = body.replace(' opacity="0"', "")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def resize_svg(svg: str, size: int) -> str:
    """The same SVG with a canvas of `size` × `size`; its own size becomes the viewBox."""
    tag = _SVG_TAG.search(svg)
    if tag is None:
        raise RenderError("no svg element")
    text = tag.group()
    box = ""
    if "viewBox" not in text:
        width, height = _parse(svg).int_size()
        box = f' viewBox="0 0 {width} {height}"'
    head, end = (text[:-2], "/>") if text.endswith("/>") else (text[:-1], ">")
    head = _SIZE.sub("", head) + f' width="{size}" height="{size}"{box}{end}'
    return svg[: tag.start()] + head + svg[tag.end() :]


def _parse(svg: str) -> resvg.usvg.Tree:
    try:
        return resvg.usvg.Tree.from_str(svg, resvg.usvg.Options.default())
    except BaseException as error:  # a panic of the Rust library is not an Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise RenderError(f"cannot parse: {error}") from error


def _draw(tree: resvg.usvg.Tree, scale: float, dx: float, dy: float) -> Image.Image:
    try:
        png = resvg.render(tree, (scale, 0.0, dx, 0.0, scale, dy))
    except BaseException as error:  # as above
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise RenderError(f"cannot draw: {error}") from error
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def content_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the visible part; an error for an empty picture."""
    seen = picture.getchannel("A").point([255 * (alpha >= VISIBLE) for alpha in range(256)])
    box = seen.getbbox()
    if box is None:
        raise RenderError("nothing visible")
    return box


def render_svg(svg: str, size: int) -> Image.Image:
    """Draw an SVG whose canvas is `size` × `size` so that its content fills the square.

    The vectors are drawn again at the right scale rather than the pixels resampled. The box of
    a small drawing is coarse at first, so it is measured and drawn up to three times.
    """
    tree = _parse(svg)
    if tree.int_size() != (size, size):
        raise RenderError(f"canvas is {tree.int_size()}, not {size}")
    inner = size * (1 - 2 * MARGIN)
    scale, dx, dy = 1.0, 0.0, 0.0
    picture = _draw(tree, scale, dx, dy)
    for _ in range(3):
        left, top, right, bottom = content_box(picture)
        factor = inner / max(right - left, bottom - top)
        move_x = size / 2 - factor * (left + right) / 2
        move_y = size / 2 - factor * (top + bottom) / 2
        if abs(factor - 1) < 0.01 and max(abs(move_x), abs(move_y)) < 1:
            break
        scale, dx, dy = factor * scale, factor * dx + move_x, factor * dy + move_y
        clip = tuple(
            round(factor * edge + move)
            for edge, move in ((left, move_x), (top, move_y), (right, move_x), (bottom, move_y))
        )
        # What lay outside the canvas at first is no part of the drawing.
        canvas = Image.new("RGBA", (size, size))
        outer = (max(clip[0] - 1, 0), max(clip[1] - 1, 0), clip[2] + 1, clip[3] + 1)
        canvas.paste(_draw(tree, scale, dx, dy).crop(outer), outer[:2])
        picture = canvas
    return picture


def fit_picture(data: bytes, size: int) -> Image.Image:
    """A raster drawing, cropped to its content and scaled into the square."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    picture = picture.crop(content_box(picture))
    inner = size * (1 - 2 * MARGIN)
    factor = inner / max(picture.size)
    width, height = (max(1, round(factor * side)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(picture, ((size - width) // 2, (size - height) // 2))
    return canvas


def encode(picture: Image.Image) -> bytes:
    """Lossless WebP; colour under full transparency is cleared so that it costs nothing."""
    pixels = np.array(picture)
    pixels[pixels[..., 3] == 0] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=60, method=3, exact=True)
    return out.getvalue()


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """32 × 32 premultiplied RGBA, the average of the 64-pixel picture: what duplicates share."""
    small = picture.resize((64, 64), Image.Resampling.BOX).convert("RGBa")
    data = np.frombuffer(small.tobytes(), np.uint8).reshape(32, 2, 32, 2, 4)
    return np.round(data.mean(axis=(1, 3))).astype(np.uint8)  # (32, 32, 4)
