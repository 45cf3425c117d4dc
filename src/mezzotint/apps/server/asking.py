"""What the interfaces over HTTP share: who asks, bodies, and errors as status codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Annotated, Any, BinaryIO

from fastapi import Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from mezzotint.apps.server import tokens
from mezzotint.apps.server.boards import BoardError
from mezzotint.apps.server.gallery import UploadError, kind_of
from mezzotint.apps.server.queue import FullError, KeyUsedError
from mezzotint.apps.server.service import ForbiddenError, MissingError, Service
from mezzotint.apps.server.store import NoRoomError, Store, StoreError
from mezzotint.apps.server.tables import is_full
from mezzotint.apps.server.tokens import LOCAL, Who
from mezzotint.apps.server.wish import WishError
from mezzotint.files import WriteError

STATUS: dict[type[Exception], int] = {
    WishError: 422,
    UploadError: 422,
    BoardError: 409,
    MissingError: 404,
    ForbiddenError: 403,
    KeyUsedError: 409,
    FullError: 429,
    NoRoomError: 507,
    StoreError: 404,  # after the one above, which is one of these
    WriteError: 507,
    DBAPIError: 503,
    NoConnectionError: 503,
}
"""The status of each error that a request can meet."""
RETRY_SECONDS = 5
FILE = {"schema": {"type": "string", "format": "binary"}}
PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": FILE}}}
"""What the document of an interface says of bytes, and of an answer that is a picture."""
_PART = 256 << 10
"""Bytes of a file that are in memory at once, for each who fetches one."""


class Refusal(BaseModel):
    """Why not, in one line; field: what of the request is meant."""

    message: str
    status: int | None = None
    field: str | None = None


class Refused(BaseModel):
    error: Refusal


def refusals(form: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What the document of an interface says of answers that are errors."""
    said = {"4XX": "what cannot be asked for", "5XX": "what cannot be done: 503, or 507, for now"}
    return {code: {"model": form, "description": what} for code, what in said.items()}


def status(error: Exception) -> int:
    if is_full(error):
        return 507
    return next(code for kind, code in STATUS.items() if isinstance(error, kind))


def said(error: Exception) -> str:
    """An error of those in one line."""
    if isinstance(error, DBAPIError | NoConnectionError):
        full = "the disk of the database is full: free some"
        return full if is_full(error) else "the database is not there: ask again later"
    return " ".join(str(error).split())


async def service(request: Request) -> Service:  # one that is not async would take a thread
    return request.app.state.service


async def who(request: Request, found: Annotated[Service, Depends(service)]) -> Who:
    """Who asks, by the token in the header; without one the user at this machine, if that is
    enough here."""
    given = request.headers.get("authorization", "")
    kind, _, token = given.partition(" ")
    token = token.strip() if kind.lower() == "bearer" else ""
    if not token:
        return whose(request, found, "", "Bearer")
    return await run_in_threadpool(whose, request, found, token, "Bearer")


def whose(request: Request, found: Service, token: str, kind: str) -> Who:
    """Who holds a token, which may be empty; kind: how one is given.

    Raises:
        HTTPException: one is needed.
    """
    holder = tokens.holder(found.engine, token) if token else None
    if holder is not None:
        return holder
    if request.app.state.tokens_needed:
        told = "this token is not known, or was revoked" if token else "a token is needed"
        headers = {"WWW-Authenticate": kind}
        raise HTTPException(401, f"{told}: Authorization: {kind} …", headers)
    return LOCAL


async def _knowing(found: Annotated[Service, Depends(service)]) -> Service:
    if found.crew is not None:
        await found.crew.known()
    return found


Asks = Annotated[Who, Depends(who)]
Serves = Annotated[Service, Depends(service)]
Knows = Annotated[Service, Depends(_knowing)]
"""The service once it knows what its workers can do."""


def in_json(data: object, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON; in ASCII, for texts may have halves of characters, which UTF-8 has not."""
    return Response(json.dumps(data), code, headers, "application/json")


def in_file(
    store: Store, name: str, headers: Mapping[str, str], media: str | None = None
) -> Response:
    """A stored picture as an answer; a large one in parts, so that many who fetch take no memory.

    media: its type; None looks into the file.

    Raises:
        StoreError: it is not there.
    """
    with ExitStack() as opened:
        file = opened.enter_context(store.open(name))
        media = media or kind_of(file)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        headers = {**headers, "content-length": str(size)}
        if size <= _PART:
            return Response(file.read(), media_type=media, headers=headers)
        opened.pop_all()
        return _InParts(file, media, headers)


class _InParts(StreamingResponse):
    """A file as an answer; it is closed at its end, and when the client is gone."""

    def __init__(self, file: BinaryIO, media: str, headers: Mapping[str, str]) -> None:
        super().__init__(iter(partial(file.read, _PART), b""), 200, headers, media)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def route_of(answer: Callable[[Exception], Response]) -> type[APIRoute]:
    """A kind of route whose errors are answered as an interface of others answers them."""

    class Answering(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await inner(request)
                except ClientDisconnect:
                    raise
                except Exception as error:
                    return answer(error)

            return handler

    return Answering


async def document(request: Request) -> dict[str, Any]:
    """The body as one JSON object.

    Raises:
        HTTPException: it is none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    try:
        found = await request.json()
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return found
