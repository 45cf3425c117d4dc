"""Key maps: the names that others gave their weights, and ours, as tables of patterns.

A pattern is a name with placeholders: ``{p}`` stands for ``weight`` or ``bias``, any other, such
as ``{n}``, for a number.  The right-hand side uses the same placeholders; None says that the
tensor is known and not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from mezzotint.checkpoints.files import CheckpointError, nearest

Table = Mapping[str, str | None]
T = TypeVar("T")

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

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def _compile(pattern: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(pattern)  # text, name, text, name, …, text
    for i in range(0, len(parts), 2):
        parts[i] = re.escape(parts[i])
    for i in range(1, len(parts), 2):
        parts[i] = f"(?P<{parts[i]}>{'weight|bias' if parts[i] == 'p' else '[0-9]+'})"
    return re.compile("".join(parts))


def rename(state: Mapping[str, T], table: Table, wanted: Iterable[str]) -> dict[str, T]:
    """The state dict under our names.

    Args:
        state: values by the names of the file.
        table: patterns of those names -> ours, None for what is left out.
        wanted: our names, all of which must come out, such as a network's ``state_dict()``.

    Raises:
        CheckpointError: a name matches no pattern, two give one of ours, or one of ours is not
            reached; it names the first and the nearest.
    """
    patterns = [(_compile(pattern), target) for pattern, target in table.items()]
    wanted = set(wanted)
    renamed: dict[str, T] = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        matches = [(m, target) for p, target in patterns if (m := p.fullmatch(name))]
        if not matches:
            raise CheckpointError(f"unknown key {name!r}{nearest(name, table)}")
        match, target = matches[0]
        if target is None:
            continue
        ours = target.format(**match.groupdict())
        if ours in renamed:
            raise CheckpointError(f"keys {origin[ours]!r} and {name!r} both stand for {ours!r}")
        if ours not in wanted:
            raise CheckpointError(
                f"key {name!r} stands for {ours!r}, which this network lacks: the checkpoint has "
                f"another size{nearest(ours, wanted)}"
            )
        renamed[ours], origin[ours] = value, name
    if missing := sorted(wanted - renamed.keys()):
        number = "1 key is" if len(missing) == 1 else f"{len(missing)} keys are"
        raise CheckpointError(
            f"{number} missing, the first for {missing[0]!r}{nearest(missing[0], renamed)}"
        )
    return renamed
