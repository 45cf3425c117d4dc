"""Workers come when they are needed and go when they are not; what a model draws is the same
whether its jobs were taken together or in turns."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import Serving

import tiny_model

MODELS = ("one.safetensors", "two.safetensors")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    """One that nobody has asked for anything yet."""
    models = tmp_path / "models"
    models.mkdir()
    tiny_model.write(models / MODELS[0])
    shutil.copyfile(models / MODELS[0], models / MODELS[1])
    found = Serving(tmp_path / "own", ["--models", str(models), "--idle", "3"])
    try:
        found.start(wait=False)
        yield found
    finally:
        found.stop()


def ask(server: Serving, **wish: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.base}/v1/jobs", json={"prompt": "fox", "steps": 1, **wish})
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(server: Serving, job: dict[str, Any]) -> dict[str, Any]:
    address, found = f"{server.base}/v1/jobs/{job['id']}", job

    def over() -> bool:
        nonlocal found
        found = httpx.get(address).json()
        return found["state"] == "done"

    server.until(over)
    return found


def pixels(server: Serving, job: dict[str, Any]) -> bytes:
    (output,) = job["outputs"]
    return Image.open(io.BytesIO(httpx.get(server.base + output["url"]).content)).tobytes()


def test_workers_rest_and_batches_change_no_bit(server: Serving) -> None:
    health = f"{server.base}/v1/health"
    assert httpx.get(health).json() == {"status": "ok", "workers": 0, "ready": False}
    asked = [ask(server, model=MODELS[n % 2], seed=n // 2) for n in range(8)]
    made = [ended(server, job) for job in asked]
    order = [row["asked"]["model"] for row in sorted(made, key=lambda row: row["started"])]
    assert sum(one != next_ for one, next_ in pairwise(order)) < 7  # in turns it would be 7
    for one, two in zip(made[::2], made[1::2], strict=True):
        assert pixels(server, one) == pixels(server, two)
        assert 0 < one["result"]["seconds"] < 60
    server.until(lambda: httpx.get(health).json()["workers"] == 0)
    assert httpx.get(health).json()["status"] == "ok"
    assert httpx.get(f"{server.base}/v1/models").json()["models"]  # it knows without a worker
    again = ended(server, ask(server, model=MODELS[0], seed=0))
    assert pixels(server, again) == pixels(server, made[0])


def names(server: Serving) -> set[str]:
    found = httpx.get(f"{server.base}/v1/models").json()["models"]
    assert all(each["bytes"] > 0 for each in found)
    return {each["name"] for each in found}


def verdict(server: Serving, job: dict[str, Any]) -> dict[str, Any]:
    picture = {"picture": job["outputs"][0]["id"]}
    return httpx.post(f"{server.base}/v1/verify", json=picture, timeout=60).json()


def test_models_that_come_and_go_and_change(server: Serving) -> None:
    models = server.folder.parent / "models"
    here = {"icons", *MODELS}
    before = ended(server, ask(server, model=MODELS[0], seed=0))
    assert names(server) == here
    shutil.copyfile(models / MODELS[1], models / "three.safetensors")
    server.until(lambda: names(server) == here | {"three.safetensors"})
    assert pixels(server, ended(server, ask(server, model="three.safetensors", seed=0)))

    tiny_model.write(models / "new", seed=1)  # as a training writes its result
    (models / "new").replace(models / MODELS[0])
    after = ended(server, ask(server, model=MODELS[0], seed=0))
    assert pixels(server, after) != pixels(server, before)
    assert verdict(server, after)["verdict"] == "bit-equal"
    assert verdict(server, before)["verdict"] != "bit-equal"  # it is not that model's any more

    server.until(lambda: httpx.get(f"{server.base}/v1/health").json()["workers"] == 0)
    (models / "three.safetensors").unlink()
    server.until(lambda: names(server) == here)  # seen though no worker was there
