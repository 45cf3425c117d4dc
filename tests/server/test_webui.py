"""AUTOMATIC1111's API, by scripts as people write them."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops, ImageDraw, PngImagePlugin
from serving import Serving, serving

from mezzotint.apps.server import given, tables, tokens, webui_asked, webui_text, wish
from mezzotint.apps.server.given import Given, Masking
from mezzotint.apps.server.webui_asked import Body, Here
from mezzotint.apps.server.wish import WishError
from mezzotint.provenance.foreign import webui as foreign

EDGE = 128
FOX = {"prompt": "a red fox", "steps": 2, "seed": 7, "width": EDGE, "height": EDGE}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server"), "--token") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[httpx.Client]:
    engine = tables.connect(tables.of_file(server.data / "mezzotint.db"))
    token = tokens.add(engine, "maker")
    engine.dispose()
    base = f"{server.base}/sdapi/v1"
    with httpx.Client(base_url=base, auth=("anybody", token), timeout=60) as found:
        yield found


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def coded(image: Image.Image, **more: Any) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", **more)
    return base64.b64encode(data.getvalue()).decode()


def made(client: httpx.Client, path: str, **asked: Any) -> tuple[list[str], dict[str, Any]]:
    """The pictures of a request, and what is said of them."""
    answer = client.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"images", "parameters", "info"}
    return answer.json()["images"], json.loads(answer.json()["info"])


@pytest.fixture(scope="module")
def fox(client: httpx.Client) -> str:
    (picture,), _ = made(client, "txt2img", **FOX)
    return picture


def seen(text: str) -> Image.Image:
    image = opened(text).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def test_pictures_from_words(client: httpx.Client) -> None:
    names = {"sampler_name": "Euler a", "scheduler": "Karras", "negative_prompt": "blue"}
    pictures, info = made(
        client,
        "txt2img",
        **FOX,
        **names,
        batch_size=2,
        cfg_scale=2,
        do_not_save_samples=True,
        override_settings={"sd_model_checkpoint": "icons [0123456789]"},
    )
    assert [opened(each).size for each in pictures] == [(EDGE, EDGE)] * 2
    assert all("parameters" in opened(each).info for each in pictures)  # with all that it carries
    assert (info["seed"], info["all_seeds"], info["sampler_name"]) == (7, [7, 8], "Euler a")
    assert info["infotexts"][1] == (
        "a red fox\nNegative prompt: blue\nSteps: 2, Sampler: Euler a, Schedule type: Karras, "
        "CFG scale: 2, Seed: 8, Size: 128x128, Model: icons, Version: mezzotint 0.1.0"
    )
    assert info["not_expressed"] == ["do_not_save_samples: the gallery keeps every picture"]


def test_a_variation(client: httpx.Client, fox: str) -> None:
    """Led by so much from the seed's noise to the other one's: at 0 it is the seed's picture."""
    pictures, info = made(client, "txt2img", **FOX, subseed=3, subseed_strength=0.2, n_iter=2)
    assert (info["all_seeds"], info["all_subseeds"]) == ([7, 7], [3, 4])
    assert "Seed: 7" in info["infotexts"][0] and "Variation seed: 3" in info["infotexts"][0]
    assert opened(pictures[0]).tobytes() != opened(pictures[1]).tobytes()
    same, _ = made(client, "txt2img", **FOX, subseed=3, subseed_strength=0)
    assert opened(same[0]).tobytes() == opened(fox).tobytes()


def test_a_second_pass(client: httpx.Client) -> None:
    more = {"hr_resize_x": 192, "hr_resize_y": 192, "hr_upscaler": "Latent (bicubic)"}
    pictures, info = made(client, "txt2img", **FOX, enable_hr=True, denoising_strength=0.5, **more)
    assert opened(pictures[0]).size == (192, 192)
    assert "Hires upscale: 1.5, Hires upscaler: Latent" in info["infotexts"][0]
    assert info["not_expressed"] == ["hr_upscaler: enlarged as Latent"]


