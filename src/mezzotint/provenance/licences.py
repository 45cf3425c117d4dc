"""Under which licence weights are, as far as their file says so itself.

A header may have it: of our own models ``notes.licence``, of others the ``modelspec.license`` of
Stability's ModelSpec 1.0.1, or ``license``.  What a file does not say is unknown, never guessed.
"""

from __future__ import annotations

from pathlib import Path

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import inspect

UNKNOWN = "unknown"
_KEYS = ("config.notes.licence", "modelspec.license", "license")
_LONGEST = 200


def stated(path: Path) -> str:
    """The licence that a file of weights states, in its own words on one line, or ``unknown``.

    Only the header is read.
    """
    try:
        details = dict(inspect(path).details)
    except (CheckpointError, OSError):  # whoever reads it whole says what is wrong with it
        return UNKNOWN
    said = next((details[key] for key in _KEYS if details.get(key)), "")
    clean = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return clean[:_LONGEST] or UNKNOWN
