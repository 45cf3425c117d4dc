"""Embeddings of a data set's pictures: what a prior learns to make, and its model is told.

A safetensors file holds one tensor, ``embeddings (N, K)``, and the names of the N pictures as a
JSON list in its metadata.  Where the numbers come from is the recipe's affair.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import Tensor

from mezzotint.checkpoints.files import load, save
from mezzotint.engine.state import TrainError
from mezzotint.modalities.dataset import Dataset

NAME = "embeddings"
NAMES = "names"


def save_embeddings(path: Path, names: list[str], embeddings: Tensor) -> None:
    """Write the file, atomically."""
    save(path, {NAME: embeddings}, {NAMES: json.dumps(names)})


def read_embeddings(path: Path, dataset: Dataset) -> tuple[Tensor, str]:
    """The embeddings ``(items, K)`` of a data set's pictures, float32, and a hash of the file's.

    Raises:
        CheckpointError: the file is missing or damaged.
        TrainError: it is another file, lacks a picture, or is not of unit scale.
    """
    state, metadata = load(path)
    if NAMES not in metadata or state.keys() != {NAME} or state[NAME].ndim != 2:
        raise TrainError(
            f"{path}: no file of embeddings: it needs one tensor {NAME!r} (pictures, width), and "
            f"the pictures' names as a JSON list under {NAMES!r} in its metadata"
        )
    rows = {name: row for row, name in enumerate(json.loads(metadata[NAMES]))}
    lacking = [item.name for item in dataset.items if item.name not in rows]
    if lacking:
        raise TrainError(
            f"{path}: {len(lacking)} of {len(dataset.items)} pictures have no embedding (first: "
            f"{lacking[0]}): make the file again from this data set"
        )
    found = state[NAME][[rows[item.name] for item in dataset.items]].float()
    size = float(found.square().mean().sqrt())
    if not 0.5 < size < 2:  # also what is not finite
        raise TrainError(
            f"{path}: the embeddings have a root mean square of {size:.3g}: scale them to about 1"
        )
    names = sorted(rows)  # their order in the file is of no importance
    digest = hashlib.sha256(json.dumps(names).encode())
    digest.update(state[NAME][[rows[name] for name in names]].float().numpy().tobytes())
    return found, digest.hexdigest()[:16]
