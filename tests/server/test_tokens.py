"""A server that asks for tokens: who sees and may do what."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Serving

from mezzotint.apps import cli


def token(server: Serving, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mezzotint", "token", *words, "--data", str(server.data)],
        capture_output=True,
        text=True,
        env=server.env,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(tmp_path_factory.mktemp("server"), ["--token"])
    server.start()
    yield server
    server.stop()


def client(server: Serving, given: str | None) -> httpx.Client:
    headers = {} if given is None else {"authorization": f"Bearer {given}"}
    return httpx.Client(base_url=server.base, headers=headers, timeout=60)


@pytest.fixture
def opened(server: Serving) -> Iterator[Callable[[str | None], httpx.Client]]:
    """Makes clients, which are closed at the end."""
    with ExitStack() as stack:
        yield lambda given: stack.enter_context(client(server, given))


Opened = Callable[[str | None], httpx.Client]


def test_who_sees_what(server: Serving, opened: Opened) -> None:
    anna, ben = (opened(token(server, "add", name)) for name in ("anna", "ben"))
    chief = opened(token(server, "add", "chief", "--scopes", "read admin"))
    looks = opened(token(server, "add", "looks", "--scopes", "read"))
    nobody, wrong = opened(None), opened("mz_what")
    fox = {"prompt": "a red fox", "seed": 7, "steps": 2}
    job = anna.post("/v1/jobs", json=fox).json()
    anna.get(f"/v1/jobs/{job['id']}/events")
    made = anna.get(f"/v1/jobs/{job['id']}").json()["outputs"][0]
    for who, status in ((anna, 200), (chief, 200), (ben, 404), (looks, 404), (nobody, 401)):
        for path in (f"/v1/jobs/{job['id']}", f"/v1/outputs/{made['id']}", made["url"]):
            assert who.get(path).status_code == status, path
        assert who.get(f"/v1/jobs/{job['id']}/events").status_code == status
    assert wrong.get("/v1/jobs").status_code == 401
    assert ben.get("/v1/outputs").json()["outputs"] == []
    assert len(chief.get("/v1/outputs").json()["outputs"]) == 1
    for other in ({**fox, "image": made["id"]}, {**fox, "image": made["file"]}):
        assert ben.post("/v1/jobs", json=other).status_code == 404
    assert ben.post("/v1/verify", json={"picture": made["file"]}).status_code == 404
    assert ben.delete(f"/v1/outputs/{made['id']}").status_code == 404
    assert looks.post("/v1/jobs", json=fox).status_code == 403
    assert looks.post("/v1/uploads", content=b"x").status_code == 403
    assert anna.post("/v1/jobs?priority=5", json=fox).status_code == 403
    assert anna.get("/metrics").status_code == 403
    assert nobody.get("/v1/health").status_code == 200
    token(server, "revoke", "anna")
    assert anna.get("/v1/jobs").status_code == 401


def test_so_many_wait(server: Serving, opened: Opened) -> None:
    few = opened(token(server, "add", "few", "--jobs", "1"))
    body = {"prompt": "a red fox", "count": 8}
    first = few.post("/v1/jobs", json=body)
    assert first.status_code == 202
    second = few.post("/v1/jobs", json=body)
    assert second.status_code == 429 and int(second.headers["retry-after"]) > 0
    few.delete(f"/v1/jobs/{first.json()['id']}")


def test_no_public_address_without_a_token(
    server: Serving, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["serve", "--host", "0.0.0.0", "--data", f"{tmp_path}/a"]) == 2
    assert "so a token is needed" in capsys.readouterr().err
    assert cli.main(["serve", "--data", str(server.data)]) == 2
    assert "a server runs in" in capsys.readouterr().err


def test_one_stream_tells_of_all_ones_own_jobs(server: Serving, opened: Opened) -> None:
    """Also of those that ran before one listened, with previews; of others' it tells nothing."""
    anna, ben = (opened(token(server, "add", name)) for name in ("anne", "benno"))
    makes = opened(token(server, "add", "makes", "--scopes", "make"))
    assert makes.get("/v1/events").status_code == 403
    long = {"prompt": "a red fox", "seed": 7, "steps": 900}
    mine = anna.post("/v1/jobs", json=long).json()["id"]
    server.until(lambda: anna.get(f"/v1/jobs/{mine}").json()["state"] == "running")
    his = ben.post("/v1/jobs", json={**long, "steps": 2}).json()["id"]
    later = anna.post("/v1/jobs", json={**long, "steps": 2}).json()["id"]
    told: list[dict[str, Any]] = []
    with anna.stream("GET", "/v1/events") as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            told.append(json.loads(line.removeprefix("data: ")))
            if "preview" in told[-1] and told[-1]["job"] == mine:
                ben.delete(f"/v1/jobs/{mine}")  # which he may not
                anna.delete(f"/v1/jobs/{mine}")
            if told[-1]["job"] == later and told[-1].get("state") == "done":
                break
    assert {told[0]["job"], told[1]["job"]} == {mine, later}
    states = [(each["job"], each["state"]) for each in told if "state" in each]
    assert (mine, "running") in states and (mine, "cancelled") in states
    assert [state for job, state in states if job == later] == ["submitted", "running", "done"]
    assert any(each["job"] == later and "output" in each for each in told)
    assert his not in {each["job"] for each in told}
    both = {job["id"] for job in ben.get("/v1/jobs", params={"state": "open"}).json()["jobs"]}
    assert both <= {his}
