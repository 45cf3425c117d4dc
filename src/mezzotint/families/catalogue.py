"""The models that can be named: those in the package, and any model file by its path."""

from __future__ import annotations

import difflib
from pathlib import Path

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.families.model import Model
from mezzotint.families.native import load_model

DATA = Path(__file__).parent / "data"
PACKAGED = {"icons": DATA / "icons.safetensors"}
"""Models that lie in the package, by name."""


def names() -> list[str]:
    """The models that `load` knows by name."""
    return list(PACKAGED)


def locate(name_or_path: str) -> Path:
    """The file of a model named or given by its path.

    Raises:
        CheckpointError: it is neither a known name nor an existing file.
    """
    if name_or_path in PACKAGED:
        return PACKAGED[name_or_path]
    path = Path(name_or_path)
    if not path.exists():
        near = difflib.get_close_matches(name_or_path, PACKAGED) or names()
        raise CheckpointError(
            f"no model {name_or_path!r}: give the path of a model file, or one of: "
            + ", ".join(near)
        )
    return path


def load(name_or_path: str) -> Model:
    """Load a model by name or path, on the CPU."""
    return load_model(locate(name_or_path))[0]
