"""Cut-outs and composites over HTTP: outputs with parents, which say what they are."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw
from serving import Serving
from test_api import done, submit

SECRET = "0" * 63 + "1"


def drawn(client: httpx.Client, **how: Any) -> dict[str, Any]:
    return done(client, submit(client, **how)["id"])["outputs"][0]


def given(client: httpx.Client, colour: str = "#a0c0e0") -> str:
    image = Image.new("RGB", (96, 64), colour)
    ImageDraw.Draw(image).ellipse((30, 12, 70, 50), fill="#a03020")
    return client.post("/v1/uploads?name=ball.png", content=in_png(image)).json()["id"]


def in_png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def family(client: httpx.Client, name: str, side: str) -> list[tuple[str, str]]:
    found = client.get(f"/v1/outputs/{name}/family").json()[side]
    return [(each["how"], each["id"]) for each in found]


def files(server: Serving) -> int:
    return sum(path.is_file() for path in (server.data / "files").glob("??/*"))


def test_a_cut_out_is_a_child(client: httpx.Client) -> None:
    first = drawn(client, opaque=True)
    assert not first["transparent"] and first["derived"] is None
    answer = client.post("/v1/cutouts", json={"picture": first["id"]})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["transparent"] and made["derived"] == "cutout"
    assert (made["prompt"], made["seed"], made["model"]) == ("a red fox", "7", "icons")
    assert made["licence"] == first["licence"]
    assert family(client, made["id"], "parents") == [("cutout", first["id"])]
    assert family(client, first["id"], "children") == [("cutout", made["id"])]
    said = client.post("/v1/verify", json={"picture": made["id"]}).json()
    assert said["verdict"] == "bit-equal", said
    signed = client.post("/v1/credentials", json={"picture": made["id"]}).json()
    assert signed["state"] == "valid" and len(signed["manifests"]) == 2
    recipe = client.post("/v1/recipe", json={"picture": made["id"]})
    assert recipe.status_code == 422 and "is cut out of" in recipe.json()["error"]["message"]
    twice = client.post("/v1/cutouts", json={"picture": made["id"]})
    assert twice.status_code == 422
    assert "is transparent already" in twice.json()["error"]["message"]
    assert client.post("/v1/cutouts", json={"picture": "0" * 32}).status_code == 404
    assert client.delete(f"/v1/outputs/{first['id']}").status_code == 204
    said = client.post("/v1/verify", json={"picture": made["id"]}).json()
    assert said["verdict"] == "bit-equal", said  # its file is there as long as it is needed
    exported = client.post(f"/v1/outputs/{made['id']}/export", params={"format": "webp"})
    assert exported.headers["content-type"] == "image/webp"


def test_what_is_given_is_cut_out(client: httpx.Client) -> None:
    name = given(client)
    made = client.post("/v1/cutouts", json={"picture": name}).json()
    assert (made["seed"], made["model"], made["prompt"]) == ("", "", "")
    there = client.get(f"/v1/outputs/{made['id']}/family").json()["uploads"]
    assert there == [{"file": name, "name": "ball.png"}]


def test_a_composite_is_kept(client: httpx.Client, server: Serving) -> None:
    first, ball = drawn(client, seed=8), given(client, "#203040")
    before = files(server)
    picture = Image.new("RGBA", (64, 48), (20, 40, 60, 128))
    answer = client.post(
        "/v1/composites",
        params={
            "part": [first["id"], ball, first["file"], SECRET],
            "name": " fox  and\nball",
            "keep": True,
        },
        content=in_png(picture),
    )
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).tobytes() == picture.tobytes()
    made = client.get(f"/v1/outputs/{answer.headers['x-mezzotint-output']}").json()
    assert client.get(made["url"]).content == answer.content
    assert (made["derived"], made["prompt"], made["seed"]) == ("composite", "fox and ball", "")
    assert made["recipe"]["lost"] == 1 and made["model"] == "icons"
    assert made["recipe"]["licences"] and made["licence"] == first["licence"]
    assert family(client, made["id"], "parents") == [("layer", first["id"])]
    assert client.get(f"/v1/outputs/{made['id']}/family").json()["uploads"][0]["file"] == ball
    said = client.post("/v1/verify", json={"picture": made["id"]}).json()
    assert said["verdict"] == "cannot"
    assert said["causes"][0].startswith("it is a composite of a red fox, ball.png and 1 that is no")
    assert client.get("/v1/outputs", params={"like": made["id"]}).json()["outputs"]
    assert files(server) == before + 1  # what was painted is in it, and nowhere else


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_a_composite_is_downloaded(client: httpx.Client, server: Serving, form: str) -> None:
    first = drawn(client, seed=9)
    before = (files(server), len(client.get("/v1/outputs").json()["outputs"]))
    picture = in_png(Image.new("RGBA", (64, 48), (20, 40, 60, 128)))
    asked = {"part": [first["id"]], "name": "a fox", "format": form}
    answer = client.post("/v1/composites", params=asked, content=picture)
    assert answer.status_code == 200 and answer.headers["content-type"] == f"image/{form}"
    assert "x-mezzotint-output" not in answer.headers
    now = (files(server), len(client.get("/v1/outputs").json()["outputs"]))
    assert now == before  # nothing stays
    name = client.post("/v1/uploads", content=answer.content).json()["id"]
    signed = client.post("/v1/credentials", json={"picture": name}).json()
    assert signed["state"] == "valid" and len(signed["manifests"]) == 2
    assert signed["manifests"][0]["actions"][0]["source"] == "compositeWithTrainedAlgorithmicMedia"


def test_what_is_no_composite(client: httpx.Client, server: Serving) -> None:
    picture, before = in_png(Image.new("RGB", (8, 8))), files(server)
    for params, content, status in (
        ({}, b"no picture", 422),
        ({"part": ["../a"]}, picture, 422),
        ({"part": ["0" * 64] * 201}, picture, 422),
        ({"format": "svg"}, picture, 422),
        ({"name": "a" * 201}, picture, 422),
        ({"part": ["0" * 64], "name": "<script>\x00"}, picture, 400),
        ({"part": ["0" * 64], "name": "<script>\u202e"}, picture, 200),
    ):
        answer = client.post("/v1/composites", params=params, content=content)
        assert answer.status_code == status, (params, answer.text)
    assert files(server) == before
