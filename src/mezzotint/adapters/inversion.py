"""Textual inversion: words that a file has learnt, as vectors in place of a text encoder's own.

Gal et al. 2022, §4: everything is frozen but the embedding of one new word.  A word may have
several vectors, and then stands for as many tokens.  Nothing of a network is changed: the vectors
are put among those that the encoder looks up, for the time of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, nearest
from mezzotint.checkpoints.limits import shown

PREFIX = "embedding:"
"""What a prompt writes before the name of a file in the folder of embeddings."""
MOST = 75
"""Vectors of a word: tokens that a text encoder reads of a prompt at once."""

_WHOLE = ("*", "emb_params")
"""The names that web interfaces give the vectors of the only encoder, in .pt and in safetensors."""


@dataclass(frozen=True)
class Embedding:
    """A word and its vectors.

    name: as a prompt writes it, upper and lower case alike
    vectors: ``(n, C)`` by the text encoder that they are for, n the same for all
    bare: the name alone means it; else only ``embedding:name`` does.
    """

    name: str
    vectors: Mapping[str, Tensor]
    bare: bool = True

    @property
    def count(self) -> int:
        """The tokens that it takes."""
        return len(next(iter(self.vectors.values())))

    def pattern(self) -> str:
        """What it looks like in a prompt, as a regular expression."""
        prefix = f"(?:{PREFIX})?" if self.bare else PREFIX
        return rf"(?<!\w){prefix}{re.escape(self.name)}(?!\w)"


def _vectors(key: str, tensor: Tensor, wanted: int) -> Tensor:
    """A tensor of a file as ``(n, C)``."""
    rows = tensor[None] if tensor.ndim == 1 else tensor
    if rows.ndim != 2 or not rows.is_floating_point() or not 0 < len(rows) <= MOST:
        raise CheckpointError(
            f"{shown(key)} of shape {tuple(tensor.shape)} is no embedding of 1 to {MOST} vectors"
        )
    if rows.shape[1] != wanted:
        raise CheckpointError(
            f"the vectors of {shown(key)} have {rows.shape[1]} numbers and those of this model's "
            f"text encoder {wanted}: it was made for another base model, take one made for this"
        )
    if not bool(rows.isfinite().all()):
        raise CheckpointError(f"tensor {shown(key)} has numbers that are not finite")
    return rows.detach().float()


def read(state: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The vectors of a file, by text encoder.

    A file for several encoders has a tensor for each by its name; one for a single encoder has one
    tensor: ``*`` or ``emb_params`` (web interfaces), or by the word itself (diffusers).

    Args:
        widths: of the embeddings of this model's text encoders, by the names that files give them.

    Raises:
        CheckpointError: it has other tensors, or they are for other encoders or of other widths.
    """
    if set(state) & set(widths):
        if unknown := [key for key in state if key not in widths]:
            raise CheckpointError(f"unknown key {shown(unknown[0])}{nearest(unknown[0], widths)}")
        if lacking := [key for key in widths if key not in state]:
            raise CheckpointError(
                f"has no {lacking[0]!r}: this model has the text encoders {', '.join(widths)}, so "
                "it takes embeddings made for all of them"
            )
        found = {key: _vectors(key, state[key], width) for key, width in widths.items()}
        if len({len(rows) for rows in found.values()}) > 1:
            counts = ", ".join(f"{len(rows)} of {key}" for key, rows in found.items())
            raise CheckpointError(f"has different numbers of vectors, {counts}: it is damaged")
        return found
    if len(state) != 1:
        keys = ", ".join(shown(key) for key in list(state)[:3])
        raise CheckpointError(f"is no embedding: it has {len(state)} tensors ({keys}, …)")
    if len(widths) != 1:
        raise CheckpointError(
            f"is for one text encoder, and this model has {len(widths)} ({', '.join(widths)}): it "
            "was made for another base model, take one made for this"
        )
    ((key, tensor),), ((encoder, width),) = state.items(), widths.items()
    return {encoder: _vectors(key, tensor, width)}


def word(state: Mapping[str, Tensor], widths: Mapping[str, int]) -> str | None:
    """The word that a file itself says it has learnt, if it does."""
    key = next(iter(state)) if len(state) == 1 else None
    return None if key in _WHOLE or key in widths else key


def split(text: str, embeddings: Sequence[Embedding]) -> list[str | Embedding]:
    """A text as the parts between embeddings, and these; of two names the longer one counts."""
    if not embeddings:
        return [text]
    longest = sorted(embeddings, key=lambda embedding: -len(embedding.name))
    pattern = re.compile("|".join(f"({e.pattern()})" for e in longest), re.IGNORECASE)
    found: list[str | Embedding] = []
    end = 0
    for match in pattern.finditer(text):
        assert match.lastindex is not None  # each alternative is a group
        found += [text[end : match.start()], longest[match.lastindex - 1]]
        end = match.end()
    return [part for part in (*found, text[end:]) if part]
