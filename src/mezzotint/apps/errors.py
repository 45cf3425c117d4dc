"""What a person is told when a command cannot be carried out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A command line that cannot be carried out; one line that names the thing and the remedy."""


def one_line(error: BaseException) -> str:
    """The message of an error on one line; of the system's errors with the file first."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


def suggestion(name: str, known: Iterable[str]) -> str:
    """``: did you mean …?`` with the likeliest of ``known``, or all of them where none is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f": did you mean {' or '.join(near)}?" if near else f": there are {', '.join(known)}"
