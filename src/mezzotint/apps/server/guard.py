"""What every request passes before anything reads it, and what every answer says.

The server is for people at this machine, and browsers there run everybody's pages: so a request
must name a host that is ours (against DNS rebinding), and come from our own page or from no page at
all (against forms and fetches of others').  Bodies have an end, in bytes, values and time, and so
have all of them together.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 64 << 20
MOST_AT_ONCE = 512 << 20
"""Of the bodies of all requests that are not answered yet."""
MOST_VALUES = 1_000_000
"""Of a body in JSON: three bytes of it can be a list, which takes sixty."""
BODY_SECONDS, BODY_RATE = 20.0, 32 << 10
"""A body has so long, and a second more for so many bytes."""
MOST_HEADERS = 100
_ONCE = ("host", "origin", "sec-fetch-site", "authorization", "content-type", "content-length")
"""Headers of which a second one would be read by one reader, and the first by another."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAID = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """An ASGI application around the server's."""

    def __init__(
        self, app: App, hosts: Iterable[str], origins: Iterable[str] = (), most: int = MOST_BYTES
    ) -> None:
        """hosts: names that are ours, without a port; origins: of pages elsewhere that may ask."""
        self._app, self._most, self._held = app, most, 0
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        origin = headers.get("origin", "").lower()
        body, begun = _Body(self, receive, "json" in headers.get("content-type", "")), False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message["headers"], *self._said(origin)]}
            await send(message)

        try:
            self._check(scope, headers, origin)
            if scope["method"] == "OPTIONS" and origin in self._origins:
                await _answer(answer, 204, None)
                return
            await self._app(scope, body, answer)
        except _RefusedError as refused:
            if begun:
                raise
            await _answer(answer, refused.status, str(refused))
        finally:
            self._held -= body.got

    def take(self, got: int, of: int) -> None:
        """Note that so many bytes more are held, of a body that has so many now.

        Raises:
            HTTPException: they are too many.
        """
        self._held += got
        if of > self._most:
            raise HTTPException(413, f"a body has at most {self._most >> 20} MB")
        if self._held > MOST_AT_ONCE:
            told = "too much is being sent here at once: ask again later"
            raise HTTPException(429, told, {"retry-after": "5"})

    def _said(self, origin: str) -> list[tuple[bytes, bytes]]:
        said = dict(_SAID)
        if origin in self._origins:
            said |= {
                "access-control-allow-origin": origin,
                "access-control-allow-headers": "authorization, content-type, idempotency-key",
                "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
                "cross-origin-resource-policy": "cross-origin",
                "vary": "origin",
            }
        return [(name.encode(), value.encode()) for name, value in said.items()]

    def _check(self, scope: Scope, headers: dict[str, str], origin: str) -> None:
        names = [name.decode("latin-1") for name, _ in scope["headers"]]
        if len(names) > MOST_HEADERS:
            raise _RefusedError(431, f"a request has at most {MOST_HEADERS} headers")
        if twice := next((name for name in _ONCE if names.count(name) > 1), None):
            raise _RefusedError(400, f"there are two headers {twice}")
        asked = scope.get("path", "/") + unquote(scope.get("query_string", b"").decode("latin-1"))
        if "\0" in asked or not asked.startswith("/"):
            raise _RefusedError(400, "this is no address of a page here")
        host = headers.get("host", "").lower()
        if _name(host) not in self._hosts:
            raise _RefusedError(421, "this is not the host that was asked for")
        if origin in self._origins:
            return
        if origin and urlsplit(origin).netloc != host:
            raise _RefusedError(403, "pages of other sites may not ask here")
        visits = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        visits &= headers.get("sec-fetch-dest", "document") == "document"  # a link, and no frame
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not visits:
            raise _RefusedError(403, "pages of other sites may not ask here")
        try:
            length = int(headers.get("content-length", "0"))
        except ValueError:
            raise _RefusedError(400, "the content-length is no number") from None
        if length > self._most:
            raise _RefusedError(413, f"a body has at most {self._most >> 20} MB")


class _Body:
    """Receives a request's body, and no more than it may be."""

    def __init__(self, guard: Guard, receive: Receive, in_json: bool) -> None:
        self._guard, self._receive, self._in_json = guard, receive, in_json
        self.got, self._values = 0, 0
        self._began, self._whole = time.monotonic(), False

    async def __call__(self) -> Message:
        if self._whole:  # from now on it only tells that the client has gone
            return await self._receive()
        left = self._began + BODY_SECONDS + self.got / BODY_RATE - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.01))
        except TimeoutError:
            raise HTTPException(408, "the body came too slowly") from None
        if message["type"] == "http.request":
            data = message.get("body", b"")
            self.got += len(data)
            self._whole = not message.get("more_body", False)
            self._guard.take(len(data), self.got)
            if self._in_json:
                self._values += sum(data.count(mark) for mark in (b",", b"[", b"{"))
                if self._values > MOST_VALUES:
                    raise HTTPException(413, f"JSON here has at most {MOST_VALUES:,} values")
        return message


def _name(host: str) -> str:
    """A host without its port; what is not written as one is nobody's."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(?::[0-9]{1,5})?", host)
    return "" if found is None else found[1]


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _answer(send: Send, status: int, why: str | None) -> None:
    body = b"" if why is None else json.dumps({"error": {"message": why}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
