"""Checkpoints of a run: all that it needs to go on, in one file that is whole or not there.

``RUN/checkpoints/step-00001234.safetensors`` holds tensors by name and, in its metadata, one JSON
document and the SHA-256 of both.  A write goes to a temporary file first, so a kill at any instant
leaves the checkpoints before it; a file that is there and does not match its hash was damaged.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.files import remove_leftovers

FORMAT = 1
KEEP = 2
_KEY = "mezzotint-run"


class TrainError(ValueError):
    """Training cannot start or go on; one line that names the cause and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """step, pictures: done; seconds: of training so far, over all restarts.
    config: the run's, as TOML; data: the data set's fingerprint; tensors: by name.
    energy: that it took so far, as :func:`mezzotint.provenance.energy.kept` says it."""

    step: int
    pictures: int
    seconds: float
    config: str
    data: str
    tensors: dict[str, Tensor]
    energy: dict[str, Any] = field(default_factory=dict[str, Any])

    def document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "torch": torch.__version__,
            "step": self.step,
            "pictures": self.pictures,
            "seconds": self.seconds,
            "config": self.config,
            "data": self.data,
            "energy": self.energy,
        }


def digest(document: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the document and every tensor's name, type, shape and bytes."""
    total = hashlib.sha256(document.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _folder(run: Path) -> Path:
    return run / "checkpoints"


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(_folder(run).glob("step-*.safetensors"))


def write(run: Path, checkpoint: Checkpoint) -> Path:
    """Add a checkpoint, then remove all but the last two.

    Raises:
        mezzotint.files.WriteError: the disk is full or may not be written to; those before stay.
    """
    folder = _folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    document = json.dumps(checkpoint.document())
    sha256 = digest(document, checkpoint.tensors)
    save(path, checkpoint.tensors, {_KEY: document, "sha256": sha256})
    for old in checkpoints(run)[:-KEEP]:
        old.unlink()
    return path


def read(path: Path) -> Checkpoint:
    """A checkpoint, every byte checked.

    Raises:
        TrainError: it is damaged, or of another version.
    """
    try:
        tensors, metadata = load(path)
        document = metadata.get(_KEY, "")
        if digest(document, tensors) != metadata.get("sha256"):
            raise CheckpointError(f"{path}: its bytes do not match their checksum")
    except CheckpointError as error:
        earlier = [other for other in checkpoints(path.parent.parent) if other < path]
        back = f"go back to {earlier[-1].name}" if earlier else "start the run again"
        raise TrainError(f"damaged checkpoint: {error}: delete it to {back}") from error
    values = json.loads(document)
    if values.pop("format") != FORMAT:
        raise TrainError(f"{path}: a checkpoint of another version of mezzotint: use that one")
    values.pop("torch")
    return Checkpoint(tensors=tensors, **values)


def newest(run: Path, cleans: bool) -> Checkpoint | None:
    """The newest checkpoint of a run, None at its start; ``cleans`` removes what a kill left.

    Raises:
        TrainError: the newest is damaged: nothing older is taken in silence.
    """
    if cleans and _folder(run).is_dir():
        remove_leftovers(_folder(run))
    found = checkpoints(run)
    return read(found[-1]) if found else None
