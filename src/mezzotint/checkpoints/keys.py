"""Key maps: the names that others gave their weights, and ours, as tables of patterns.

A pattern is a name with placeholders: ``{p}`` stands for ``weight`` or ``bias``, any other, such
as ``{n}``, for a number.  The right-hand side uses the same placeholders and says which part of
which of our tensors it is; None says that the tensor is known and not needed.

Ours are the fused ones (query, key and value in one matrix, because one product is faster than
three), so a tensor of theirs is a whole tensor of ours or some rows of one.  Therefore a table
reads in both directions, and a tensor goes there and back without a bit changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, nearest


class View(NamedTuple):
    """How numbers of theirs lie in ours, there and back; no number is changed."""

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


def _same(x: Tensor) -> Tensor:
    return x


def _swap(x: Tensor) -> Tensor:
    first, second = x.chunk(2)
    return torch.cat([second, first])


SAME = View(_same, _same)
MATRIX = View(lambda x: x.flatten(1), lambda x: x[..., None, None])
"""Theirs is a 1×1 convolution ``(O, I, 1, 1)``, ours a matrix ``(O, I)``."""
SWAPPED = View(_swap, _swap)
"""The first half of theirs is the second of ours: shift and scale in another order."""
TRANSPOSED = View(lambda x: x.T, lambda x: x.T)
"""Theirs multiplies from the right."""
ROW = View(lambda x: x[0], lambda x: x[None])
"""Theirs has a batch dimension of one in front."""


@dataclass(frozen=True)
class Part:
    """Rows of a tensor of ours.

    name: of our tensor, with the pattern's placeholders
    index: which of its parts, counted along dimension 0
    shares: the parts' numbers of rows, as a ratio
    view: how theirs lies in it
    """

    name: str
    index: int = 0
    shares: tuple[int, ...] = (1,)
    view: View = SAME

    def rows(self, total: int) -> slice:
        """The rows of this part in a tensor of ``total`` rows."""
        unit = total // sum(self.shares)
        start = unit * sum(self.shares[: self.index])
        return slice(start, start + unit * self.shares[self.index])

    def of(self, whole: Tensor) -> Tensor:
        """This part of the tensor of ours."""
        return whole if len(self.shares) == 1 else whole[self.rows(len(whole))]


Table = Mapping[str, str | Part | None]
"""Their pattern → our name, a part of it, or None."""


def parts(name: str, count: int) -> tuple[Part, ...]:
    """The ``count`` equal parts of one of our tensors, as query, key and value are."""
    return tuple(Part(name, index, (1,) * count) for index in range(count))


def prefixed(table: Table, theirs: str, ours: str = "") -> dict[str, str | Part | None]:
    """A network's table where its names stand behind a prefix."""

    def under(target: str | Part | None) -> str | Part | None:
        if isinstance(target, Part):
            return replace(target, name=ours + target.name)
        return None if target is None else ours + target

    return {theirs + pattern: under(target) for pattern, target in table.items()}


BERT: Table = {
    "embeddings.position_ids": None,
    "embeddings.word_embeddings.weight": "embedding.word.weight",
    "embeddings.position_embeddings.weight": "embedding.position.weight",
    "embeddings.token_type_embeddings.weight": "embedding.segment.weight",
    "embeddings.LayerNorm.{p}": "embedding.norm.{p}",
    "encoder.layer.{n}.attention.self.query.{p}": "layers.{n}.query.{p}",
    "encoder.layer.{n}.attention.self.key.{p}": "layers.{n}.key.{p}",
    "encoder.layer.{n}.attention.self.value.{p}": "layers.{n}.value.{p}",
    "encoder.layer.{n}.attention.output.dense.{p}": "layers.{n}.attention_out.{p}",
    "encoder.layer.{n}.attention.output.LayerNorm.{p}": "layers.{n}.attention_norm.{p}",
    "encoder.layer.{n}.intermediate.dense.{p}": "layers.{n}.mlp_in.{p}",
    "encoder.layer.{n}.output.dense.{p}": "layers.{n}.mlp_out.{p}",
    "encoder.layer.{n}.output.LayerNorm.{p}": "layers.{n}.mlp_norm.{p}",
    "pooler.dense.{p}": None,  # of next-sentence prediction; sentence encoders pool by the mean
}
"""BERT as ``transformers`` and ``sentence-transformers`` name it, to ``networks.bert.Bert``."""


# --- reading a table --------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def _compile(pattern: str) -> re.Pattern[str]:
    pieces = _PLACEHOLDER.split(pattern)  # text, name, text, name, …, text
    seen: set[str] = set()
    for i in range(0, len(pieces), 2):
        pieces[i] = re.escape(pieces[i])
    for i in range(1, len(pieces), 2):
        name = pieces[i]
        group = "weight|bias" if name == "p" else "[0-9]+"
        pieces[i] = f"(?P={name})" if name in seen else f"(?P<{name}>{group})"
        seen.add(name)
    return re.compile("".join(pieces))


