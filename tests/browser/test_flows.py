"""What a maker does in the studio, gone on with: previews, steering by pictures, proofs, copies."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from driving import CHROMIUM, WAIT
from PIL import Image
from serving import Serving, serving
from test_studio import begin, card, done, make, newest, opened, pixels, until


def picture(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGBA")


def digest(data: bytes) -> str:
    """Of the pixels: credentials say when they were signed."""
    return hashlib.sha256(picture(data).tobytes()).hexdigest()


# --- while it is made -------------------------------------------------------------------------


def test_all_four_are_seen_to_grow(page: Any, client: httpx.Client) -> None:
    begin(page, prompt="a red fox", count=4, more={"steps": "16"})
    page.get_by_role("textbox", name="What to draw").press("Enter")
    seen: set[int] = set()

    def all_made() -> bool:
        places = card(page).locator(".tiles > .tile")
        for n in range(places.count()):
            if places.nth(n).locator("> img").count():  # of one that is made it is in a button
                seen.add(n)
        return card(page).locator(".tile-open").count() == 4

    until(page, all_made)
    assert seen == {0, 1, 2, 3}
    page.get_by_text("Wh,").first.wait_for()  # what it took


def test_cancelled_within_a_step(page: Any, client: httpx.Client, server: Serving) -> None:
    begin(page, prompt="a long one", count=1, more={"steps": "900"})
    page.get_by_role("textbox", name="What to draw").press("Enter")
    card(page).locator(".tile.here img").wait_for()
    name = newest(client)["id"]
    told: list[dict[str, Any]] = []
    listens = threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"{server.base}/v1/events", timeout=60) as answer:
            for line in answer.iter_lines():
                listens.set()
                if line.startswith("data: "):
                    told.append(json.loads(line[6:]))
                    if told[-1]["job"] != name and told[-1].get("state") == "done":
                        return

    hears = threading.Thread(target=listen)
    hears.start()
    listens.wait(60)
    card(page).get_by_role("button", name="Cancel").click()
    card(page).get_by_text("Cancelled").wait_for()
    make(client, seed=1)  # the worker is free
    hears.join(60)
    mine = [each for each in told if each["job"] == name]
    end = next(n for n, each in enumerate(mine) if each.get("state") == "cancelled")
    assert sum("step" in each and "state" not in each for each in mine[end:]) <= 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def test_the_server_is_killed_in_the_middle_of_a_job(browser: Any, tmp_path: Path) -> None:
    """The page says so, comes back by itself, and the very same picture arrives."""
    with serving(tmp_path, "--port", str(free_port())) as server:
        with browser.new_context(base_url=server.base) as context:
            context.set_default_timeout(WAIT)
            page = context.new_page()
            steps = {"steps": "60"}
            begin(page, prompt="a red fox", count=1, locked=True, more=steps)
            page.get_by_role("textbox", name="What to draw").press("Enter")
            card(page).locator(".tile.here img").wait_for()
            server.kill()
            page.get_by_text("The server does not answer").wait_for()
            server.start()
            page.get_by_text("The server does not answer").wait_for(state="hidden")
            card(page).locator(".tile-open").wait_for()
            assert card(page).locator(".tile-open").count() == 1
        with httpx.Client(base_url=server.base, timeout=60) as client:
            job = newest(client)
            assert job["state"] == "done" and job["attempt"] >= 2
            (once_more,) = make(client, prompt=job["asked"]["prompt"], seed=7, **steps)
            assert pixels(client, job["outputs"][0]) == pixels(client, once_more)


def test_what_goes_wrong_is_said_in_words(page: Any, client: httpx.Client) -> None:
    begin(page, prompt="a __nothing__ fox", count=1)
    page.get_by_role("textbox", name="What to draw").press("Enter")
    card(page).get_by_role("alert").get_by_text("nothing").wait_for()
    job = newest(client)
    assert job["state"] == "failed"
    assert card(page).get_by_role("alert").inner_text() == job["error"]["message"]
    page.goto("/#/queue")
    page.get_by_text(job["error"]["message"]).wait_for()


# --- pictures that go in ----------------------------------------------------------------------


def test_a_picture_is_chosen_to_begin_with(page: Any, client: httpx.Client) -> None:
    (output,) = make(client, prompt="a purple pear", seed=17)
    begin(page, prompt="a green pear", count=1)
    page.get_by_role("button", name="Picture", exact=True).click()
    chooser = page.get_by_role("dialog", name="Begin with a picture")
    chooser.get_by_label("Search the gallery").fill("purple pear")
    until(page, lambda: chooser.locator(".picks button").count() == 1)
    chooser.locator(".picks button").click()
    page.get_by_text("How far from it: 0.60").wait_for()
    white = io.BytesIO()
    Image.new("L", (128, 128), 255).save(white, "PNG")
    page.get_by_role("button", name="Picture", exact=True).click()
    chooser.get_by_role("button", name="Mask", exact=True).click()
    given = {"name": "mask.png", "mimeType": "image/png", "buffer": white.getvalue()}
    chooser.locator("input[type=file]").set_input_files(given)
    page.locator(".input", has_text="Mask").wait_for()
    page.get_by_role("textbox", name="What to draw").press("Enter")
    card(page).get_by_text("a green pear").wait_for()
    asked = done(client, newest(client)["id"])["asked"]
    assert asked["image"] == output["file"]
    assert asked["mask"] == hashlib.sha256(white.getvalue()).hexdigest()


def takes_pictures(client: httpx.Client) -> bool:
    models = client.get("/v1/models").json()["models"]
    return any(each["name"] == "icons" and each.get("image_prompts") for each in models)


def test_blending_is_offered_where_a_model_can(page: Any, client: httpx.Client) -> None:
    (output,) = make(client)
    viewer = opened(page, output)
    there = int(takes_pictures(client))
    assert viewer.get_by_role("button", name="Blend with others").count() == there
    assert viewer.get_by_role("button", name="Use as reference").count() == there


def test_three_are_blended(page: Any, client: httpx.Client) -> None:
    if not takes_pictures(client):
        pytest.skip("the model icons takes no pictures as prompts yet")
    names = ["a blendable fox", "a blendable owl", "a blendable bear"]
    outputs = [make(client, prompt=name, seed=n)[0] for n, name in enumerate(names)]
    begin(page, "gallery", count=1)
    page.get_by_role("searchbox").fill("blendable")
    tiles = page.locator(".wall .tile-open")
    until(page, lambda: tiles.count() == 3)
    page.get_by_role("button", name="Choose", exact=True).click()
    blend = page.get_by_role("button", name="Blend", exact=True)
    tiles.nth(0).click()
    assert blend.is_disabled()
    tiles.nth(1).click()
    blend.click()
    sliders = page.locator(".input.weighed input")
    until(page, lambda: sliders.count() == 2)
    sliders.nth(0).fill("0.7")
    page.get_by_text("Reference 1: 70 %").wait_for()
    page.get_by_role("button", name="Picture", exact=True).click()
    page.locator(".picks button[title='a blendable fox']").click()
    until(page, lambda: sliders.count() == 3)
    page.get_by_role("button", name="Create", exact=True).click()
    until(page, lambda: newest(client)["asked"]["prompt"] == "")  # another's card may be there yet
    job = done(client, newest(client)["id"])
    card(page).locator(".tile-open").first.wait_for()
    fox, owl, bear = (each["file"] for each in outputs)
    assert job["asked"]["prompt"] == ""
    assert job["asked"]["image-prompt"] == [f"{bear}:0.7", f"{owl}:0.5", f"{fox}:0.5"]
    kin = client.get(f"/v1/outputs/{job['outputs'][0]['id']}/family").json()["parents"]
    assert {each["file"] for each in kin} == {fox, owl, bear}


def test_a_picture_is_a_reference_beside_words(page: Any, client: httpx.Client) -> None:
    if not takes_pictures(client):
        pytest.skip("the model icons takes no pictures as prompts yet")
    (output,) = make(client, prompt="a striped cat", seed=3)
    begin(page, prompt="an umbrella", count=1)
    viewer = opened(page, output)
    viewer.get_by_role("button", name="Use as reference").click()
    page.locator(".input.weighed").wait_for()
    page.get_by_role("textbox", name="What to draw").press("Enter")
    card(page).get_by_text("an umbrella").wait_for()
    asked = done(client, newest(client)["id"])["asked"]
    assert asked["image-prompt"] == [f"{output['file']}:0.5"]
    assert asked["prompt"] == "an umbrella"
    page.get_by_role("button", name="Take reference 1 out").click()
    assert page.locator(".input.weighed").count() == 0


# --- what is known of a picture ---------------------------------------------------------------


def test_the_tree_of_a_family(page: Any, client: httpx.Client) -> None:
    (first,) = make(client, prompt="a grandmother", seed=51)
    (second,) = make(client, prompt="a mother", seed=52, image=first["id"], strength="0.5")
    (third,) = make(client, prompt="a child", seed=53, image=second["id"], strength="0.5")
    make(client, prompt="an uncle", seed=54, image=first["id"], strength="0.5")
    viewer = opened(page, third)
    viewer.get_by_role("button", name="Family tree").click()
    tree = page.get_by_role("dialog", name="Family tree")
    until(page, lambda: tree.locator(".branch").count() == 4)
    words = tree.locator(".branch-words").all_inner_texts()
    assert words[0] == "a grandmother" and set(words) == {
        "a grandmother",
        "a mother",
        "a child",
        "an uncle",
    }
    assert tree.locator("[aria-current] .branch-words").inner_text() == "a child"
    assert tree.locator("ul ul ul .branch-words").all_inner_texts() == ["a child"]
    tree.get_by_role("button", name="a grandmother").click()
    page.wait_for_url(f"**/{first['id']}")


@pytest.fixture
def command(tmp_path: Path, server: Serving) -> dict[str, str]:
    """An environment in which `mezzotint` is this one, of the same user: the watermark's
    key is in the pixels."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shim = folder / "mezzotint"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mezzotint "$@"\n')
    shim.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    sources = os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)
    return server.env | {"PATH": path, "PYTHONPATH": sources}


