"""Adapters fitted to a model, for the time of a request."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from mezzotint.adapters import inversion, lora
from mezzotint.adapters.inversion import PREFIX, Embedding
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.source import read
from mezzotint.engine.request import Request, RequestError
from mezzotint.families.model import Model


def _state(path: Path) -> dict[str, torch.Tensor]:
    return {n: t.unpack() if isinstance(t, Packed) else t for n, t in read(path).items()}


class Adapter(NamedTuple):
    """fitted: the deltas with their places; left_out: modules that the model has no place for."""

    fitted: tuple[lora.Fitted, ...]
    left_out: tuple[str, ...]


def open_adapter(model: Model, path: Path, partial: bool = False) -> Adapter:
    """Read a file of LoRA or its kin for a model.

    Args:
        partial: leave out what has no place instead of stopping.

    Raises:
        CheckpointError: it is damaged or no adapter; a number in it is not finite; it is for
            another model; or this model takes none.
    """
    if model.targets is None:
        raise CheckpointError(f"{path}: the model {model.name!r} takes no adapters")
    state = _state(path)
    try:
        for name, tensor in state.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                raise CheckpointError(f"tensor {name!r} has numbers that are not finite")
        deltas, known = lora.read(state), model.targets()
        fitted = lora.fit(deltas, known, partial)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not fitted:
        raise CheckpointError(f"{path}: nothing in it has a place in {model.name!r}")
    return Adapter(tuple(fitted), tuple(name for name in deltas if name not in known))


def open_embedding(
    model: Model, path: Path, name: str | None = None, bare: bool = True
) -> Embedding:
    """Read a file of textual inversion for a model.

    Args:
        name: what prompts call it; None: the word that the file says, else the file's name.
        bare: see :class:`~mezzotint.adapters.inversion.Embedding`.

    Raises:
        CheckpointError: it is damaged or no embedding; it is for another model; or this model
            takes none.
    """
    if model.words is None:
        raise CheckpointError(
            f"{path}: the model {model.name!r} takes no embeddings: they are for models whose only "
            "text encoders are CLIP's"
        )
    state, widths = _state(path), model.words.widths
    try:
        vectors = inversion.read(state, widths)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Embedding(name or inversion.word(state, widths) or path.stem, vectors, bare)


_LEARNT = re.compile(rf"\b{PREFIX}([\w.+-]*\w)")


def learnt(text: str) -> tuple[str, ...]:
    """The embeddings that a prompt asks for by ``embedding:name``."""
    return tuple(dict.fromkeys(_LEARNT.findall(text)))


def with_words(model: Model, request: Request) -> Model:
    """The model to which the request's embeddings are known.

    Raises:
        RequestError: it takes none; two have one name; a prompt asks for one that is not there.
    """
    given = request.embeddings
    names = [embedding.name.lower() for embedding in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RequestError(f"two embeddings are called {twice!r}: give one of them another name")
    if model.words is None:
        if given:
            raise RequestError(f"{model.name} takes no embeddings: leave them out")
        return model
    said = [request.prompt, request.negative, *(region.prompt for region in request.regions)]
    for wanted in learnt("\n".join(said)):
        if wanted.lower() not in names:
            raise RequestError(
                f"the prompt asks for {PREFIX}{wanted}, which is not there: give the embedding "
                "with the request"
            )
    return replace(model, weighted=model.words.told(given)) if given else model