def test_a_mask_is_white_where_something_new_is_made(client: httpx.Client, fox: str) -> None:
    mask = Image.new("L", (EDGE, EDGE))
    ImageDraw.Draw(mask).rectangle((EDGE // 2, 0, EDGE, EDGE), fill=255)
    left, right = (0, 0, EDGE // 2, EDGE), (EDGE // 2, 0, EDGE, EDGE)
    asked = {"init_images": [f"data:image/png;base64,{fox}"], "mask": coded(mask), "mask_blur": 0}
    for invert, kept, new in ((0, left, right), (1, right, left)):
        (picture,), info = made(
            client,
            "img2img",
            **FOX | asked | {"prompt": "a blue cat"},
            inpainting_mask_invert=invert,
            inpaint_full_res=False,
            inpainting_fill=1,
            denoising_strength=0.9,
        )
        apart = [ImageChops.difference(seen(fox), seen(picture)).crop(box) for box in (kept, new)]
        assert apart[0].getbbox() is None and apart[1].getbbox() is not None
        assert info["not_expressed"] == [] and info["denoising_strength"] == 0.9


def test_a_part_alone_and_a_stretched_picture(client: httpx.Client, fox: str) -> None:
    mask = Image.new("L", (EDGE, EDGE))
    ImageDraw.Draw(mask).rectangle((32, 32, 63, 63), fill=255)
    asked = {**FOX, "init_images": [fox], "mask": coded(mask), "inpaint_full_res_padding": 8}
    (picture,), info = made(client, "img2img", **asked)
    assert opened(picture).size == (EDGE, EDGE)
    assert info["not_expressed"] == ["inpainting_fill: what is masked is drawn from noise"]
    wide = coded(Image.new("RGB", (90, 60), "red"))
    _, info = made(client, "img2img", **FOX, init_images=[wide], denoising_strength=0.5)
    assert info["not_expressed"][0].startswith("resize_mode: stretched first")


def test_progress_and_interrupt(client: httpx.Client) -> None:
    found: list[httpx.Response] = []

    def ask() -> None:
        found.append(client.post("txt2img", json={**FOX, "steps": 10, "n_iter": 30}))

    thread = threading.Thread(target=ask)
    thread.start()
    end, far = time.monotonic() + 40, {}
    while not far.get("current_image") or far["state"]["job_no"] < 1:
        assert time.monotonic() < end and thread.is_alive()
        time.sleep(0.05)
        far = client.get("progress").json()
    assert 0 < far["progress"] < 1 and far["eta_relative"] > 0
    assert far["state"]["job_count"] == 30 and far["state"]["sampling_steps"] == 10
    assert opened(far["current_image"]).format == "PNG"
    shown = client.get("progress", params={"skip_current_image": True}).json()["current_image"]
    assert shown is None
    assert client.post("interrupt").json() == {}
    thread.join(20)
    assert found[0].status_code == 200
    assert 1 <= len(found[0].json()["images"]) < 30  # those that were complete
    assert client.get("progress").json()["progress"] == 0


def test_png_info(client: httpx.Client, fox: str) -> None:
    said = client.post("png-info", json={"image": fox}).json()
    assert said["info"].startswith("a red fox\nSteps: 2, Sampler: Euler a")
    assert said["parameters"]["Seed"] == "7" and said["parameters"]["Prompt"] == "a red fox"
    assert json.loads(said["items"]["parameters"])["software"].startswith("mezzotint")
    theirs = PngImagePlugin.PngInfo()
    text = "a cat\nNegative prompt: dogs\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1"
    theirs.add_text("parameters", text)
    said = client.post("png-info", json={"image": coded(Image.new("L", (8, 8)), pnginfo=theirs)})
    assert said.json()["info"] == text and said.json()["parameters"]["Negative prompt"] == "dogs"
    none = client.post("png-info", json={"image": coded(Image.new("L", (8, 8)))}).json()
    assert (none["info"], none["parameters"]) == ("", {})


def test_what_there_is(client: httpx.Client) -> None:
    euler = next(each for each in client.get("samplers").json() if each["name"] == "Euler a")
    assert "euler_ancestral" in euler["aliases"]
    labels = [each["label"] for each in client.get("schedulers").json()]
    assert {"Automatic", "Karras", "SGM Uniform"} <= set(labels)
    assert client.get("sd-models").json()[0]["title"] == "icons"
    assert client.get("memory").json()["ram"]["total"] > 0
    for empty in ("loras", "sd-vae", "hypernetworks", "face-restorers", "prompt-styles"):
        assert client.get(empty).json() == []
    assert [each["name"] for each in client.get("upscalers").json()] == ["None", "Lanczos"]
    assert client.get("embeddings").json() == {"loaded": {}, "skipped": {}}


def test_options(client: httpx.Client) -> None:
    assert client.post("options", json={"sd_model_checkpoint": "icons"}).json() is None
    assert client.get("options").json()["sd_model_checkpoint"] == "icons"
    for refused in ({"sd_model_checkpoint": "other"}, {"CLIP_stop_at_last_layers": 2}, {"x": 1}):
        assert client.post("options", json=refused).status_code == 422


def test_no_token(server: Serving) -> None:
    for auth in (None, ("anybody", "mz_no")):
        answer = httpx.post(f"{server.base}/sdapi/v1/txt2img", json=FOX, auth=auth)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Basic"
        assert set(answer.json()) == {"error", "detail", "body", "errors"}


@pytest.mark.parametrize(
    ("path", "asked", "why"),
    [
        ("txt2img", {"restore_faces": True}, "no model here that restores faces"),
        ("txt2img", {"sampler_name": "PLMS"}, "no sampler 'PLMS'"),
        ("txt2img", {"scheduler": "Turbo"}, "no scheduler 'Turbo'"),
        ("txt2img", {"prompt": "a AND b"}, "AND joins no prompts here"),
        ("txt2img", {"prompt": "<hypernet:a:1>"}, "<lora:…> alone"),
        ("txt2img", {"alwayson_scripts": {"controlnet": {}}}, "extensions do not run here"),
        ("txt2img", {"styl": 3}, "did you mean styles"),
        ("txt2img", {"width": 100, "height": None}, "give both"),
        ("txt2img", {"width": 130, "height": 130}, "nearest 128x128"),
        ("txt2img", {"steps": "many"}, "steps must be a number"),
        ("txt2img", {"steps": 1e400}, "steps must be a number"),
        ("txt2img", {"sampler_name": "DDIM", "eta": 1.0}, "eta: of ddim it is 0"),
        ("txt2img", {"enable_hr": True, "hr_upscaler": "ESRGAN"}, "Latent, Lanczos"),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "x"}}, "no model 'x'"),
        ("txt2img", {"override_settings": ["x"]}, "must be an object"),
        ("txt2img", {"refiner_checkpoint": "../x"}, "a name alone"),
        ("img2img", {}, "init_images must be"),
        ("img2img", {"init_images": ["https://a/b.png"]}, "nothing is fetched here"),
        ("img2img", {"init_images": ["AAAA"]}, "no picture of a known format"),
        ("img2img", {"init_images": ["a?"]}, "is no base64"),
    ],
)
def test_refused(client: httpx.Client, path: str, asked: dict[str, Any], why: str) -> None:
    body = json.dumps({**FOX, **asked}).replace("Infinity", "1e400")
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    said = answer.json()
    assert set(said) == {"error", "detail", "body", "errors"} and why in said["detail"]


