"""Measure the watermark in the noise of the `icons` model: how often it is found, and whether the
pictures are as good with it.

    python benchmarks/noise_mark.py --out docs/watermark --pictures 40
    python benchmarks/noise_mark.py --out docs/watermark --corpus icons-128.zip --site packages

The first makes and searches pictures (12 to 40 s each on one core).  With --corpus, which
recipes/icons/corpus.py builds, the second part is measured instead; it needs the feature network
of benchmarks/icons_quality.py. Each run replaces its own sections of noise.json and writes noise.md
anew.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mezzotint.engine.detect import Search, evidence, verify_mark
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from mezzotint.families.catalogue import load
from mezzotint.families.model import Model
from mezzotint.provenance import keys
from mezzotint.provenance.noise_mark import NoiseMark, fits, read, words
from peers.report import Bar, Row, Section, merge

OWNER = keys.of_secret(b"the noise mark's benchmark, a key")
KEY = OWNER.secret
RATE = 1e-6  # false positives
THINGS = (
    "a red fox, emoji, noto style",
    "heart, emoji, glossy 3D style",
    "umbrella, emoji, flat twemoji style",
    "house, icon, flat color style",
    "clock, icon, blue and black outline style",
    "book, emoji, flat fluent style",
    "star, emoji, fluent gradient style",
    "folder, icon, blue duotone outline style",
    "sun, weather icon, filled style",
    "apple, fruit, emoji, old noto blob style",
    "smiling face, emoji, emojione style",
    "car, emoji, simple flat fxemoji style",
    "tree, clip art",
    "cat, emoji, outlined cartoon style",
    "envelope, icon, two-color thin line style",
    "cake, emoji, noto style",
    "lock, icon, soft gradient style",
    "bell, icon, bold flat style",
    "guitar, clip art",
    "camera, icon, polychrome glyph style",
)

Attack = Callable[[Tensor], Tensor]


def _bytes(unit: Tensor) -> Tensor:
    return unit.clamp(0, 1).mul(255).round()


def stored(picture: Tensor) -> Tensor:
    """As a PNG keeps it: eight bits, transparency and all."""
    return _bytes((picture + 1) / 2) / 255 * 2 - 1


def on_white(picture: Tensor) -> Tensor:
    """``(3, H, W)`` in [0, 1]."""
    unit = (picture + 1) / 2
    return (unit[:3] + 1 - unit[3:]).clamp(0, 1)


def jpeg(quality: int) -> Attack:
    """Laid on white and compressed; the transparency is lost."""

    def attack(picture: Tensor) -> Tensor:
        pixels = _bytes(on_white(picture)).byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        back = np.array(Image.open(io.BytesIO(file.getvalue())))
        return torch.from_numpy(back).permute(2, 0, 1).float() / 127.5 - 1

    return attack


def jpeg_beside_alpha(quality: int) -> Attack:
    """The same colours, with the transparency kept, as lossy WebP keeps it."""

    def attack(picture: Tensor) -> Tensor:
        unit = (picture + 1) / 2
        lost = (jpeg(quality)(picture) + 1) / 2
        colour = torch.minimum((lost - 1 + unit[3:]).clamp_min(0), unit[3:])
        return torch.cat([colour, unit[3:]]) * 2 - 1

    return attack


ATTACKS: dict[str, Attack] = {
    "PNG": stored,
    "JPEG 50 on white": jpeg(50),
    "JPEG 50, transparency kept": jpeg_beside_alpha(50),
}


BARRED = "JPEG 50 on white"


class _Result(NamedTuple):
    """p-values of one picture after one attack, and whether its tag was read rightly."""

    blind: float
    payload: float  # which is known
    right: bool
    recipe: float | None  # seed and prompt known; measured where the bar is
    other: float  # under another key, whose patterns have nothing to do with the picture: H0
    took: float  # seconds of the search


def _measured(
    model: Model, spoiled: Tensor, mark: NoiseMark, search: Search, recipe: Search | None
) -> _Result:
    begun = time.perf_counter()
    ways = evidence(model, spoiled, search)
    took = time.perf_counter() - begun
    other = min(read(way, mark.payload.to_bytes(32, "big")).p_value for way in ways)
    best = min((read(way, KEY) for way in ways), key=lambda one: one.p_value)
    known = min(fits(way, mark) for way in ways)
    right = best.tag == words(mark.payload, KEY)[0]
    sure = None if recipe is None else verify_mark(model, spoiled, mark, recipe)
    return _Result(2 * best.p_value, 2 * known, right, sure, 2 * other, took)


def _search(
    model: Model,
    sampler: str | None,
    attacks: Sequence[str],
    search: Search,
    pictures: int,
    until: float,
) -> Section:
    """One section: how often the mark of marked pictures is found, and of unmarked ones."""
    found: dict[str, list[_Result]] = {name: [] for name in attacks}
    done = 0
    for number in range(pictures):
        if number and time.monotonic() > until:
            break
        mark = NoiseMark(keys.payload(OWNER, keys.seed_hash(number)), KEY)
        prompt = THINGS[number % len(THINGS)]
        (picture,) = generate(model, Request(prompt, (number,), sampler=sampler, mark=OWNER))
        for name in attacks:
            recipe = replace(search, prompt=prompt, seed=number) if name == BARRED else None
            found[name].append(_measured(model, ATTACKS[name](picture), mark, search, recipe))
        done += 1
        print(f"\r{sampler or 'default'}: {number + 1} of {pictures}", end="", file=sys.stderr)
    print(file=sys.stderr)
    rows: list[Row] = []
    for name, results in found.items():
        bar = Bar("at least", 0.95) if name == BARRED else None
        rows.append(_share(f"{name}: found blind", [one.blind <= RATE for one in results], bar))
        rows.append(_share(f"{name}: tag read rightly", [one.right for one in results]))
        sure = [one.payload <= RATE for one in results]
        rows.append(_share(f"{name}: a known payload confirmed", sure))
        sure = [one.recipe <= RATE for one in results if one.recipe is not None]
        if sure:
            rows.append(_share(f"{name}: a known seed and prompt confirmed", sure))
    every = [one for results in found.values() for one in results]
    least = min(one.other for one in every) * len(every)
    took = tuple(one.took for one in every)
    rows.append(Row("least p-value under another key, times their number", (least,), "×"))
    rows.append(Row("time of a search", took, "s"))
    name = sampler or f"{model.defaults.sampler}, the default"
    return Section(
        f"found/{sampler or 'default'}",
        f"Found again: {name}",
        f"{done} pictures of {min(done, len(THINGS))} prompts, {model.defaults.steps} steps, "
        f"searched at a false-positive rate of {RATE:g}; in brackets Wilson's interval of 95 %. "
        "*Blind*: nothing is known but the key. *Known payload*: it is asked whether a picture "
        "carries this one. *Known seed and prompt*: whether it is the picture of this recipe; "
        "the noise's sizes and what the model was told are known then. "
        f"{search.draws} noises a level, {search.refine} steps of refining.",
        tuple(rows),
    )


def _share(name: str, hits: Sequence[bool], bar: Bar | None = None) -> Row:
    """A row with the share of hits; their number and its interval in the name."""
    count, share, z = len(hits), sum(hits) / len(hits), 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    spread *= z / (1 + z * z / count)
    low, high = max(0.0, middle - spread), min(1.0, middle + spread)
    told = f"{name}, {sum(hits)} of {count} ({100 * low:.0f} to {100 * high:.0f} %)"
    return Row(told, (share,), "%", bar)


_LEAST = 8  # pictures on each side


def _quality(model: Model, corpus: Path, site: Path | None, pictures: int, until: float) -> Section:
    """KID of the same prompts and seeds with and without the mark, and the error of what is
    between them, by a jackknife over pairs."""
    from quality.features import Extractor, canonical
    from quality.measures import mmd2
    from quality.reference import choose, read_corpus, units

    drawings = read_corpus(corpus)
    exam = choose(drawings.entries)
    half = pictures // 2
    pairs = zip(exam.seen.prompts[:half], exam.heldout.prompts[:half], strict=True)
    prompts = [prompt for pair in pairs for prompt in pair]
    extractor = Extractor(site)
    real = extractor(units(drawings, exam.reference)).pooled
    sides: list[list[Tensor]] = [[], []]
    times: list[list[float]] = [[], []]
    for number, prompt in enumerate(prompts):
        if number >= _LEAST and time.monotonic() > until:
            break
        for side, carried in enumerate((None, OWNER)):
            begun = time.perf_counter()
            sides[side] += generate(model, Request(prompt, (number,), mark=carried))
            times[side].append(time.perf_counter() - begun)
        print(f"\rasked {number + 1} of {len(prompts)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    done = len(sides[0])
    plain, marked = (extractor(canonical(torch.stack(side))).pooled for side in sides)
    values = [mmd2(side, real) for side in (plain, marked)]
    parts = min(20, done // 2)
    order = torch.arange(done) % parts
    left = [mmd2(marked[order != p], real) - mmd2(plain[order != p], real) for p in range(parts)]
    spread = torch.tensor(left, dtype=torch.float64)
    error = float(((parts - 1) / parts * (spread - spread.mean()).square().sum()).sqrt())
    gap = values[1] - values[0]
    slower = tuple(b / a for a, b in zip(*times, strict=True))
    return Section(
        "quality",
        "The pictures are as good",
        f"KID-EffLite0 against {len(real)} drawings of {done} prompts, the same seeds with "
        "and without the mark; its error by a jackknife over pairs.",
        (
            Row("KID without", (values[0],), "difference"),
            Row("KID with", (values[1],), "difference"),
            Row("with less without", (gap,), "difference"),
            Row("its error, one standard deviation", (error,), "difference"),
            Row("difference in errors", (abs(gap) / error,), "×", Bar("at most", 2.0)),
            Row("time of a picture, with to without", slower, "×", Bar("at most", 1.1, noisy=True)),
        ),
    )


_HEAD = """\
# The watermark in the noise

