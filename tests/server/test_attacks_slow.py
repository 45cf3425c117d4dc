"""Clients that send or take slowly, or nothing: each is sent away, and others are served
meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.exceptions import HTTPException

from mezzotint.apps.server import connections, guard, tables
from mezzotint.apps.server.application import Settings, build
from mezzotint.apps.server.connections import Connection
from mezzotint.apps.server.guard import App, Guard, Receive, Scope, Send
from mezzotint.apps.server.places import Places

PATIENCE = 20.0  # seconds until a connection that is not ended fails a test
HEAD = b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@contextmanager
def listening(app: App) -> Iterator[tuple[int, uvicorn.Server]]:
    """The port of an application before uvicorn, as run.py starts it."""
    with socket.create_server(("127.0.0.1", 0)) as listens:
        config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listens],), daemon=True)
        thread.start()
        try:
            yield listens.getsockname()[1], server
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that has no patience."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.3)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    address = tables.of_file(tmp_path / "jobs.db")
    engine = tables.connect(address)
    app, _ = build(engine, Settings(Places(tmp_path), address))
    with listening(app) as (found, _):
        yield found
    engine.dispose()


def until_ended(port: int, first: bytes, drop: bytes = b"") -> bytes:
    """What comes until the server ends a connection that sends something, and then drop by drop."""
    found, end = b"", time.monotonic() + PATIENCE
    with socket.create_connection(("127.0.0.1", port)) as line, suppress(ConnectionError):
        line.sendall(first)
        line.settimeout(0.05)
        while True:
            assert time.monotonic() < end, f"it was not ended: {found!r}"
            try:
                if not (more := line.recv(1 << 16)):
                    break
                found += more
            except TimeoutError:
                line.sendall(drop)
    return found


def test_heads_that_do_not_come(port: int) -> None:
    """Nothing at all, half a head, one that grows, one that does not follow an answer."""
    get = b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n"
    assert until_ended(port, b"") == b""
    assert until_ended(port, get) == b""
    assert until_ended(port, get, drop=b"x: y\r\n") == b""
    assert until_ended(port, get + b"\r\n").startswith(b"HTTP/1.1 200")
    assert until_ended(port, get + b"\r\n" + get, drop=b"x: y\r\n").count(b"HTTP/1.1") == 1


def test_bodies_that_do_not_come(port: int) -> None:
    """Nothing, drop by drop, pieces without an end, and more than was said."""
    for first, drop in (
        (HEAD + b"content-length: 100\r\n\r\n", b""),
        (HEAD + b"content-length: 100\r\n\r\n{", b""),
        (HEAD + b"content-length: 100000\r\n\r\n{", b" "),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 99, b"x"),
    ):
        assert until_ended(port, first, drop).startswith((b"HTTP/1.1 408", b"HTTP/1.1 400")), first
    lies = HEAD + b"content-length: 2\r\n\r\n{}" + b"x" * 1000
    assert until_ended(port, lies).startswith(b"HTTP/1.1 422")


def test_what_nobody_reads_any_more(port: int) -> None:
    """The rest of a body after its answer is not waited for, drop by drop."""
    for line in (b"POST /nowhere HTTP/1.1", b"POST /v1/events HTTP/1.1"):
        head = line + b"\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n"
        assert until_ended(port, head, drop=b"x")[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 405")
    evil = HEAD.replace(b"localhost", b"evil.example") + b"content-length: 100000\r\n\r\n"
    assert until_ended(port, evil, drop=b"x").startswith(b"HTTP/1.1 421")


def test_others_are_served_meanwhile(port: int) -> None:
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    try:
        for number, line in enumerate(lines):
            line.sendall(HEAD if number % 2 else HEAD + b"content-length: 9\r\n\r\n")
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/health", timeout=PATIENCE)
        assert answer.status_code == 200
    finally:
        for line in lines:
            line.close()


def test_who_does_not_take_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large picture is asked for, and not read."""
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.3)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(64 << 20)})

    with (
        listening(Guard(large, ("localhost",))) as (port, server),
        socket.create_connection(("127.0.0.1", port)) as line,
    ):
        line.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        line.recv(1)
        end = time.monotonic() + PATIENCE
        while server.server_state.connections:
            assert time.monotonic() < end, "it was not ended"
            time.sleep(0.02)


def test_bodies_together_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What many send at once is not all kept; and after that there is room again."""
    monkeypatch.setattr(guard, "MOST_AT_ONCE", 1 << 20)
    held = threading.Event()

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        status, more = 200, True
        try:
            while more:
                more = (await receive()).get("more_body", False)
            await asyncio.to_thread(held.wait, PATIENCE)
        except HTTPException as error:
            status = error.status_code
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with listening(Guard(reads, ("127.0.0.1",))) as (port, _), ThreadPoolExecutor(2) as pool:

        def post() -> int:
            body = bytes(700 << 10)
            return httpx.post(f"http://127.0.0.1:{port}/", content=body, timeout=60).status_code

        both = [pool.submit(post) for _ in range(2)]
        done, _ = wait(both, return_when="FIRST_COMPLETED", timeout=PATIENCE)
        assert [each.result() for each in done] == [429]
        held.set()
        assert sorted(each.result() for each in both) == [200, 429]
        assert post() == 200