@pytest.mark.parametrize("what", ["command", "Python", "curl"])
def test_what_is_copied_makes_the_same_pixels(
    page: Any, client: httpx.Client, what: str, tmp_path: Path, command: dict[str, str]
) -> None:
    if what != "Python" and not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("no curl, or no bash")
    (first,) = make(client, prompt='it\'s a "red" fox', seed=61)
    (second,) = make(client, prompt="a blue fox", seed=62, image=first["id"], strength="0.5")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for output in (first, second):
        viewer = opened(page, output)
        viewer.get_by_role("button", name=f"Copy as {what}").click()
        page.get_by_text(f"Copied as {what}.").last.wait_for()
        text = page.evaluate("navigator.clipboard.readText()")
        folder = tmp_path / output["seed"]
        folder.mkdir()
        call = [sys.executable, "-c", text] if what == "Python" else ["bash", "-c", text]
        ran = subprocess.run(call, cwd=folder, env=command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        made = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        assert digest(made.read_bytes()) == digest(client.get(output["url"]).content)


SAID = [
    "--output=/tmp/x",
    "-h",
    "--",
    "",
    'it\'s $(touch gone) `touch gone` ${HOME} !! \\ "quoted" ; touch gone & | > gone < * ? ~ #',
    "two\nlines\r\ttab\\n \\x41 '\n!'",
    "\x1b[201~touch gone\x07\x7f\x9b",
    "\u202egpj.exe\u202c \u2066x\u2069 \u200b\u2028\u2029\ufeff",
    "a \U0001f98a and caf\u00e9, \u72d0 @file {red|blue} %s",
]


def test_what_is_copied_says_every_text(page: Any, client: httpx.Client, tmp_path: Path) -> None:
    """The words of a picture from elsewhere are words, in a shell and in Python, never more."""
    shown = tmp_path / "shown"
    for name in ("mezzotint", "curl"):
        program = tmp_path / name
        told = (
            f"import json, sys\nopen({str(shown)!r}, 'a').write(json.dumps(sys.argv[1:]) + chr(10))"
        )
        program.write_text(f"#!{sys.executable}\n{told}\n")
        program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    page.goto("/")
    where = tmp_path / "empty"
    where.mkdir()
    for text in SAID:
        command, python, curl = page.evaluate(
            """async (options) => {
                const { command, asPython, curl } = await import("/viewer/copies.js");
                return [command(options), asPython(options), curl(options)];
            }""",
            {"prompt": text, "negative": text, "region": [text, "b"], "steps": "2"},
        )
        for each in (command, python, curl):
            assert not set(each) & set("\r\t\x1b\x07\x7f\x9b\u202e\u2066\u200b\u2028\ufeff")
        for script in (command, curl):
            shown.unlink(missing_ok=True)
            call = ["bash", "-c", script]
            subprocess.run(call, cwd=where, env=os.environ | {"PATH": path}, check=False)
            first = json.loads(shown.read_text().splitlines()[0])
            if script is command:
                regions = [f"--region={text}", "--region=b"]
                wanted = ["generate", f"--negative={text}", *regions, "--steps=2", "--", text]
                assert first == wanted
            else:
                body = json.loads(first[first.index("-d") + 1])
                assert body["prompt"] == text and body["region"] == [text, "b"]
        tree = ast.parse(python)
        dicts = [each for each in ast.walk(tree) if isinstance(each, ast.Dict)]
        said = ast.literal_eval(max(dicts, key=lambda each: len(each.keys)))
        assert said == {"prompt": text, "negative": text, "region": [text, "b"], "steps": "2"}
    assert not list(where.iterdir())


def test_models(page: Any, client: httpx.Client) -> None:
    page.goto("/#/models")
    model = page.locator("article.model", has_text="icons").first
    model.get_by_text("Licence", exact=True).first.wait_for()
    model.get_by_text("All that its file says").click()
    begin(page, "models", prompt="a fox", model="another")
    model.get_by_role("button", name="Create with it").click()
    page.wait_for_url("**/#/create")
    page.locator("form.composer").get_by_label("Style").wait_for()  # which icons has


# --- how it looks and is reached --------------------------------------------------------------


def brightness(page: Any) -> float:
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    red, green, blue = (int(each) for each in colour[4:-1].split(",")[:3])
    return (red + green + blue) / 765


def test_light_and_dark(page: Any, client: httpx.Client) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/#/queue")
    page.get_by_role("heading", name="Queue").wait_for()
    assert brightness(page) < 0.2
    page.get_by_role("button", name="Colours").click()  # from the system's to light
    until(page, lambda: brightness(page) > 0.8)
    page.reload()
    page.get_by_role("heading", name="Queue").wait_for()
    assert brightness(page) > 0.8
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Colours").click()
    until(page, lambda: brightness(page) < 0.2)


def test_from_words_to_a_file_by_keys_alone(page: Any, client: httpx.Client) -> None:
    begin(page)
    until(page, lambda: page.locator("[data-first]").count())
    keys = page.keyboard
    keys.press("/")
    keys.type("a lonely lighthouse")
    keys.press("Enter")
    card(page).get_by_text("a lonely lighthouse").wait_for()
    card(page).locator(".tile-open").nth(1).wait_for()
    keys.press("Escape")
    until(page, lambda: page.evaluate("document.activeElement.className") == "tile-open")
    keys.press("ArrowRight")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    with page.expect_download() as caught:
        keys.press("d")
    assert caught.value.suggested_filename.startswith("a-lonely-lighthouse")
    seed = caught.value.suggested_filename.rpartition("_")[2].partition(".")[0]
    assert label.endswith(f"seed {seed}")
    keys.press("Shift+V")
    card(page).get_by_text(f"vary {seed}:strong").wait_for()


def test_the_list_of_keys_is_whole(page: Any, client: httpx.Client) -> None:
    page.goto("/#/canvas")
    page.wait_for_selector(".cv-stage")
    tools = page.get_by_role("toolbar", name="Tools").get_by_role("button")
    shortcuts = [tools.nth(n).get_attribute("aria-keyshortcuts") for n in range(tools.count())]
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    listed = keys.locator("section", has_text="Tools of the canvas").locator("kbd")
    listed.first.wait_for()
    said = {text.partition(",")[0] for text in listed.all_inner_texts()}
    assert said == set(shortcuts) and len(said) == 12


def test_with_the_network_cut(server: Serving, client: httpx.Client, browser: Any) -> None:
    """In a browser that finds no other machine; and it never asks for one."""
    rules = "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    again = browser.browser_type.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", f"--host-resolver-rules={rules}"]
    )
    page = again.new_page(base_url=server.base)
    page.set_default_timeout(WAIT)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.on("requestfailed", lambda each: failed.append(each.url))
    (output,) = make(client)
    begin(page, prompt="offline", count=1)
    page.get_by_role("textbox", name="What to draw").press("Enter")
    card(page).locator(".tile-open").wait_for()
    for view in ("canvas", "grids", "gallery", "queue", "models", f"gallery/{output['id']}"):
        page.goto(f"/#/{view}")
        ready = ".panel .about" if "/" in view else "main h1"
        page.locator(ready).first.wait_for(state="attached")
    assert asked and all(url.startswith((server.base, "data:", "blob:")) for url in asked)
    again.close()
    assert [url for url in failed if not url.endswith("/v1/events")] == []


