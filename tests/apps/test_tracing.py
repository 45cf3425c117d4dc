"""Curves drawn again by another library are the picture that they were traced from."""

from __future__ import annotations

import io

import numpy as np
import pytest
import resvg
from PIL import Image, ImageDraw, ImageFilter

from mezzotint.apps.tracing import traced


def drawn(data: bytes, edge: int) -> np.ndarray:
    tree = resvg.usvg.Tree.from_str(data.decode(), resvg.usvg.Options.default())
    png = bytes(resvg.render(tree, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA").resize((edge, edge)), float)


def disc(edge: int) -> Image.Image:
    """A red disc with a white lower half, on nothing, with soft edges."""
    image = Image.new("RGBA", (4 * edge, 4 * edge))
    draw = ImageDraw.Draw(image)
    box = (0.4 * edge, 0.4 * edge, 3.6 * edge, 3.6 * edge)
    draw.pieslice(box, 180, 360, fill=(230, 40, 20, 255))
    draw.pieslice(box, 0, 180, fill=(250, 240, 235, 255))
    return image.convert("RGBa").resize((edge, edge), Image.Resampling.BOX).convert("RGBA")


@pytest.mark.parametrize("grain", [0, 4])
def test_what_is_drawn_is_what_was_given(grain: int) -> None:
    edge = 64
    image = disc(edge)
    pixels = np.array(image).astype(int)
    noise = np.random.default_rng(1).normal(0, grain, (edge, edge, 3)).astype(int)
    pixels[..., :3] = (pixels[..., :3] + noise).clip(0, 255)
    data = traced(Image.fromarray(pixels.astype(np.uint8)))
    wanted, found = np.asarray(image, float), drawn(data, edge)
    assert np.abs(wanted[..., 3] - found[..., 3]).mean() < 3
    inside = wanted[..., 3] == 255
    assert np.abs(wanted[inside] - found[inside]).mean() < 6
    beside = np.asarray(image.getchannel("A").filter(ImageFilter.MaxFilter(5))) == 0
    assert beside.sum() > 1000 and found[beside][:, 3].max() == 0  # no dirt
    assert len(data) < 40_000


def test_nothing_and_all() -> None:
    assert b"<path" not in traced(Image.new("RGBA", (9, 7)))
    grey = drawn(traced(Image.new("L", (16, 16), 90)), 16)
    assert grey[8, 8].tolist() == [90, 90, 90, 255]


def test_the_same_pixels_give_the_same_curves() -> None:
    assert traced(disc(32)) == traced(disc(32).copy())
