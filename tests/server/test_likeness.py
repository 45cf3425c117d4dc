"""Pictures that look like another one: in the order of a plain computation, page by page."""

from __future__ import annotations

import io
import json
import math
import random
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sqlalchemy import Engine
from test_api import done, submit

from mezzotint.apps.server import gallery, likeness, looking, queue, tokens
from mezzotint.apps.server.gallery import Page
from mezzotint.apps.server.queue import Asked, Made


def unit(chance: random.Random) -> list[float]:
    values = [chance.gauss(0, 1) for _ in range(likeness.WIDTH)]
    length = math.hypot(*values)
    return [value / length for value in values]


def keep(engine: Engine, seen: bytes | None, owner: str = "anna", prompt: str = "a fox") -> int:
    queue.submit(engine, Asked(owner, "generate", {}, 1, 1))
    job = queue.claim(engine, "w")
    assert job is not None
    made = Made(0, "0" * 64, "image/png", 1, 8, 8, 7, "icons", prompt, "MIT", "{}", seen)
    assert queue.keep(engine, job, made) and queue.finish(engine, job)
    return gallery.outputs_of(engine, owner, Page(limit=1))[0].number


def test_in_order_and_page_by_page(engine: Engine) -> None:
    chance = random.Random(0)
    vectors = [unit(chance) for _ in range(40)]
    vectors[30] = vectors[3]  # the same looks: the newer one first
    numbers = [keep(engine, likeness.packed(vector)) for vector in vectors]
    keep(engine, None)  # of which it is not known
    keep(engine, likeness.packed(vectors[0]), "ben")
    table = torch.tensor(vectors, dtype=torch.float64)
    cosines = (table @ table[3]).tolist()
    plain = sorted(range(40), key=lambda n: (-round(cosines[n], 9), -n))
    like = likeness.packed(vectors[3])
    whole = gallery.outputs_like(engine, like, "anna", Page(limit=200))
    assert [row.number for row, _ in whole] == [numbers[n] for n in plain]
    assert [much for _, much in whole] == pytest.approx([cosines[n] for n in plain], abs=1e-3)
    paged: list[tuple[Any, float]] = []
    while True:
        last = Page(limit=7) if not paged else Page(paged[-1][0].number, 7, beyond=paged[-1][1])
        found = gallery.outputs_like(engine, like, "anna", last)
        if not found:
            break
        paged += found
        keep(engine, likeness.packed(vectors[3]))  # what comes before shifts nothing
    assert [row.number for row, _ in paged] == [row.number for row, _ in whole]


def test_with_other_filters(engine: Engine) -> None:
    vector = unit(random.Random(1))
    opposite = likeness.packed([-value for value in vector])
    keep(engine, likeness.packed(vector), prompt="a red fox")
    keep(engine, opposite, prompt="a blue fox")
    found = gallery.outputs_like(engine, opposite, None, Page(words="red"))
    assert [(row.prompt, much) for row, much in found] == [
        ("a red fox", pytest.approx(-1, abs=1e-3))
    ]
    assert gallery.outputs_like(engine, opposite, "ben", Page()) == []


def test_what_is_seen_stays_through_what_people_do_to_pictures() -> None:
    """Cut, turned to JPEG, in other colours, smaller: nearer than any other photograph."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    photos = [Image.fromarray(image) for image in images]
    photos += [photo.crop((0, 0, 300, 200)) for photo in photos]

    def seen(image: Image.Image) -> list[int]:
        return list(likeness._FORM.unpack(looking.sight(image)))

    before = [seen(photo) for photo in photos]
    for number, photo in enumerate(photos):
        stored = io.BytesIO()
        photo.save(stored, "JPEG", quality=30)
        cut = (10, 8, photo.width - 6, photo.height - 10)
        for changed in (
            photo.convert("L"),
            photo.resize((photo.width // 3, photo.height // 3)),
            photo.crop(cut),
            ImageEnhance.Brightness(photo).enhance(1.3),
            Image.open(stored),
            Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257),
        ):
            after = seen(changed)
            alike = [likeness.likeness(after, each) for each in before]
            assert alike.index(max(alike)) == number, (changed.mode, changed.size, alike)
    assert looking.sight(Image.new("RGBA", (9, 7)))  # nothing at all looks like something too


def found(client: httpx.Client, like: str, **more: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/outputs", params={"like": like, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]


def test_over_http(client: httpx.Client) -> None:
    """The variations of a picture come before other pictures; of a given one the one it shows."""
    prompts = ("a red fox", "a blue umbrella", "a green leaf", "a golden key", "a lighthouse")
    firsts = []
    for prompt in prompts:
        job = submit(client, prompt=prompt, steps=12, seed=7)
        firsts.append(done(client, job["id"])["outputs"][0])
    near = submit(client, prompt=prompts[1], steps=12, vary="7:subtle", count=2)
    varied = done(client, near["id"])["outputs"]
    there = found(client, firsts[1]["id"])
    assert there[0]["id"] == firsts[1]["id"] and there[0]["likeness"] == pytest.approx(1, abs=1e-3)
    assert {each["id"] for each in there[1:3]} == {each["id"] for each in varied}
    assert [each["likeness"] for each in there] == sorted(
        (each["likeness"] for each in there), reverse=True
    )
    pages = found(client, firsts[1]["id"], limit=2)
    last = pages[-1]
    pages += found(client, firsts[1]["id"], before=last["number"], beyond=last["likeness"])
    assert pages == there
    assert [each["id"] for each in found(client, firsts[1]["id"], q="leaf")] == [firsts[2]["id"]]
    picture = Image.open(io.BytesIO(client.get(firsts[3]["url"]).content))
    white = Image.new("RGBA", (picture.width + 60, picture.height + 20), "white")
    white.alpha_composite(picture, (50, 10))
    data = io.BytesIO()
    white.convert("RGB").save(data, "JPEG")
    given = client.post("/v1/uploads", content=data.getvalue()).json()["id"]
    assert found(client, given)[0]["id"] == firsts[3]["id"]
    before = client.get("/v1/jobs").json()["jobs"][0]["number"]
    assert found(client, given)[0]["id"] == firsts[3]["id"]
    assert client.get("/v1/jobs").json()["jobs"][0]["number"] == before  # it was looked at once


def test_what_cannot_be_sought(client: httpx.Client) -> None:
    for like, status in (("0" * 32, 404), ("0" * 64, 404), ("fox", 422), ("../a", 422)):
        assert client.get("/v1/outputs", params={"like": like}).status_code == status


def test_owners_see_their_own(tmp_path: Any) -> None:
    from starlette.testclient import TestClient

    from mezzotint.apps.server import tables
    from mezzotint.apps.server.application import Settings, build
    from mezzotint.apps.server.places import Places

    address = tables.of_file(tmp_path / "a.db")
    engine = tables.connect(address)
    seen = likeness.packed(unit(random.Random(2)))
    for owner in ("anna", "ben"):
        keep(engine, seen, owner)
    app, _ = build(engine, Settings(Places(tmp_path), address, tokens_needed=True))
    client = TestClient(app, base_url="http://localhost")  # type: ignore[arg-type]
    (hers,) = gallery.outputs_of(engine, "anna", Page())
    for who, scopes, count in (("anna", "read", 1), ("ben", "read", 0), ("chief", "read admin", 2)):
        head = {"authorization": f"Bearer {tokens.add(engine, who, scopes)}"}
        answer = client.get("/v1/outputs", params={"like": hers.id}, headers=head)
        assert answer.status_code == (200 if count else 404)
        assert len(json.loads(answer.text).get("outputs", [])) == count
