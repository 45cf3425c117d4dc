"""Which files are needed, and by what: a file lies in the store as long as anything names it.

That is an output or an upload itself; the recipe of an output, which is made again from the files
that it names; a canvas; and a job that waits or runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from mezzotint.apps.server.tables import OPEN, canvases, inputs, jobs, outputs, reading, uploads

_WEIGHTS = ("model", "refiner", "part", "lora", "embedding", "ip-adapter", "image-encoder")
_NAMES = re.compile(r"[0-9a-f]{64}")


def inputs_of(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The pictures that a recipe names: by their SHA-256 the option that took them."""
    return {
        file["fingerprint"].removeprefix("sha256:"): file["option"]
        for file in recipe.get("files", [])
        if file["option"] not in _WEIGHTS and file["fingerprint"].startswith("sha256:")
    }


def note(connection: Connection, output: str, recipe: Mapping[str, Any]) -> None:
    """Note the pictures that an output is made of."""
    rows = [{"output": output, "file": file, "how": how} for file, how in inputs_of(recipe).items()]
    if rows:
        connection.execute(insert(inputs), rows)


def _is_used(connection: Connection, file: str) -> bool:
    named = [
        select(table.c.file).where(table.c.file == file) for table in (outputs, uploads, inputs)
    ]
    named.append(select(canvases.c.id).where(canvases.c.files.contains(f'"{file}"')))
    named.append(select(jobs.c.id).where(jobs.c.state.in_(OPEN), jobs.c.wish.contains(file)))
    return any(connection.scalar(each.limit(1)) is not None for each in named)


def named(connection: Connection, owner: str | None = None) -> set[str]:
    """All files that canvases and open jobs name, in their documents and wishes too; owner: whose
    canvases, None: anybody's."""
    mine = [] if owner is None else [canvases.c.owner == owner]
    texts = [
        select(canvases.c.document, canvases.c.files).where(*mine),
        select(jobs.c.wish).where(jobs.c.state.in_(OPEN)),
    ]
    rows = (row for wanted in texts for row in connection.execute(wanted))
    return {name for row in rows for text in row for name in _NAMES.findall(text)}


def all_used(engine: Engine) -> set[str]:
    """All files that anything names."""
    with reading(engine) as connection:
        rows = (connection.scalars(select(table.c.file)) for table in (outputs, uploads, inputs))
        return named(connection).union(*rows)


def is_used(engine: Engine, file: str) -> bool:
    """Whether anything still names a file."""
    with reading(engine) as connection:
        return _is_used(connection, file)


def unused(connection: Connection, files: Iterable[str]) -> list[str]:
    """Those of some files that nothing names any more."""
    return [file for file in dict.fromkeys(files) if not _is_used(connection, file)]
