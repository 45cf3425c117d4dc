"""What pages of other sites make a browser send, and names of theirs that resolve to this machine:
tried on every route, and before a real server byte by byte."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from attacking import Attacked
from sqlalchemy import Engine, select

from mezzotint.apps.server import tables
from mezzotint.apps.server.application import Settings, build
from mezzotint.apps.server.guard import App
from mezzotint.apps.server.places import Places

OURS = "http://localhost:7860"
FORMS = (
    ("application/x-www-form-urlencoded", b"prompt=a+fox&name=evil&picture=" + b"0" * 32),
    ("text/plain", b'{"prompt": "a fox", "name": "evil", "x": "=\\r\\n"}'),
    ("text/plain; charset=utf-8;application/json", b'{"prompt": "a fox", "name": "evil"}'),
    (
        "multipart/form-data; boundary=e",
        b'--e\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na fox\r\n--e--\r\n',
    ),
)
"""What a form, or a fetch without asking first, can send."""
THEIRS: tuple[dict[str, str], ...] = (
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:7861"},
    {"origin": "http://localhost:7860.evil.example"},
    {"origin": "http://localhost:7860@evil.example"},
    {"origin": "file://"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "https://evil.example"},
)


def contents(engine: Engine) -> dict[str, list[Any]]:
    """All that is in a database."""
    with tables.reading(engine) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in tables.metadata().sorted_tables
        }


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[App, Engine]]:
    """A server without a worker, in this process, and its database."""
    address = tables.of_file(tmp_path / "jobs.db")
    engine = tables.connect(address)
    app, _ = build(engine, Settings(Places(tmp_path), address))
    yield app, engine
    engine.dispose()


async def operations(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Every method and address, with names in the place of names."""
    paths = (await client.get("/v1/openapi.json")).json()["paths"]
    length = {"file": "64", "name": "32"}
    found = []
    for route, methods in paths.items():
        for each, long in length.items():
            route = route.replace("{" + each + "}", "0" * int(long))
        found += [(method.upper(), route) for method in methods]
    return found


def test_no_page_of_another_site_does_anything(alone: tuple[App, Engine]) -> None:
    """Every route, with every body that goes without being asked for first."""
    app, engine = alone
    before = contents(engine)

    async def attack() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OURS) as client:
            every = await operations(client)
            assert len(every) > 50
            forms = itertools.cycle(FORMS)
            for (method, route), theirs in itertools.product(every, THEIRS):
                visits = method == "GET" and theirs.get("sec-fetch-mode") == "navigate"
                if visits:  # a link may be followed, into no frame
                    theirs = {**theirs, "sec-fetch-dest": "iframe"}
                kind, body = next(forms)
                answer = await client.request(
                    method, route, headers={"content-type": kind, **theirs}, content=body
                )
                assert answer.status_code == 403, (method, route, theirs)
                assert "access-control-allow-origin" not in answer.headers

    asyncio.run(attack())
    assert contents(engine) == before


def test_forms_are_not_read_as_json(alone: tuple[App, Engine]) -> None:
    """An old browser says nothing of where a form comes from: it is understood by no route but
    those that take pictures, whose bodies are none."""
    app, engine = alone
    before = contents(engine)

    async def attack() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OURS) as client:
            for method, route in await operations(client):
                if method != "POST":
                    continue
                for kind, body in FORMS:
                    answer = await client.post(route, headers={"content-type": kind}, content=body)
                    harmless = route in ("/sdapi/v1/interrupt", "/sdapi/v1/refresh-checkpoints")
                    assert harmless or 400 <= answer.status_code < 500, (route, kind, answer.text)

    asyncio.run(attack())
    assert contents(engine) == before


def said(server: Attacked, raw: bytes) -> tuple[int, bytes]:
    """What a server answers to some bytes: the status of the first answer, and all."""
    at = urlsplit(server.base)
    with socket.create_connection((at.hostname, at.port), timeout=30) as line:
        with suppress(ConnectionError):
            line.sendall(raw)
        found = b""
        with suppress(ConnectionResetError):  # of what was sent too much
            while more := line.recv(1 << 16):
                found += more
    return int(found.split(b" ", 2)[1]) if found else 0, found


