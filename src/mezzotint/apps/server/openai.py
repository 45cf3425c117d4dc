"""OpenAI's Images API under /v1: what talks to it talks to us after changing one address.

    OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="a token, or anything where none is needed")

docs/server/apis.md says what is mapped how, and what is refused.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from sqlalchemy import Row
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException  # what the guard raises is no fastapi one

from mezzotint.apps.server import asking, gallery, given, links, openai_asked, queue, shown
from mezzotint.apps.server.asking import RETRY_SECONDS, STATUS, Asks, Knows, Serves, status
from mezzotint.apps.server.given import Given
from mezzotint.apps.server.openai_asked import Edit, Generation, Variation
from mezzotint.apps.server.service import MissingError, Service
from mezzotint.apps.server.tokens import Who
from mezzotint.apps.server.wish import WishError

MOST_BYTES = 50 << 20
"""Of one picture; all together are as many as a body may have."""
_MOST_FIELDS, _MOST_TEXT = 64, 64 << 10
_PING_SECONDS = 15.0
_LIVE = {"cache-control": "no-store", "x-accel-buffering": "no"}
_KINDS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""No tokens are counted here; programs expect the fields."""
_CALLED = {"count": "n", "format": "output_format", "opaque": "background", "prompt": "prompt"}
"""What they call our fields."""
Key = Annotated[str | None, Header(max_length=256)]
Asked = TypeVar("Asked", bound=Variation)

# --- errors -----------------------------------------------------------------------------------


def _error(code: int, message: str, param: str | None = None, named: str | None = None) -> Response:
    """An error in OpenAI's form."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    usual = "server_error" if code >= 500 else "invalid_request_error"
    said = {"message": message, "type": kind.get(code, usual), "param": param, "code": named}
    headers = {"retry-after": str(RETRY_SECONDS)} if code in (429, 503) else {}
    if code in (409, 500, 507):  # the client tries these again, and would fail again
        headers["x-should-retry"] = "false"
    return asking.in_json({"error": said}, code, headers)


def _known(error: Exception) -> Response:
    """One of ours."""
    field = getattr(error, "field", None)
    told = asking.said(error)
    if isinstance(error, WishError) and field == "model" and told.startswith("no model"):
        return _error(404, told, "model", "model_not_found")
    if isinstance(error, queue.FullError):
        return _error(429, told, None, "rate_limit_exceeded")
    code = status(error)
    return _error(400 if code == 422 else code, told, _CALLED.get(field or "", field))


def _invalid(errors: list[Any]) -> Response:
    first = errors[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(where) or None
    return _error(400, f"{field}: {first['msg']}" if field else str(first["msg"]), field)


def _said(error: Exception) -> Response:
    """An error in OpenAI's form."""
    if isinstance(error, RequestValidationError | ValidationError):
        return _invalid([*error.errors()])
    if isinstance(error, HTTPException):
        named = "invalid_api_key" if error.status_code == 401 else None
        answer = _error(error.status_code, str(error.detail), None, named)
        answer.headers.update(error.headers or {})
        return answer
    if isinstance(error, tuple(STATUS)):
        return _known(error)
    traceback.print_exception(error)
    return _error(500, "a fault of the server: its log says more")


router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=asking.route_of(_said))


def _failed(job: Row[Any]) -> Response:
    """What is said of a job that made nothing."""
    if job.state == "cancelled":
        return _error(409, "the job was cancelled")
    told = str(job.error or "it failed")
    return _error(400, told) if job.fault == "request" else _error(500, told)


# --- answers ----------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How the pictures of a request are answered."""

    body: Variation
    opaque: bool
    urls: bool = False
    kind: str = "png"

    @classmethod
    def of(cls, body: Variation, opaque: bool) -> _Form:
        kind = getattr(body, "output_format", None) or "png"
        return cls(body, opaque, body.response_format == "url", kind)

    def says(self) -> dict[str, Any]:
        return {
            "background": "opaque" if self.opaque else "transparent",
            "output_format": self.kind,
            "quality": openai_asked.quality_of(self.body),
        }

    def identifier(self) -> dict[str, str]:
        found = self.body.safety_identifier or self.body.user
        return {"safety_identifier": found} if found else {}


