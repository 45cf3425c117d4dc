"""What answers say: headers that hold browsers back, on every kind of answer; and nothing of other
people's, of where files lie here, or of what a file's text would do to a terminal or a database."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacking import TINY, Attacked
from sqlalchemy import Engine
from test_attacks_owners import asking, picture, things
from test_attacks_paths import ended

import tiny_model
from mezzotint.apps.server import gallery, queue, webui_text
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.service import Service
from mezzotint.apps.server.tokens import LOCAL, Who
from mezzotint.apps.server.worker import Voice, Worker

HELD_BACK = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
TYPES = {"text/html", "application/json", "image/png", "image/svg+xml", "text/event-stream"}
TYPES |= {"text/plain", "text/javascript", "text/css", "image/webp"}
NAMES = (
    'a"; filename="b.html',
    "a\r\nset-cookie: a=b",
    "../../a.html",
    "\u202egnp.exe\U0001f600",
    "a" * 200,
    "%0d%0aset-cookie: a=b",
)


@pytest.fixture(scope="module")
def client(attacked: Attacked) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=attacked.base, timeout=20) as found:
        yield found


@pytest.fixture(scope="module")
def output(client: httpx.Client) -> str:
    wish = {"prompt": "fox", "model": TINY, "steps": 1, "seed": 1}
    job = client.post("/v1/jobs", json=wish).json()["id"]
    return ended(client, job)["outputs"][0]["id"]


def held_back(answer: httpx.Response) -> None:
    """It says what a page may, once each; its type is one that is known; its name is ours."""
    where = (str(answer.request.url), answer.status_code)
    for name, value in HELD_BACK.items():
        assert answer.headers.get_list(name) == [value], (name, where)
    (policy,) = answer.headers.get_list("content-security-policy")
    said = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert said["default-src"] == said["frame-ancestors"] == said["base-uri"] == "'none'", where
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy, where
    assert "set-cookie" not in answer.headers and "access-control-allow-origin" not in said, where
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert kind in TYPES if answer.content else True, (kind, where)
    file = r"(inline|attachment)(; filename=\"[0-9a-f-]{1,80}\.(png|webp|jpeg|tiff|svg)\")?"
    disposition = answer.headers.get("content-disposition", "inline")
    assert re.fullmatch(file, disposition), (disposition, where)
    if kind == "image/svg+xml" and "/v1/" in str(answer.request.url):
        assert disposition.startswith("attachment"), where


def test_every_answer_holds_browsers_back(client: httpx.Client, output: str) -> None:
    given = client.post("/v1/uploads", content=picture()).json()["id"]
    canvas = f"/v1/canvases/{'a' * 32}"
    kept = {"name": "<b>", "document": {"a": "</script>"}, "files": [given]}
    seen: dict[int, int] = {}
    for status, method, address, how in (
        (200, "GET", "/", {}),
        (404, "GET", "/<script>", {}),
        (404, "GET", "/v1/%0d%0aset-cookie:a=b", {}),
        (404, "GET", "/sdapi/v1/nothing", {}),
        (405, "DELETE", "/v1/health", {}),
        (200, "GET", "/v1/health", {}),
        (200, "GET", f"/v1/outputs/{output}", {}),
        (200, "GET", f"/v1/outputs/{output}/file", {}),
        (200, "POST", f"/v1/outputs/{output}/export?format=webp", {}),
        (200, "POST", f"/v1/outputs/{output}/export?format=svg", {}),
        (422, "POST", f"/v1/outputs/{output}/export?format=html", {}),
        (200, "GET", f"/v1/files/{given}", {}),
        (200, "PUT", canvas, {"json": kept}),
        (409, "PUT", canvas, {"json": kept}),
        (200, "GET", canvas, {}),
        (200, "GET", f"{canvas}/files/{given}", {}),
        (204, "DELETE", canvas, {}),
        (404, "GET", canvas, {}),
        (422, "POST", "/v1/uploads", {"content": b"<html><script>alert(1)</script>"}),
        (422, "POST", "/v1/jobs", {"json": {"prompt": "<script>", "model": "<script>"}}),
        (422, "POST", "/v1/jobs", {"content": b"{"}),
        (413, "POST", "/v1/uploads", {"content": bytes((64 << 20) + 1)}),
        (422, "POST", "/sdapi/v1/txt2img", {"content": b"a"}),
        (403, "GET", "/v1/jobs", {"headers": {"origin": "https://evil.example"}}),
        (421, "GET", "/v1/jobs", {"headers": {"host": "evil.example"}}),
        (403, "GET", f"/v1/images/files/{output}?until=1&signed={'0' * 64}", {}),
        (200, "GET", "/v1/openapi.json", {}),
    ):
        answer = client.request(method, address, **how)
        assert answer.status_code == status, (address, answer.text[:300])
        held_back(answer)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert len(seen) >= 9, seen


def test_names_of_files_in_headers(client: httpx.Client) -> None:
    """What somebody calls a picture is in no header."""
    for name in NAMES:
        for method, address in (("POST", "/v1/uploads"), ("POST", "/v1/composites")):
            answer = client.request(method, address, params={"name": name}, content=picture())
            assert answer.status_code < 300, (name, answer.text)
            held_back(answer)
            assert name not in str(answer.headers)


RANGES = ("bytes=0-0", "bytes=-1", "bytes=0-,0-,0-", "bytes=9-1", "bytes=" + "0-1," * 1000, "a=b")
TAGS = ("*", '"', 'W/"a"', ",", '"a",' * 500, "\x80\xff")


def test_ranges_and_tags(client: httpx.Client, output: str) -> None:
    """A part that is asked for is the whole: no sums are done with a stranger's numbers."""
    for address in ("/", f"/v1/outputs/{output}/file"):
        whole = client.get(address)
        for value in RANGES:
            answer = client.get(
                address, headers={"range": value, "if-range": whole.headers["etag"]}
            )
            assert (answer.status_code, answer.content) == (200, whole.content), value
            assert "content-range" not in answer.headers
            held_back(answer)
        for value in TAGS:
            for name in ("if-none-match", "if-match", "if-modified-since"):
                answer = client.get(address, headers=[(name.encode(), value.encode("latin-1"))])
                assert answer.status_code == 200 and answer.content == whole.content, value
                held_back(answer)
    again = client.get("/", headers={"if-none-match": client.get("/").headers["etag"]})
    assert again.status_code == 304 and not again.content
    held_back(again)


