"""The web application: the interfaces, their errors, and what runs beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine, select
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

import mezzotint
from mezzotint.apps.server import (
    api,
    boards_api,
    canvases,
    derived_api,
    links,
    metrics,
    openai,
    queue,
    recovery,
    space,
    webui,
)
from mezzotint.apps.server.asking import (
    RETRY_SECONDS,
    STATUS,
    Refused,
    in_json,
    refusals,
    said,
    status,
)
from mezzotint.apps.server.crew import Crew
from mezzotint.apps.server.guard import App, Guard
from mezzotint.apps.server.hub import Hub
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.service import Service
from mezzotint.apps.server.store import Store
from mezzotint.apps.server.tables import reading, tokens
from mezzotint.apps.studio import pages

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Settings:
    """How a server is set up.

    hosts: names that it answers to beside those of this machine; origins: of pages elsewhere that
    may ask it; devices: one worker each (None: the one that torch prefers); memory: of a worker;
    idle: seconds after which one ends that has nothing to do; 0: none does.
    """

    places: Places
    address: str
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    devices: Sequence[str | None] = (None,)
    memory: str | None = None
    idle: float = 0.0
    limits: queue.Limits = field(default_factory=queue.Limits)
    tokens_needed: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)


def has_tokens(engine: Engine) -> bool:
    with reading(engine) as connection:
        return connection.scalar(select(tokens.c.id).limit(1)) is not None


def _error(message: str, code: int, field: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"message": message, "status": code}
    return {"error": told if field is None else {**told, "field": field}}


def _methods(app: FastAPI, request: Request) -> str:
    """What an address takes, as `Allow` says it: each method of it has a route of its own."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in app.routes)

    return ", ".join(filter(takes, ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")))


def _answers(app: FastAPI) -> None:
    """Every error as one line of JSON."""

    async def known(_: Request, error: Exception) -> Response:
        code = status(error)
        headers = {"retry-after": str(RETRY_SECONDS)} if code in (429, 503) else None
        told = _error(said(error), code, getattr(error, "field", None))
        return in_json(told, code, headers)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers, code = error.headers, error.status_code
        if code == 405:
            headers = {"allow": _methods(app, request)}
        return in_json(_error(str(error.detail), code), code, headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or None
        where = f"{field}: " if field else ""
        return in_json(_error(f"{where}{first['msg']}", 422, field), 422)

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=400)  # which nobody reads: it went while it sent its body

    app.add_exception_handler(ClientDisconnect, gone)
    for kind in STATUS:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def build(engine: Engine, settings: Settings) -> tuple[App, Hub]:
    """The application of a database, whose workers run while it does, and who listens to it."""
    service = Service(
        engine=engine,
        store=Store(settings.places.files),
        places=settings.places,
        hub=Hub(lambda job, begins: service.watched(job, begins)),
        limits=settings.limits,
        aliases=settings.aliases,
    )

    links.key(settings.places.data)  # or the first who asks for a picture would make it

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.crew = Crew(
            engine,
            settings.address,
            settings.places,
            list(settings.devices),
            service.hear,
            settings.memory,
            settings.idle,
        )
        service.crew.start()
        yield
        await service.crew.stop()
        if service.crew.clean:
            recovery.stopped(settings.places)

    app = FastAPI(
        title="Mezzotint",
        version=mezzotint.__version__,
        summary="Pictures from words, on this machine.",
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,  # one address a thing
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        responses=refusals(Refused),
    )
    app.state.service, app.state.tokens_needed = service, settings.tokens_needed
    app.state.webui = webui.State()
    _answers(app)
    app.include_router(api.router)
    app.include_router(openai.router)
    app.include_router(webui.router)
    app.include_router(canvases.router)
    app.include_router(metrics.router)
    app.include_router(boards_api.router)
    app.include_router(derived_api.router)
    app.include_router(space.router)
    app.include_router(pages.router)
    hosts: Iterable[str] = (*LOOPBACK, *settings.hosts)
    return Guard(app, hosts, settings.origins), service.hub
