"""What a maker does in the studio, from end to end."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from driving import FORM, WAIT
from PIL import Image
from serving import serving


def begin(page: Any, view: str = "create", **form: Any) -> None:
    """Open a view, with Create as it was left."""
    kept = json.dumps(json.dumps({**FORM, "locked": False, "more": {"steps": "2"}, **form}))
    page.add_init_script(
        f"if (!localStorage['mezzotint.create']) localStorage['mezzotint.create'] = {kept};"
    )
    page.goto(f"/#/{view}")


def make(client: httpx.Client, **wish: Any) -> list[dict[str, Any]]:
    """Pictures that are there before the page is opened."""
    asked = {"prompt": "a red fox", "steps": 2, "seed": 7, **wish}
    answer = client.post("/v1/jobs", json=asked)
    assert answer.status_code == 202, answer.text
    return done(client, answer.json()["id"])["outputs"]


def done(client: httpx.Client, name: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        job = client.get(f"/v1/jobs/{name}").json()
        if job["state"] not in ("submitted", "running"):
            assert job["state"] == "done", job
            return job
        assert time.monotonic() < end
        time.sleep(0.05)


def newest(client: httpx.Client) -> dict[str, Any]:
    jobs = client.get("/v1/jobs", params={"limit": 10}).json()["jobs"]
    return next(job for job in jobs if job["kind"] == "generate")


def until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait until something holds (the page's policy lets Playwright evaluate no waiting for it)."""
    end = time.monotonic() + 2 * WAIT / 1000
    while not holds():
        assert time.monotonic() < end
        page.wait_for_timeout(30)


def card(page: Any, number: int = 0) -> Any:
    return page.locator("article.card").nth(number)


def opened(page: Any, output: dict[str, Any]) -> Any:
    page.goto(f"/#/gallery/{output['id']}")
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Verify").wait_for()
    return viewer


def pixels(client: httpx.Client, output: dict[str, Any]) -> bytes:
    return Image.open(io.BytesIO(client.get(output["url"]).content)).tobytes()


def test_create(page: Any, client: httpx.Client) -> None:
    page.goto("/")
    page.get_by_role("textbox", name="What to draw").fill("a green leaf")
    page.get_by_label("Style").select_option(label="Twemoji")
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("textbox", name="Steps").fill("2")
    page.get_by_role("button", name="Create", exact=True).click()
    card(page).get_by_text("a green leaf, emoji, flat twemoji style").wait_for()
    card(page).locator(".tile-open").nth(3).wait_for()
    job = done(client, newest(client)["id"])
    assert job["count"] == 4 and job["asked"]["steps"] == "2"
    licence = job["outputs"][0]["licence"]
    card(page).get_by_text(licence).wait_for()
    assert card(page).locator(".state").inner_text().endswith("s")  # the time that it took
    assert page.get_by_label("Seed", exact=True).get_attribute("placeholder") == "any"
    page.get_by_role("button", name="Keep the seed").click()
    assert page.get_by_label("Seed", exact=True).input_value() == job["asked"]["seed"]


def test_previews_cancel_and_a_reload_in_the_middle(page: Any, client: httpx.Client) -> None:
    begin(page, prompt="a long one", more={"steps": "900"})
    page.get_by_role("textbox", name="What to draw").press("Enter")
    card(page).locator(".tile.here img").wait_for()
    page.reload()
    card(page).locator(".tile.here img").wait_for()
    first = card(page).locator("progress").get_attribute("value")
    assert float(first) > 0
    card(page).get_by_role("button", name="Cancel").click()
    card(page).get_by_text("Cancelled").wait_for()
    assert newest(client)["state"] == "cancelled"


def test_errors_are_said_at_their_fields(page: Any, client: httpx.Client) -> None:
    begin(page, prompt="a fox", more={"steps": "many"})
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_role("alert").get_by_text("'many'").wait_for()
    assert page.get_by_role("textbox", name="Steps").get_attribute("aria-invalid") == "true"
    page.get_by_role("textbox", name="Steps").fill("2")
    until(page, lambda: page.get_by_role("alert").get_by_text("'many'").count() == 0)
    page.get_by_role("textbox", name="What to draw").fill("")
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_text("Say what to draw.").wait_for()


