"""The licences of models: what is stated of them, and what others of their kind came under."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import inspect
from mezzotint.families import sight, text
from mezzotint.families.catalogue import PACKAGED, identify, locate
from mezzotint.families.ledger import attributions, has_ledger, sources
from mezzotint.families.released import FAMILIES, KINDS
from mezzotint.files import once_a_file
from mezzotint.provenance.licences import UNKNOWN, Record, stated
from mezzotint.provenance.terms import Licensed


@once_a_file
def likely(path: Path) -> str:
    """The id of the licence under which a file's kind was released, "" where none is known."""
    try:
        return FAMILIES.get(identify(path)[0].name, "")
    except (CheckpointError, OSError):  # no checkpoint, one of several families, or one of ours
        pass
    try:
        kind = inspect(path).kind or ""
    except (CheckpointError, OSError):
        return ""
    return next((licence for start, licence in KINDS if kind.startswith(start)), "")


def record(name_or_path: str | Path) -> Record:
    """The licence of a model that is named, or of any file of weights.

    Raises:
        CheckpointError: there is no such model; LicenceError: what stands beside it is damaged.
    """
    name = next((n for n, path in PACKAGED.items() if str(name_or_path) in (n, str(path))), "")
    path = locate(str(name_or_path))
    found = stated(path)
    if has_ledger(name):
        return replace(found, attribution=attributions(sources(name)))
    return replace(found, likely=likely(path)) if found.said == UNKNOWN else found


def inside(name_or_path: str | Path) -> list[Licensed]:
    """What a model reads with that is not its own: the text encoder in the package."""
    try:
        details = dict(inspect(locate(str(name_or_path))).details)
    except (CheckpointError, OSError):
        return []
    if details.get("config.condition") != "text":
        return []
    return [
        Licensed("text encoder", text.WEIGHTS.partition(".")[0], stated(text.DATA / text.WEIGHTS))
    ]


def eyes() -> Licensed:
    """With what a model in the package sees the pictures that are its prompts."""
    return Licensed("picture encoder", sight.PACKAGED.stem, stated(sight.PACKAGED))