Written by `python benchmarks/noise_mark.py`. What it is: `provenance/noise_mark.py`; how it is
found: `engine/detect.py`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/watermark"), help="report folder")
    parser.add_argument("--pictures", type=int, default=40, help="how many to make")
    parser.add_argument("--sampler", help="in place of the model's own")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="these alone")
    parser.add_argument(
        "--draws", type=int, default=Search.draws, help="as in engine.detect.Search"
    )
    parser.add_argument("--refine", type=int, default=Search.refine, help="as in Search")
    parser.add_argument("--corpus", type=Path, help="measure KID against this archive of drawings")
    parser.add_argument("--site", type=Path, help="folder of the feature network's packages")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no picture after these")
    options = parser.parse_args(arguments)
    if options.pictures < 1 or (options.corpus is not None and options.pictures < _LEAST):
        parser.error("--pictures: 1 or more, and 8 or more with --corpus")
    until = time.monotonic() + 60 * options.minutes
    model = load("icons")
    if options.corpus is not None:
        section = _quality(model, options.corpus, options.site, options.pictures, until)
    else:
        search = Search(draws=options.draws, refine=options.refine)
        attacks = options.attack or list(ATTACKS)
        section = _search(model, options.sampler, attacks, search, options.pictures, until)
    merge(options.out, "noise", _HEAD, [section])
    print((options.out / "noise.md").read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
