"""The sections of benchmarks/watermark.py about pictures."""

from __future__ import annotations

import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from mezzotint.provenance import lattice
from mezzotint.provenance.blind import calibration, detect, embed
from peers.report import Bar, Row, Section

RATE = 1e-6  # false positives
PARTS = ("natural", "512", "more", "icons", "unmarked")
ALMOST_ALL = Bar("at least", 0.99)

Attack = Callable[[Image.Image], Image.Image]


class Asked(NamedTuple):
    photos: Path | None
    icons: Path | None
    trials: int
    more: int
    unmarked: int


# --- pictures ---------------------------------------------------------------------------------

_OF_SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket", "camera", "hubble_deep_field")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def natural(folder: Path | None) -> list[Image.Image]:
    """Photographs: a folder's, or the few that packages bring; in the order of their names."""
    if folder is not None:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        return [Image.open(path).convert("RGB") for path in paths]
    return packaged()


def packaged() -> list[Image.Image]:
    """The photographs of scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [getattr(data, name)() for name in _OF_SKIMAGE] + list(load_sample_images().images)
    return [Image.fromarray(array).convert("RGB") for array in arrays]


def cuts(images: Sequence[Image.Image], count: int, edge: int) -> list[Image.Image]:
    """``count`` square pictures of ``edge`` pixels, cut at random and resampled."""
    random = np.random.default_rng(edge)
    made: list[Image.Image] = []
    for image in itertools.islice(itertools.cycle(images), count):
        side = int(min(image.size) * random.uniform(0.7, 1.0))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        cut = image.crop((left, top, left + side, top + side))
        made.append(cut.resize((edge, edge), Image.Resampling.LANCZOS))
    return made


def icons(folder: Path, count: int) -> list[Image.Image]:
    """Pictures of the model in the package, with transparency; what is not there is made."""
    from mezzotint.engine.generate import generate
    from mezzotint.engine.request import Request
    from mezzotint.families.catalogue import load
    from mezzotint.modalities.image import to_image
    from noise_mark import THINGS

    folder.mkdir(parents=True, exist_ok=True)
    model = None
    for number in range(count):
        path = folder / f"{number:04}.png"
        if not path.is_file():
            model = model or load("icons")
            (picture,) = generate(model, Request(THINGS[number % len(THINGS)], (number,)))
            to_image(picture).save(path)
    return [Image.open(folder / f"{number:04}.png").convert("RGBA") for number in range(count)]


# --- what happens to a picture ----------------------------------------------------------------


def stored(kind: str, quality: int) -> Attack:
    def attack(image: Image.Image) -> Image.Image:
        data = io.BytesIO()
        image.save(data, kind, quality=quality)
        return Image.open(data).convert(image.mode)

    return attack


def resized(factor: float) -> Attack:
    def attack(image: Image.Image) -> Image.Image:
        size = (round(image.width * factor), round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)

    return attack


def cropped(area: float) -> Attack:
    """To a share of the area, of the picture's own aspect, somewhere off the middle."""

    def attack(image: Image.Image) -> Image.Image:
        width, height = (int(length * area**0.5) for length in image.size)
        left, top = int((image.width - width) * 0.37), int((image.height - height) * 0.61)
        return image.crop((left, top, left + width, top + height))

    return attack


def noisy(deviation: float) -> Attack:
    def attack(image: Image.Image) -> Image.Image:
        values = np.asarray(image, np.float64)
        noise = np.random.default_rng(1).normal(0, deviation, values.shape)
        return Image.fromarray((values + noise).clip(0, 255).round().astype(np.uint8))

    return attack


def chain(*steps: Attack) -> Attack:
    def attack(image: Image.Image) -> Image.Image:
        for step in steps:
            image = step(image)
        return image

    return attack


def same(image: Image.Image) -> Image.Image:
    return image


def on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")


