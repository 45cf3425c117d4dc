"""Hostile texts, from every way in to every view: they are shown as they stand, and do nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from driving import WAIT
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from serving import Serving, serving
from test_studio import begin, drop, make, until

PAYLOADS = {
    "script": "<script class=xss>fired(1)</script>",
    "image": '"><img class=xss src=x onerror=fired(2)>',
    "svg": "'><svg class=xss onload=fired(3)><animate onbegin=fired(4) attributeName=x dur=1s>",
    "address": "javascript:fired(5)//\"'><a class=xss href=javascript:fired(6)>x</a>",
    "title": "</title></textarea></style><script class=xss>fired(7)</script>",
    "template": "`${fired(8)}` #{fired(8)} [[fired(8)]] &lt;b&gt; &#60;b&#62; \\x3cb\\x3e \\u003cb",
    "style": "</style><style class=xss>*{background:url(http://evil.invalid/a)}</style> red;}*{}",
    "frame": "<iframe class=xss srcdoc='<script>parent.fired(9)</script>'></iframe>",
    "elsewhere": "<img class=xss src=//evil.invalid/b><link rel=import href=//e.invalid>",
    "unicode": "\uff1cscript\uff1efired(10)\uff1c/script\uff1e \u02bcx\u02ba <\u0131mg> \u212a",
    "bidi": "\u202egpj.exe\u202c \u2066x\u2069 \u200bzero\u200d \u2028fired(11)\u2029",
    "mutation": "<math><mtext><table><mglyph><style><!--</style><img class=xss onerror=fired(12)>",
    "comment": "--><!--<img class=xss src onerror=fired(13)>]]><b class=xss onclick=fired(14)>",
    "proto": '{"__proto__": {"innerHTML": "<b class=xss>"}, "dangerouslySetInnerHTML": 1}',
}
SHORT = '"><img class=xss src=x onerror=fired(20)>'
"""Where only a hundred characters go in, or a name is to be a file's (which has no slash)."""

LISTEN = """
addEventListener("securitypolicyviolation",
    (event) => fired(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""
# Whatever of a payload has become an element, even one that the policy then keeps from running.
BUILT = """() => [...document.querySelectorAll(
    ".xss, script:not([src]), iframe, object, embed, base, math, mglyph, marquee, "
    + "[onerror], [onload], [onclick], [onbegin], [href^='javascript' i], [src^='javascript' i]")]
    .map((each) => each.outerHTML.slice(0, 200))"""
SHOWN = """(text) => {
    const here = (said) => String(said ?? "").includes(text);
    if (here(document.body.textContent)) return true;
    return [...document.querySelectorAll("*")].some((each) => here(each.value)
        || [...each.attributes].some((at) => here(at.value)));
}"""


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Beside files of models that are named so."""
    folder = tmp_path_factory.mktemp("xss")
    models = folder / "models"
    models.mkdir()
    for name in ("<img class=xss src=x onerror=fired(21)>", "x' onmouseover=fired(22) '"):
        said = {"modelspec.title": PAYLOADS["script"], "licence": PAYLOADS["image"]}
        save_file({"weight": torch.zeros(1)}, models / f"{name}.safetensors", said)
    with serving(folder / "server", "--models", str(models)) as server:
        yield server


class Watched:
    """A page, and whatever a payload has brought about in it."""

    def __init__(self, page: Any, base: str) -> None:
        self.page, self.base = page, base
        self.fired: list[str] = []
        context = page.context
        context.expose_binding("fired", lambda _, what: self.fired.append(str(what)))
        context.add_init_script(LISTEN)
        page.on("dialog", self._dialog)
        page.on("popup", lambda popup: self.fired.append(f"popup {popup.url}"))
        page.on("request", self._asked)

    def _dialog(self, dialog: Any) -> None:
        self.fired.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.fired.append(f"request {request.url}")

    def clean(self, *texts: str) -> None:
        """The texts are shown as they stand, and nothing has come of them."""
        for text in texts:
            until(self.page, lambda text=text: self.page.evaluate(SHOWN, text))
        assert self.page.evaluate(BUILT) == []
        self.page.wait_for_timeout(100)
        assert self.fired == []


@pytest.fixture
def watched(page: Any, server: Serving) -> Watched:
    return Watched(page, server.base)


@pytest.fixture(scope="module")
def outputs(server: Serving) -> list[dict[str, Any]]:
    """A picture of each payload.  Some have braces, and fail with a message; and what could not be
    seen, as what turns the direction of a text, no prompt may have."""
    with httpx.Client(base_url=server.base, timeout=60) as client:
        for name, text in PAYLOADS.items():
            wish = {"prompt": text, "negative": text, "steps": 1}
            answer = client.post("/v1/jobs", json=wish)
            assert answer.status_code == (422 if name == "bidi" else 202), answer.text
        end = time.monotonic() + 2 * WAIT / 1000
        while True:
            jobs = client.get("/v1/jobs", params={"limit": 50}).json()["jobs"]
            if all(job["state"] in ("done", "failed") for job in jobs):
                break
            assert time.monotonic() < end
            time.sleep(0.1)
        made = [output for job in jobs for output in job["outputs"]]
    assert len(made) >= len(PAYLOADS) - 4
    return made


