"""The watermark in the pixels: what it costs, what it survives, and that it is not imagined."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from mezzotint.provenance.blind import QUALITY, Found, calibration, confirm, detect, embed
from mezzotint.provenance.codeword import WatermarkError, decode, encode
from mezzotint.provenance.pixels import difference
from mezzotint.provenance.sight import LARGEST, MARKED

KEY, OTHER, PAYLOAD = b"k" * 32, b"o" * 32, 0x1234_5678_9ABC_DEF0
SURE = 1e-6


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Natural pictures of 512 x 427: a temple and a flower."""
    whole = [Image.fromarray(values) for values in load_sample_images().images]
    return [image.resize((512, 427), Image.Resampling.LANCZOS) for image in whole]


@pytest.fixture(scope="module")
def marked(photos: list[Image.Image]) -> list[Image.Image]:
    return [embed(photo, PAYLOAD, KEY) for photo in photos]


def again(image: Image.Image, kind: str, **how: int) -> Image.Image:
    """What is left after the picture was stored with loss."""
    data = io.BytesIO()
    image.save(data, kind, **how)
    return Image.open(data).convert(image.mode)


def found(image: Image.Image) -> tuple[bool, bool]:
    """Whether it is surely marked, and whether its payload is right."""
    seen = detect(image, KEY)
    return seen.p_value <= SURE, seen.payload == PAYLOAD


# --- the code ---------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [0, 1, PAYLOAD, (1 << 64) - 1])
def test_a_word_comes_back(payload: int) -> None:
    word = encode(payload).astype(np.float32)
    soft = 1 - 2 * word if set(np.unique(word)) <= {0.0, 1.0} else word
    assert decode(soft) == payload
    noise = np.random.default_rng(1).normal(0, 0.7, soft.shape).astype(np.float32)
    assert decode(soft + noise) == payload
    assert decode(noise) is None  # its checksum does not fit


# --- what it costs ----------------------------------------------------------------------------


def test_it_is_faint_and_always_the_same(
    photos: list[Image.Image], marked: list[Image.Image]
) -> None:
    for photo, image in zip(photos, marked, strict=True):
        square = np.square(np.asarray(photo, np.float64) - np.asarray(image, np.float64)).mean()
        assert 40 <= 10 * np.log10(255**2 / square) <= QUALITY + 1
        assert difference(photo, image).largest <= 40
        assert embed(photo, PAYLOAD, KEY).tobytes() == image.tobytes()


def test_what_is_transparent_stays(photos: list[Image.Image]) -> None:
    image = photos[0].convert("RGBA")
    alpha = np.zeros((427, 512), np.uint8)
    alpha[50:400, 60:480] = 255
    image.putalpha(Image.fromarray(alpha))
    made = embed(image, PAYLOAD, KEY)
    before, after = np.asarray(image), np.asarray(made)
    assert np.array_equal(before[..., 3], after[..., 3])
    assert np.array_equal(before[alpha == 0], after[alpha == 0])
    assert found(made) == (True, True)


def test_what_must_not_change_stays(photos: list[Image.Image]) -> None:
    where = np.zeros((427, 512), bool)
    where[100:300, 200:400] = True
    made = embed(photos[0], PAYLOAD, KEY, where)
    before, after = np.asarray(photos[0]), np.asarray(made)
    assert np.array_equal(before[~where], after[~where])
    assert not np.array_equal(before[where], after[where])
    assert confirm(made, PAYLOAD, KEY) <= SURE


def test_a_small_flat_drawing_with_transparency() -> None:
    rows, columns = np.mgrid[:128, :128]
    pixels = np.zeros((128, 128, 4), np.uint8)
    pixels[np.hypot(rows - 64, columns - 64) < 60] = (200, 60, 40, 255)
    pixels[np.hypot(rows - 50, columns - 70) < 25] = (240, 200, 80, 255)
    image = Image.fromarray(pixels)
    made = embed(image, PAYLOAD, KEY)
    seen, there = pixels[..., 3] > 0, np.asarray(made)
    assert np.array_equal(there[~seen], pixels[~seen])
    apart = there[seen].astype(np.float64)[:, :3] - pixels[seen][:, :3]
    assert 10 * np.log10(255**2 / np.square(apart).mean()) >= 40
    assert found(made) == (True, True)


