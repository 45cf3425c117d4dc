"""Adapter files, fitted to a model, for the time of a request."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from mezzotint.adapters import lora
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.source import read
from mezzotint.families.model import Model


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
    state = {n: t.unpack() if isinstance(t, Packed) else t for n, t in read(path).items()}
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
