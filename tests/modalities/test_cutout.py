"""A picture without its ground: against the alpha with which it was laid on that ground."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mezzotint.modalities.cutout import cutout
from mezzotint.modalities.image import ImageError

EDGE = 160


def drawn() -> Image.Image:
    """A thing of several colours, with a hole, soft edges and a thin line."""
    large = Image.new("RGBA", (EDGE * 4, EDGE * 4))
    pen = ImageDraw.Draw(large)
    pen.ellipse((140, 120, 480, 460), fill="#e0662a")
    pen.rectangle((230, 380, 400, 540), fill="#3a4a9a")
    pen.ellipse((210, 200, 290, 280), fill="#f6f2e8")
    pen.line((480, 160, 560, 90), fill="#7a1f1f", width=12)
    return large.convert("RGBa").resize((EDGE, EDGE), Image.Resampling.BOX).convert("RGBA")


def gradient() -> Image.Image:
    y, x = np.mgrid[0:EDGE, 0:EDGE] / EDGE
    values = np.stack([60 + 150 * x, 90 + 60 * y, 200 - 120 * x * y], axis=-1)
    return Image.fromarray(values.astype(np.uint8))


def photograph(blur: float) -> Image.Image:
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    part = Image.fromarray(images[1]).crop((0, 20, 200, 220)).resize((EDGE, EDGE))
    return part.filter(ImageFilter.GaussianBlur(blur))


def noisy() -> Image.Image:
    """A wall that JPEG has been over."""
    chance = np.random.default_rng(0)
    values = np.array([200, 205, 190]) + chance.normal(0, 5, (EDGE, EDGE, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("ground", "most"),
    [
        (lambda: Image.new("RGB", (EDGE, EDGE), "white"), 0.003),
        (lambda: Image.new("RGB", (EDGE, EDGE), "#203050"), 0.003),
        (gradient, 0.004),
        (noisy, 0.006),
        (lambda: photograph(4), 0.02),
        (lambda: photograph(0.1), 0.03),
    ],
)
def test_it_finds_the_alpha(ground: Callable[[], Image.Image], most: float) -> None:
    thing, behind = drawn(), ground().convert("RGBA")
    laid = Image.alpha_composite(behind, thing).convert("RGB")
    found = cutout(laid)
    assert (found.mode, found.size) == ("RGBA", laid.size)
    got, true = (np.asarray(each).astype(float) / 255 for each in (found, thing))
    assert np.abs(got[..., 3] - true[..., 3]).mean() < most
    sure = got[..., 3] == 1
    assert sure.mean() > 0.2
    assert (np.asarray(found)[sure][:, :3] == np.asarray(laid)[sure]).all()  # bytes as they were
    edge = (true[..., 3] > 0.5) & (got[..., 3] > 0.3) & ~sure
    if edge.any():  # freed of the ground: nearer to the thing's colour than what was there
        before = np.abs(np.asarray(laid)[edge] / 255 - true[edge][:, :3]).mean()
        assert np.abs(got[edge][:, :3] - true[edge][:, :3]).mean() < before
    assert cutout(laid).tobytes() == found.tobytes()


def test_what_has_no_ground() -> None:
    for image, why in (
        (drawn(), "transparent already"),
        (Image.new("RGB", (64, 64), "red"), "nothing stands out"),
        (gradient(), "nothing stands out"),
        (Image.new("RGB", (64, 4), "red"), "too small"),
        (Image.new("L", (6000, 6000)), "more than 24 megapixels"),
    ):
        with pytest.raises(ImageError, match=why):
            cutout(image)


def test_of_any_mode() -> None:
    laid = Image.alpha_composite(Image.new("RGBA", (EDGE, EDGE), "white"), drawn())
    for mode in ("L", "RGB", "P", "CMYK", "1"):
        assert cutout(laid.convert("RGB").convert(mode)).mode == "RGBA"
    assert cutout(laid).mode == "RGBA"  # opaque, with an alpha all the same
