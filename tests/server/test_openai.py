"""OpenAI's Images API, by OpenAI's own client."""

from __future__ import annotations

import base64
import io
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image, ImageChops, ImageDraw
from serving import Serving, serving

from mezzotint.apps.server import given, links, tables, tokens
from mezzotint.apps.server.gallery import UploadError
from mezzotint.apps.server.openai_asked import Edit, Generation, edit, generation
from mezzotint.apps.server.wish import WishError

FEW = {"steps": 2, "seed": 7}
EDGE = 128


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    alias = "--alias=gpt-image-1=icons"
    with serving(tmp_path_factory.mktemp("server"), "--token", alias) as running:
        yield running


def client_of(server: Serving, name: str, **limits: Any) -> Iterator[openai.OpenAI]:
    engine = tables.connect(tables.of_file(server.data / "mezzotint.db"))
    token = tokens.add(engine, name, **limits)
    engine.dispose()
    with openai.OpenAI(base_url=f"{server.base}/v1", api_key=token, max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    yield from client_of(server, "maker")


def bytes_of(picture: Any) -> bytes:
    return base64.b64decode(picture.b64_json)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def png(image: Image.Image) -> tuple[str, bytes, str]:
    data = io.BytesIO()
    image.save(data, "PNG")
    return ("picture.png", data.getvalue(), "image/png")


@pytest.fixture(scope="module")
def fox(client: openai.OpenAI) -> bytes:
    made = client.images.generate(prompt="a red fox", model="icons", extra_body=FEW)
    assert made.data is not None
    return bytes_of(made.data[0])


def seen(data: bytes) -> Image.Image:
    image = opened(data).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def test_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["icons", "gpt-image-1"]
    assert client.models.retrieve("icons").object == "model"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-2'"):
        client.models.retrieve("gpt-2")


def test_two_pictures(client: openai.OpenAI, server: Serving) -> None:
    made = client.images.generate(prompt="a red fox", n=2, size="auto", extra_body=FEW)
    assert made.data is not None
    assert (made.size, made.output_format, made.quality) == ("128x128", "png", "medium")
    assert made.background == "transparent" and made.created > 1.7e9
    images = [opened(bytes_of(each)) for each in made.data]
    assert [image.mode for image in images] == ["RGBA", "RGBA"]
    assert images[0].tobytes() != images[1].tobytes()
    assert all("parameters" in image.info for image in images)  # with all that it carries
    headers = {"authorization": f"Bearer {client.api_key}"}
    job = httpx.get(f"{server.base}/v1/jobs/{made._request_id}", headers=headers).json()
    assert [each["seed"] for each in job["outputs"]] == ["7", "8"]


def test_an_address_needs_no_token_and_expires(client: openai.OpenAI, server: Serving) -> None:
    made = client.images.generate(
        prompt="a red fox",
        model="gpt-image-1",
        response_format="url",
        output_format="webp",
        output_compression=50,
        background="opaque",
        extra_body=FEW,
    )
    assert made.data is not None and made.data[0].url is not None
    url = made.data[0].url
    answer = httpx.get(url)
    image = opened(answer.content)
    assert (image.format, image.mode) == ("WEBP", "RGB")
    headers = {"authorization": f"Bearer {client.api_key}"}
    named = {"picture": made.data[0].model_dump()["id"]}
    verdict = httpx.post(f"{server.base}/v1/verify", json=named, headers=headers, timeout=60).json()
    assert verdict["verdict"] == "bit-equal" and "as WEBP has stored it" in verdict["said"]
    assert httpx.get(url.partition("?")[0]).status_code == 400
    assert httpx.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    later = httpx.URL(url).copy_set_param("until", "9999999999")
    assert httpx.get(later).status_code == 403
    key = server.data / "links.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_old_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, name = links.key(tmp_path), "ab" * 16
    assert links.key(tmp_path) == secret and len(secret) == 32
    monkeypatch.setattr(links.time, "time", lambda: 1000.0)
    said = dict(part.split("=") for part in links.signed(secret, name).split("&"))
    until = int(said["until"])
    assert links.is_signed(secret, name, until, said["signed"])
    assert not links.is_signed(secret, "cd" * 16, until, said["signed"])
    monkeypatch.setattr(links.time, "time", lambda: 1000.0 + links.SECONDS)
    assert not links.is_signed(secret, name, until, said["signed"])


def test_a_stream_of_partial_pictures(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt="a red fox",
        stream=True,
        partial_images=2,
        output_format="jpeg",
        extra_body={"steps": 6, "seed": 7},
    )
    events = list(stream)
    *partial, whole = events
    assert whole.type == "image_generation.completed" and whole.usage.total_tokens == 0
    assert whole.size == "128x128" and opened(bytes_of(whole)).format == "JPEG"
    assert 1 <= len(partial) <= 2
    for number, event in enumerate(partial):
        assert event.type == "image_generation.partial_image"
        assert event.partial_image_index == number
        assert opened(bytes_of(event)).format == "JPEG"


def test_a_mask_is_transparent_where_something_new_is_made(
    client: openai.OpenAI, fox: bytes
) -> None:
    mask = Image.new("RGBA", (EDGE, EDGE), "white")
    mask.paste((0, 0, 0, 0), (EDGE // 2, 0, EDGE, EDGE))
    made = client.images.edit(
        image=("fox.png", fox, "image/png"), mask=png(mask), prompt="a blue cat", extra_body=FEW
    )
    assert made.data is not None
    before, after = seen(fox), seen(bytes_of(made.data[0]))
    left, right = (0, 0, EDGE // 2, EDGE), (EDGE // 2, 0, EDGE, EDGE)
    assert ImageChops.difference(before.crop(left), after.crop(left)).getbbox() is None
    assert ImageChops.difference(before.crop(right), after.crop(right)).getbbox() is not None


def test_an_edit_streamed_at_the_aspect_of_its_picture(client: openai.OpenAI) -> None:
    picture = png(Image.new("RGB", (90, 60), "red"))
    stream = client.images.edit(image=[picture], prompt="a cat", stream=True, extra_body=FEW)
    assert [(event.type, event.size) for event in stream] == [("image_edit.completed", "160x104")]


def test_several_pictures_are_refused_where_the_model_takes_one(
    client: openai.OpenAI, fox: bytes
) -> None:
    with pytest.raises(openai.BadRequestError, match="icons takes 1 of the 2 pictures") as caught:
        client.images.edit(image=[fox, fox], prompt="a cat")
    assert caught.value.param == "image"


def test_variations_of_what_was_made_here_and_elsewhere(
    client: openai.OpenAI, fox: bytes, server: Serving
) -> None:
    with pytest.deprecated_call():
        made = client.images.create_variation(image=fox, extra_body={"seed": 5})
    headers = {"authorization": f"Bearer {client.api_key}"}
    assert made.data is not None
    job = httpx.get(f"{server.base}/v1/jobs/{made._request_id}", headers=headers).json()
    asked = job["asked"]
    assert (asked["vary"], asked["prompt"], asked["seed"]) == ("7:strong", "a red fox", "5")
    assert "image" not in asked
    with pytest.deprecated_call():
        other = client.images.create_variation(
            image=png(Image.new("RGB", (64, 64), "red")), extra_body=FEW
        )
    job = httpx.get(f"{server.base}/v1/jobs/{other._request_id}", headers=headers).json()
    assert "vary" not in job["asked"] and len(job["asked"]["image"]) == 64


def test_a_key_makes_one_job(client: openai.OpenAI) -> None:
    """Without a seed too, which is drawn by the key."""
    ids = []
    for prompt in ("a cat", "a cat", "a dog"):
        call = client.images.with_raw_response.generate
        try:
            headers = {"Idempotency-Key": "once"}
            answer = call(prompt=prompt, extra_body={"steps": 2}, extra_headers=headers)
            ids.append(answer.headers["x-request-id"])
        except openai.ConflictError as error:
            ids.append(error.message)
    assert ids[0] == ids[1] and "was used for another request" in ids[2]


def test_a_job_whose_client_goes_is_cancelled(client: openai.OpenAI, server: Serving) -> None:
    """Unless a key says that he may come back."""
    headers = {"authorization": f"Bearer {client.api_key}"}
    jobs = f"{server.base}/v1/jobs"
    for key, state in (("back", "running"), (None, "cancelled")):
        asked = {"prompt": "a bear", "n": 10, "extra_body": {"steps": 100}, "timeout": 1.0}
        more = {} if key is None else {"Idempotency-Key": key}
        with pytest.raises(openai.APITimeoutError):
            client.images.generate(**asked, extra_headers=more)

        def newest() -> dict[str, Any]:
            return httpx.get(jobs, headers=headers).json()["jobs"][0]

        server.until(lambda state=state: newest()["state"] == state)
        httpx.delete(f"{jobs}/{newest()['id']}", headers=headers)


@pytest.mark.parametrize(
    ("asked", "kind", "param", "why"),
    [
        ({"model": "dall-e-3"}, openai.NotFoundError, "model", "no model 'dall-e-3': there is"),
        ({"n": 11}, openai.BadRequestError, "n", "less than or equal to 10"),
        ({"size": "big"}, openai.BadRequestError, "size", "is no size"),
        ({"size": "130x130"}, openai.BadRequestError, None, "nearest 128x128"),
        ({"quality": "best"}, openai.BadRequestError, "quality", "low, medium, high"),
        ({"style": "natural"}, openai.BadRequestError, "style", "say it in the prompt"),
        ({"extra_body": {"sead": 1}}, openai.BadRequestError, "sead", "did you mean seed"),
        ({"extra_body": {"lora": "../x"}}, openai.BadRequestError, "lora", "a name alone"),
        ({"prompt": "a\0b"}, openai.BadRequestError, "prompt", "not to be seen"),
        ({"output_compression": 5}, openai.BadRequestError, "output_compression", "of jpeg and"),
        ({"partial_images": 1}, openai.BadRequestError, "partial_images", "needs stream"),
        (
            {"background": "transparent", "output_format": "jpeg"},
            openai.BadRequestError,
            "background",
            "take png or webp",
        ),
    ],
)
def test_refused(
    client: openai.OpenAI, asked: dict[str, Any], kind: type[Exception], param: str, why: str
) -> None:
    with pytest.raises(kind, match=why) as caught:
        client.images.generate(**{"prompt": "a fox", **asked})
    assert isinstance(caught.value, openai.APIStatusError)
    body = caught.value.body
    assert isinstance(body, dict) and set(body) == {"message", "type", "param", "code"}
    assert (body["type"], body["param"]) == ("invalid_request_error", param)


def test_no_token(server: Serving) -> None:
    with openai.OpenAI(base_url=f"{server.base}/v1", api_key="mz_no", max_retries=0) as nobody:
        with pytest.raises(openai.AuthenticationError, match="not known, or was revoked") as caught:
            nobody.images.generate(prompt="a fox")
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            nobody.models.list()


def test_too_many_jobs(server: Serving) -> None:
    for busy in client_of(server, "busy", jobs=1):
        call = {"headers": {"authorization": f"Bearer {busy.api_key}"}}
        wish = {"prompt": "a fox", "count": 40}
        job = httpx.post(f"{server.base}/v1/jobs", json=wish, **call).json()  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError) as caught:
            busy.images.generate(prompt="a fox")
        assert caught.value.response.headers["retry-after"] == "5"
        assert caught.value.code == "rate_limit_exceeded"
        httpx.delete(f"{server.base}/v1/jobs/{job['id']}", **call)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "fields", "why"),
    [
        ({}, {"prompt": "a"}, "a picture is needed"),
        ({"image": b"nothing"}, {"prompt": "a"}, "no picture of a known format"),
        ({"image": png(Image.new("RGB", (8, 8)))}, {}, "prompt: Field required"),
        ({"image": png(Image.new("RGB", (8, 8))), "x": b""}, {"prompt": "a"}, "no picture 'x'"),
        (
            {"image": png(Image.new("RGB", (8, 8))), "mask": png(Image.new("RGBA", (9, 8)))},
            {"prompt": "a"},
            "the mask is 9x8 and the picture 8x8",
        ),
    ],
)
def test_forms_that_are_refused(
    client: openai.OpenAI, server: Serving, files: Any, fields: dict[str, str], why: str
) -> None:
    answer = httpx.post(
        f"{server.base}/v1/images/edits",
        headers={"authorization": f"Bearer {client.api_key}"},
        files=files or {"other": (None, "")},
        data=fields,
    )
    assert answer.status_code == 400, answer.text
    assert why in answer.json()["error"]["message"]


# --- without a server -------------------------------------------------------------------------

ABOUT = {"usual": {"size": "1024x1024", "steps": 28, "transparent": False, "edits": True}}
PICTURES = [given.Given("ab" * 32, (90, 60)), given.Given("cd" * 32, (64, 64))]


def test_quality_is_a_share_of_the_models_steps() -> None:
    for quality, steps in {"low": 14, "auto": None, "hd": 56, "max": 112}.items():
        asked = Generation.model_validate({"prompt": "a", "quality": quality})
        assert generation(asked, ABOUT)["steps"] == steps
    with pytest.raises(WishError, match="give steps in place of quality"):
        generation(Generation.model_validate({"prompt": "a", "quality": "low"}), {})
    own = Generation.model_validate({"prompt": "a", "quality": "low", "steps": 3})
    assert generation(own, ABOUT)["steps"] == 3


def test_a_model_that_edits_is_told_the_picture() -> None:
    asked = Edit.model_validate({"prompt": "a"})
    one = edit(asked, ABOUT, PICTURES[:1], None)
    assert (one.get("image"), one["reference"], one["size"]) == (None, "ab" * 32, "3:2")
    two = edit(asked, ABOUT, PICTURES, None)
    assert (two["image"], two["reference"]) == ("ab" * 32, "cd" * 32)
    with pytest.raises(WishError, match="takes 2 of the 3 pictures"):
        edit(asked, ABOUT, [*PICTURES, PICTURES[0]], None)
    with pytest.raises(WishError, match="without a mask"):
        edit(asked, ABOUT, PICTURES[:1], PICTURES[1])


def test_masks() -> None:
    mask = Image.new("RGBA", (8, 8), "white")
    ImageDraw.Draw(mask).rectangle((4, 0, 7, 7), fill=(9, 9, 9, 0))
    ours = opened(given.transparent_is_new(png(mask)[1], (8, 8)))
    assert ours.mode == "L" and [ours.getpixel((x, 0)) for x in (0, 7)] == [0, 255]
    with pytest.raises(UploadError, match="transparent nowhere"):
        given.transparent_is_new(png(Image.new("RGB", (8, 8)))[1], (8, 8))


@pytest.mark.parametrize(
    ("size", "aspect"), [((90, 60), "3:2"), ((64, 64), "1:1"), ((9000, 10), "4:1")]
)
def test_aspects(size: tuple[int, int], aspect: str) -> None:
    assert given.Given("", size).aspect == aspect