def test_grey(photos: list[Image.Image]) -> None:
    made = embed(photos[1].convert("L"), PAYLOAD, KEY)
    assert made.mode == "L" and found(made) == (True, True)


# --- what it survives -------------------------------------------------------------------------

ATTACKS = {
    "none": lambda image: image,
    "jpeg 50": lambda image: again(image, "JPEG", quality=50),
    "half": lambda image: image.resize((256, 214), Image.Resampling.BICUBIC),
    "turned": lambda image: image.rotate(5, Image.Resampling.BICUBIC).crop((60, 50, 460, 380)),
    "webp 75": lambda image: again(image, "WEBP", quality=75),
    "crop": lambda image: image.crop((61, 40, 61 + 384, 40 + 320)),
    "mirror": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter": lambda image: image.point(lambda value: min(255, round(value * 1.2))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_survives(marked: list[Image.Image], attack: str) -> None:
    for image in marked:
        assert found(ATTACKS[attack](image)) == (True, True)


def test_the_scale_is_found(marked: list[Image.Image]) -> None:
    large = marked[0].resize((768, 640), Image.Resampling.BICUBIC)
    seen = detect(large, KEY)
    assert seen.payload == PAYLOAD and seen.scale == pytest.approx(1.5, rel=0.01)


# --- what is not there ------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is(
    photos: list[Image.Image], marked: list[Image.Image]
) -> None:
    """Pictures without a mark, with another key's, and noise: p-values are no less than chance."""
    random = np.random.default_rng(3)
    images = [*photos, *marked]
    images += [Image.fromarray(random.integers(0, 256, (96, 128), np.uint8)) for _ in range(3)]
    seen: list[Found] = []
    for number, image in enumerate(images):
        seen += [detect(image, OTHER if number < 4 else bytes([number]) * 32)]
    assert all(each.payload is None for each in seen)
    assert min(each.p_value for each in seen) > 1e-3


def test_the_bound_is_on_the_safe_side(
    photos: list[Image.Image], marked: list[Image.Image]
) -> None:
    """Of what is a p-value at most a share x is up to x; also beside another key's mark."""
    others = [bytes([number, 1]) * 16 for number in range(250)]
    values = np.concatenate([calibration(image, others) for image in (photos[0], marked[1])])
    for level in (0.5, 0.1, 0.02):
        assert (values <= level).mean() <= level
    assert values.min() < 0.2  # and yet no constant
    assert min(confirm(marked[0], PAYLOAD, key) for key in others[:20]) > 1e-3
    assert confirm(marked[0], 0xFEED_2 << 40, KEY) > SURE >= confirm(marked[0], PAYLOAD, KEY)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (1, 1)), "a picture of 1x1 pixels carries no watermark"),
        (Image.new("RGB", (MARKED - 1, 500)), "each edge must have 96 to 8192"),
        (Image.new("L", (LARGEST + 1, 96)), "each edge must have 96 to 8192"),
        (Image.new("CMYK", (96, 96)), "mode CMYK: convert it to L, RGB or RGBA"),
        (Image.new("RGBA", (96, 96)), "all transparent carries no watermark"),
    ],
)
def test_what_cannot_carry_it(image: Image.Image, message: str) -> None:
    with pytest.raises(WatermarkError, match=message):
        embed(image, PAYLOAD, KEY)


@pytest.mark.parametrize("payload", [-1, 1 << 64])
def test_a_payload_has_64_bits(payload: int) -> None:
    with pytest.raises(WatermarkError, match="64"):
        embed(Image.new("RGB", (96, 96)), payload, KEY)