@pytest.mark.parametrize(
    ("button", "asked", "size"),
    [
        ("Vary subtly", {"vary": "7:subtle"}, (128, 128)),
        ("Vary strongly", {"vary": "7:strong"}, (128, 128)),
        ("Enlarge twofold", {"enlarge": "2", "seed": "7"}, (256, 256)),
        ("Zoom out", {"expand": "64"}, (256, 256)),
        ("Pan left", {"expand": "left=64"}, (192, 128)),
        ("Make it tile", {"tile": "both", "seed": "7"}, (128, 128)),
    ],
)
def test_steer(
    page: Any, client: httpx.Client, button: str, asked: dict[str, str], size: tuple[int, int]
) -> None:
    (output,) = make(client, steps=3)  # of fewer a second pass takes none
    before = newest(client)["id"]
    viewer = opened(page, output)
    viewer.get_by_role("button", name=button).click()
    card(page).locator(".tile").first.wait_for()
    page.wait_for_url("**/#/create")
    job = newest(client)
    assert job["id"] != before and job["asked"].items() >= asked.items()
    if "expand" in asked:
        assert job["asked"]["image"] == output["file"]
    made = done(client, job["id"])["outputs"]
    assert {(each["width"], each["height"]) for each in made} == {size}
    assert len(made) == (1 if "seed" in asked else 4)


def test_remix_and_use_as_start(page: Any, client: httpx.Client) -> None:
    (output,) = make(client, prompt="a red fox, emoji, noto style")
    opened(page, output).get_by_role("button", name="Remix").click()
    prompt = page.get_by_role("textbox", name="What to draw")
    until(page, lambda: prompt.is_visible() and prompt.input_value() == "a red fox")
    assert page.get_by_label("Seed", exact=True).input_value() == "7"
    assert page.locator("form.composer").get_by_label("Style").input_value() == "emoji, noto style"
    opened(page, output).get_by_role("button", name="Use as start").click()
    page.locator(".input img").wait_for()
    prompt.fill("a blue fox")
    prompt.press("Enter")
    card(page).get_by_text("a blue fox").wait_for()
    asked = newest(client)["asked"]
    assert (asked["image"], asked["strength"]) == (output["file"], "0.6")


def test_repeat_gives_equal_pixels_and_proofs_hold(page: Any, client: httpx.Client) -> None:
    (output,) = make(client, prompt="a {red|blue} fox", seed=3)
    viewer = opened(page, output)
    viewer.get_by_role("button", name="Repeat").click()
    page.wait_for_url("**/#/create")
    (again,) = done(client, newest(client)["id"])["outputs"]
    assert again["id"] != output["id"]
    assert pixels(client, again) == pixels(client, output)
    viewer = opened(page, output)
    viewer.get_by_role("button", name="Verify").click()
    viewer.get_by_text("every bit is equal").wait_for()
    viewer.get_by_role("button", name="Credentials").click()
    viewer.get_by_text("by a key that is known here").wait_for()


def test_family(page: Any, client: httpx.Client) -> None:
    (first,) = make(client, seed=21)
    (second,) = make(client, image=first["id"], strength="0.5", seed=22)
    viewer = opened(page, second)
    viewer.get_by_text("It came from").wait_for()
    viewer.get_by_role("button", name="drawn after").click()
    viewer.get_by_text("From it came").wait_for()
    assert first["id"] in page.url


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_download(page: Any, client: httpx.Client, form: str, tmp_path: Path) -> None:
    (output,) = make(client)
    viewer = opened(page, output)
    with page.expect_download() as caught:
        viewer.get_by_role("button", name=form).click()
    path = tmp_path / caught.value.suggested_filename
    caught.value.save_as(path)
    assert path.name == f"a-red-fox_7.{form.lower().replace('jpeg', 'jpg')}"
    with Image.open(path) as image:
        assert image.format == form
    given = client.post("/v1/uploads", content=path.read_bytes()).json()["id"]
    (wish,) = client.post("/v1/recipe", json={"picture": given}).json()["wishes"]
    assert (wish["prompt"], wish["seed"]) == ("a red fox", "7")
    signed = client.post("/v1/credentials", json={"picture": given}).json()
    assert signed["state"] == "valid"