# --- what is told of others -------------------------------------------------------------------


def worker_of(engine: Engine, service: Service) -> Worker:
    (service.places.work("w")).mkdir(parents=True, exist_ok=True)
    return Worker(engine, service.store, service.places, "w", Voice(io.StringIO()))


def worked(engine: Engine, service: Service, who: Who, asked: Any) -> Any:
    """A job that is done here, as a worker does it."""
    worker_of(engine, service)._do(queue.claim(engine, "w"))
    return gallery.job(engine, asked.id, who.sees)


def test_a_strangers_recipe(engine: Engine, tmp_path: Path) -> None:
    """It names a picture of anna's by its SHA-256: it is used when she verifies, and when one
    does who sees all; ben, who has but the file that was made of it, has no use of it."""
    models = tmp_path / "models"
    models.mkdir()
    tiny_model.write(models / TINY)
    anna, ben = (Who(name, frozenset({"make", "read"})) for name in ("anna", "ben"))
    places = Places(tmp_path / "data", (models,))

    async def service_of() -> Service:
        async with asking(engine, places.data, False) as (_, _, service):
            return service

    service = asyncio.run(service_of())
    service.places = places
    secret = service.store.put(picture())
    gallery.enter(engine, "anna", secret, "image/png", len(picture()), "secret.png")
    wish = {"prompt": "fox", "model": TINY, "seed": 1, "image": secret}
    job = worked(engine, service, anna, service.submit(anna, wish))
    assert job.state == "done", job.error
    made = gallery.outputs_by_job(engine, [job.id])[job.id][0]
    gallery.enter(engine, "ben", made.file, made.kind, made.bytes, "theirs.png")
    gallery.enter(engine, LOCAL.owner, made.file, made.kind, made.bytes, "theirs.png")
    told = {}
    for who in (anna, ben, LOCAL):
        verdict = worked(engine, service, who, service.look(who, "verify", made.file))
        assert verdict.state == "done", verdict.error
        told[who.owner] = json.loads(verdict.result)["verdict"]
    assert told["anna"] == told["local"] != "cannot" == told["ben"], told


