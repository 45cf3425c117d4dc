"""Pages of other sites, other names of this host, bodies without an end."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from mezzotint.apps.server import guard
from mezzotint.apps.server.guard import Guard

OURS = "http://localhost:7860"


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and says how long it was."""
    from starlette.exceptions import HTTPException

    got, more, status = 0, True, 200
    try:
        while more:
            message = await receive()
            got += len(message.get("body", b""))
            more = message.get("more_body", False)
    except HTTPException as error:
        status = error.status_code
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": str(got).encode()})


def ask(method: str = "GET", host: str = "localhost:7860", **headers: str) -> httpx.Response:
    app = Guard(_app, ("localhost", "127.0.0.1", "[::1]"), ("https://friend.example",), most=1000)

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OURS) as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, "/", headers={"host": host, **named})

    return asyncio.run(asked())


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:7860"])
def test_our_names(host: str) -> None:
    assert ask(host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io"])
def test_rebinding(host: str) -> None:
    """A name of theirs that resolves to this machine."""
    assert ask(host=host).status_code == 421


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:7861", "http://localhost"]
)
def test_pages_of_others(method: str, origin: str) -> None:
    assert ask(method, origin=origin).status_code == 403


def test_forms_and_pictures_of_others() -> None:
    """What browsers send without an origin says where it comes from; a link may be followed."""
    for site in ("cross-site", "same-site"):
        assert ask("POST", sec_fetch_site=site, sec_fetch_mode="navigate").status_code == 403
        assert ask("GET", sec_fetch_site=site, sec_fetch_mode="no-cors").status_code == 403
        assert ask("GET", sec_fetch_site=site, sec_fetch_mode="navigate").status_code == 200
    assert ask("POST", origin=OURS, sec_fetch_site="same-origin").status_code == 200
    assert ask("POST").status_code == 200  # a program


def test_a_friend_may_ask() -> None:
    answer = ask("OPTIONS", origin="https://friend.example")
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert ask(origin="https://friend.example", sec_fetch_site="cross-site").status_code == 200
    assert "access-control-allow-origin" not in ask().headers


def test_every_answer_says_what_a_page_may() -> None:
    for answer in (ask(), ask(host="evil.example")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"


def body(app: Any, pieces: list[tuple[float, bytes]], **headers: str) -> int:
    """The status of a request whose body comes in pieces, each after so many seconds."""
    statuses: list[int] = []
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(60)
        seconds, data = waiting.pop(0)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": data, "more_body": True}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    named = {"host": "localhost", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(k.encode(), v.encode()) for k, v in named.items()],
    }
    asyncio.run(app(scope, receive, send))
    return statuses[0]


def test_bodies_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Guard(_app, ("localhost",), most=1000)
    assert body(app, [(0, b"a" * 600), (0, b"a" * 600)]) == 413
    assert body(app, [], **{"content-length": "1001"}) == 413
    assert body(app, [], **{"content-length": "many"}) == 400
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    assert body(app, [(0, b"a")]) == 408  # and then nothing
    assert body(app, [(0.02, b"a")] * 100) == 408  # drop by drop


def test_no_sockets() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    asyncio.run(Guard(_app, ("localhost",))({"type": "websocket"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
