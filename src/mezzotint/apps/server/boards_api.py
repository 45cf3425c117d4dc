"""What the studio needs beside jobs and pictures: boards, favourites, families, other formats."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from mezzotint.apps.server import boards, gallery, shown
from mezzotint.apps.server.api import Id, Named, looked
from mezzotint.apps.server.asking import PICTURE, Asks, Serves, in_file
from mezzotint.apps.server.service import MissingError, Service
from mezzotint.apps.server.tokens import Who

router = APIRouter(prefix="/v1", tags=["mezzotint"])

FileName = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
OutputId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class NamedBoard(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100)


class Pinned(BaseModel):
    model_config = ConfigDict(extra="forbid")
    outputs: list[OutputId] = Field(max_length=500)
    on: bool = True


class Favourite(BaseModel):
    model_config = ConfigDict(extra="forbid")
    favourite: bool


def _output(service: Service, who: Who, name: str) -> Row[Any]:
    service.need(who, "read")
    row = gallery.output(service.engine, name, who.sees)
    if row is None:
        raise MissingError(f"no picture {name!r}")
    return row


# --- boards -----------------------------------------------------------------------------------


@router.get("/boards")
def list_boards(who: Asks, service: Serves) -> dict[str, Any]:
    """Your boards."""
    service.need(who, "read")
    return {"boards": boards.listed(service.engine, who.owner)}


@router.post("/boards", status_code=201)
def add_board(body: NamedBoard, who: Asks, service: Serves) -> dict[str, Any]:
    """Make a board."""
    service.need(who, "make")
    return boards.add(service.engine, who.owner, body.name)


@router.patch("/boards/{name}")
def rename_board(name: Id, body: NamedBoard, who: Asks, service: Serves) -> dict[str, Any]:
    """Give a board another name."""
    service.need(who, "make")
    if not boards.rename(service.engine, who.owner, name, body.name):
        raise MissingError(f"no board {name!r}")
    return next(each for each in boards.listed(service.engine, who.owner) if each["id"] == name)


@router.delete("/boards/{name}", status_code=204)
def drop_board(name: Id, who: Asks, service: Serves) -> None:
    """Drop a board; its pictures stay in the gallery."""
    service.need(who, "make")
    if not boards.drop(service.engine, who.owner, name):
        raise MissingError(f"no board {name!r}")


@router.post("/boards/{name}/outputs")
def pin(name: Id, body: Pinned, who: Asks, service: Serves) -> dict[str, Any]:
    """Put pictures onto a board, or take them off it."""
    service.need(who, "make")
    if not boards.pin(service.engine, who.owner, name, body.outputs, who.sees, body.on):
        raise MissingError(f"no board {name!r}")
    return next(each for each in boards.listed(service.engine, who.owner) if each["id"] == name)


# --- pictures ---------------------------------------------------------------------------------


@router.put("/outputs/{name}/favourite")
def favour(name: Id, body: Favourite, who: Asks, service: Serves) -> dict[str, Any]:
    """Make a picture a favourite, or not."""
    service.need(who, "make")
    _output(service, who, name)
    boards.favour(service.engine, who.owner, name, body.favourite)
    return {"favourite": body.favourite}


@router.get("/outputs/{name}/family")
def family(name: Id, who: Asks, service: Serves) -> dict[str, Any]:
    """What a picture was made from, and what was made from it."""
    row = _output(service, who, name)
    parents, given, children = boards.family(service.engine, row, who.sees)
    return {
        "parents": [{**shown.output(each), "how": how} for how, each in parents],
        "uploads": [{"file": each.file, "name": each.name} for each in given],
        "children": [{**shown.output(each), "how": how} for how, each in children],
        "boards": boards.boards_of(service.engine, who.owner, name),
    }


@router.get("/files/{name}", response_class=Response, responses=PICTURE)
def get_file(name: FileName, who: Asks, service: Serves) -> Response:
    """A picture by the SHA-256 of its bytes, as recipes name it."""
    service.need(who, "read")
    file = gallery.file_of(service.engine, name, who.sees)
    if file is None:
        raise MissingError(f"no picture {name!r}")
    headers = {"etag": f'"{file}"', "cache-control": "private, max-age=31536000, immutable"}
    return in_file(service.store, file, headers)


@router.post("/outputs/{name}/export", response_class=Response, responses=PICTURE)
async def export(
    name: Id,
    who: Asks,
    service: Serves,
    form: Annotated[Literal["png", "webp", "jpeg", "tiff", "svg"], Query(alias="format")],
) -> Response:
    """A picture in another format, with all that it carries."""
    found = await looked(service, who, "export", name, form.upper())
    data = await asyncio.to_thread(service.store.get, found["file"])
    await asyncio.to_thread(service.tidy, [found["file"]])
    headers = {"content-disposition": f'attachment; filename="{name}.{form}"'}
    return Response(data, media_type=found["type"], headers=headers)


@router.post("/credentials")
async def credentials(body: Named, who: Asks, service: Serves) -> dict[str, Any]:
    """Who made a picture, from what, and whether it was changed since."""
    return await looked(service, who, "credentials", body.picture)
