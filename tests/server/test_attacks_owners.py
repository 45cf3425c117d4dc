"""Who sees what: each route with each token, and everything of one owner before another; the texts
that databases do not take, on both of them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from attacking import Known, request, spots
from PIL import Image
from sqlalchemy import Engine
from test_attacks_sites import contents

from mezzotint.apps.server import boards, canvases, gallery, links, queue, tables, tokens
from mezzotint.apps.server.application import Settings, build
from mezzotint.apps.server.gallery import Page
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.store import Store
from mezzotint.apps.server.tokens import LOCAL

BASE = "http://localhost:7860"


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "navy").save(data, "PNG")
    return data.getvalue()


def things(engine: Engine, folder: Path, owner: str) -> Known:
    """A job that is done, its picture, an upload, a board and a canvas of somebody."""
    store = Store(Places(folder).files)
    asked = queue.Asked(owner, "generate", {"options": {"prompt": f"of {owner}"}}, 1, 1)
    job = queue.submit(engine, asked)
    mine = queue.claim(engine, "worker")
    assert mine is not None and mine.id == job.id
    made, given = (store.put(picture() + owner.encode() + end) for end in (b"made", b"given"))
    recipe = json.dumps({"options": {"prompt": f"of {owner}"}})
    kept = queue.Made(0, made, "image/png", 9, 8, 8, 1, "icons", f"of {owner}", "CC0", recipe)
    output = queue.keep(engine, mine, kept)
    assert output is not None
    queue.finish(engine, mine)
    gallery.enter(engine, owner, given, "image/png", 9, f"of {owner}.png")
    board = boards.add(engine, owner, f"of {owner}")["id"]
    boards.pin(engine, owner, board, [output], owner, True)
    canvas = queue.new_id()
    document = canvases.Kept(name=f"of {owner}", document={}, files=[given])
    canvases.keep(engine, owner, canvas, document)
    ids = {"jobs": job.id, "outputs": output, "files": given, "boards": board}
    ids |= {"canvases": canvas, "canvases/{name}/files": given, "images/files": output}
    before = {f"/v1/{kind}": name for kind, name in ids.items()} | {"/v1/models": "icons"}
    return Known(before | {"output": output, "file": given}, picture(), {})


@asynccontextmanager
async def asking(
    engine: Engine, folder: Path, needed: bool
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Any], Any]]:
    """An application without workers: who asks it, its document and its service."""
    address = engine.url.render_as_string(hide_password=False)
    app, _ = build(engine, Settings(Places(folder), address, tokens_needed=needed))
    service = app._app.state.service  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, timeout=30) as client:
        yield client, (await client.get("/v1/openapi.json")).json(), service


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def right(document: dict[str, Any], known: Known) -> list[tuple[str, httpx.Request]]:
    """A right request of each operation; what takes away comes last."""
    first: dict[str, httpx.Request] = {}
    for spot in spots(document, known):
        name = f"{spot.method} {spot.route}"
        if name not in first:
            first[name] = request(BASE, document, known, spot._replace(where="none"), "")
    return sorted(first.items(), key=lambda each: each[0].startswith("DELETE"))


NEEDS_NO_SCOPE = {
    *("GET /v1/models", "GET /v1/models/{name}", "GET /v1/samplers", "GET /v1/fields"),
    *("POST /sdapi/v1/interrupt", "POST /sdapi/v1/refresh-checkpoints", "POST /sdapi/v1/png-info"),
}
"""What any token may ask: what there is, and what is of nothing but the request itself."""
NEEDS_NO_TOKEN = {"GET /v1/health", "GET /v1/images/files/{name}"}  # which is signed


def test_every_route_asks_for_a_token_and_a_scope(tmp_path: Path) -> None:
    engine = tables.connect(tables.of_file(tmp_path / "jobs.db"))
    given = {scope: tokens.add(engine, f"who {scope}s", scope) for scope in ("read", "make")}
    ended = tokens.add(engine, "ended")
    tokens.revoke(engine, "ended")

    async def statuses(known: Known, token: str | None) -> dict[str, int]:
        found = {}
        async with asking(engine, tmp_path, True) as (client, document, _):
            for name, asked in right(document, known):
                endless = name == "GET /v1/events" and token == given["read"]
                if name in ("GET /v1/jobs/{name}/events", "POST /v1/jobs") or endless:
                    continue
                asked.headers.update(bearer(token))
                answer = await client.send(asked)
                found[name] = answer.status_code
                assert not token or token not in answer.text + str(answer.headers.raw)
                assert answer.status_code != 401 or "www-authenticate" in answer.headers
        return found

    known = things(engine, tmp_path, "who reads")
    for token in (None, ended, "mz_wrong", given["read"][:-1], given["read"].upper()):
        for name, status in asyncio.run(statuses(known, token)).items():
            assert status == 401 or name in NEEDS_NO_TOKEN, (name, token)
    before = contents(engine)
    reads = asyncio.run(statuses(known, given["read"]))
    for name, status in reads.items():
        if not name.startswith("GET ") and name not in NEEDS_NO_SCOPE:
            assert status == 403, name
    makes = asyncio.run(statuses(known, given["make"]))
    for name, status in makes.items():
        if name.startswith("GET /v1/") and name not in NEEDS_NO_SCOPE | NEEDS_NO_TOKEN:
            assert status == 403, name
    assert makes["POST /v1/verify"] == makes["POST /v1/images/generations"] == 403
    now = contents(engine)
    boards_made = len(now.pop("boards")) - len(before.pop("boards"))
    assert boards_made == 1 and now.pop("uploads") and before.pop("uploads")
    assert now == before
    held = json.dumps({name: [str(row) for row in rows] for name, rows in contents(engine).items()})
    assert not any(token in held for token in (*given.values(), ended))
    engine.dispose()


def test_nothing_of_anothers(engine: Engine, tmp_path: Path) -> None:
    """Seen, changed, taken away or used, by any route with a name in it."""
    anna, ben = (things(engine, tmp_path, owner) for owner in ("anna", "ben"))
    token = tokens.add(engine, "ben")
    before = contents(engine)
    seen: dict[str, int] = {}

    async def attack() -> None:
        async with asking(engine, tmp_path, True) as (client, document, _):
            for name, asked in right(document, anna):
                names = "{name}" in name or name.split()[1] in PICTURED
                lists = name.startswith("GET /v1/") and name != "GET /v1/events"
                if not names and not lists:
                    continue
                asked.headers.update(bearer(token))
                answer = await client.send(asked)
                seen[name] = answer.status_code
                assert "of anna" not in answer.text, name
                if names and name not in NEEDS_NO_SCOPE:
                    assert answer.status_code in (403, 404, 409), (name, answer.text)
            headers = bearer(token)
            mine = ben.ids["/v1/boards"]
            theirs = [anna.ids["/v1/outputs"]]
            pinned = await client.post(
                f"/v1/boards/{mine}/outputs", json={"outputs": theirs}, headers=headers
            )
            assert pinned.json()["count"] == 1
            for field, value in (
                ("image", "{}"),
                ("mask", "{}"),
                ("reference", "{}"),
                ("control", "scribble={}"),
                ("region", "{},0.1=a fox"),
                ("image-prompt", "{}"),
            ):
                for whose in (anna.ids["/v1/outputs"], anna.ids["/v1/files"]):
                    wish = {"prompt": "a fox", field: value.format(whose)}
                    answer = await client.post("/v1/jobs", json=wish, headers=headers)
                    assert answer.status_code == 404, (field, answer.text)
            for query in ({"board": anna.ids["/v1/boards"]}, {"q": "anna"}, {"favourite": "true"}):
                answer = await client.get("/v1/outputs", params=query, headers=headers)
                assert answer.json()["outputs"] == []
            link = links.signed(links.key(tmp_path), ben.ids["/v1/outputs"])
            own = await client.get(f"/v1/images/files/{ben.ids['/v1/outputs']}?{link}")
            assert own.status_code == 200
            for other in (anna.ids["/v1/outputs"], "0" * 32):
                assert (await client.get(f"/v1/images/files/{other}?{link}")).status_code == 403

    asyncio.run(attack())
    assert len(seen) > 25
    assert contents(engine) == before


PICTURED = {"/v1/verify", "/v1/detect", "/v1/recipe", "/v1/credentials"}


def test_texts_that_databases_do_not_take(engine: Engine, tmp_path: Path) -> None:
    """In every place of every route: NUL, half characters, ends of lines, marks of direction."""
    known = things(engine, tmp_path, LOCAL.owner)
    fields = {"/v1/jobs": {"prompt": "a fox", "lora": None}}
    known = known._replace(open=fields)
    wrong: list[tuple[str, str, int]] = []

    async def attack() -> None:
        async with asking(engine, tmp_path, False) as (client, document, service):
            ends = asyncio.create_task(_cancels(engine, service))
            every = sorted(spots(document, known), key=lambda spot: spot.method == "DELETE")
            for spot in every:
                if spot.route == "/v1/events":
                    continue
                for text in ("a\0b", "\ud800", "a\r\nset-cookie: b=c", "\u202e\U0001d518'\"\\"):
                    answer = await client.send(request(BASE, document, known, spot, text))
                    if answer.status_code >= 500 or "set-cookie" in answer.headers:
                        wrong.append((str(spot), text, answer.status_code))
            ends.cancel()
            with suppress(asyncio.CancelledError):
                await ends

    asyncio.run(attack())
    assert wrong == []


async def _cancels(engine: Engine, service: Any) -> None:
    """Ends what waits for a worker, which there is none."""
    while True:
        for row in gallery.jobs_of(engine, None, Page(state="submitted")):
            service.ended(service.cancel(LOCAL, row.id))
        await asyncio.sleep(0.01)