def drop(page: Any, data: bytes, name: str) -> None:
    """A file from elsewhere is let go over the page."""
    page.evaluate(
        """([data, name]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const held = new DataTransfer();
          held.items.add(new File([bytes], name, { type: "image/png" }));
          const how = { dataTransfer: held, bubbles: true, cancelable: true };
          for (const kind of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(kind, how));
        }""",
        [base64.b64encode(data).decode(), name],
    )


def test_a_file_is_dragged_in(page: Any, client: httpx.Client) -> None:
    (output,) = make(client, prompt="a yellow bird", seed=99, guidance=2)
    begin(page, "gallery")
    page.get_by_role("heading", name="Gallery").wait_for()
    drop(page, client.get(output["url"]).content, "bird.png")
    page.get_by_text("The recipe of bird.png").wait_for()
    assert page.get_by_role("textbox", name="What to draw").input_value() == "a yellow bird"
    assert page.get_by_label("Seed", exact=True).input_value() == "99"
    assert page.get_by_role("textbox", name="Guidance", exact=True).input_value() == "2"
    plain = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(plain, "PNG")
    drop(page, plain.getvalue(), "<b>x</b>.png")
    page.get_by_text("It carries no recipe").wait_for()
    page.locator(".input img").wait_for()
    drop(page, b"no picture at all", "x.png")
    page.get_by_text("no picture of a known format").wait_for()


def test_gallery(page: Any, client: httpx.Client) -> None:
    (apple,) = make(client, prompt="a zebra with an apple", seed=31)
    (pear,) = make(client, prompt="a zebra with a pear", seed=32)
    page.goto("/#/gallery")
    search, tiles = page.get_by_role("searchbox"), page.locator(".wall .tile-open")

    def count(wanted: int) -> None:
        until(page, lambda: tiles.count() == wanted)

    search.fill("zebra")
    count(2)
    search.fill("pear zebra")
    count(1)
    assert tiles.first.get_attribute("aria-label") == "Open: a zebra with a pear, seed 32"
    search.fill("zebra")
    page.locator("form.search").get_by_role("button", name="More", exact=True).click()
    page.get_by_label("Seed", exact=True).fill("31")
    count(1)
    page.get_by_label("Seed", exact=True).fill("")
    page.get_by_label("Licence").fill("CC-BY")
    count(2)
    page.get_by_label("Licence").fill("GPL")
    count(0)
    page.get_by_label("Licence").fill("")
    page.get_by_label("From").fill("2099-01-01")
    count(0)
    page.get_by_label("From").fill("2020-01-01")
    count(2)
    tiles.first.focus()  # the pear, the newest
    page.keyboard.press("f")
    page.get_by_role("button", name="Favourites").click()
    count(1)
    assert client.get(f"/v1/outputs/{pear['id']}").json()["favourite"]
    page.get_by_role("button", name="All", exact=True).click()
    count(2)
    page.get_by_role("button", name="Choose", exact=True).click()
    tiles.nth(0).click()
    tiles.nth(1).click()
    page.get_by_role("button", name="Compare").click()
    slider = page.get_by_role("slider", name="How much of the left picture is seen")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="On a board").click()
    page.get_by_role("textbox", name="A new board").fill("Zebras")
    page.get_by_role("button", name="Make the board").click()
    page.get_by_text("On Zebras.").wait_for()
    page.get_by_role("button", name="Zebras 2").click()
    page.get_by_role("button", name="All again").click()
    count(2)
    assert {each["id"] for each in (apple, pear)} == {
        each["id"]
        for board in client.get("/v1/boards").json()["boards"]
        for each in client.get("/v1/outputs", params={"board": board["id"]}).json()["outputs"]
    }


