"""Boards, favourites, families and other formats: whose they are, and what they carry."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from test_api import done, submit

from mezzotint.apps.server import boards, gallery, queue, tables
from mezzotint.apps.server.boards import BoardError


def made(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    return done(client, submit(client, **fields)["id"])["outputs"]


def test_boards_over_http(client: httpx.Client) -> None:
    outputs = made(client, count=2)
    board = client.post("/v1/boards", json={"name": "  Foxes\u00a0at night "}).json()
    assert board["name"] == "Foxes at night" and board["count"] == 0
    assert client.post("/v1/boards", json={"name": "Foxes at night"}).status_code == 409
    assert client.post("/v1/boards", json={"name": "\u200b"}).status_code == 409
    names = [each["id"] for each in outputs]
    where = f"/v1/boards/{board['id']}"
    for _ in range(2):  # twice is once
        answer = client.post(f"{where}/outputs", json={"outputs": [*names, "0" * 32]})
        assert answer.json()["count"] == 2
    there = client.get("/v1/outputs", params={"board": board["id"]}).json()["outputs"]
    assert {each["id"] for each in there} == set(names)
    client.post(f"{where}/outputs", json={"outputs": names[:1], "on": False})
    assert client.patch(where, json={"name": "Owls"}).json() == {
        "id": board["id"],
        "name": "Owls",
        "count": 1,
        "cover": names[1],
    }
    assert client.delete(where).status_code == 204
    assert client.delete(where).status_code == 404
    assert client.post(f"{where}/outputs", json={"outputs": names}).status_code == 404
    assert client.get(f"/v1/outputs/{names[0]}").status_code == 200  # the pictures stay


def test_favourites_over_http(client: httpx.Client) -> None:
    first, second = made(client, count=2)
    for _ in range(2):
        client.put(f"/v1/outputs/{first['id']}/favourite", json={"favourite": True})
    loved = client.get("/v1/outputs", params={"favourite": True}).json()["outputs"]
    assert [each["id"] for each in loved] == [first["id"]] and loved[0]["favourite"]
    assert not client.get(f"/v1/outputs/{second['id']}").json()["favourite"]
    assert client.delete(f"/v1/outputs/{first['id']}").status_code == 204
    assert client.get("/v1/outputs", params={"favourite": True}).json()["outputs"] == []
    gone = client.put(f"/v1/outputs/{first['id']}/favourite", json={"favourite": True})
    assert gone.status_code == 404


def test_families(client: httpx.Client) -> None:
    (first,) = made(client, seed=51)
    (drawn,) = made(client, seed=52, image=first["id"], strength="0.5")
    (varied,) = made(client, seed=53, vary="51:subtle")
    (other,) = made(client, seed=54, vary="51:subtle", guidance="3")  # of one asked otherwise

    def of(output: dict[str, Any]) -> dict[str, Any]:
        return client.get(f"/v1/outputs/{output['id']}/family").json()

    def kin(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return [(each["how"], each["id"]) for each in found]

    assert kin(of(first)["children"]) == [("image", drawn["id"]), ("vary", varied["id"])]
    assert kin(of(drawn)["parents"]) == [("image", first["id"])]
    assert kin(of(varied)["parents"]) == [("vary", first["id"])]
    assert kin(of(other)["parents"]) == []
    plain = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(plain, "PNG")
    given = client.post("/v1/uploads?name=red.png", content=plain.getvalue()).json()["id"]
    (after,) = made(client, seed=55, image=given, strength="0.5")
    assert of(after)["uploads"] == [{"file": given, "name": "red.png"}]
    assert client.get(f"/v1/files/{given}").content == plain.getvalue()
    assert client.get(f"/v1/files/{'0' * 64}").status_code == 404


def test_search(client: httpx.Client) -> None:
    (output,) = made(client, prompt="a lamp", seed=61)
    for asked, found in (
        ({"q": "LAMP", "licence": "cc-by"}, True),
        ({"q": "lamp", "licence": "GPL"}, False),
        ({"q": "lamp", "since": "2020-01-01"}, True),
        ({"q": "lamp", "since": "2099-01-01"}, False),
        ({"q": "lamp", "until": "2020-01-01T00:00:00Z"}, False),
    ):
        there = client.get("/v1/outputs", params=asked).json()["outputs"]
        assert [each["id"] for each in there] == ([output["id"]] if found else []), asked
    assert client.get("/v1/outputs", params={"since": "yesterday"}).status_code == 422


@pytest.mark.parametrize("form", ["webp", "jpeg", "tiff", "png"])
def test_other_formats_carry_all(client: httpx.Client, form: str) -> None:
    (output,) = made(client, seed=71)
    answer = client.post(f"/v1/outputs/{output['id']}/export", params={"format": form})
    assert answer.headers["content-type"] == f"image/{form}"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format or "").lower() == form
    given = client.post("/v1/uploads", content=answer.content).json()["id"]
    (wish,) = client.post("/v1/recipe", json={"picture": given}).json()["wishes"]
    assert (wish["prompt"], wish["seed"]) == ("a red fox", "71")
    signed = client.post("/v1/credentials", json={"picture": given}).json()
    assert signed["state"] == "valid" and len(signed["manifests"]) == 2
    said = client.post("/v1/verify", json={"picture": given}).json()
    assert said["verdict"] == "bit-equal", said


def test_a_drawing_of_curves_is_signed_too(client: httpx.Client, tmp_path: Path) -> None:
    from mezzotint.provenance import chain

    (output,) = made(client, seed=72)
    answer = client.post(f"/v1/outputs/{output['id']}/export", params={"format": "svg"})
    assert answer.headers["content-type"] == "image/svg+xml"
    found = chain.read_bytes(answer.content)
    assert found is not None and found.state == "untrusted" and len(found.manifests) == 2
    assert b"urn:mezzotint:recipe" in answer.content
    changed = chain.read_bytes(answer.content.replace(b'width="512"', b'width="513"'))
    assert changed is not None and changed.state == "invalid"


def test_boards_are_their_owners(tmp_path: Path) -> None:
    engine = tables.connect(tables.of_file(tmp_path / "a.db"))
    asked = queue.Asked("anna", "generate", {"options": {}}, 1, 1)
    queue.submit(engine, asked, queue.Limits())
    job = queue.claim(engine, "w")
    assert job is not None
    entered = queue.keep(
        engine,
        job,
        queue.Made(
            place=0,
            file="a" * 64,
            kind="image/png",
            bytes=1,
            width=1,
            height=1,
            seed=7,
            model="icons",
            prompt="a",
            licence="MIT",
            recipe=json.dumps({}),
        ),
    )
    assert entered is not None
    board = boards.add(engine, "anna", "mine")["id"]
    boards.add(engine, "bert", "mine")  # of another owner
    with pytest.raises(BoardError, match="already"):
        boards.add(engine, "anna", "mine")
    assert not boards.pin(engine, "bert", board, [entered], "bert", True)
    assert not boards.rename(engine, "bert", board, "his") and not boards.drop(
        engine, "bert", board
    )
    theirs = boards.add(engine, "bert", "other")["id"]
    assert boards.pin(engine, "bert", theirs, [entered], "bert", True)  # he may not see it
    assert [each["count"] for each in boards.listed(engine, "bert")] == [0, 0]
    assert boards.pin(engine, "anna", board, [entered], "anna", True)
    page = gallery.Page(board=board)
    assert len(gallery.outputs_of(engine, "anna", page, "anna")) == 1
    assert gallery.outputs_of(engine, None, page, "bert") == []
    boards.favour(engine, "anna", entered, True)
    assert boards.favourites_of(engine, "bert", [entered]) == set()
    assert gallery.forget(engine, entered, "anna") == ["a" * 64]
    assert [each["count"] for each in boards.listed(engine, "anna")] == [0]
