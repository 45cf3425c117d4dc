"""The server's own interface, under /v1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from mezzotint.apps.server import boards, gallery, queue, shown, wish
from mezzotint.apps.server.asking import FILE, PICTURE, Asks, Knows, Serves, in_file
from mezzotint.apps.server.gallery import Page
from mezzotint.apps.server.places import KINDS
from mezzotint.apps.server.service import MissingError

router = APIRouter(prefix="/v1", tags=["mezzotint"])

Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
PictureId = Annotated[str, Path(pattern="^([0-9a-f]{32}|[0-9a-f]{64})$")]
PING_SECONDS = 15.0
BYTES = {"required": True, "content": {"application/octet-stream": FILE}}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
_LIVE = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Asked(BaseModel):
    """What to make: the options of `mezzotint generate`, with _ or -; `GET /v1/fields` lists them
    all.  Pictures are named by the id of an upload or an output."""

    model_config = ConfigDict(extra="allow")
    prompt: str = Field(description="what to draw", max_length=wish.MOST_TEXT)
    model: str = Field("icons", max_length=256)
    count: int = Field(1, ge=1, le=wish.MOST_PICTURES, description="pictures; seeds count up")
    seed: int | None = Field(None, ge=0, lt=2**64, description="of the first picture")
    size: str | None = Field(None, description="WxH, an aspect as 16:9, or wide, tall …")
    format: str = Field("png", description="png, webp, jpeg or tiff")


class Priority(BaseModel):
    model_config = ConfigDict(extra="forbid")
    priority: int = Field(ge=-100, le=100)


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    picture: str = Field(
        pattern="^([0-9a-f]{32}|[0-9a-f]{64})$", description="id of an upload or an output"
    )


def _seconds(when: datetime | None) -> float | None:
    try:
        return None if when is None else when.timestamp()
    except (OverflowError, ValueError):  # in the year 1, of a zone that is behind
        raise HTTPException(422, "no such time: since and until") from None


def _page(
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=gallery.MOST_ROWS)] = 50,
    q: Annotated[str, Query(max_length=200)] = "",
    model: Annotated[str, Query(max_length=256)] = "",
    seed: Annotated[str, Query(max_length=20)] = "",
    state: Annotated[str, Query(max_length=12)] = "",
    licence: Annotated[str, Query(max_length=200)] = "",
    since: Annotated[datetime | None, Query()] = None,
    until: Annotated[datetime | None, Query()] = None,
    board: Annotated[str, Query(pattern="^([0-9a-f]{32})?$")] = "",
    favourite: bool = False,
    beyond: Annotated[float | None, Query(ge=-2, le=2)] = None,
) -> Page:
    begin, end = _seconds(since), _seconds(until)
    return Page(
        before, limit, q, model, seed, state, licence, begin, end, board or None, favourite, beyond
    )


Pages = Annotated[Page, Depends(_page)]

# --- jobs -------------------------------------------------------------------------------------


@router.post("/jobs", status_code=202)
async def submit(
    body: Asked,
    who: Asks,
    service: Serves,
    response: Response,
    priority: Annotated[int, Query(ge=-100, le=100)] = 0,
    idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
) -> dict[str, Any]:
    """Ask for pictures.  With an `Idempotency-Key` that came before, it is the same job."""
    asked = body.model_dump(exclude_unset=True)
    job = await asyncio.to_thread(service.submit, who, asked, priority, idempotency_key)
    service.began(job)
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return await asyncio.to_thread(_whole, service, job) if job.attempt else shown.job(job)


def _whole(service: Serves, row: Row[Any]) -> dict[str, Any]:
    """A job with the pictures that it has made so far; one that never ran has none."""
    made = gallery.outputs_by_job(service.engine, [row.id])[row.id] if row.attempt else ()
    return shown.job(row, made)


@router.get("/jobs")
def list_jobs(who: Asks, service: Serves, page: Pages) -> dict[str, Any]:
    """Jobs, the newest first."""
    service.need(who, "read")
    rows = gallery.jobs_of(service.engine, who.sees, page)
    made = gallery.outputs_by_job(service.engine, [row.id for row in rows])
    return {"jobs": [shown.job(row, made[row.id]) for row in rows]}


@router.get("/jobs/{name}")
def get_job(name: Id, who: Asks, service: Serves) -> dict[str, Any]:
    """A job, with the pictures that it has made so far."""
    return _whole(service, service.job(who, name))


@router.delete("/jobs/{name}")
async def cancel(name: Id, who: Asks, service: Serves) -> dict[str, Any]:
    """Cancel a job: it ends within a step; the pictures that it has made stay."""
    row = await asyncio.to_thread(service.cancel, who, name)
    service.ended(row)
    return await asyncio.to_thread(_whole, service, row)


@router.patch("/jobs/{name}")
def hasten(name: Id, body: Priority, who: Asks, service: Serves) -> dict[str, Any]:
    """Give a job that waits another priority; a higher one than usual takes the scope admin."""
    service.job(who, name)
    service.need(who, "admin" if body.priority > 0 else "make")
    if not queue.hasten(service.engine, name, body.priority):
        raise HTTPException(409, "it does not wait any more")
    return _whole(service, service.job(who, name))


def _event(told: dict[str, Any] | None) -> str:
    if told is None:
        return ": still here\n\n"
    kind = next((name for name in ("state", "output", "preview") if name in told), "progress")
    return f"event: {kind}\ndata: {json.dumps(told)}\n\n"


@router.get("/jobs/{name}/events", response_class=StreamingResponse, responses=_EVENTS)
async def follow(name: Id, who: Asks, service: Serves, previews: bool = True) -> StreamingResponse:
    """What happens to a job, as server-sent events, until it ends: `state`, `progress`, `preview`
    (a WebP in base64) and `output`.  Previews take time to make: say `previews=false` if nobody
    looks at them."""
    events = service.follow(who, name, PING_SECONDS, previews)
    first = await anext(events)
    if first is None:  # says so
        await asyncio.to_thread(service.job, who, name)

    async def lines() -> AsyncIterator[str]:
        async with aclosing(events):
            yield _event(first)
            async for told in events:
                yield _event(told)

    return StreamingResponse(lines(), media_type="text/event-stream", headers=_LIVE)


@router.get("/events", response_class=StreamingResponse, responses=_EVENTS)
async def follow_all(who: Asks, service: Serves) -> StreamingResponse:
    """What happens to all your jobs (of who may see everybody's: to all), with their previews,
    beginning with those that wait and run."""
    service.need(who, "read")

    async def lines() -> AsyncIterator[str]:
        async for told in service.follow_all(who, PING_SECONDS):
            yield _event(told)

    return StreamingResponse(lines(), media_type="text/event-stream", headers=_LIVE)


# --- pictures ---------------------------------------------------------------------------------


@router.get("/outputs")
async def list_outputs(
    who: Asks,
    service: Serves,
    page: Pages,
    like: Annotated[str, Query(pattern="^([0-9a-f]{32}|[0-9a-f]{64})?$")] = "",
) -> dict[str, Any]:
    """Pictures, the newest first; `q`: words of their prompts.

    With `like`, the id of a picture: those that look like it, the most alike first, each with its
    `likeness` (1: the same).  The next page is `before` the number of the last one and `beyond` its
    likeness."""
    service.need(who, "read")
    seen = await _seen(service, who, like) if like else None
    return await asyncio.to_thread(_listed, service, who, page, seen)


def _listed(service: Serves, who: Asks, page: Page, seen: bytes | None) -> dict[str, Any]:
    if seen is None:
        rows = gallery.outputs_of(service.engine, who.sees, page, who.owner)
        said = [shown.output(row) for row in rows]
    else:
        found = gallery.outputs_like(service.engine, seen, who.sees, page, who.owner)
        said = [{**shown.output(row), "likeness": alike} for row, alike in found]
    loved = boards.favourites_of(service.engine, who.owner, [each["id"] for each in said])
    return {"outputs": [{**each, "favourite": each["id"] in loved} for each in said]}


async def _seen(service: Serves, who: Asks, picture: str) -> bytes:
    """What is seen of a picture; a worker looks at one that was given and not looked at yet."""
    file = await asyncio.to_thread(gallery.file_of, service.engine, picture, who.sees)
    if file is None:
        raise MissingError(f"no picture {picture!r}: give it first")
    known = await asyncio.to_thread(gallery.seen_of, service.engine, file)
    if known is None:
        known = bytes.fromhex((await looked(service, who, "see", picture))["seen"])
        await asyncio.to_thread(gallery.saw, service.engine, file, known)
    return known


@router.get("/outputs/{name}")
def get_output(name: Id, who: Asks, service: Serves) -> dict[str, Any]:
    """A picture with its recipe."""
    service.need(who, "read")
    row = gallery.output(service.engine, name, who.sees)
    if row is None:
        raise MissingError(f"no picture {name!r}")
    loved = boards.favourites_of(service.engine, who.owner, [row.id])
    return {**shown.output(row, whole=True), "favourite": row.id in loved}


@router.get("/outputs/{name}/file", response_class=Response, responses=PICTURE)
def get_file(name: Id, who: Asks, service: Serves) -> Response:
    """The file of a picture, with all that it carries."""
    service.need(who, "read")
    row = gallery.output(service.engine, name, who.sees)
    if row is None:
        raise MissingError(f"no picture {name!r}")
    end = row.kind.partition("/")[2]
    headers = {
        "etag": f'"{row.file}"',
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": f'inline; filename="{row.id}.{end}"',
    }
    return in_file(service.store, row.file, headers, row.kind)


@router.delete("/outputs/{name}", status_code=204)
def forget(name: Id, who: Asks, service: Serves) -> None:
    """Take a picture out of the gallery for good; its file stays while others are made of it."""
    service.need(who, "make")
    files = gallery.forget(service.engine, name, who.sees)
    if files is None:
        raise MissingError(f"no picture {name!r}")
    for file in files:
        service.store.drop(file)


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra={"requestBody": BYTES},
)
async def upload(
    request: Request, who: Asks, service: Serves, name: Annotated[str, Query(max_length=200)] = ""
) -> dict[str, Any]:
    """Give a picture, as the whole body; its id is what other requests call it."""
    service.need(who, "make")
    data = await request.body()
    kind = await asyncio.to_thread(gallery.kind_of, data)
    service.store.check_room(len(data))
    file = await asyncio.to_thread(service.store.put, data)
    await asyncio.to_thread(gallery.enter, service.engine, who.owner, file, kind, len(data), name)
    return {"id": file, "type": kind, "bytes": len(data)}


async def looked(
    service: Serves, who: Asks, kind: Any, picture: str, form: str | None = None
) -> dict[str, Any]:
    """What a job that looks at a picture finds."""
    job = await asyncio.to_thread(service.look, who, kind, picture, form)
    return json.loads((await ended(service, who, job)).result or "null")


async def ended(service: Serves, who: Asks, job: Row[Any]) -> Row[Any]:
    """A job that somebody waits for, when it is done."""
    service.began(job)
    row = await service.end(who, job.id)
    if row.state in queue.OPEN:
        raise HTTPException(503, "the server stops: ask again later")
    if row.state == "cancelled":
        raise HTTPException(409, "the job was cancelled")
    if row.state != "done":
        raise HTTPException(422 if row.fault == "request" else 500, row.error or row.state)
    return row


@router.post("/verify")
async def verify(body: Named, who: Asks, service: Serves) -> dict[str, Any]:
    """Make a picture again from its recipe, and compare."""
    return await looked(service, who, "verify", body.picture)


@router.post("/detect")
async def detect(body: Named, who: Asks, service: Serves) -> dict[str, Any]:
    """Look for watermarks."""
    return await looked(service, who, "detect", body.picture)


@router.post("/recipe")
async def recipe(body: Named, who: Asks, service: Serves) -> dict[str, Any]:
    """How a picture was made, as what `POST /v1/jobs` takes; also of other programs' pictures."""
    return await looked(service, who, "recipe", body.picture)


# --- what there is ----------------------------------------------------------------------------


@router.get("/models")
def models(who: Asks, service: Knows) -> dict[str, Any]:
    """What there is to make pictures with: in our form, and as `data` in OpenAI's."""
    about = _about(service)
    there = {kind: about.get(kind, []) for kind in ("models", *KINDS)}
    names = [*(each["name"] for each in there["models"]), *service.aliases]
    return {"object": "list", "data": [shown.model(name) for name in names], **there}


@router.get("/samplers")
def samplers(who: Asks, service: Knows) -> dict[str, Any]:
    about = _about(service)
    return {name: about.get(name, []) for name in ("samplers", "spacings")}


@router.get("/fields")
def fields(who: Asks) -> dict[str, str]:
    """What a job may ask for, and what it means."""
    return wish.fields()


@router.get("/health")
def health(service: Serves) -> dict[str, Any]:
    """Whether it works; no token is needed, and nothing is told that is private.  Workers end when
    they have nothing to do, and are started when they are needed."""
    alive = 0 if service.crew is None else service.crew.alive
    rests = service.crew is not None and service.crew.rests
    ready = bool(_about(service))
    return {"status": "ok" if alive or rests else "no worker", "workers": alive, "ready": ready}


def _about(service: Serves) -> dict[str, Any]:
    return {} if service.crew is None else service.crew.about
