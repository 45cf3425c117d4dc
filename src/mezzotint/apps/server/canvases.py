"""Canvases of the studio: documents of layers, kept for whoever paints them.

The server knows of a document only which files it is made of (uploads, by their SHA-256); the rest
is the studio's.  A canvas has a version, and one that was changed elsewhere meanwhile is not
overwritten: the one who comes second is told so, and keeps a copy.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mezzotint.apps.server import gallery, shown
from mezzotint.apps.server.asking import PICTURE, Asks, Serves, in_file
from mezzotint.apps.server.service import MissingError
from mezzotint.apps.server.tables import canvases, reading

router = APIRouter(prefix="/v1", tags=["mezzotint"])

Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
File = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
MOST_TEXT = 4 << 20
"""Characters of a document, which has no pixels in it."""
MOST_CANVASES = 500


class Kept(BaseModel):
    """A canvas as the studio gives it."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=200, pattern="^[^\\x00-\\x1f]*$")
    document: dict[str, Any] = Field(description="what the studio knows of it")
    files: list[File] = Field(max_length=2000, description="uploads that it is made of")
    base: int = Field(0, ge=0, lt=2**31, description="the version that was changed; 0: a new one")


def find(engine: Engine, name: str, owner: str | None) -> Row[Any] | None:
    """A canvas; owner: whose it must be, None: anybody's."""
    with reading(engine) as connection:
        mine = [] if owner is None else [canvases.c.owner == owner]
        return connection.execute(
            select(canvases).where(canvases.c.id == name, *mine)
        ).one_or_none()


def _written(document: dict[str, Any]) -> str:
    try:
        text = json.dumps(document, allow_nan=False)
    except (ValueError, RecursionError):
        raise HTTPException(422, "document: numbers have an end, and so has depth") from None
    if len(text) > MOST_TEXT:
        raise HTTPException(413, f"a document has at most {MOST_TEXT >> 20} MB")
    return text


def keep(engine: Engine, owner: str, name: str, kept: Kept) -> int | None:
    """Keep a canvas; its new version, or None if it is not the owner's or was changed meanwhile."""
    values = {
        "name": kept.name,
        "document": _written(kept.document),
        "files": json.dumps(kept.files),
        "version": kept.base + 1,
        "changed": time.time(),
    }
    try:
        with engine.begin() as connection:
            if kept.base == 0:
                connection.execute(insert(canvases).values(id=name, owner=owner, **values))
                return 1
            changed = connection.execute(
                update(canvases)
                .where(
                    canvases.c.id == name,
                    canvases.c.owner == owner,
                    canvases.c.version == kept.base,
                )
                .values(**values)
            )
            return kept.base + 1 if changed.rowcount else None
    except IntegrityError:
        return None


def _short(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "changed": shown.when(row.changed),
    }


@router.get("/canvases")
def list_canvases(who: Asks, service: Serves) -> dict[str, Any]:
    """One's canvases, the last changed first."""
    service.need(who, "read")
    columns = (canvases.c.id, canvases.c.name, canvases.c.version, canvases.c.changed)
    wanted = select(*columns).where(canvases.c.owner == who.owner)
    with reading(service.engine) as connection:
        rows = connection.execute(
            wanted.order_by(canvases.c.changed.desc(), canvases.c.id).limit(MOST_CANVASES)
        ).all()
    return {"canvases": [_short(row) for row in rows]}


@router.get("/canvases/{name}")
def get_canvas(name: Id, who: Asks, service: Serves) -> Response:
    """A canvas with its document."""
    service.need(who, "read")
    row = _found(service, who, name)
    said = json.dumps(_short(row)).removesuffix("}")  # the rest is JSON, and as deep as it was
    whole = f'{said}, "document": {row.document}, "files": {row.files}}}'
    return Response(whole, media_type="application/json")


@router.put("/canvases/{name}")
def put_canvas(name: Id, body: Kept, who: Asks, service: Serves) -> dict[str, Any]:
    """Keep a canvas.  409: it was changed elsewhere since the version it is based on."""
    service.need(who, "make")
    for file in body.files:
        if gallery.file_of(service.engine, file, who.sees) is None:
            raise MissingError(f"no picture {file!r}: give it first")
    service.store.check_room(MOST_TEXT)
    version = keep(service.engine, who.owner, name, body)
    if version is None:
        raise HTTPException(409, "the canvas was changed elsewhere: keep this one as a copy")
    return {"id": name, "version": version}


@router.delete("/canvases/{name}", status_code=204)
def forget_canvas(name: Id, who: Asks, service: Serves) -> None:
    """Take a canvas away; pictures that were made in it stay in the gallery."""
    service.need(who, "make")
    _found(service, who, name)
    with service.engine.begin() as connection:
        connection.execute(delete(canvases).where(canvases.c.id == name))


@router.get("/canvases/{name}/files/{file}", response_class=Response, responses=PICTURE)
def get_layer(
    name: Id,
    file: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    who: Asks,
    service: Serves,
) -> Response:
    """A file that a canvas is made of."""
    service.need(who, "read")
    row = _found(service, who, name)
    there = gallery.file_of(service.engine, file, who.sees)
    if there is None or file not in json.loads(row.files):
        raise MissingError(f"no picture {file!r} in this canvas")
    headers = {
        "etag": f'"{file}"',
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": "inline",
    }
    return in_file(service.store, file, headers)


def _found(service: Serves, who: Asks, name: str) -> Row[Any]:
    row = find(service.engine, name, who.sees)
    if row is None:
        raise MissingError(f"no canvas {name!r}")
    return row
