"""Pictures as prompts of a model that is told what its prior imagines: they share in that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.engine.request import Request, RequestError, Seen
from mezzotint.families.model import Model

MOST = 5
"""Pictures beside one prompt: of more, none is to be recognised."""


def check_seen(model: Model, request: Request) -> None:
    """Raise RequestError for pictures that a model cannot be told, or that are too many."""
    if not request.seen:
        return
    if model.prior is None:
        raise RequestError(f"{model.name} takes no image prompts: leave them out")
    if len(request.seen) > MOST:
        raise RequestError(f"{len(request.seen)} image prompts: at most {MOST} share in a picture")
    wanted = (1, *model.prior.codec.shape(()))
    for each in request.seen:
        if tuple(each.embedding.shape) != wanted:
            raise RequestError(
                f"the image prompt {each.name!r} has shape {tuple(each.embedding.shape)}, "
                f"{model.name} takes {wanted}"
            )
        if not 0 <= each.strength <= 1:
            raise RequestError(
                f"the strength of {each.name!r} is {each.strength:g}; of a picture that shares in "
                "what is imagined it lies in 0…1"
            )


def placed_seen(seen: Sequence[Seen], place: torch.device) -> tuple[Seen, ...]:
    """Pictures on a device."""
    return tuple(each._replace(embedding=each.embedding.to(place)) for each in seen)


def room(seen: Sequence[Seen]) -> bool:
    """Whether pictures leave anything to the words."""
    return sum(each.strength for each in seen) < 1


def words_beside(model: Model, seen: Sequence[Seen]) -> str:
    """What a model is told beside pictures where the prompt is empty."""
    acting = any(each.strength for each in seen)
    return model.sight.words if model.sight is not None and acting else ""


def shared(imagined: Tensor | None, seen: Sequence[Seen]) -> Tensor | None:
    """What a model is told: of its prior's embedding ``e_0`` and those of pictures ``e_i``,

        e = (Σ w_i |e_i|) u / |u|,    u = Σ w_i e_i / |e_i|,

    with ``w_i = s_i / max(1, Σ s)`` of the strengths ``s_i`` and ``w_0 = 1 − Σ w_i``; without
    words (``imagined`` is None) with ``w_i = s_i / Σ s``.  So one picture of strength 1 is its own
    embedding whatever the words, two halfway are the middle of their arc, and no mean is fainter
    than what it is of.

    Returns:
        ``(1, K)``, or None where nothing is told.
    """
    acting = [(each.embedding, each.strength) for each in seen if each.strength]
    whole = sum(strength for _, strength in acting)
    if imagined is not None and whole < 1:
        acting, whole = [(imagined, 1 - whole), *acting], 1.0
    if not acting:
        return None
    sizes = [embedding.norm() for embedding, _ in acting]
    parts = [s / whole for _, s in acting]
    found = torch.zeros_like(acting[0][0])
    for (embedding, _), size, part in zip(acting, sizes, parts, strict=True):
        found = found + embedding * (part / size.clamp_min(_TINY))
    size = sum(size * part for size, part in zip(sizes, parts, strict=True))
    return found * (size / found.norm().clamp_min(_TINY))


_TINY = 1e-6