def test_what_a_worker_says_of_a_fault(engine: Engine, tmp_path: Path) -> None:
    """Its one line is printable, has an end, and does not tell where files lie."""

    async def service_of() -> Service:
        async with asking(engine, tmp_path, False) as (_, _, service):
            return service

    service = asyncio.run(service_of())
    known = things(engine, tmp_path, LOCAL.owner)
    errors = {
        "a\0b\r\n\x1b[31m\ud800\u202e": "a�b���[31m��",
        "x" * 10**5: "x" * 2000,
        "{folder}/a.png: is damaged": "a.png: is damaged",
        "no {data}/wildcards/a.txt": "no wildcards/a.txt",
        "{models}/a.safetensors: is damaged": "a.safetensors: is damaged",
    }
    for error, said in errors.items():
        asked = service.look(LOCAL, "recipe", known.ids["/v1/files"])
        worker, job = worker_of(engine, service), queue.claim(engine, "w")
        assert job is not None
        worker.places = replace(worker.places, models=(tmp_path / "models",))
        folders = {
            "folder": worker._folder(job),
            "data": worker.places.data,
            "models": tmp_path / "models",
        }
        worker._failed(job, error.format(**folders), "request")
        found = gallery.job(engine, asked.id, None)
        assert found is not None and found.state == "failed"
        assert found.error.isprintable() and 0 < len(found.error) <= 2000
        assert str(tmp_path) not in found.error
        assert found.error == said


def test_a_look_that_is_cancelled(engine: Engine, tmp_path: Path) -> None:
    """Who waits for it is told so, with 409."""
    known = things(engine, tmp_path, LOCAL.owner)
    picture_of = {"picture": known.ids["/v1/files"]}

    async def attack() -> None:
        async with asking(engine, tmp_path, False) as (client, _, service):
            for way in ("verify", "recipe", "detect", "credentials"):
                waits = asyncio.create_task(client.post(f"/v1/{way}", json=picture_of))
                while not (rows := gallery.jobs_of(engine, None, gallery.Page(state="open"))):
                    await asyncio.sleep(0.01)
                service.ended(service.cancel(LOCAL, rows[0].id))
                answer = await waits
                assert answer.status_code == 409, answer.text
                assert "cancelled" in answer.json()["error"]["message"]

    asyncio.run(attack())


# --- texts that take long ---------------------------------------------------------------------

LONG = {
    "spaces": lambda n: "Steps: 1, A: 1, B: 2, c" + " " * n + "!",
    "letters": lambda n: "Steps: 1, A: 1, B: 2, " + "c" * n,
    "lines": lambda n: "\n" * n + "Steps: 1, A: 1, B: 2",
    "negatives": lambda n: "Negative prompt:\n" * (n // 17) + "Steps: 1, A: 1, B: 2",
    "quotes": lambda n: "Steps: 1, A: 1, B: 2, " + 'a:"' * (n // 3),
    "open quotes": lambda n: "Steps: 1, A: 1, B: 2, a:" + ' "\\' * (n // 3),
    "colons": lambda n: "Steps: 1, A: 1, B: 2, " + ":" * n,
}


@pytest.mark.parametrize("kind", LONG)
def test_parameters_are_read_in_linear_time(kind: str) -> None:
    """Sixteen times the text takes sixteen times as long, and not 256 times; of five times the
    least counts, of this process alone."""

    def seconds(text: str) -> float:
        least = float("inf")
        for _ in range(5):
            began = time.process_time()
            webui_text.parsed(text)
            least = min(least, time.process_time() - began)
        return least

    short, long = (seconds(LONG[kind](n)) for n in (12_500, 200_000))
    assert long < 80 * max(short, 0.0005), (short, long)