def _file(service: Service, row: Row[Any]) -> str:
    return base64.b64encode(service.store.get(row.file)).decode()


def _url(request: Request, row: Row[Any]) -> str:
    secret = links.key(request.app.state.service.places.data)
    return f"{request.base_url}v1/images/files/{row.id}?{links.signed(secret, row.id)}"


def _answer(request: Request, service: Service, rows: list[Row[Any]], form: _Form) -> Response:
    data = [
        {
            **({"url": _url(request, row)} if form.urls else {"b64_json": _file(service, row)}),
            "id": row.id,
            "seed": row.seed,
        }
        for row in rows
    ]
    size = f"{rows[0].width}x{rows[0].height}"
    said = {"created": int(time.time()), **form.says(), "size": size, **form.identifier()}
    return asking.in_json({**said, "data": data}, headers={"x-request-id": rows[0].job})


async def _gone(request: Request) -> None:
    """Wait until the client has gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.5)


async def _left(service: Service, who: Who, job: Row[Any], key: str | None) -> None:
    """A client has gone: nobody asks for its pictures any more, unless by a key."""
    if key is None:
        service.ended(await asyncio.to_thread(service.cancel, who, job.id))


async def _ended(
    request: Request, service: Service, who: Who, job: Row[Any], key: str | None
) -> Row[Any]:
    """The job when it has ended; it is cancelled if the client goes."""
    end = asyncio.create_task(service.end(who, job.id))
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            await _left(service, who, job, key)
        return await end
    finally:
        gone.cancel()
        end.cancel()


async def _make(
    request: Request,
    service: Service,
    who: Who,
    wished: dict[str, Any],
    form: _Form,
    key: str | None,
    event: str,
) -> Response:
    """Make what is wished, and answer."""
    service.need(who, "read")
    job = await asyncio.to_thread(service.submit, who, wished, 0, key)
    service.began(job)
    if getattr(form.body, "stream", None):
        lines = _events(service, who, job, form, event, key)
        headers = {**_LIVE, "x-request-id": job.id}
        return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
    job = await _ended(request, service, who, job, key)
    made = await asyncio.to_thread(gallery.outputs_by_job, service.engine, [job.id])
    if job.state != "done" or not made[job.id]:
        return _failed(job)
    return await asyncio.to_thread(_answer, request, service, made[job.id], form)


# --- streams ----------------------------------------------------------------------------------


class _Partials:
    """Which previews are sent: so many of each picture, spread over its steps."""

    def __init__(self, most: int, count: int) -> None:
        self._most, self._count = most, count
        self._sent: dict[int, int] = {}

    def due(self, told: dict[str, Any]) -> int | None:
        """The number of a preview that is to be sent; None: it is not."""
        place, each = told["place"], told["steps"] / self._count
        sent = self._sent.get(place, 0)
        share = (told["step"] - place * each) / each
        if sent >= self._most or share * (self._most + 1) < sent + 1:
            return None
        self._sent[place] = sent + 1
        return sent


def _line(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps({'type': event, **data})}\n\n"


async def _events(
    service: Service, who: Who, job: Row[Any], form: _Form, event: str, key: str | None
) -> AsyncIterator[str]:
    """The events of a job: partial pictures as they form, and each when it is complete."""
    wanted = getattr(form.body, "partial_images", None) or 0
    partials = _Partials(wanted, job.pictures)
    size = form.body.size or "auto"
    said = {**form.says(), "created_at": int(time.time())}
    sent: set[str] = set()
    done = False

    async def complete() -> AsyncIterator[str]:
        made = await asyncio.to_thread(gallery.outputs_by_job, service.engine, [job.id])
        for row in made[job.id]:
            if row.id not in sent:
                sent.add(row.id)
                data = await asyncio.to_thread(_file, service, row)
                whole = {"b64_json": data, "size": f"{row.width}x{row.height}", "seed": row.seed}
                more = {**form.identifier(), "usage": _NO_USAGE, "id": row.id}
                yield _line(f"{event}.completed", {**said, **whole, **more})

    try:
        async for told in service.follow(who, job.id, _PING_SECONDS, looks=wanted > 0):
            if told is None:
                yield ": still here\n\n"
            elif "output" in told:
                async for line in complete():
                    yield line
            elif "preview" in told and (number := partials.due(told)) is not None:
                data = await asyncio.to_thread(_shown, told["preview"], form)
                partial = {"b64_json": data, "partial_image_index": number, "size": size}
                yield _line(f"{event}.partial_image", {**said, **partial})
        async for line in complete():
            yield line
        job = await asyncio.to_thread(service.job, who, job.id)
        if job.state != "done":
            told = json.loads(bytes(_failed(job).body))
            yield f"event: error\ndata: {json.dumps({'type': 'error', **told})}\n\n"
        done = True
    finally:
        if not done:
            with suppress(Exception):
                await asyncio.shield(_left(service, who, job, key))


def _shown(preview: str, form: _Form) -> str:
    kind = _KINDS[form.kind]
    data = given.as_kind(base64.b64decode(preview), kind, form.opaque)
    return base64.b64encode(data).decode()


# --- bodies -----------------------------------------------------------------------------------


class _Parts(NamedTuple):
    """A form: its texts, and its pictures."""

    texts: dict[str, Any]
    images: list[Given]
    mask: bytes | None


def _refuse(message: str, param: str) -> NoReturn:
    raise WishError(message, param)


async def _read(part: UploadFile, name: str) -> bytes:
    if (part.size or 0) > MOST_BYTES:
        _refuse(f"{name} has more than {MOST_BYTES >> 20} MB", name)
    return await part.read()


async def _form(request: Request, service: Service, who: Who) -> _Parts:
    """The form in a body, its pictures taken in.

    Raises:
        WishError: it is none, or has too much; UploadError: a picture is none.
    """
    service.need(who, "make")
    said = request.headers.get("content-type", "").lower()
    if said.partition(";")[0] != "multipart/form-data":
        _refuse("the body must be multipart/form-data", "image")
    if not re.search(r"charset=\"?utf-8\"?\s*(;|$)", said) and "charset=" in said:
        _refuse("a form is in UTF-8 here", "image")
    texts: dict[str, Any] = {}
    images: list[Given] = []
    mask: bytes | None = None
    most = openai_asked.MOST_GIVEN
    async with request.form(
        max_files=most + 1, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT
    ) as form:
        for name, part in form.multi_items():
            if isinstance(part, str):
                several = name.endswith("[]")
                texts[name] = [*texts.get(name, []), part] if several else part
            elif name in ("image", "image[]"):
                data = await _read(part, "image")
                said = part.filename or ""
                images.append(await asyncio.to_thread(given.enter, service, who, data, said))
            elif name == "mask":
                mask = await _read(part, name)
            else:
                _refuse(f"no picture {name[:40]!r}: image and mask", name[:40])
    if not images:
        _refuse("a picture is needed: image", "image")
    if len(images) > most:
        _refuse(f"{len(images)} pictures: at most {most}", "image")
    return _Parts(texts, images, mask)


def _with_form(model: type[Variation], *needed: str) -> dict[str, Any]:
    """What the documentation says of a form."""
    schema = model.model_json_schema()
    binary = {"type": "string", "format": "binary"}
    fields: dict[str, Any] = {**schema["properties"], "image": {"type": "array", "items": binary}}
    if model is Edit:
        fields["mask"] = {**binary, "description": "transparent where something new is wanted"}
    said = {"type": "object", "properties": fields, "required": ["image", *needed]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": said}}}}


# --- routes -----------------------------------------------------------------------------------


@router.post("/images/generations")
async def generations(
    body: Generation, request: Request, who: Asks, service: Knows, idempotency_key: Key = None
) -> Response:
    """Pictures from words."""
    about = service.about(body.model or openai_asked.MODEL)
    wished = openai_asked.generation(body, about)
    form = _Form.of(body, openai_asked.is_opaque(body, about))
    return await _make(request, service, who, wished, form, idempotency_key, "image_generation")


@router.post("/images/edits", openapi_extra=_with_form(Edit, "prompt"))
async def edits(
    request: Request, who: Asks, service: Knows, idempotency_key: Key = None
) -> Response:
    """A picture drawn anew by words: all of it, or where the mask is transparent."""
    parts = await _form(request, service, who)
    body = Edit.model_validate(parts.texts)
    about = service.about(body.model or openai_asked.MODEL)
    mask: Given | None = None
    if parts.mask is not None:
        size = parts.images[0].size
        data = await asyncio.to_thread(given.transparent_is_new, parts.mask, size)
        mask = await asyncio.to_thread(given.enter, service, who, data, "mask")
    wished = openai_asked.edit(body, about, parts.images, mask)
    form = _Form.of(body, openai_asked.is_opaque(body, about))
    return await _make(request, service, who, wished, form, idempotency_key, "image_edit")


async def _recipe(service: Service, who: Who, picture: Given) -> dict[str, Any] | None:
    """How a picture was made here, if it was."""
    job = await asyncio.to_thread(service.look, who, "recipe", picture.id)
    service.began(job)
    job = await service.end(who, job.id)
    if job.state != "done":
        return None
    found = json.loads(job.result or "{}")
    wishes = found.get("wishes", [])
    return wishes[0] if found.get("program") == "mezzotint" and len(wishes) == 1 else None


@router.post("/images/variations", openapi_extra=_with_form(Variation))
async def variations(
    request: Request, who: Asks, service: Knows, idempotency_key: Key = None
) -> Response:
    """Pictures like one: of a picture that was made here, by its recipe."""
    parts = await _form(request, service, who)
    body = Variation.model_validate(parts.texts)
    if len(parts.images) > 1 or parts.mask is not None:
        _refuse("variations are of one picture, without a mask", "image")
    recipe = await _recipe(service, who, parts.images[0])
    asked_for = body.model and service.named(body.model)
    if recipe is not None and asked_for not in (None, recipe.get("model")):
        recipe = None
    name = str((recipe or {}).get("model") or body.model or openai_asked.MODEL)
    about = service.about(name)
    opaque = not about.get("usual", {}).get("transparent")
    form = _Form.of(body, opaque)
    if recipe is not None:
        wished = openai_asked.varied(body, about, parts.images[0], recipe)
        with suppress(WishError, MissingError):  # what it was made of is not here
            return await _make(request, service, who, wished, form, idempotency_key, "")
    wished = openai_asked.varied(body, about, parts.images[0], None)
    return await _make(request, service, who, wished, form, idempotency_key, "")


@router.get("/models/{name}")
def model(name: str, who: Asks, service: Knows) -> dict[str, Any]:
    """A model, as OpenAI's programs read it."""
    if not service.about(name):
        raise WishError(f"no model {name[:80]!r}", "model")
    return shown.model(name)


@router.get("/images/files/{name}", response_class=Response, responses=asking.PICTURE)
def file(
    name: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],
    service: Serves,
    until: Annotated[int, Query(ge=0, lt=2**40)],
    signed: Annotated[str, Query(pattern="^[0-9a-f]{64}$")],
) -> Response:
    """The file of a picture, by an address that an answer gave; for an hour, without a token."""
    if not links.is_signed(links.key(service.places.data), name, until, signed):
        raise HTTPException(403, "this address has expired, or is not of this server")
    row = gallery.output(service.engine, name, None)
    if row is None:
        raise MissingError(f"no picture {name!r}")
    headers = {"cache-control": "private, max-age=3600"}
    return asking.in_file(service.store, row.file, headers, row.kind)
