"""The exam room: prepared once from the corpus, then any set of pictures is scored in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.families.text import load_text_encoder
from quality.features import Extractor, Features, QualityError, canonical
from quality.measures import (
    Kid,
    Recall,
    blurred,
    clean,
    gaussian_pictures,
    kid,
    nearest_cosine,
    nearest_pixels,
    recall,
)
from quality.plain import plain
from quality.probe import EPOCHS, Judge, train
from quality.reference import (
    VERSION,
    Corpus,
    Exam,
    Questions,
    Real,
    choose,
    load_tensors,
    read_corpus,
    real,
    save_tensors,
    tiny,
    units,
)

Tell = Callable[[str], None]
_NEAR = 0.01  # the quantile of real drawings' distances below which a picture counts as near
_FLOOR_BLUR = 3.0  # of 64 px: right colours and places, no detail
_SOFT_BLUR = 1.0


@dataclass(frozen=True)
class Baselines:
    """What real drawings reach, and what pictures without any detail reach (the floor).

    kid_others: more points of comparison, trivial generators and slight damage.
    """

    kid_real: Kid
    kid_floor: Kid
    kid_others: dict[str, Kid]
    clean_real: float
    clean_floor: float
    near_features: Tensor  # sorted distances of held-out drawings to their nearest training one
    near_pixels: Tensor


@dataclass(frozen=True)
class Bench:
    """All that is needed to score pictures.

    second, plain: another judge, and what it sees of every drawing (see ``quality.plain``).
    """

    corpus: Corpus
    exam: Exam
    extractor: Extractor
    real: Real
    training: Tensor  # rows the drawing model learns from
    judge: Judge
    sentences: dict[str, Tensor]
    baselines: Baselines
    second: Judge
    plain: Tensor


class Judged(NamedTuple):
    """One judge's verdict: of our pictures, and of real drawings for the same prompts."""

    seen: Recall
    heldout: Recall
    seen_ceiling: Recall
    heldout_ceiling: Recall


@dataclass(frozen=True)
class Score:
    """The measures of one set of pictures."""

    judged: Judged
    second: Judged
    kid: Kid
    clean: float
    near_features: Tensor  # (N,) distance to the nearest training drawing
    near_pixels: Tensor
    nearest: Tensor  # (N,) its row in the corpus, by features
    count: tuple[int, int]  # pictures of seen and of held-out concepts
    rounds: int = 1  # pictures a prompt


def sentences(corpus: Corpus, exam: Exam, cache: Path, tell: Tell) -> dict[str, Tensor]:
    """MiniLM embeddings of every label of the corpus, from the cache or computed now."""
    labels = sorted({entry.label for entry in corpus.entries})
    path = cache / f"labels-{corpus.digest}-{VERSION}.safetensors"
    if not path.is_file():
        tell(f"reading {len(labels)} labels (a minute or two)")
        save_tensors(path, {"pooled": load_text_encoder().pooled(labels)})
    return dict(zip(labels, load_tensors(path)["pooled"], strict=True))


def _stack(told: dict[str, Tensor], texts: tuple[str, ...]) -> Tensor:
    return torch.stack([told[text] for text in texts])


def plain_of(corpus: Corpus, cache: Path, tell: Tell) -> Tensor:
    """What the second judge sees of every drawing, from the cache or computed now (a minute)."""
    path = cache / f"plain-{corpus.digest}-{VERSION}.safetensors"
    if not path.is_file():
        tell("edges and colours of all drawings")
        rows = torch.arange(len(corpus.entries)).split(512)
        seen = torch.cat([plain(units(corpus, part.tolist())).half() for part in rows])
        save_tensors(path, {"plain": seen})
    return load_tensors(path)["plain"]


