"""The server's own interface, with a real worker and the `icons` model at few steps."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from serving import Serving, serving

FOX = {"prompt": "a red fox", "seed": 7, "steps": 2}


def submit(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={**FOX, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


def events(client: httpx.Client, name: str) -> list[tuple[str, dict[str, Any]]]:
    """All that is told of a job until it ends."""
    found, kind = [], ""
    with client.stream("GET", f"/v1/jobs/{name}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((kind, json.loads(line.removeprefix("data: "))))
    return found


def done(client: httpx.Client, name: str) -> dict[str, Any]:
    events(client, name)
    return client.get(f"/v1/jobs/{name}").json()


def pixels(client: httpx.Client, output: dict[str, Any]) -> bytes:
    answer = client.get(output["url"])
    assert answer.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(answer.content)).tobytes()


def test_an_address_says_what_it_takes(client: httpx.Client) -> None:
    answer = client.delete("/v1/jobs")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, POST"
    assert client.post("/app.js").headers["allow"] == "GET, HEAD"


def test_pictures_with_all_that_they_carry(
    client: httpx.Client, tmp_path: Path, server: Serving
) -> None:
    """Asked for, followed, fetched, verified by the command line: bit-equal."""
    job = submit(client, count=2, steps=8)
    told = events(client, job["id"])
    assert told[0][0] == "state" and told[-1][1]["state"] == "done"
    assert [t["place"] for kind, t in told if kind == "output"] == [0, 1]
    shown = [t["preview"] for kind, t in told if kind == "preview"]
    assert shown and all(text.startswith("UklGR") for text in shown)  # "RIFF", a WebP
    made = client.get(f"/v1/jobs/{job['id']}").json()["outputs"]
    assert [each["seed"] for each in made] == ["7", "8"]
    names = []
    for each in made:
        path = tmp_path / f"{each['id']}.png"
        path.write_bytes(client.get(each["url"]).content)
        names.append(str(path))
    for command in (["verify", *names], ["credentials", *names]):
        ran = subprocess.run(
            [sys.executable, "-m", "mezzotint", *command],
            capture_output=True,
            text=True,
            env=server.env,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
    whole = client.get(f"/v1/outputs/{made[0]['id']}").json()
    assert whole["recipe"]["options"]["prompt"] == "a red fox"


def test_the_same_whoever_asks_and_however_many(client: httpx.Client) -> None:
    """The second of two is the first of one."""
    two = done(client, submit(client, count=2)["id"])["outputs"]
    one = done(client, submit(client, seed=8)["id"])["outputs"]
    assert pixels(client, two[1]) == pixels(client, one[0])


def test_a_blend_of_outputs_verifies(client: httpx.Client) -> None:
    """The model in the package takes pictures as prompts, and says so."""
    (icons,) = (m for m in client.get("/v1/models").json()["models"] if m["name"] == "icons")
    assert icons["image_prompts"] is True
    one, two = done(client, submit(client, count=2)["id"])["outputs"]
    wish = {"prompt": "", "image-prompt": [f"{one['id']}:0.7", f"{two['id']}:0.3"]}
    made = done(client, submit(client, **wish)["id"])
    assert made["state"] == "done", made["error"]
    assert pixels(client, made["outputs"][0]) != pixels(client, one)
    verdict = client.post("/v1/verify", json={"picture": made["outputs"][0]["id"]}).json()
    assert verdict["verdict"] == "bit-equal", verdict
    refused = done(client, submit(client, **{"image-prompt": [f"{one['id']}:0.1"] * 6})["id"])
    assert refused["state"] == "failed" and "at most 5" in refused["error"]["message"]


def test_an_edit_verifies_and_tells_its_recipe(client: httpx.Client) -> None:
    first = done(client, submit(client)["id"])["outputs"][0]
    edited = submit(client, prompt="a blue fox", image=first["id"], strength=0.5)
    made = done(client, edited["id"])
    assert made["state"] == "done", made["error"]
    picture = made["outputs"][0]["id"]
    verdict = client.post("/v1/verify", json={"picture": picture}).json()
    assert verdict["verdict"] == "bit-equal", verdict
    looked = client.post("/v1/detect", json={"picture": picture}).json()["marks"]
    assert looked[0]["mark"] == "the mark in the pixels"
    told = client.post("/v1/recipe", json={"picture": picture}).json()
    assert told["program"] == "mezzotint"
    (wish,) = told["wishes"]
    assert wish["image"] == first["file"]
    allowed = client.get("/v1/fields").json()
    again = {name: value for name, value in wish.items() if name in allowed}
    repeated = done(client, client.post("/v1/jobs", json=again).json()["id"])
    assert pixels(client, repeated["outputs"][0]) == pixels(client, made["outputs"][0])


def test_given_pictures(client: httpx.Client) -> None:
    data = io.BytesIO()
    Image.new("RGB", (128, 128), "navy").save(data, "PNG")
    given = client.post("/v1/uploads", content=data.getvalue())
    assert given.status_code == 201
    job = submit(client, image=given.json()["id"], strength=0.9)
    assert done(client, job["id"])["state"] == "done"
    told = client.post("/v1/recipe", json={"picture": given.json()["id"]})
    assert told.status_code == 422 and "carries no recipe" in told.json()["error"]["message"]


def bomb(edge: int) -> bytes:
    """The head of a PNG that says it is large, and nothing more."""
    head = struct.pack(">IIBBBBB", edge, edge, 8, 6, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        crc = zlib.crc32(kind + data)
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_what_cannot_be(client: httpx.Client) -> None:
    """Each a status and one line, which names the field where there is one."""
    for send, status, why in (
        (lambda: client.post("/v1/jobs", json={"prompt": "a", "sise": 1}), 422, "did you mean"),
        (lambda: client.post("/v1/jobs", json={}), 422, "Field required"),
        (
            lambda: client.post("/v1/jobs", json={"prompt": "a", "model": "x"}),
            422,
            "there is icons",
        ),
        (lambda: client.post("/v1/jobs", json={"prompt": "a", "image": "f" * 32}), 404, "give it"),
        (lambda: client.post("/v1/jobs", content=b"{", headers=JSON), 422, "JSON"),
        (lambda: client.post("/v1/jobs", content=b'{"prompt": "a"}'), 422, ""),
        (lambda: client.post("/v1/uploads", content=b"what"), 422, "no picture"),
        (lambda: client.post("/v1/uploads", content=b""), 422, "no picture"),
        (lambda: client.post("/v1/uploads", content=bomb(50_000)), 422, "megapixels"),
        (lambda: client.get("/v1/jobs/" + "0" * 32), 404, "no job"),
        (lambda: client.get("/v1/outputs/../../etc/passwd"), 404, "Not Found"),
        (lambda: client.get("/v1/outputs/..%2F..%2Fetc%2Fpasswd/file"), 404, "Not Found"),
        (lambda: client.delete("/v1/outputs/" + "0" * 32), 404, "no picture"),
        (lambda: client.get("/v1/detect"), 405, "Method Not Allowed"),
        (lambda: client.get("/v1/jobs/"), 404, "Not Found"),
        (lambda: client.post("/v1/verify", json={"picture": "../x"}), 422, "pattern"),
    ):
        answer = send()
        assert answer.status_code == status, answer.text
        message = answer.json()["error"]["message"]
        assert why in message and "\n" not in message
    job = submit(client, steps=2, sampler="nosuch")
    found = done(client, job["id"])
    assert found["state"] == "failed" and found["error"]["fault"] == "request"
    assert "nosuch" in found["error"]["message"]


JSON = {"content-type": "application/json"}


def test_cancelled_within_a_step(client: httpx.Client) -> None:
    job = submit(client, count=8, steps=50)
    for kind, told in _until(client, job["id"], "progress"):
        assert kind and told["job"] == job["id"]
    began = time.monotonic()
    assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    after = done(client, submit(client)["id"])  # the worker is free again
    assert after["state"] == "done" and time.monotonic() - began < 20
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def _until(client: httpx.Client, name: str, wanted: str) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = ""
    with client.stream("GET", f"/v1/jobs/{name}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))
                if kind in (wanted, "preview"):
                    return


def test_asked_twice_with_a_key(client: httpx.Client) -> None:
    key = {"idempotency-key": "one"}
    first, second = (client.post("/v1/jobs", json=FOX, headers=key).json() for _ in range(2))
    assert first["id"] == second["id"]
    made = done(client, first["id"])["outputs"]
    assert made and client.post("/v1/jobs", json=FOX, headers=key).json()["outputs"] == made
    other = client.post("/v1/jobs", json={**FOX, "seed": 9}, headers=key)
    assert other.status_code == 409 and "take a new one" in other.json()["error"]["message"]


def test_a_worker_that_dies_loses_nothing(client: httpx.Client, server: Serving) -> None:
    """Killed in the middle of a job: the job is done by the next, and its pictures are the same."""
    whole = [pixels(client, o) for o in done(client, submit(client, count=3)["id"])["outputs"]]
    job = submit(client, count=3, steps=2)
    for kind, _ in _until(client, job["id"], "output"):
        if kind == "output":
            break
    found = subprocess.run(
        ["pgrep", "-P", str(server.process.pid), "-f", "server.worker"],
        capture_output=True,
        text=True,
    )
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    after = done(client, job["id"])
    assert after["state"] == "done"
    assert [pixels(client, each) for each in after["outputs"]] == whole


def test_the_gallery(client: httpx.Client) -> None:
    job = done(client, submit(client, prompt="a tall ship", count=2)["id"])
    found = client.get("/v1/outputs", params={"q": "ship tall"}).json()["outputs"]
    assert [each["place"] for each in found] == [1, 0]
    (first,) = client.get("/v1/outputs", params={"q": "ship", "limit": 1}).json()["outputs"]
    page = client.get("/v1/outputs", params={"q": "ship", "before": first["number"]}).json()
    assert [each["place"] for each in page["outputs"]] == [0]
    gone = job["outputs"][0]
    assert client.delete(f"/v1/outputs/{gone['id']}").status_code == 204
    assert client.get(gone["url"]).status_code == 404
    assert client.get(job["outputs"][1]["url"]).status_code == 200


def test_many_ask_at_once(client: httpx.Client, server: Serving) -> None:
    def one(seed: int) -> bytes:
        with httpx.Client(base_url=server.base, timeout=60) as own:
            return pixels(own, done(own, submit(own, seed=seed % 4)["id"])["outputs"][0])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(12)))
    assert len(set(found)) == 4
    for seed in range(4):
        assert len({found[seed], found[seed + 4], found[seed + 8]}) == 1


def test_what_prometheus_is_told(client: httpx.Client) -> None:
    lines = client.get("/metrics").text.splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    jobs = client.get("/v1/jobs", params={"limit": 200}).json()["jobs"]
    done = sum(job["state"] == "done" for job in jobs)
    assert float(told['mezzotint_jobs{state="done"}']) == done > 0
    assert float(told["mezzotint_workers"]) == 1
    assert float(told["mezzotint_outputs"]) == sum(len(job["outputs"]) for job in jobs)


def test_it_stops_though_somebody_listens(tmp_path: Path) -> None:
    """At once, with its worker; the job that waits is not lost."""
    with serving(tmp_path / "own") as own, httpx.Client(base_url=own.base, timeout=60) as asks:
        job = submit(asks, count=8, steps=50)
        with asks.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
            lines = answer.iter_lines()
            next(lines)
            began = time.monotonic()
            own.process.send_signal(signal.SIGTERM)
            assert own.process.wait(30) in (0, -signal.SIGTERM)
            assert time.monotonic() - began < 25
        assert "Traceback" not in own.log.read_text()
        own.start()
        again = httpx.get(f"{own.base}/v1/jobs/{job['id']}").json()
        assert again["state"] in ("submitted", "running") and again["attempt"] <= 2


def test_a_large_file_comes_whole(client: httpx.Client) -> None:
    """In parts, of which there are several and a rest."""
    made = io.BytesIO()
    Image.frombytes("RGB", (700, 500), os.urandom(3 * 700 * 500)).save(made, "PNG")
    given = client.post("/v1/uploads", content=made.getvalue()).json()["id"]
    for _ in range(2):
        answer = client.get(f"/v1/files/{given}")
        assert answer.content == made.getvalue() and len(answer.content) > 1_000_000
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.headers["content-type"] == "image/png"


def test_the_document_tells_what_is_answered(client: httpx.Client) -> None:
    """Every refusal with its form, and pictures as pictures."""
    document = client.get("/v1/openapi.json").json()
    told = [each["responses"] for path in document["paths"].values() for each in path.values()]
    assert len(told) > 50 and all({"4XX", "5XX"} <= {*each} for each in told)
    refused = document["paths"]["/v1/jobs"]["post"]["responses"]["4XX"]["content"]
    form = refused["application/json"]["schema"]["$ref"].rpartition("/")[2]
    answer = client.post("/v1/jobs", json={"prompt": "a fox", "steps": -1})
    assert {*answer.json()} == {*document["components"]["schemas"][form]["properties"]} == {"error"}
    for path in ("/v1/outputs/{name}/file", "/v1/files/{name}"):
        assert [*document["paths"][path]["get"]["responses"]["200"]["content"]] == ["image/*"]
