"""What lies on the disk, whose it is, and how to have less of it.

Outputs are thrown away in the gallery.  Pictures that were given stay until somebody says so: a
canvas gives each of its layers anew when it changes.
"""

from __future__ import annotations

import re
import shutil
import time
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection, Engine, delete, func, select

from mezzotint.apps.server.asking import Asks, Serves
from mezzotint.apps.server.queue import OPEN
from mezzotint.apps.server.tables import canvases, inputs, jobs, outputs, reading, uploads

router = APIRouter(prefix="/v1", tags=["mezzotint"])

NEW_SECONDS = 3600.0
"""What was given so lately may be about to be used."""
_NAMES = re.compile(r"[0-9a-f]{64}")


def _named(connection: Connection, owner: str) -> set[str]:
    """All files that one's canvases and open jobs name, in their documents and wishes too."""
    texts = [
        select(canvases.c.document, canvases.c.files).where(canvases.c.owner == owner),
        select(jobs.c.wish).where(jobs.c.state.in_(OPEN)),
    ]
    found: set[str] = set()
    for wanted in texts:
        for row in connection.execute(wanted):
            found.update(name for text in row for name in _NAMES.findall(text))
    return found


def unused(engine: Engine, owner: str) -> dict[str, int]:
    """The pictures that somebody has given and that nothing is made of, each with its bytes."""
    given = select(uploads.c.file, uploads.c.bytes).where(
        uploads.c.owner == owner,
        uploads.c.created < time.time() - NEW_SECONDS,
        uploads.c.file.not_in(select(inputs.c.file)),
    )
    with reading(engine) as connection:
        named = _named(connection, owner)
        return {row.file: row.bytes for row in connection.execute(given) if row.file not in named}


@router.get("/space")
def space(who: Asks, service: Serves) -> dict[str, Any]:
    """How much your pictures take, and what is free on the disk."""
    service.need(who, "read")
    said: dict[str, Any] = {}
    with reading(service.engine) as connection:
        for table in (outputs, uploads):
            size = func.coalesce(func.sum(table.c.bytes), 0)
            wanted = select(func.count(), size).where(table.c.owner == who.owner)
            count, taken = connection.execute(wanted).one()
            said[table.name] = {"count": count, "bytes": int(taken)}
    left = unused(service.engine, who.owner)
    said["unused"] = {"count": len(left), "bytes": sum(left.values())}
    return {**said, "free": shutil.disk_usage(service.store.folder).free}


@router.delete("/uploads")
def forget_unused(who: Asks, service: Serves) -> dict[str, int]:
    """Throw away what you have given and nothing is made of: no output, no canvas and no job that
    waits; what came within the last hour stays."""
    service.need(who, "make")
    found = unused(service.engine, who.owner)
    names = list(found)
    for at in range(0, len(names), 500):
        some = names[at : at + 500]
        with service.engine.begin() as connection:
            mine = (uploads.c.owner == who.owner, uploads.c.file.in_(some))
            connection.execute(delete(uploads).where(*mine))
        service.tidy(some)
    return {"count": len(found), "bytes": sum(found.values())}