def test_prompts(watched: Watched, outputs: list[dict[str, Any]]) -> None:
    page, texts = watched.page, [each["prompt"] for each in outputs]
    assert sum(text in PAYLOADS.values() for text in texts) >= 8  # braces choose
    begin(page, "create")
    page.locator("article.card").nth(len(texts) - 1).wait_for()
    watched.clean(*texts)
    page.goto("/#/gallery")
    page.locator(".wall .tile-open").nth(len(texts) - 1).wait_for()
    watched.clean(*texts)
    page.get_by_role("searchbox").fill(PAYLOADS["image"])
    watched.clean(PAYLOADS["image"])
    page.goto("/#/queue")
    page.get_by_role("heading", name="Queue").wait_for()
    watched.clean()


def test_the_panel_of_a_picture(
    watched: Watched, client: httpx.Client, outputs: list[dict[str, Any]]
) -> None:
    page = watched.page
    viewer = page.get_by_role("dialog")
    for output in outputs[:6]:
        page.goto(f"/#/gallery/{output['id']}")
        viewer.get_by_role("button", name="Credentials").click()
        viewer.locator("div.proof").first.wait_for()
        viewer.locator("details.said summary").first.click()
        watched.clean(output["prompt"])
    viewer.get_by_role("button", name="Remix").first.click()
    page.wait_for_url("**/#/create")
    watched.clean(outputs[:6][-1]["prompt"])


def test_a_family(watched: Watched, client: httpx.Client, outputs: list[dict[str, Any]]) -> None:
    parent = outputs[0]
    (child,) = make(client, prompt=PAYLOADS["svg"], image=parent["id"], strength=0.5, steps=2)
    page = watched.page
    page.goto(f"/#/gallery/{child['id']}")
    page.get_by_role("button", name="Family tree").click()
    until(page, lambda: page.locator(".branch").count() >= 2)
    watched.clean(parent["prompt"], PAYLOADS["svg"])
    client.delete(f"/v1/outputs/{child['id']}")


def test_boards(watched: Watched, client: httpx.Client, outputs: list[dict[str, Any]]) -> None:
    output = outputs[0]
    texts = [text for text in PAYLOADS.values() if len(text) <= 100]
    for text in texts:
        board = client.post("/v1/boards", json={"name": text})
        if board.status_code == 201:
            pinned = {"outputs": [output["id"]]}
            client.post(f"/v1/boards/{board.json()['id']}/outputs", json=pinned)
    names = [each["name"] for each in client.get("/v1/boards").json()["boards"]]
    assert len(names) > 5
    watched.page.goto("/#/gallery")
    watched.clean(*names)
    watched.page.goto(f"/#/gallery/{output['id']}")
    watched.page.get_by_role("dialog").wait_for()
    watched.clean(*names)


def test_what_failed(watched: Watched, client: httpx.Client) -> None:
    """The message of a job that failed quotes what was given."""
    page = watched.page
    for text in ("__<img class=xss src=x onerror=fired(30)>__", "<lora:<b class=xss>:1>"):
        answer = client.post("/v1/jobs", json={"prompt": text, "steps": 1})
        assert answer.status_code in (202, 422), answer.text
    for name in ("model", "sampler", "size", "steps", "vary"):
        begin(page, "create", prompt="a fox", more={"steps": "1", name: SHORT})
        refused = client.post("/v1/jobs", json={"prompt": "a fox", "steps": 1, name: SHORT})
        assert refused.status_code in (202, 400, 422), refused.text
    page.goto("/#/create")
    page.get_by_role("button", name="Create", exact=True).click()
    watched.clean()
    page.goto("/#/queue")
    failed = [
        job["error"]["message"]
        for job in client.get("/v1/jobs", params={"limit": 50}).json()["jobs"]
        if job["state"] == "failed"
    ]
    watched.clean(*failed)


def test_models(watched: Watched, client: httpx.Client) -> None:
    watched.page.goto("/#/models")
    models = client.get("/v1/models").json()["models"]
    names = [each["name"] for each in models]
    assert any("onerror" in name for name in names), names
    watched.clean(*names, *(each["error"] for each in models if each.get("error")))
    watched.page.goto("/#/create")
    watched.clean(*names)


def test_grids(watched: Watched) -> None:
    page = watched.page
    page.goto("/#/grids")
    page.get_by_label("Prompt", exact=True).fill(PAYLOADS["image"])
    page.get_by_label("Steps", exact=True).fill("1")
    page.get_by_label("what changes").first.select_option("negative")
    page.get_by_label("values").first.fill(SHORT)
    page.get_by_role("button", name="Make ").click()
    page.get_by_role("region", name="The grid").wait_for()
    page.locator("button.gr-cell").first.wait_for()
    watched.clean(PAYLOADS["image"], SHORT)