def judge_of(
    name: str,
    corpus: Corpus,
    exam: Exam,
    sight: Tensor,
    told: dict[str, Tensor],
    cache: Path,
    tell: Tell,
) -> Judge:
    """A judge from the cache, or trained now on all drawings but the ones that are asked."""
    path = cache / f"{name}-{corpus.digest}-{VERSION}.safetensors"
    if path.is_file():
        judge = Judge(sight.shape[1])
        judge.load_state_dict(load_tensors(path))
        return judge.eval().requires_grad_(False)
    asked = {*exam.seen.rows, *exam.heldout.rows}
    rows = [row for row in range(len(corpus.entries)) if row not in asked]
    numbers = {c: n for n, c in enumerate(sorted({e.concept for e in corpus.entries}))}
    judge = train(
        sight[rows],
        _stack(told, tuple(corpus.entries[row].label for row in rows)),
        torch.tensor([numbers[corpus.entries[row].concept] for row in rows]),
        EPOCHS,
        tell=tell,
    )
    save_tensors(path, judge.state_dict())
    return judge


def asked_recall(
    judge: Judge, sight: Tensor, questions: Questions, told: dict[str, Tensor]
) -> Recall:
    """R@10 of pictures that answer the first ``len(sight)`` questions."""
    texts = judge.text(_stack(told, questions.texts))
    return recall(judge.picture(sight), texts, torch.arange(len(sight)))


def _rows(corpus: Corpus, split: str) -> Tensor:
    """Numbers of the drawings of a split."""
    return torch.tensor([row for row, e in enumerate(corpus.entries) if e.split == split])


def _both(exam: Exam) -> list[int]:
    return [*exam.seen.rows, *exam.heldout.rows]


def _baselines(
    corpus: Corpus,
    exam: Exam,
    extractor: Extractor,
    drawings: Real,
    tell: Tell,
) -> Baselines:
    tell("ceilings and floors")
    found = drawings.features
    reference = found.pooled[list(exam.reference)]
    real_unit = units(corpus, _both(exam))
    floor = blurred(real_unit, _FLOOR_BLUR)
    noise = torch.rand(real_unit.shape, generator=torch.Generator().manual_seed(1))
    others = {
        "real drawings blurred by 1 px": blurred(real_unit, _SOFT_BLUR),
        "uniform noise": torch.cat([noise[:, :3] * noise[:, 3:], noise[:, 3:]], dim=1),
        "Gaussian with the drawings' mean and covariance": gaussian_pictures(
            units(corpus, exam.reference), len(real_unit)
        ),
    }
    training, unseen = _rows(corpus, "train"), _rows(corpus, "heldout")
    return Baselines(
        kid(found.pooled[_both(exam)], reference),
        kid(extractor(floor).pooled, reference),
        {name: kid(extractor(unit).pooled, reference) for name, unit in others.items()},
        float(clean(real_unit).float().mean()),
        float(clean(floor).float().mean()),
        nearest_cosine(found.pooled[unseen], found.pooled[training])[0].sort()[0],
        nearest_pixels(drawings.tiny[unseen], drawings.tiny[training])[0].sort()[0],
    )


def _kept_baselines(path: Path, make: Callable[[], Baselines]) -> Baselines:
    """Baselines from the cache, or made now."""
    if not path.is_file():
        made = make()
        numbers: dict[str, list[float]] = {
            "kid": [
                made.kid_real.value,
                made.kid_real.error,
                made.kid_floor.value,
                made.kid_floor.error,
            ],
            "clean": [made.clean_real, made.clean_floor],
        }
        for name, value in made.kid_others.items():
            numbers[f"other:{name}"] = [value.value, value.error]
        stored = {name: torch.tensor(row, dtype=torch.float64) for name, row in numbers.items()}
        stored |= {"near_features": made.near_features, "near_pixels": made.near_pixels}
        save_tensors(path, stored)
    kept = load_tensors(path)
    real_kid, real_error, floor_kid, floor_error = kept["kid"].tolist()
    return Baselines(
        Kid(real_kid, real_error),
        Kid(floor_kid, floor_error),
        {k[6:]: Kid(*v.tolist()) for k, v in sorted(kept.items()) if k.startswith("other:")},
        *kept["clean"].tolist(),
        kept["near_features"],
        kept["near_pixels"],
    )


