"""The report: numbers as JSON and as a page, and contact sheets to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from quality.bench import Bench, Judged, Score, nearer_than_real
from quality.measures import Kid, Recall
from quality.reference import Exam

SHOWN = 48
_COLUMNS = 8
_AIMS = {"seen": 0.6, "heldout": 0.3, "kid": 1 / 3}
_INK = (40, 40, 40)


def _kid(value: Kid) -> dict[str, float | None]:
    """JSON has no NaN: an error that cannot be told is null."""
    return {
        "value": value.value,
        "standard_error": None if math.isnan(value.error) else value.error,
    }


def _recall(ours: Recall, ceiling: Recall, aim: float, queries: int, texts: int) -> dict[str, Any]:
    return {
        "ceiling": ceiling.value,
        "ours": ours.value,
        "standard_error": math.sqrt(ours.value * (1 - ours.value) / queries),
        "floor": ours.shuffled,
        "share_of_ceiling": ours.value / ceiling.value if ceiling.value else None,
        "aim": aim,
        "pictures": queries,
        "candidates": texts,
    }


def _retrieval(
    name: str, judged: Judged, count: tuple[int, int], exam: Exam
) -> dict[str, dict[str, Any]]:
    return {
        f"{name}_{part}": _recall(ours, ceiling, _AIMS[part], pictures, len(questions.texts))
        for part, ours, ceiling, pictures, questions in (
            ("seen", judged.seen, judged.seen_ceiling, count[0], exam.seen),
            ("heldout", judged.heldout, judged.heldout_ceiling, count[1], exam.heldout),
        )
    }


def numbers(bench: Bench, score: Score) -> dict[str, Any]:
    """All measures as plain data."""
    base, exam = bench.baselines, bench.exam
    features = nearer_than_real(score.near_features, base.near_features)
    pixels = nearer_than_real(score.near_pixels, base.near_pixels)
    return {
        "corpus": bench.corpus.path.name,
        "corpus_digest": bench.corpus.digest,
        "pictures_a_prompt": score.rounds,
        **_retrieval("retrieval", score.judged, score.count, exam),
        **_retrieval("second_judge", score.second, score.count, exam),
        "kid_efflite0": {
            "ceiling": _kid(base.kid_real),
            "ours": _kid(score.kid),
            "floor": _kid(base.kid_floor),
            "share_of_floor": score.kid.value / base.kid_floor.value,
            "aim": _AIMS["kid"],
            "others": {name: _kid(value) for name, value in base.kid_others.items()},
            "reference_drawings": len(exam.reference),
        },
        "clean_transparency": {
            "ceiling": base.clean_real,
            "ours": score.clean,
            "floor": base.clean_floor,
        },
        "memorization": {
            "nearer_than_1_percent_of_real_by_features": features,
            "nearer_than_1_percent_of_real_by_pixels": pixels,
            "median_distance_features": float(score.near_features.median()),
            "median_distance_features_real": float(base.near_features.median()),
            "median_distance_pixels": float(score.near_pixels.median()),
            "median_distance_pixels_real": float(base.near_pixels.median()),
        },
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _pm(value: dict[str, float | None]) -> str:
    error = value["standard_error"]
    return f"{value['value']:.3f}" + ("" if error is None else f" ± {error:.3f}")


def _recall_row(what: str, row: dict[str, Any], aims: bool) -> str:
    share = f"{_percent(row['share_of_ceiling'])} of the ceiling"
    aim = f" (aim: at least {_percent(row['aim'])})" if aims else ""
    ours = f"**{100 * row['ours']:.1f} ± {100 * row['standard_error']:.1f} %**"
    return (
        f"| {what} | {_percent(row['ceiling'])} | {_percent(row['floor'])} | {ours} | "
        f"{share}{aim} |"
    )


def page(found: dict[str, Any], model: str) -> str:
    """The report as Markdown."""
    seen, heldout = found["retrieval_seen"], found["retrieval_heldout"]
    kid, clean, memory = found["kid_efflite0"], found["clean_transparency"], found["memorization"]
    second = "R@10 of the second judge"
    rows = [
        _recall_row("R@10, seen concepts", seen, True),
        _recall_row("R@10, held-out concepts", heldout, True),
        _recall_row(f"{second}, seen concepts", found["second_judge_seen"], False),
        _recall_row(f"{second}, held-out concepts", found["second_judge_heldout"], False),
        f"| KID-EffLite0 (less is better) | {_pm(kid['ceiling'])} | {_pm(kid['floor'])} | "
        f"**{_pm(kid['ours'])}** | {_percent(kid['share_of_floor'])} of the floor "
        f"(aim: at most {_percent(kid['aim'])}) |",
        f"| clean transparency | {_percent(clean['ceiling'])} | {_percent(clean['floor'])} | "
        f"**{_percent(clean['ours'])}** | |",
    ]
    others = [f"| {name} | {_pm(value)} |" for name, value in kid["others"].items()]
    near = "nearer_than_1_percent_of_real_by_"
    return _PAGE.format(
        model=model,
        corpus=f"{found['corpus']} ({found['corpus_digest']})",
        rows="\n".join(rows),
        others="\n".join(others),
        near_features=_percent(memory[near + "features"]),
        near_pixels=_percent(memory[near + "pixels"]),
        features=f"{memory['median_distance_features']:.3f}",
        features_real=f"{memory['median_distance_features_real']:.3f}",
        pixels=f"{memory['median_distance_pixels']:.3f}",
        pixels_real=f"{memory['median_distance_pixels_real']:.3f}",
        rounds=found["pictures_a_prompt"],
        seen=seen["pictures"],
        heldout=heldout["pictures"],
        seen_texts=seen["candidates"],
        heldout_texts=heldout["candidates"],
        reference=kid["reference_drawings"],
    )


_PAGE = """\
# How good is `icons`?

