"""Pictures that look like another one, without their ground, and put together: in the browser."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from driving import AXE
from PIL import Image, ImageDraw
from test_canvas import begin as canvas
from test_studio import make, opened, until


def faults(page: Any) -> list[str]:
    """What axe has to say, where it is installed."""
    if not AXE.is_file():
        return []
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {node['html'][:120]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def tiles(page: Any) -> list[str]:
    """What is on the wall, in its order."""
    labels = page.locator(".wall .tile-open").evaluate_all("all => all.map(e => e.ariaLabel)")
    return [label.removeprefix("Open: ") for label in labels]


def as_jpeg(client: httpx.Client, output: dict[str, Any]) -> bytes:
    """A picture as one finds it elsewhere: on white, and a little smaller."""
    picture = Image.open(io.BytesIO(client.get(output["url"]).content)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    data = io.BytesIO()
    white.convert("RGB").resize((100, 100)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def gallery(client: httpx.Client) -> list[dict[str, Any]]:
    """Four that differ, and nothing else."""
    for each in client.get("/v1/outputs", params={"limit": 200}).json()["outputs"]:
        client.delete(f"/v1/outputs/{each['id']}")
    prompts = ("a red fox", "a blue umbrella", "a green leaf", "a golden key")
    return [make(client, prompt=prompt, steps=10)[0] for prompt in prompts]


def test_more_like_this(page: Any, gallery: list[dict[str, Any]]) -> None:
    viewer = opened(page, gallery[2])
    viewer.get_by_role("button", name="More like this").click()
    page.get_by_text("Those like a green leaf, the most alike first").wait_for()
    until(page, lambda: tiles(page)[:1] == ["a green leaf, seed 7"])
    assert len(tiles(page)) == 4
    assert faults(page) == []
    page.get_by_role("searchbox", name="Words of the prompt").fill("key")
    until(page, lambda: tiles(page) == ["a golden key, seed 7"])  # of those, the ones that fit
    page.get_by_role("button", name="All again").click()
    until(page, lambda: tiles(page)[:1] == ["a golden key, seed 7"] and len(tiles(page)) == 4)
    page.locator(".tile-open").last.focus()  # with the keys alone
    page.keyboard.press("l")
    page.get_by_text("Those like a red fox").wait_for()
    until(page, lambda: tiles(page)[:1] == ["a red fox, seed 7"])
    page.get_by_role("button", name="Not by looks").press("Enter")
    until(page, lambda: tiles(page)[:1] == ["a golden key, seed 7"])


def test_like_a_file(page: Any, client: httpx.Client, gallery: list[dict[str, Any]]) -> None:
    page.goto("/#/gallery")
    found = {
        "name": "umbrella.jpg",
        "mimeType": "image/jpeg",
        "buffer": as_jpeg(client, gallery[1]),
    }
    page.get_by_label("Like a picture").set_input_files(found)
    page.get_by_text("Those like umbrella.jpg").wait_for()
    until(page, lambda: tiles(page)[:1] == ["a blue umbrella, seed 7"])
    page.evaluate(
        """data => {
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(data)], 'fox.jpg', { type: 'image/jpeg' }));
            const how = { dataTransfer: held, bubbles: true, cancelable: true };
            document.querySelector('[role=search]').dispatchEvent(new DragEvent('drop', how));
        }""",
        list(as_jpeg(client, gallery[0])),
    )
    page.get_by_text("Those like fox.jpg").wait_for()
    until(page, lambda: tiles(page)[:1] == ["a red fox, seed 7"])
    assert "#/gallery" in page.url  # it did not go into Create


def test_remove_the_background(page: Any, client: httpx.Client) -> None:
    (plain,) = make(client)
    viewer = opened(page, plain)
    assert viewer.get_by_role("button", name="Remove the background").count() == 0  # it has none
    (output,) = make(client, opaque=True, seed=11)
    viewer = opened(page, output)
    viewer.get_by_role("button", name="Remove the background").click()
    until(page, lambda: output["id"] not in page.url)
    made = client.get(f"/v1/outputs/{page.url.rpartition('/')[2]}").json()
    assert made["derived"] == "cutout" and made["transparent"]
    viewer.get_by_role("button", name="Open: a red fox, seed 11, cut out").wait_for()  # its parent
    assert viewer.get_by_role("button", name="Vary subtly").count() == 0
    assert viewer.get_by_role("button", name="Zoom out").count() == 1
    viewer.get_by_role("button", name="Verify").click()
    viewer.get_by_text("Made again: every bit is equal.").wait_for()
    assert faults(page) == []
    page.keyboard.press("Escape")
    until(page, lambda: tiles(page)[:1] == ["a red fox, seed 11"])
    assert page.locator(".tile").first.get_by_role("button", name="Vary subtly").count() == 0


def test_a_canvas_says_of_what_it_is(page: Any, client: httpx.Client, tmp_path: Path) -> None:
    (output,) = make(client, seed=12)
    ball = Image.new("RGB", (40, 40), "#203040")
    ImageDraw.Draw(ball).ellipse((8, 8, 30, 30), fill="red")
    ball.save(tmp_path / "ball.png")
    viewer = opened(page, output)
    viewer.get_by_role("button", name="Mask and paint").click()
    page.wait_for_selector(".cv-stage")
    page.get_by_role("button", name="Canvas", exact=True).click()
    page.get_by_role("menuitem", name="Place a picture").click()
    page.get_by_role("dialog").get_by_label("From a file").set_input_files(tmp_path / "ball.png")
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_role("button", name="Canvas", exact=True).click()
    page.get_by_role("menuitem", name="Download …").click()
    save = page.get_by_role("dialog")
    save.get_by_text("put together by you, of 2 pictures").wait_for()
    assert faults(page) == []
    save.get_by_label("WEBP").check()
    save.get_by_label("Keep it in the gallery").check()
    with page.expect_download() as download:
        save.get_by_role("button", name="Download").press("Enter")
    assert download.value.suggested_filename.endswith(".webp")
    page.get_by_text("It is in the gallery too.").wait_for()
    (made, *_) = client.get("/v1/outputs").json()["outputs"]
    assert made["derived"] == "composite" and made["type"] == "image/webp"
    data = Path(download.value.path()).read_bytes()
    assert data == client.get(made["url"]).content
    family = client.get(f"/v1/outputs/{made['id']}/family").json()
    assert [each["id"] for each in family["parents"]] == [output["id"]]
    assert [each["name"] for each in family["uploads"]] == ["ball.png"]
    viewer = opened(page, made)
    viewer.get_by_role("button", name="Verify").click()
    viewer.get_by_text("put together by hand: not reproducible").first.wait_for()
    viewer.get_by_role("button", name="Credentials").click()
    viewer.get_by_text("As it was signed, by a key that is known here.").wait_for()
    assert viewer.get_by_role("button", name="Repeat").count() == 0
    assert faults(page) == []


def test_what_is_painted_alone(page: Any, client: httpx.Client) -> None:
    canvas(page)
    page.get_by_role("button", name="Canvas", exact=True).click()
    page.get_by_role("menuitem", name="New canvas").click()
    page.get_by_role("button", name="Make it").click()
    page.wait_for_timeout(200)
    page.get_by_role("button", name="Canvas", exact=True).click()
    page.get_by_role("menuitem", name="Download …").click()
    page.get_by_text("Signed: painted by you.").wait_for()
    with page.expect_download() as download:
        page.get_by_role("dialog").get_by_role("button", name="Download").click()
    with Image.open(download.value.path()) as image:
        said = json.loads(image.info["parameters"])
    assert (said["derived"], said["source"], said["files"]) == ("composite", "digitalCreation", [])


def test_space(page: Any, client: httpx.Client) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (int(time.time()) % 256, 1, 2)).save(data, "PNG")
    client.post("/v1/uploads", content=data.getvalue())
    page.goto("/#/gallery")
    page.get_by_role("button", name="Space").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("free on the disk").wait_for()
    assert faults(page) == []
    told = client.get("/v1/space").json()
    assert told["uploads"]["count"] >= 1 and told["unused"]["count"] == 0  # it is new
    assert dialog.get_by_role("button", name="Throw these away").is_disabled()