def _part(target: str | Part) -> Part:
    return target if isinstance(target, Part) else Part(target)


class Reader:
    """A table, compiled: where each of their names lies in ours."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows = [(_compile(pattern), target) for pattern, target in table.items()]

    def knows(self, name: str) -> bool:
        """Whether a pattern matches a name."""
        return any(pattern.fullmatch(name) for pattern, _ in self._rows)

    def find(self, name: str) -> Part | None:
        """The part of ours that a name stands for, None for what is left out.

        Raises:
            CheckpointError: no pattern matches; it names the nearest.
        """
        for pattern, target in self._rows:
            if match := pattern.fullmatch(name):
                if target is None:
                    return None
                part = _part(target)
                return replace(part, name=part.name.format(**match.groupdict()))
        raise CheckpointError(f"unknown key {name!r}{nearest(name, self.table)}")


def origins(
    names: Iterable[str], table: Table, wanted: Collection[str]
) -> dict[str, dict[int, tuple[str, Part]]]:
    """Which of their tensors make up each of ours: our name -> number of the part -> theirs.

    Args:
        names: of the file's tensors.
        table: what they are called here.
        wanted: our names, all of which must come out.

    Raises:
        CheckpointError: a name matches no pattern, two give one place of ours, or a place of ours
            stays empty; it names the first and the nearest.
    """
    reader = Reader(table)
    found: dict[str, dict[int, tuple[str, Part]]] = {}
    for name in names:
        part = reader.find(name)
        if part is None:
            continue
        places = found.setdefault(part.name, {})
        if part.index in places:
            raise CheckpointError(
                f"keys {places[part.index][0]!r} and {name!r} both stand for {part.name!r}"
            )
        if part.name not in wanted:
            raise CheckpointError(
                f"key {name!r} stands for {part.name!r}, which this network lacks: the checkpoint "
                f"has another size{nearest(part.name, wanted)}"
            )
        places[part.index] = (name, part)
    missing = sorted(n for n in wanted if not _whole(found.get(n, {})))
    if missing:
        number = "1 key is" if len(missing) == 1 else f"{len(missing)} keys are"
        raise CheckpointError(
            f"{number} missing, the first for {missing[0]!r}{nearest(missing[0], found)}"
        )
    return found


def _whole(places: Mapping[int, tuple[str, Part]]) -> bool:
    return bool(places) and len(places) == len(next(iter(places.values()))[1].shares)


def to_ours(
    state: Mapping[str, Tensor], table: Table, wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A state dict of theirs under our names.

    Args:
        state: tensors by the names of the file.
        table: what they are called here.
        wanted: our tensors, all of which must come out, such as a network's ``state_dict()``.

    Raises:
        CheckpointError: as :func:`origins`.
    """
    return {
        name: joined([places[n][1].view.ours(state[places[n][0]]) for n in sorted(places)])
        for name, places in origins(state, table, wanted).items()
    }


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """The parts of a tensor of ours, in their order, as one."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def targets(names: Iterable[str], table: Table) -> dict[str, Part]:
    """Which part of ours each of their tensors is; the first pattern of a place counts.

    Args:
        names: of our tensors.
        table: what they are called there.

    Raises:
        CheckpointError: the table has no name for one of ours.
    """
    rows: dict[str, dict[int, tuple[str, Part]]] = {}
    for pattern, target in table.items():
        if target is not None:
            part = _part(target)
            rows.setdefault(part.name, {}).setdefault(part.index, (pattern, part))
    compiled = [(_compile(ours), pieces) for ours, pieces in rows.items()]
    named: dict[str, Part] = {}
    for name in names:
        match, pieces = _first(name, compiled)
        for pattern, part in pieces.values():
            named[pattern.format(**match.groupdict())] = replace(part, name=name)
    return named


def to_theirs(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """A state dict of ours under their names.

    Raises:
        CheckpointError: as :func:`targets`.
    """
    return {
        name: part.view.theirs(part.of(state[part.name]))
        for name, part in targets(state, table).items()
    }


def _first(
    name: str, compiled: Sequence[tuple[re.Pattern[str], dict[int, tuple[str, Part]]]]
) -> tuple[re.Match[str], dict[int, tuple[str, Part]]]:
    for pattern, pieces in compiled:
        if match := pattern.fullmatch(name):
            return match, pieces
    known: Iterable[str] = (pattern for _, pieces in compiled for pattern, _ in pieces.values())
    raise CheckpointError(f"this layout has no name for {name!r}{nearest(name, known)}")