BARRED: dict[str, Attack] = {
    "JPEG 50": stored("JPEG", 50),
    "resize 0.5×": resized(0.5),
    "crop to 75 % of the area": cropped(0.75),
}
MORE: dict[str, Attack] = {
    "PNG": same,
    "JPEG 90": stored("JPEG", 90),
    "JPEG 70": stored("JPEG", 70),
    "JPEG 30": stored("JPEG", 30),
    "WebP 75": stored("WEBP", 75),
    "WebP 50": stored("WEBP", 50),
    "resize 2×": resized(2),
    "resize 0.5×, then JPEG 75": chain(resized(0.5), stored("JPEG", 75)),
    "crop to 50 % of the area": cropped(0.5),
    "crop to 25 % of the area": cropped(0.25),
    "rotation 5°, corners cut off": chain(
        lambda image: image.rotate(5, Image.Resampling.BICUBIC),
        lambda image: image.crop(
            (image.width // 8, image.height // 8, image.width * 7 // 8, image.height * 7 // 8)
        ),
    ),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brightness × 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "blur, deviation 1 pixel": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "noise, deviation 8 of 255": noisy(8),
    "like a screenshot: 0.731×, crop to 64 %, JPEG 75": chain(
        resized(0.731), cropped(0.64), stored("JPEG", 75)
    ),
}
OF_ICONS: dict[str, Attack] = {
    "PNG": same,
    "PNG on white": on_white,
    "WebP 90 on white": chain(on_white, stored("WEBP", 90)),
    "JPEG 90 on white": chain(on_white, stored("JPEG", 90)),
    "JPEG 70 on white": chain(on_white, stored("JPEG", 70)),
    "JPEG 50 on white": chain(on_white, stored("JPEG", 50)),
    "resize 2×, on white": chain(on_white, resized(2)),
    "resize 0.5×, on white": chain(on_white, resized(0.5)),
}


# --- trials -----------------------------------------------------------------------------------


@dataclass
class _Seen:
    found: list[bool] = field(default_factory=list)
    read: list[bool] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


@dataclass
class Trials:
    """PSNR over the visible pixels, seconds of embedding, and what became of each attack."""

    quality: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    seen: dict[str, _Seen] = field(default_factory=dict)


def psnr(before: Image.Image, after: Image.Image) -> float:
    one, other = (np.asarray(image).astype(np.float64) for image in (before, after))
    apart = (one - other)[..., :3]
    if before.mode == "RGBA":
        apart = apart[one[..., 3] > 0]
    return float(10 * np.log10(255**2 / np.square(apart).mean()))


def tried(images: Sequence[Image.Image], attacks: dict[str, Attack]) -> Trials:
    """Each picture with a key and a payload of its own, through every attack."""
    random = np.random.default_rng(11)
    trials = Trials(seen={name: _Seen() for name in attacks})
    for number, image in enumerate(images):
        key, payload = random.bytes(32), int.from_bytes(random.bytes(8), "big")
        begun = time.perf_counter()
        marked = embed(image, payload, key)
        trials.took.append(time.perf_counter() - begun)
        trials.quality.append(psnr(image, marked))
        for name, attack in attacks.items():
            there, seen = attack(marked), trials.seen[name]
            begun = time.perf_counter()
            told = detect(there, key)
            seen.took.append(time.perf_counter() - begun)
            seen.found.append(told.p_value <= RATE)
            seen.read.append(seen.found[-1] and told.payload == payload)
        print(f"\r{number + 1} of {len(images)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return trials


def _share(values: Sequence[bool]) -> tuple[float]:
    return (sum(values) / len(values),)


def _rows(trials: Trials, bar: Bar | None, least: float | None) -> Iterator[Row]:
    for name, seen in trials.seen.items():
        yield Row(f"{name}: found", _share(seen.found), "%", bar)
        yield Row(f"{name}: read", _share(seen.read), "%")
    limit = None if least is None else Bar("at least", least)
    yield Row("least PSNR, dB", (min(trials.quality),), "×", limit)
    yield Row("median PSNR, dB", tuple(trials.quality), "×")
    yield Row("time of embedding", tuple(1e3 * each for each in trials.took), "ms")
    slow = [each for seen in trials.seen.values() for each in seen.took]
    yield Row("time of looking, median", tuple(1e3 * each for each in slow), "ms")
    yield Row("time of looking, longest", (max(slow),), "s")


def _section(
    key: str,
    title: str,
    text: str,
    images: Sequence[Image.Image],
    attacks: dict[str, Attack],
    bar: Bar | None = None,
    least: float | None = 40,
) -> Section:
    trials = tried(images, attacks)
    said = f"{len(images)} {text} Each has its own random key and payload."
    return Section(f"image/{key}", title, said, tuple(_rows(trials, bar, least)))


# --- what is not there ------------------------------------------------------------------------


def _unmarked(images: Sequence[Image.Image], count: int) -> Section:
    """Pictures without a mark, and the bound for many keys."""
    random = np.random.default_rng(5)
    values: list[float] = []
    bounds: list[NDArray[np.float64]] = []
    keys = [random.bytes(32) for _ in range(200)]
    for number, image in enumerate(images[:count]):
        if number % 2:
            image = embed(image, 1, b"somebody else's")
        values.append(detect(image, random.bytes(32)).p_value)
        if number < 50:
            bounds.append(calibration(image, keys))
        print(f"\runmarked {number + 1} of {count}", end="", file=sys.stderr)
    print(file=sys.stderr)
    levels = (0.1, 0.01, 0.001)
    rows = [*_shares("p-values of a search", np.array(values), levels)]
    rows.append(Row("least p-value of a search, times their number", (min(values) * count,), "×"))
    rows += _shares("bounds at one place", np.concatenate(bounds), (0.5, *levels))
    tried = 1 + lattice.SCALES + lattice.CANDIDATES
    return Section(
        "image/unmarked",
        "Where no mark is",
        f"{count} cuts of 192 × 192 pixels, every second one with another key's mark, each "
        f"searched with a random key in {tried} geometries; and the bound exp(−T²/Σa²) alone, at "
        f"one place, of {len(bounds)} of them with {len(keys)} keys each. Of an honest p-value at "
        "most a share x is up to x.",
        tuple(rows),
    )


def _shares(name: str, values: NDArray[np.float64], levels: Sequence[float]) -> Iterator[Row]:
    for level in levels:
        share = float((values <= level).mean())
        yield Row(f"{name}: up to {level:g}", (share,), "%", Bar("at most", level))


def sections(asked: Asked, parts: Sequence[str]) -> Iterator[Section]:
    """Those that are asked for, each when it is measured."""
    photos = natural(asked.photos)
    whole = list(itertools.islice(itertools.cycle(photos), asked.trials))
    if "natural" in parts:
        text = "photographs as they are (most 400 × 533 pixels)."
        yield _section("natural", "Photographs: the bars", text, whole, BARRED, ALMOST_ALL)
    if "512" in parts:
        squares = cuts([*packaged(), *photos[::-1]], asked.trials, 512)
        text = "squares of 512 × 512 pixels, cut from photographs and resampled."
        yield _section("512", "512 × 512: the bars", text, squares, BARRED, ALMOST_ALL)
    if "more" in parts:
        step = max(1, len(photos) // asked.more)
        text = "photographs as they are."
        yield _section(
            "more", "Photographs: what else may happen", text, photos[::step][: asked.more], MORE
        )
    if "icons" in parts and asked.icons is not None:
        text = (
            "pictures of the `icons` model, 128 × 128 with transparency, of which about half "
            "can carry anything. PSNR is that of the visible pixels; the others stay as they are."
        )
        yield _section(
            "icons",
            "Small flat icons",
            text,
            icons(asked.icons, asked.trials),
            OF_ICONS,
            least=None,
        )
    if "unmarked" in parts:
        yield _unmarked(cuts(photos, asked.unmarked, 192), asked.unmarked)