def prepare(path: Path, cache: Path, site: Path | None = None, tell: Tell = print) -> Bench:
    """Everything from the corpus; the first time takes some minutes, then it is read back.

    Args:
        path: the archive that `recipes/icons/corpus.py` wrote.
        cache: a folder for features, judge and baselines.
        site: where the feature network's packages are, if not in the environment.

    Raises:
        QualityError: the corpus or the packages are missing.
    """
    corpus = read_corpus(path)
    exam = choose(corpus.entries)
    extractor = Extractor(site)
    drawings = real(corpus, cache, extractor, tell)
    told = sentences(corpus, exam, cache, tell)
    judge = judge_of("judge", corpus, exam, drawings.features.sight, told, cache, tell)
    seen = plain_of(corpus, cache, tell)
    second = judge_of("second", corpus, exam, seen, told, cache, tell)
    baselines = _kept_baselines(
        cache / f"baselines-{corpus.digest}-{VERSION}.safetensors",
        lambda: _baselines(corpus, exam, extractor, drawings, tell),
    )
    training = _rows(corpus, "train")
    return Bench(corpus, exam, extractor, drawings, training, judge, told, baselines, second, seen)


def _judged(bench: Bench, judge: Judge, made: Tensor, count: int, real: Tensor) -> Judged:
    """A judge's verdict.

    Args:
        made: what it sees of our pictures, ``count`` of seen concepts and then the held-out ones.
        real: what it sees of all drawings.
    """
    seen, heldout = bench.exam.seen, bench.exam.heldout
    known = list(seen.rows[:count]), list(heldout.rows[: len(made) - count])
    asked = (
        (made[:count], seen),
        (made[count:], heldout),
        (real[known[0]], seen),
        (real[known[1]], heldout),
    )
    return Judged(*(asked_recall(judge, sight, q, bench.sentences) for sight, q in asked))


def _mean(rounds: Sequence[Judged]) -> Judged:
    """The verdicts of several rounds of equal size as one."""

    def mean(found: Sequence[Recall]) -> Recall:
        parts = zip(*((each.value, each.shuffled) for each in found), strict=True)
        return Recall(*(sum(part) / len(found) for part in parts))

    return Judged(*(mean(found) for found in zip(*rounds, strict=True)))


def score(bench: Bench, seen: Tensor, heldout: Tensor) -> Score:
    """Score pictures made from the first prompts of each list.

    Args:
        seen: premultiplied RGBA ``(n, 4, H, H)`` in [−1, 1], picture i made from
            ``bench.exam.seen.prompts[i]``; n may be smaller than the list. Or several rounds of
            them, ``(R, n, 4, H, H)``.
        heldout: the same for ``bench.exam.heldout.prompts``.
    """
    exam = bench.exam
    if seen.ndim == 4:
        seen, heldout = seen[None], heldout[None]
    rounds, counts = len(seen), (seen.shape[1], heldout.shape[1])
    for count, questions in zip(counts, (exam.seen, exam.heldout), strict=True):
        if not 1 <= count <= len(questions.prompts):
            raise QualityError(
                f"{count} pictures for the {questions.name} prompts: give 1 to "
                f"{len(questions.prompts)}"
            )
    unit = torch.cat([canonical(part) for both in zip(seen, heldout, strict=True) for part in both])
    found: Features = bench.extractor(unit)
    known = bench.real.features.pooled
    near, where = nearest_cosine(found.pooled, known[bench.training])

    def verdict(judge: Judge, sight: Tensor, real: Tensor) -> Judged:
        parts = sight.split(sum(counts))
        return _mean([_judged(bench, judge, part, counts[0], real) for part in parts])

    return Score(
        verdict(bench.judge, found.sight, bench.real.features.sight),
        verdict(bench.second, plain(unit), bench.plain),
        kid(found.pooled, known[list(exam.reference)]),
        float(clean(unit).float().mean()),
        near,
        nearest_pixels(tiny(unit), bench.real.tiny[bench.training])[0],
        bench.training[where],
        (rounds * counts[0], rounds * counts[1]),
        rounds,
    )


def nearer_than_real(distances: Tensor, real_distances: Tensor) -> float:
    """Share of distances below the first percentile of the real ones."""
    return float((distances < real_distances.double().quantile(_NEAR)).float().mean())