Made by `benchmarks/icons_quality.py` from the model `{model}` and the corpus {corpus}:
{seen} pictures of concepts that the model has seen in training and {heldout} of concepts held out
from it, {rounds} of each concept, each of another seed, nothing picked by hand. The prompt is the
caption "label, style" of a real drawing of that concept.

| measure | ceiling (real drawings) | floor | ours | |
|---|---:|---:|---:|---|
{rows}

![seen concepts](icons-seen.png)
![held-out concepts](icons-heldout.png)

## What is measured
- **R@10.** A judge looks at a picture and ranks {seen_texts} labels ({heldout_texts} in the
  held-out list); counted is how often the right one is among the first ten. The judge is a small
  network on EfficientNet-Lite0 features, trained against MiniLM's embeddings of the labels on real
  drawings only, of all concepts; it knows held-out concepts too, only the drawing model does not.
  *Ceiling:* the same judge on real drawings of the same prompts, none of which it was trained on.
  *Floor:* our pictures with the prompts shuffled among them (the exact expectation).
  ± is the standard error of a share of so many pictures.
  A concept is asked only if it has two drawings or more; where too few held-out ones have, the
  candidates are filled up with labels of further concepts that are never asked.
- **The second judge** looks with other eyes: gradients and colours, no network at all. A model
  whose prior makes EfficientNet-Lite0 features and chooses among them by the words, as that of
  `icons` does, has learnt from the first judge's eyes and may please them too well; of these it
  knows nothing. They see less, so compare the shares of the ceilings.
- **KID-EffLite0.** The unbiased squared kernel distance (cubic polynomial kernel) between the 1280
  pooled EfficientNet-Lite0 features of our pictures and of {reference} real drawings of other
  concepts, at 64 px on white. It is not comparable with an FID or a KID on Inception features.
  *Ceiling:* real drawings of the same prompts against those {reference}: what a perfect model
  would get. *Floor:* the same real drawings blurred by 3 of 64 px, so that colours and places are
  right and all detail is gone. Shuffled captions could not serve as a floor here, for this measure
  does not look at words; and of the trivial generators tried this one has the least distance, so
  it makes the aim the hardest (see the table below).
- **Clean transparency.** Share of pictures with at least 95 % of the border pixels below 5 %
  opacity and at least 90 % of all pixels below 10 % or above 90 %. Glows, shadows and drawings
  that fill the square fail it, so real drawings do not reach 100 % either. *Floor:* as for KID.

For comparison, KID-EffLite0 of:

| | |
|---|---:|
{others}

## Does it copy?
The distance of each picture to the nearest drawing of the training set, beside the same for real
drawings of held-out concepts. By chance 1 % would be nearer than the nearest hundredth of those.

| | median, ours | median, real held-out | ours nearer than 99 % of the real |
|---|---:|---:|---:|
| features (1 − cosine) | {features} | {features_real} | {near_features} |
| pixels (RMS at 32 px) | {pixels} | {pixels_real} | {near_pixels} |

Soft or simple pictures lie near many drawings without being copies of one, and half of the
prompts are captions that the model was trained on: look at the nearest neighbours before you
conclude anything from these shares.
"""


def _tile(picture: Tensor, size: int) -> Image.Image:
    """Premultiplied RGBA ``(4, H, W)`` in [−1, 1] on a light checkerboard."""
    unit = picture.float().add(1).div(2).clamp(0, 1)
    grid = torch.arange(unit.shape[-1]) * 16 // unit.shape[-1]
    board = torch.where((grid[:, None] + grid[None]) % 2 == 0, 1.0, 0.94)
    rgb = torch.minimum(unit[:3], unit[3:]) + (1 - unit[3:]) * board
    array = rgb.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((size, size), Image.Resampling.LANCZOS)


def _lines(text: str, font: Any, width: int, most: int = 3) -> list[str]:
    """Words broken into at most ``most`` lines; the last is cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + " …"]
    return lines


def contact_sheet(pictures: Sequence[Tensor], captions: Sequence[str], size: int) -> Image.Image:
    """Pictures in rows of eight with their prompts below."""
    font = ImageFont.load_default(11)
    cell, below = size + 16, 48
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * cell, rows * (cell + below)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % _COLUMNS * cell, number // _COLUMNS * (cell + below)
        sheet.paste(_tile(picture, size), (left + 8, top + 8))
        for turn, line in enumerate(_lines(caption, font, size)):
            pen.text((left + 8, top + size + 11 + 14 * turn), line, fill=_INK, font=font)
    return sheet


def write(
    out: Path, bench: Bench, score: Score, seen: Tensor, heldout: Tensor, model: str
) -> dict[str, Any]:
    """Write report.json, report.md and the two contact sheets, of the first round of pictures;
    returns the numbers."""
    out.mkdir(parents=True, exist_ok=True)
    found = {"model": model, **numbers(bench, score)}
    (out / "report.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    (out / "report.md").write_text(page(found, model), "utf-8")
    for pictures, questions in ((seen, bench.exam.seen), (heldout, bench.exam.heldout)):
        shown = list((pictures if pictures.ndim == 4 else pictures[0])[:SHOWN])
        sheet = contact_sheet(shown, questions.prompts[: len(shown)], 128)
        sheet.save(out / f"icons-{questions.name}.png", optimize=True)
    return found