# --- many pictures ----------------------------------------------------------------------------


def seed_the_gallery(server: Serving, outputs: list[dict[str, Any]], count: int) -> None:
    """Rows as if so many had been made."""
    from sqlalchemy import insert, select

    from mezzotint.apps.server import queue, tables

    engine = tables.connect(tables.of_file(server.data / "mezzotint.db"))
    with engine.begin() as connection:
        rows = [
            connection.execute(
                select(tables.outputs).where(tables.outputs.c.id == each["id"])
            ).one()
            for each in outputs
        ]
        made = []
        for n in range(count):
            row = dict(rows[n % len(rows)]._mapping)
            del row["number"]
            made.append({**row, "id": queue.new_id(), "place": n + 100, "prompt": f"many {n:04}"})
        connection.execute(insert(tables.outputs), made)
    engine.dispose()


def test_a_thousand_pictures(page: Any, client: httpx.Client, server: Serving) -> None:
    seed_the_gallery(server, make(client, count=4, seed=70), 1000)
    page.goto("/#/gallery")
    page.get_by_role("searchbox").fill("many")
    tiles = page.locator(".wall .tile-open")
    until(page, lambda: tiles.count() == 60)  # a page of them at first
    last = 0

    def all_there() -> bool:
        nonlocal last
        page.keyboard.press("End")
        last = tiles.count()
        return last >= 1000

    page.locator("body").click(position={"x": 5, "y": 5})
    until(page, all_there)
    assert last == 1000
    names = page.evaluate(
        "[...document.querySelectorAll('.wall .tile-open')].map((each) => each.ariaLabel)"
    )
    assert [name.split(",")[0] for name in names] == [
        f"Open: many {n:04}" for n in range(999, -1, -1)
    ]
    # one that is new comes first; those that are there are not built anew, and nothing jumps
    page.evaluate("document.querySelectorAll('.wall .tile')[999].dataset.mark = 'here'")
    before = page.evaluate("scrollY")
    make(client, prompt="many and new", seed=71)
    until(page, lambda: tiles.count() == 1001)
    assert page.locator(".wall .tile").nth(1000).get_attribute("data-mark") == "here"
    assert page.evaluate("scrollY") >= before
    page.get_by_role("searchbox").fill("0500")
    until(page, lambda: tiles.count() == 1)
