"""What tells a kind of file: names and sizes of tensors that it has and others have not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signature:
    """A kind of file: every pattern must be met by a tensor.

    keys: a name, or a pattern with ``*``
    sizes: ``(name or pattern, axis, size)``: a tensor whose shape has that size there
    note: what the names and sizes cannot tell
    """

    kind: str
    keys: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int, int], ...] = ()
    note: str = ""
