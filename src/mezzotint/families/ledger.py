"""The drawings that a packaged model learnt from, one by one, and those nearest to a picture.

Beside the model lie two files that ``recipes/icons/ledger.py`` makes:

- ``NAME-ledger.txt.xz``: a line of JSON that tells the sets, then for each drawing one line
  ``name TAB concept TAB author TAB held``: in the order of the sets, ``concept`` where it is not
  the name with spaces, ``author`` where it is not the set's, ``held`` is "h" for what was held out,
  which the model has not learnt from;
- ``NAME-nearest.safetensors``: what is seen of each drawing (:mod:`mezzotint.provenance.eyes`), in
  the same order, as int8 principal components, each divided by the square root of its spread:
  ``rows (N, D)``, ``scale (D,)``, ``mean (1280,)``, ``matrix (1280, D)``.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load
from mezzotint.families.catalogue import PACKAGED
from mezzotint.provenance.eyes import canonical, seen
from mezzotint.provenance.licence_table import find

FORMAT = 1
MARGIN = 0.04
"""Around the drawings on each side, of the edge of their square: as they were rendered."""


class Source(NamedTuple):
    """A set of drawings, as its package's own metadata tells it; empty texts: it tells not."""

    id: str
    licence: str
    holder: str
    url: str
    licence_url: str
    package: str
    drawings: int


class Drawing(NamedTuple):
    """One drawing: its name in its set, what it shows.

    author: of itself, else its set's holder; learnt: it was not held out.
    """

    source: Source
    name: str
    concept: str
    author: str
    learnt: bool


@dataclass(frozen=True)
class Ledger:
    """All drawings of a corpus."""

    sources: tuple[Source, ...]
    drawings: tuple[Drawing, ...]

    def learnt(self) -> dict[str, int]:
        """How many drawings of each set the model has learnt from."""
        counts = Counter(drawing.source.id for drawing in self.drawings if drawing.learnt)
        return {source.id: counts[source.id] for source in self.sources}


def _beside(model: str, end: str) -> Path:
    return PACKAGED[model].with_name(f"{model}{end}")


def has_ledger(model: str) -> bool:
    """Whether a model is one in the package whose drawings are told."""
    return model in PACKAGED and _beside(model, "-ledger.txt.xz").is_file()


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: is damaged ({error}): install mezzotint anew")


def _sources(head: str) -> tuple[Source, ...]:
    document = json.loads(head)
    if document["format"] != FORMAT:
        raise ValueError("another format")
    return tuple(Source(**row) for row in document["sets"])


@cache
def sources(model: str) -> tuple[Source, ...]:
    """The sets of a packaged model's drawings; the drawings are not read.

    Raises:
        CheckpointError: its file is damaged.
    """
    path = _beside(model, "-ledger.txt.xz")
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return _sources(file.readline())
    except (OSError, ValueError, KeyError, TypeError, EOFError, lzma.LZMAError) as error:
        raise _damaged(path, error) from error


def attributions(sets: Sequence[Source]) -> tuple[str, ...]:
    """Who is to be named for sets of drawings, those of one holder and licence on one line.

    Those in the public domain ask for no name.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for each in sets:
        row = find(each.licence)
        if row is None or row.credit:
            found.setdefault((each.holder, each.licence, each.url), []).append(each.id)
    return tuple(
        f"{', '.join(names)} by {holder}, {licence}{f', {url}' if url else ''}"
        for (holder, licence, url), names in found.items()
    )


@cache
def ledger(model: str) -> Ledger:
    """The drawings of a packaged model.

    Raises:
        CheckpointError: its file is damaged.
    """
    path = _beside(model, "-ledger.txt.xz")
    try:
        head, *lines = lzma.decompress(path.read_bytes()).decode().splitlines()
        sets = _sources(head)
        each = [source for source in sets for _ in range(source.drawings)]
        drawings = tuple(_drawing(source, line) for source, line in zip(each, lines, strict=True))
    except (OSError, ValueError, KeyError, TypeError, lzma.LZMAError) as error:
        raise _damaged(path, error) from error
    return Ledger(sets, drawings)


def _drawing(source: Source, line: str) -> Drawing:
    name, concept, author, held = line.split("\t")
    shown = concept or name.replace("-", " ")
    return Drawing(source, name, shown, author or source.holder, held != "h")


# --- nearest ----------------------------------------------------------------------------------


class Near(NamedTuple):
    """A drawing and how alike it is: the cosine, 1 for what looks the same."""

    drawing: Drawing
    likeness: float


@cache
def _index(model: str) -> dict[str, Tensor]:
    tensors, _ = load(_beside(model, "-nearest.safetensors"))
    return {name: tensor.float() for name, tensor in tensors.items()}


def components(features: Tensor, index: dict[str, Tensor]) -> Tensor:
    """``(N, 1280)`` features → ``(N, D)`` of length one, as the index has them."""
    found = (features - index["mean"]) @ index["matrix"]
    return F.normalize(found, dim=1)


def described(model: str, picture: Tensor) -> Tensor:
    """What is seen of a picture, ``(D,)`` of length one: their cosine is how alike two look.

    Args:
        model: one in the package, whose drawings tell which differences are usual.
        picture: premultiplied RGBA ``(4, H, W)`` in [−1, 1].

    Raises:
        CheckpointError: the model's index is damaged.
    """
    return components(seen(canonical(picture[None])), _index(model))[0]


def nearest(model: str, picture: Tensor, count: int = 10) -> list[Near]:
    """The drawings that a model has learnt from and that look most like a picture, nearest first.

    That one looks like another says nothing of whether it is taken from it.

    Args:
        picture: premultiplied RGBA ``(4, H, W)`` in [−1, 1].

    Raises:
        CheckpointError: the model's files are damaged.
    """
    drawings, index = ledger(model).drawings, _index(model)
    rows = F.normalize(index["rows"] * index["scale"], dim=1)  # (N, D)
    if len(rows) != len(drawings):
        raise CheckpointError(f"{model}: its ledger and its index differ: install mezzotint anew")
    likeness = rows @ described(model, picture)
    learnt = torch.tensor([drawing.learnt for drawing in drawings])
    best = likeness.masked_fill(~learnt, -2).topk(min(count, int(learnt.sum())))
    return [
        Near(drawings[row], value)
        for value, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