def test_the_canvas(watched: Watched) -> None:
    page = watched.page
    page.goto("/#/canvas")
    page.wait_for_selector(".cv-stage")
    name = page.get_by_label("Name of the canvas")
    name.fill(SHORT)
    name.press("Enter")
    layer = page.locator(".cv-layer-name").first
    layer.dblclick()
    box = page.get_by_label("Name of the layer")
    box.fill(PAYLOADS["svg"])
    box.press("Enter")
    page.locator(".cv-draw textarea").fill(PAYLOADS["title"])
    until(page, lambda: page.locator(".cv-saved").inner_text() == "Saved")
    watched.clean(SHORT, PAYLOADS["svg"], PAYLOADS["title"])
    page.reload()
    page.wait_for_selector(".cv-stage")
    watched.clean(SHORT, PAYLOADS["svg"])
    page.get_by_role("button", name="Canvas", exact=True).click()
    watched.clean()


def hostile(kind: str, text: str, folder: Path) -> bytes:
    """A picture with a text where programs read it."""
    file, image = io.BytesIO(), Image.new("RGB", (128, 128), "white")
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/'
        '22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        f' dc:description="{escape(text)}" dc:title="{escape(text)}"/></rdf:RDF></x:xmpmeta>'
    )
    if kind == "exif":
        exif = Image.Exif()
        exif[0x010E] = text  # ImageDescription
        exif[0x0131] = text  # Software
        image.save(file, "JPEG", exif=exif)
        return file.getvalue()
    said = PngImagePlugin.PngInfo()
    if kind == "parameters":
        more = f"Steps: 1, Sampler: {text}, CFG scale: 2, Seed: 5, Size: 128x128, Model: {text}"
        said.add_itxt("parameters", f"{text}\nNegative prompt: {text}\n{more}")
    elif kind == "text":
        for name in ("Title", "Comment", "Description", "prompt", "workflow", "Software"):
            said.add_itxt(name, text)
    elif kind == "xmp":
        said.add_itxt("XML:com.adobe.xmp", xmp)
    image.save(file, "PNG", pnginfo=said)
    if kind != "c2pa":
        return file.getvalue()
    from mezzotint.provenance.credentials import Claim, sign
    from mezzotint.provenance.identity import own

    claim = Claim(
        title=text,
        action="created",
        source="trainedAlgorithmicMedia",
        software=text,
        version="1",
        model=text,
        licence=text,
        recipe="sha256:00ff",
        training="notAllowed",
    )
    return sign(file.getvalue(), "image/png", claim, own(folder))


@pytest.mark.parametrize("kind", ["parameters", "text", "exif", "xmp", "c2pa"])
def test_a_file_is_dragged_in(
    watched: Watched, client: httpx.Client, kind: str, tmp_path: Path
) -> None:
    page = watched.page
    for text in (PAYLOADS["script"], PAYLOADS["image"]):
        name = f"{SHORT}.png"
        begin(page, "create")
        page.get_by_role("textbox", name="What to draw").wait_for()
        drop(page, hostile(kind, text, tmp_path), name)
        shown = f"The recipe of {name}" if kind == "parameters" else "It carries no recipe"
        page.get_by_text(shown).first.wait_for()
        watched.clean(*([text, name] if kind == "parameters" else []))
    given = client.post(
        "/v1/uploads",
        content=hostile(kind, text, tmp_path),
        params={"name": name},
    ).json()["id"]
    (output,) = make(client, prompt="a fox", image=given, strength=0.5, steps=2)
    page.goto(f"/#/gallery/{output['id']}")
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Credentials").click()
    viewer.locator("div.proof").first.wait_for()
    watched.clean(*([text] if kind == "c2pa" else []))
    client.delete(f"/v1/outputs/{output['id']}")


def test_an_svg_that_was_exported_is_opened(
    browser: Any, client: httpx.Client, outputs: list[dict[str, Any]], tmp_path: Path
) -> None:
    """By itself in the browser, where no policy of the server's is."""
    page = browser.new_context().new_page()
    watched = Watched(page, "file:")
    for output in outputs[:5]:
        answer = client.post(f"/v1/outputs/{output['id']}/export", params={"format": "svg"})
        assert answer.status_code == 200, answer.text
        path = tmp_path / "picture.svg"
        path.write_bytes(answer.content)
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.localName") == "svg"
        built = page.evaluate(
            "[...document.querySelectorAll('*')].filter((each) => each.localName === 'script'"
            " || each.localName === 'foreignObject' || each.className?.baseVal === 'xss'"
            " || [...each.attributes].some((at) => /^on/i.test(at.name))).length"
        )
        assert built == 0
        assert watched.fired == []
    page.context.close()