# --- without a server -------------------------------------------------------------------------


def here(edits: bool = False) -> Here:
    return Here(
        ["euler_ancestral", "ddim", "dpmpp_2m"],
        ["karras", "linspace", "trailing"],
        {"badhand": "badhand.safetensors"},
        edits,
        lambda picture, size: Given("ef" * 32, size),
    )


WEBUIAPI = {
    "enable_hr": False,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "denoising_strength": 0.7,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "prompt": "a {cat}, badhand",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": 0,
    "seed_resize_from_w": 0,
    "sampler_name": None,
    "batch_size": 2,
    "n_iter": 3,
    "steps": None,
    "cfg_scale": 7.0,
    "width": 512,
    "height": 256,
    "restore_faces": False,
    "tiling": True,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "negative_prompt": "",
    "eta": 1.0,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "sampler_index": "DPM++ 2M Karras",
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}
"""Every field, as a client sends it that sends them all."""


def test_every_field_that_asks_for_nothing_is_taken() -> None:
    body = Body(WEBUIAPI, {"override_settings", "send_images"})
    found = webui_asked.from_words(body, here())
    assert body.left == []
    assert {name: value for name, value in found.items() if value is not None} == {
        "prompt": "a \\{cat\\}, badhand",
        "size": "512x256",
        "count": 6,
        "guidance": 7.0,
        "sampler": "dpmpp_2m",
        "spacing": "karras",
        "tile": "both",
        "embedding": ["badhand.safetensors"],
    }


_ODD = (None, True, -1, 0, 1e308, 10**30, "", "x", "\ud800", "a/../b", [], [[]], {}, {"a": [1]})


