"""The canvas and the grids, from the pointer to the pixels of the file that is downloaded."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from test_studio import make, until

WANTED = {"prompt": "a red fox", "count": 2, "steps": "2", "seed": "7"}


@pytest.fixture(autouse=True)
def no_canvas(client: httpx.Client) -> None:
    """The last canvas would be opened."""
    for each in client.get("/v1/canvases").json()["canvases"]:
        client.delete(f"/v1/canvases/{each['id']}")


def begin(page: Any) -> None:
    page.goto("/#/canvas")
    page.wait_for_selector(".cv-stage")
    page.wait_for_timeout(200)


def pixels(page: Any) -> np.ndarray:
    """The picture, as it is downloaded."""
    page.get_by_role("button", name="Canvas", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Download …").click()
        page.get_by_role("dialog").get_by_role("button", name="Download").click()
    page.get_by_role("dialog").wait_for(state="detached")
    with Image.open(io.BytesIO(download.value.path().read_bytes())) as image:
        return np.array(image.convert("RGBA"))


def asked_last(client: httpx.Client) -> dict[str, Any]:
    """What was last to be drawn."""
    jobs = client.get("/v1/jobs", params={"limit": 20}).json()["jobs"]
    return next(job["asked"] for job in jobs if job["kind"] == "generate")


def drag(page: Any, *points: tuple[float, float]) -> None:
    """Drag over points of the frame, given as shares of it."""
    frame = page.evaluate(
        """async () => {
            const { session } = await import('/canvas/session.js');
            const { frame } = session.value.editor.document;
            const box = document.querySelector('.cv-stage').getBoundingClientRect();
            const room = box.width < 500 ? 24 : 72;
            const fits = Math.min(
                (box.width - room) / frame.width, (box.height - room) / frame.height);
            const zoom = fits > 2 ? Math.floor(fits) : fits;
            const [width, height] = [frame.width * zoom, frame.height * zoom];
            const left = box.x + (box.width - width) / 2, top = box.y + (box.height - height) / 2;
            return [left, top, width, height];
        }"""
    )
    left, top, width, height = frame
    spots = [(left + x * width, top + y * height) for x, y in points]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=6)
    page.mouse.up()


def tool(page: Any, name: str) -> None:
    page.get_by_role("toolbar", name="Tools").get_by_role("button", name=name, exact=True).click()


def want(page: Any, **by: Any) -> None:
    """Set what is to be drawn."""
    wanted = {**WANTED, **by}
    page.locator(".cv-draw textarea").fill(wanted["prompt"])
    more = page.locator(".cv-draw details")
    if more.get_attribute("open") is None:
        more.locator("summary").click()
    page.get_by_label("Steps").fill(wanted["steps"])
    page.get_by_label("Seed").fill(wanted["seed"])
    page.locator(".cv-draw .cv-slider", has_text="Candidates").locator("input").fill(
        str(wanted["count"])
    )


def drawn(page: Any, count: int = 2) -> None:
    """Ask, wait for all candidates, and use the one that is shown."""
    page.locator(".cv-draw button[type=submit]").click()
    until(page, lambda: page.locator(".cv-strip .cv-thumb[aria-label*=seed]").count() == count)


def use(page: Any) -> None:
    page.get_by_role("button", name="Use", exact=True).click()
    page.locator(".cv-candidates").wait_for(state="detached")


def saved(page: Any) -> None:
    until(page, lambda: page.locator(".cv-saved").inner_text() == "Saved")


def keys(page: Any, *pressed: str) -> None:
    page.locator(".cv-stage").focus()
    for key in pressed:
        page.keyboard.press(key)


def undone(page: Any, key: str, words: str) -> None:
    keys(page, key)
    page.get_by_text(words).last.wait_for()
    page.wait_for_timeout(50)


def test_painting_is_undone_and_done_again_to_the_byte(page: Any) -> None:
    begin(page)
    states = [pixels(page)]
    assert states[0].shape == (128, 128, 4) and not states[0].any()
    tool(page, "Brush")
    drag(page, (0.2, 0.2), (0.8, 0.6))
    states.append(pixels(page))
    tool(page, "Shapes")
    drag(page, (0.5, 0.5), (0.9, 0.9))
    states.append(pixels(page))
    tool(page, "Eraser")
    drag(page, (0.1, 0.5), (0.9, 0.5))
    states.append(pixels(page))
    tool(page, "Fill")
    drag(page, (0.05, 0.95), (0.05, 0.95))
    states.append(pixels(page))
    for before, after in itertools.pairwise(states):
        assert (before != after).any()
    for n, name in ((3, "fill"), (2, "eraser"), (1, "rectangle"), (0, "brush")):
        undone(page, "Control+z", f"Undone: {name}")
        np.testing.assert_array_equal(pixels(page), states[n])
    for n, name in ((1, "brush"), (2, "rectangle"), (3, "eraser"), (4, "fill")):
        undone(page, "Control+Shift+Z", f"Done again: {name}")
        np.testing.assert_array_equal(pixels(page), states[n])


def test_a_selection_is_filled_and_the_rest_stays(page: Any, client: httpx.Client) -> None:
    begin(page)
    want(page)
    drawn(page)
    use(page)
    before = pixels(page)
    assert before[..., 3].any()
    tool(page, "Select a rectangle")
    drag(page, (0.25, 0.25), (0.75, 0.75))
    want(page, prompt="a green tree", seed="9")
    drawn(page)
    first = pixels(page)
    np.testing.assert_array_equal(first, before)  # looked at is not used
    page.keyboard.press("ArrowRight")
    use(page)
    after = pixels(page)
    changed = (after != before).any(-1)
    assert changed[40:88, 40:88].any()
    changed[32:96, 32:96] = False
    assert not changed.any()
    asked = asked_last(client)
    assert {"image", "mask"} <= set(asked) and asked["prompt"] == "a green tree"
    undone(page, "Control+z", "Undone: fill the selection")
    np.testing.assert_array_equal(pixels(page), before)


def test_a_mask_is_painted_with_a_soft_edge(page: Any) -> None:
    begin(page)
    tool(page, "Shapes")
    drag(page, (0, 0), (1, 1))
    before = pixels(page)
    tool(page, "Paint the mask")
    drag(page, (0.4, 0.5), (0.6, 0.5))
    page.get_by_role("button", name="Add", exact=True).click()
    drag(page, (0.5, 0.4), (0.5, 0.6))
    want(page, prompt="a red ball", count=1)
    drawn(page, 1)
    use(page)
    changed = (pixels(page) != before).any(-1)
    assert 0 < changed.sum() < 0.2 * changed.size
    assert changed[64, 64] and not changed[:30].any() and not changed[98:].any()


def test_the_frame_is_expanded_and_filled(page: Any, client: httpx.Client) -> None:
    begin(page)
    tool(page, "Brush")
    drag(page, (0.3, 0.3), (0.7, 0.7))
    before = pixels(page)
    tool(page, "Expand the frame")
    drag(page, (1, 0.5), (1.25, 0.5))
    until(page, lambda: page.get_by_text("160 × 128").count())
    assert pixels(page).shape == (128, 160, 4)
    want(page, count=1)
    drawn(page, 1)
    use(page)
    after = pixels(page)
    np.testing.assert_array_equal(after[:, :128], before)
    asked = asked_last(client)
    assert asked["expand"] == "left=0,top=0,right=32,bottom=0"
    undone(page, "Control+z", "Undone: fill the new frame")
    undone(page, "Control+z", "Undone: frame")
    np.testing.assert_array_equal(pixels(page), before)


def test_it_reopens_as_it_was(page: Any, browser: Any, client: httpx.Client) -> None:
    begin(page)
    tool(page, "Brush")
    drag(page, (0.2, 0.3), (0.8, 0.5))
    empty_layer = page.get_by_role("button", name="New layer")
    empty_layer.click()
    drag(page, (0.2, 0.7), (0.8, 0.9))
    page.get_by_label("Name of the canvas").fill("Two strokes <b>")
    page.get_by_label("Name of the canvas").press("Enter")
    page.locator(".cv-draw textarea").fill("a fox on them")
    tool(page, "Lasso")
    drag(page, (0.2, 0.2), (0.8, 0.2), (0.5, 0.8))
    before = pixels(page)
    saved(page)

    def check(page: Any) -> None:
        page.wait_for_selector(".cv-stage")
        assert page.get_by_label("Name of the canvas").input_value() == "Two strokes <b>"
        assert page.locator(".cv-draw textarea").input_value() == "a fox on them"
        assert page.locator(".cv-layer").count() == 2
        assert "a part is selected" in (page.locator(".cv-stage").get_attribute("aria-label") or "")
        np.testing.assert_array_equal(pixels(page), before)

    page.reload()
    check(page)
    undone(page, "Control+z", "Undone: lasso")  # the history too
    undone(page, "Control+z", "Undone: brush")
    assert (pixels(page) != before).any()
    keys(page, "Control+y", "Control+y")
    np.testing.assert_array_equal(pixels(page), before)
    saved(page)
    listed = client.get("/v1/canvases").json()["canvases"]
    assert [each["name"] for each in listed][:1] == ["Two strokes <b>"]
    with browser.new_context(base_url=page.url.split("/#")[0]) as elsewhere:
        other = elsewhere.new_page()  # another browser, which has it from the server
        other.goto("/#/canvas")
        check(other)


def test_a_reload_in_the_middle_of_a_job_loses_nothing(page: Any) -> None:
    begin(page)
    want(page, steps="8", count=2)
    page.locator(".cv-draw button[type=submit]").click()
    page.locator(".cv-candidates").wait_for()
    page.reload()
    until(page, lambda: page.locator(".cv-strip .cv-thumb[aria-label*=seed]").count() == 2)
    use(page)
    assert pixels(page).any()


def test_layers_are_hidden_ordered_merged(page: Any) -> None:
    begin(page)
    tool(page, "Shapes")
    drag(page, (0.1, 0.1), (0.6, 0.6))
    page.get_by_role("button", name="New layer").click()
    page.locator(".cv-colour input").fill("#0044ff")
    drag(page, (0.4, 0.4), (0.9, 0.9))
    both = pixels(page)
    assert tuple(both[64, 64]) == (0, 0x44, 0xFF, 255)
    page.get_by_role("button", name="Layer down").click()
    assert tuple(pixels(page)[64, 64][:3]) == (0x9A, 0x4A, 0x22)
    page.get_by_role("button", name="Layer up").click()
    np.testing.assert_array_equal(pixels(page), both)
    page.get_by_role("button", name="Hide Layer 2").click()
    assert tuple(pixels(page)[64, 64][:3]) == (0x9A, 0x4A, 0x22)
    page.get_by_role("button", name="Show Layer 2").click()
    page.get_by_role("button", name="Merge with the layer below").click()
    until(page, lambda: page.locator(".cv-layer").count() == 1)
    np.testing.assert_array_equal(pixels(page), both)


def test_pictures_are_placed(page: Any, client: httpx.Client) -> None:
    begin(page)
    file = io.BytesIO()
    Image.new("RGB", (32, 16), "#12ab34").save(file, "PNG")
    page.get_by_role("button", name="Canvas", exact=True).click()
    page.get_by_role("menuitem", name="Place a picture").click()
    given = {"name": "<img src=x>.png", "mimeType": "image/png", "buffer": file.getvalue()}
    page.locator("dialog input[type=file]").set_input_files(given)
    page.locator(".cv-layer", has_text="<img src=x>.png").wait_for()
    found = pixels(page)
    assert (found[56:72, 48:80] == (0x12, 0xAB, 0x34, 255)).all()
    assert not found[:56].any()


def test_a_picture_of_the_gallery_is_masked_and_painted(page: Any, client: httpx.Client) -> None:
    (output,) = make(client, seed=11)
    page.goto(f"/#/gallery/{output['id']}")
    page.get_by_role("button", name="Mask and paint").first.click()
    page.wait_for_selector(".cv-stage")
    assert page.get_by_label("Name of the canvas").input_value() == "a red fox"
    with Image.open(io.BytesIO(client.get(output["url"]).content)) as image:
        np.testing.assert_array_equal(pixels(page), np.array(image.convert("RGBA")))


def test_a_grid_is_made_and_found_again(page: Any, client: httpx.Client) -> None:
    asked = {
        "prompt": "a red fox",
        "model": "icons",
        "steps": "2",
        "seed": "5",
        "size": "",
        "axes": [
            {"field": "prompt: search and replace", "values": "fox, <b>owl"},
            {"field": "guidance", "values": "1-3 (+2)"},
            {"field": "", "values": ""},
        ],
    }
    kept = json.dumps(json.dumps(asked))
    page.add_init_script(f"localStorage['mezzotint.grid.asked'] = {kept};")
    page.goto("/#/grids")
    page.get_by_role("button", name="Make 4 pictures").click()
    until(page, lambda: page.locator("td button.gr-cell").count() == 4)
    assert page.locator("th[scope=col]").all_inner_texts() == ["prompt fox", "prompt <b>owl"]
    assert page.locator("th[scope=row]").all_inner_texts() == ["guidance 1", "guidance 3"]
    jobs = client.get("/v1/jobs", params={"limit": 4}).json()["jobs"]
    assert {(job["asked"]["prompt"], job["asked"]["guidance"]) for job in jobs} == {
        (f"a red {animal}", guidance) for animal in ("fox", "<b>owl") for guidance in ("1", "3")
    }
    assert {job["asked"]["seed"] for job in jobs} == {"5"}
    page.reload()
    until(page, lambda: page.locator("td button.gr-cell").count() == 4)
    assert len(client.get("/v1/jobs", params={"limit": 1}).json()["jobs"]) == 1
    assert client.get("/v1/jobs", params={"limit": 1}).json()["jobs"][0]["id"] == jobs[0]["id"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Labelled sheet").click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.width >= 2 * 128 and sheet.height >= 2 * 128


@pytest.mark.parametrize("size", [(390, 780), (1280, 800), (3840, 2160)])
def test_everything_has_its_place(page: Any, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    begin(page)
    drag(page, (0.3, 0.3), (0.6, 0.6))
    assert pixels(page).any()
    stage = page.locator(".cv-stage").bounding_box()
    assert stage["height"] > size[1] * 0.4
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for view in ("canvas", "grids"):
        page.goto(f"/#/{view}")
        page.wait_for_timeout(100)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('main button, main input, main select')]
                .filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim()
                    || each.labels?.length)).map((each) => each.outerHTML)"""
        )
        assert nameless == []