def test_names_of_theirs(attacked: Attacked) -> None:
    """Rebinding: whatever resolves to this machine but is not its name, however it is written."""
    port = urlsplit(attacked.base).port
    ask = "GET /v1/jobs HTTP/1.1\r\n{}connection: close\r\n\r\n"
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        f"localhost.:{port}",
        f"localhost:{port}@evil.example",
        "localhost:80:80",
        "localhost:",
        "localhost:evil",
        "me@localhost",
        "localhost/evil.example",
        "[::1]evil.example",
        "[::1].evil.example",
        "[::ffff:127.0.0.1]",
        "[::]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "localhost%00.evil.example",
        "localhost\t",
        "",
    ):
        status, _ = said(attacked, ask.format(f"host: {host}\r\n").encode())
        assert status == (200 if host.strip() == "localhost" else 421), host
    two = "host: localhost\r\nhost: evil.example\r\n"
    assert said(attacked, ask.format(two).encode())[0] == 400
    assert said(attacked, ask.format("").encode())[0] == 400
    assert said(attacked, b"GET /v1/jobs HTTP/1.0\r\n\r\n")[0] == 421
    for target in ("http://evil.example/v1/jobs", "evil.example:80", "*", "//evil.example/v1/jobs"):
        raw = f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
        assert said(attacked, raw)[0] in (400, 404), target
    for host in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert said(attacked, ask.format(f"host: {host}\r\n").encode())[0] == 200, host


def test_a_second_header_is_none(alone: tuple[App, Engine]) -> None:
    """Of two one would be checked, and the other one heeded."""
    app, _ = alone

    async def statuses() -> list[int]:
        found = []
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OURS) as client:
            for name, values in (
                ("host", ("localhost", "evil.example")),
                ("origin", ("https://evil.example", OURS)),
                ("sec-fetch-site", ("cross-site", "same-origin")),
                ("authorization", ("Bearer a", "Bearer b")),
                ("content-type", ("text/plain", "application/json")),
                ("content-length", ("1", "2")),
            ):
                asked = client.build_request("POST", "/v1/jobs", content=b'{"prompt": "a"}')
                kept = [each for each in asked.headers.raw if each[0].lower() != name.encode()]
                asked.headers = httpx.Headers(kept + [(name, value) for value in values])
                found.append((await client.send(asked)).status_code)
        return found

    assert asyncio.run(statuses()) == [400] * 6


def test_reading_changes_nothing(attacked: Attacked) -> None:
    """Whatever can be linked to: no GET does anything."""
    engine = tables.connect(tables.of_file(attacked.data / "mezzotint.db"))
    with httpx.Client(base_url=attacked.base, timeout=60) as client:
        paths = client.get("/v1/openapi.json").json()["paths"]
        files = sorted(path for path in attacked.data.rglob("*") if path.is_file())
        before = contents(engine)
        for route, methods in paths.items():
            if "get" in methods and route != "/v1/events":
                for name in ("0" * 32, "0" * 64):
                    asked = route.replace("{name}", name).replace("{file}", "0" * 64)
                    query = "?until=9&signed=" + "0" * 64
                    assert client.get(asked + query).status_code < 500
        for page in ("/", "/app.js", "/nothing", "/metrics", "/v1/jobs/delete", "/v1/uploads"):
            assert client.get(page).status_code in (200, 404, 405, 422)
    assert contents(engine) == before
    assert sorted(path for path in attacked.data.rglob("*") if path.is_file()) == files
    engine.dispose()


def test_requests_that_are_two_in_one(attacked: Attacked) -> None:
    """What a proxy may read otherwise: lengths that lie, lengths beside pieces, ends of lines."""
    body = b'{"prompt": "a fox"}'
    head = b"POST /v1/boards HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"connection: close\r\n"
    close = b"connection: close\r\n\r\n"
    get = b"GET / HTTP/1.1\r\nhost: localhost\r\n"
    for raw in (
        head + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + body,
        head + b"content-length: -1\r\n\r\n" + body,
        head + b"content-length: 0x13\r\n\r\n" + body,
        head + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        head + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        head + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        head + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + body,
        head + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + body,
        get + b"x: a\r\n folded: b\r\nx\0y: z\r\n" + close,
        get + b"x" * (1 << 17) + b": y\r\n\r\n",
        get + b"".join(b"x-%d: y\r\n" % n for n in range(9000)) + close,
        b"GET /" + b"a" * (1 << 17) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    ):
        status, found = said(attacked, raw)
        assert 400 <= status < 500 and found.count(b"HTTP/1.1 ") == 1, raw[:200]
    piped = (get + b"\r\n") * 20 + get + close
    assert said(attacked, piped)[1].count(b"HTTP/1.1 200") == 21
    upgrade = b"connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    upgrade += b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert b"101" not in said(attacked, get + upgrade)[1][:20]