def test_queue(page: Any, client: httpx.Client) -> None:
    names = ["the first", "the second", "the third"]
    for name in names:
        client.post("/v1/jobs", json={"prompt": name, "steps": 900})
    page.goto("/#/queue")
    waiting = page.locator("section.queue-part", has_text="Waiting")
    waiting.get_by_text("the third").wait_for()
    third = waiting.locator("li", has_text="the third")
    third.get_by_role("button", name="Earlier").click()
    waiting.get_by_text("priority 1").wait_for()
    assert waiting.locator(".queue-prompt").all_inner_texts() == ["the third", "the second"]
    third.get_by_role("button", name="Cancel").click()
    page.locator("section.queue-part", has_text="Ended").get_by_text("the third").wait_for()
    running = page.locator("section.queue-part", has_text="Running")
    running.get_by_role("button", name="Cancel").click()
    running.get_by_text("the second").wait_for()


def test_keys(page: Any, client: httpx.Client) -> None:
    make(client, count=2)
    page.goto("/")
    card(page).locator(".tile-open").nth(1).wait_for()
    page.keyboard.press("4")
    page.get_by_role("heading", name="Gallery").wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Tab")
    page.locator(".wall .tile-open").first.focus()
    first = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != first
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Verify").wait_for()
    before = page.url
    page.keyboard.press("ArrowLeft")
    until(page, lambda: page.url != before)
    page.keyboard.press("Escape")
    page.wait_for_url("**/#/gallery")
    until(page, lambda: page.evaluate("document.activeElement.className") == "tile-open")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").get_by_text("Vary it subtly").wait_for()
    page.keyboard.press("Escape")


def test_history_and_weights(page: Any, client: httpx.Client) -> None:
    begin(page)
    prompt = page.get_by_role("textbox", name="What to draw")
    for words in ("a first thing", "a second thing"):
        prompt.fill(words)
        prompt.press("Enter")
        card(page).get_by_text(words).wait_for()
    prompt.fill("")
    prompt.press("ArrowUp")
    assert prompt.input_value() == "a second thing"
    prompt.press("Home")
    prompt.press("ArrowUp")
    assert prompt.input_value() == "a first thing"
    prompt.evaluate("box => box.setSelectionRange(2, 7)")
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "a (first:1.1) thing"
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "a (first:1.2) thing"
    prompt.press("Control+ArrowDown")
    prompt.press("Control+ArrowDown")
    assert prompt.input_value() == "a first thing"


def test_what_people_write_stays_text(page: Any, client: httpx.Client) -> None:
    hostile = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
    (output,) = make(client, prompt=hostile)
    client.post("/v1/boards", json={"name": "<svg onload=document.title='hit'>"})
    alerts: list[str] = []
    page.on("dialog", lambda shown: (alerts.append(shown.message), shown.dismiss()))
    page.goto("/")
    card(page).get_by_text(hostile).first.wait_for()
    viewer = opened(page, output)
    viewer.get_by_text(hostile).first.wait_for()
    viewer.get_by_text("Show", exact=True).click()
    assert page.locator("img[src=x], script:not([src]), svg[onload]").count() == 0
    assert "hit" not in page.title() and not alerts


def test_a_lost_connection_comes_back(page: Any, client: httpx.Client) -> None:
    page.goto("/#/queue")
    page.get_by_role("heading", name="Queue").wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    page.reload()
    page.get_by_text("The server does not answer").wait_for()
    page.unroute("**/v1/**")
    page.get_by_text("The server does not answer").wait_for(state="hidden")
    (output,) = make(client, prompt="after the storm", seed=41)
    page.goto("/#/create")
    card(page).get_by_text("after the storm").wait_for()
    assert output["seed"] == "41"


def test_a_token_is_asked_for_once(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, "--token") as guarded:
        command = [sys.executable, "-m", "mezzotint", "token", "add", "anna", "--data"]
        added = subprocess.run(
            [*command, str(guarded.data)], env=guarded.env, capture_output=True, text=True
        )
        token = added.stdout.strip()
        context = browser.new_context(base_url=guarded.base)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        begin(page, prompt="a fox", count=1)
        asked = page.get_by_role("dialog", name="A token is needed")
        asked.get_by_label("Token").fill(token)
        asked.get_by_role("button", name="Go on").click()
        asked.wait_for(state="hidden")
        page.get_by_role("button", name="Create", exact=True).click()
        card(page).locator(".tile-open img").wait_for()
        seen = card(page).locator(".tile-open img")
        until(page, lambda: seen.evaluate("image => image.naturalWidth") == 128)
        context.close()