def test_odd_values_are_refused_or_understood() -> None:
    """Whatever stands in a field: a wish, or one line that says what is wrong."""
    fields = {*WEBUIAPI, *webui_asked._NEUTRAL, *webui_asked._HARMLESS}
    fields |= {"refiner_checkpoint", "refiner_switch_at", "scheduler", "init_images", "mask_blur"}
    fields |= {"inpaint_full_res_padding", "inpainting_fill", "resize_mode", "image_cfg_scale"}
    picture, taken = Given("ab" * 32, (64, 64)), 0
    for name in sorted(fields):
        for value in _ODD:
            given_ = {"prompt": "a", "width": 64, "height": 64, "enable_hr": True, name: value}
            for words in (True, False):
                body = Body(given_, {"override_settings", "send_images"})
                try:
                    webui_asked.settings(given_.get("override_settings") or {}, [])
                    if words:
                        found = webui_asked.from_words(body, here())
                    else:
                        body = Body({**given_, "enable_hr": False}, body.read)
                        found = webui_asked.from_picture(body, here(), picture, lambda of, _: of)
                    if words and value in (-1, "x"):
                        wish.read(found)
                    taken += 1
                except WishError as error:
                    assert "\n" not in str(error)
    assert taken > 200


def test_half_a_character_is_no_fault(client: httpx.Client, server: Serving) -> None:
    body = '{"prompt": "a", "steps": 1, "%s": {}}'
    kind = {"content-type": "application/json"}
    answer = client.post("txt2img", content=body % r"\ud800", headers=kind)
    assert answer.status_code == 422 and "no field" in answer.json()["detail"]
    answer = client.post("txt2img", content=body % "comments", headers=kind)
    assert answer.status_code == 200
    for path in ("jobs", "images/generations"):
        address = f"{server.base}/v1/{path}"
        token = client.auth._auth_header.split()[1]  # type: ignore[union-attr]
        token = base64.b64decode(token).decode().partition(":")[2]
        headers = {**kind, "authorization": f"Bearer {token}"}
        answer = httpx.post(address, content=body % r"\ud800", headers=headers)
        assert answer.status_code in (400, 422) and answer.json()["error"]["message"]


def test_a_model_that_edits_is_told_the_picture() -> None:
    picture = Given("ab" * 32, (64, 64))
    body = Body({"prompt": "a", "init_images": [""], "image_cfg_scale": 1.5})
    found = webui_asked.from_picture(body, here(edits=True), picture, None)
    assert (found["reference"], found["image_guidance"]) == ("ab" * 32, 1.5)
    assert found["strength"] is None and "image" not in found
    with pytest.raises(WishError, match="leave the mask out"):
        webui_asked.from_picture(
            Body({"prompt": "a", "init_images": [""], "mask": ""}),
            here(edits=True),
            picture,
            lambda of, how: of,
        )


def test_masks() -> None:
    mask = Image.new("L", (8, 8), 100)
    ImageDraw.Draw(mask).rectangle((4, 0, 7, 7), fill=200)
    data = base64.b64decode(coded(mask))

    def row(how: Masking, size: tuple[int, int] = (8, 8)) -> list[int]:
        image = Image.open(io.BytesIO(given.white_is_new(data, size, how)))
        assert image.mode == "L" and image.size == size
        return [int(image.getpixel((x, 0)) or 0) for x in range(size[0])]  # type: ignore[arg-type]

    assert row(Masking(False, 0, True)) == [0] * 4 + [255] * 4
    assert row(Masking(True, 0, True)) == [255] * 4 + [0] * 4
    assert row(Masking(False, 0, False)) == [100] * 4 + [200] * 4
    blurred = row(Masking(False, 2, True))
    assert blurred == sorted(blurred) and 0 < blurred[3] < 128 < blurred[4] < 255
    assert row(Masking(False, 0, True), (16, 4))[0] == 0


def test_our_text_is_read_by_who_reads_theirs() -> None:
    options = {
        "prompt": "a fox, red: yes",
        "negative": "blue",
        "steps": "20",
        "sampler": "euler_ancestral",
        "spacing": "karras",
        "guidance": "7.0",
        "seed": "5",
        "size": "512x768",
        "model": "a,b.safetensors",
    }
    text = webui_text.infotext({"software": "mezzotint 0.1.0", "options": options})
    read = foreign.read(text).options
    kept = ("prompt", "negative", "steps", "sampler", "spacing", "guidance", "seed", "size")
    assert {name: read.get(name) for name in kept} == {name: options[name] for name in kept}
    assert webui_text.parsed(text)["Model"] == "a,b.safetensors"
    assert webui_text.parsed("just words") == {"Prompt": "just words", "Negative prompt": ""}


def test_the_documentation_names_every_field() -> None:
    """docs/server/apis.md says of each field that is refused or ignored that it is."""
    text = (Path(__file__).parents[2] / "docs/server/apis.md").read_text("utf-8")
    for name in (*webui_asked._NEUTRAL, *webui_asked._HARMLESS):
        assert f"`{name}`" in text, name
