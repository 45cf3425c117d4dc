"""The real drawings: reading the corpus, choosing what is asked of a model, caching features.

All choices are made by hashes, so that two runs ask the same questions.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quality.features import POOLED, Extractor, Features, QualityError, canonical, join

ASKED = 500
REFERENCE = 4000
TINY = 32
VERSION = "1"  # raise it when features, choices or the judge change


@dataclass(frozen=True)
class Entry:
    """What the measures need of one line of `metadata.jsonl`."""

    file: str
    label: str
    concept: str
    captions: tuple[str, ...]
    split: str
    weight: float


@dataclass(frozen=True)
class Corpus:
    path: Path
    entries: tuple[Entry, ...]
    digest: str  # of the metadata: names the cache


@dataclass(frozen=True)
class Questions:
    """One of the two lists.

    rows: the evaluation drawings in the corpus, one a concept, in the order they are asked.
    prompts: their captions "label, style"; texts: the candidates' bare labels, of which the
    first ``len(rows)`` belong to the prompts and the rest are distractors.
    """

    name: str
    rows: tuple[int, ...]
    prompts: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Exam:
    """The two lists, and the rows of the drawings that a set of pictures is compared with."""

    seen: Questions
    heldout: Questions
    reference: tuple[int, ...]


def read_corpus(path: Path) -> Corpus:
    """Raises QualityError: no such file, or not a corpus of `recipes/icons`."""
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("metadata.jsonl")
        rows = [json.loads(line) for line in text.decode("utf-8").splitlines()]
        entries = tuple(
            Entry(
                row["file"],
                row["label"],
                row["concept"],
                tuple(row["captions"]),
                row["split"],
                float(row["weight"]),
            )
            for row in rows
        )
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise QualityError(
            f"{path} is not a corpus ({error}): build one with recipes/icons/corpus.py"
        ) from error
    return Corpus(path, entries, hashlib.sha1(text).hexdigest()[:12])


def _order(*parts: str) -> str:
    return hashlib.sha1("\x1f".join(("quality", *parts)).encode()).hexdigest()


def choose(entries: Sequence[Entry], asked: int = ASKED, reference: int = REFERENCE) -> Exam:
    """The exam: one drawing each of ``asked`` seen and ``asked`` held-out concepts.

    A concept can be asked when it has two drawings or more: the judge learns from the others and
    the one that is asked gives the ceiling.  Where too few held-out concepts have two, the list
    of candidates is filled up with others, held-out ones first, which are never asked.  The
    reference drawings are chosen in the same manner from concepts that nothing is asked about.

    Raises:
        QualityError: there are fewer concepts than candidates asked for.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        if entry.weight >= 1:  # no skin tones
            groups[entry.concept].append(row)
    pick = {c: min(rows, key=lambda r: _order(entries[r].file)) for c, rows in groups.items()}
    order = sorted(groups, key=_order)
    many = [concept for concept in order if len(groups[concept]) > 1]
    if len(order) < 2 * asked:
        raise QualityError(f"the corpus has {len(order)} concepts, {2 * asked} are needed")

    def questions(name: str, split: str) -> Questions:
        chosen = [c for c in many if entries[pick[c]].split == split][:asked]
        others = [c for c in order if c not in set(chosen)]
        others.sort(key=lambda c: entries[pick[c]].split != split)  # stable
        rows = [pick[c] for c in chosen]
        texts, said = [], set[str]()
        for row in [*rows, *(pick[c] for c in others)]:
            label = entries[row].label
            if len(texts) < len(rows) or (len(texts) < asked and label not in said):
                texts.append(label)
                said.add(label)
        return Questions(
            name, tuple(rows), tuple(entries[r].captions[0] for r in rows), tuple(texts)
        )

    seen, heldout = questions("seen", "train"), questions("heldout", "heldout")
    taken = {*seen.rows, *heldout.rows}
    rest = [pick[c] for c in many if pick[c] not in taken][:reference]
    return Exam(seen, heldout, tuple(rest))


def pictures(corpus: Corpus, rows: Iterable[int]) -> Iterable[Tensor]:
    """Drawings as premultiplied RGBA ``(4, H, W)`` in [−1, 1], one after the other."""
    with zipfile.ZipFile(corpus.path) as archive:
        for row in rows:
            yield decode(archive.read(corpus.entries[row].file))


def decode(data: bytes) -> Tensor:
    """An image file → premultiplied RGBA ``(4, H, W)`` in [−1, 1]."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1).float() / 255
    return torch.cat([pixels[:3] * pixels[3:], pixels[3:]]) * 2 - 1


def units(corpus: Corpus, rows: Sequence[int]) -> Tensor:
    """Canonical pictures ``(N, 4, 64, 64)`` in [0, 1]."""
    return torch.cat([canonical(picture[None]) for picture in pictures(corpus, rows)])


def tiny(unit: Tensor) -> Tensor:
    """``(N, 4·32·32)`` uint8: in what near copies are looked for."""
    small = F.interpolate(unit, size=(TINY, TINY), mode="area")
    return small.mul(255).round().to(torch.uint8).flatten(1)


@dataclass(frozen=True)
class Real:
    """Features of all drawings, in the order of the corpus."""

    features: Features
    tiny: Tensor  # (N, 4096) uint8


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write beside and rename, so that no half cache is ever read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise QualityError(f"{path} is damaged ({error}): delete it, it is made again") from error


def real(
    corpus: Corpus, cache: Path, extractor: Extractor, tell: Callable[[str], None] = print
) -> Real:
    """Features of every drawing, from the cache or computed now (a few minutes)."""
    path = cache / f"real-{corpus.digest}-{VERSION}.safetensors"
    if not path.is_file():
        parts: list[Features] = []
        small: list[Tensor] = []
        for start in range(0, len(corpus.entries), 512):
            rows = range(start, min(start + 512, len(corpus.entries)))
            unit = units(corpus, rows)
            found = extractor(unit)
            parts.append(Features(found.pooled.half(), found.sight.half()))
            small.append(tiny(unit))
            tell(f"features of {rows.stop} of {len(corpus.entries)} drawings")
        # The pooled features are the first columns of what the judge sees: kept once.
        save_tensors(path, {"sight": join(parts).sight, "tiny": torch.cat(small)})
    stored = load_tensors(path)
    sight = stored["sight"]
    return Real(Features(sight[:, :POOLED], sight), stored["tiny"])
