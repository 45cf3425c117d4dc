"""Names of files elsewhere in every text of every route: nothing is opened, and nothing fails."""

from __future__ import annotations

import io
import struct
import sys
import sysconfig
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacking import PATHS, SECRET, TINY, Attacked, Known, request, spots
from PIL import Image

from mezzotint.apps.server import webui_asked


@pytest.fixture(scope="module")
def client(attacked: Attacked) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=attacked.base, timeout=60) as found:
        yield found


def picture(**texts: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "navy").save(data, "PNG")
    plain = data.getvalue()
    chunks = b""
    for name, text in texts.items():
        body = b"iTXt" + name.encode() + b"\0\0\0\0\0" + text.encode()
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + chunks + plain[33:]


def ended(client: httpx.Client, name: str) -> dict[str, Any]:
    client.get(f"/v1/jobs/{name}/events")
    return client.get(f"/v1/jobs/{name}").json()


WISH = {"prompt": "fox", "model": TINY, "steps": 1, "seed": 1}


@pytest.fixture(scope="module")
def known(client: httpx.Client) -> Known:
    """A job, a picture, a board, a canvas and an upload; and the fields that bodies may have."""
    job = client.post("/v1/jobs", json=WISH).json()["id"]
    output = ended(client, job)["outputs"][0]["id"]
    given = client.post("/v1/uploads", content=picture()).json()["id"]
    board = client.post("/v1/boards", json={"name": "foxes"}).json()["id"]
    canvas = "c" * 32
    kept = {"name": "a canvas", "document": {}, "files": [given]}
    assert client.put(f"/v1/canvases/{canvas}", json=kept).status_code == 200
    ids = {"jobs": job, "outputs": output, "boards": board, "canvases": canvas, "files": given}
    before = {f"/v1/{kind}": name for kind, name in ids.items()}
    before |= {"/v1/models": TINY, "/v1/images/files": output}
    before |= {"/v1/canvases/{name}/files": given, "output": output, "file": given}
    fields = dict.fromkeys(client.get("/v1/fields").json()) | WISH
    return Known(before, picture(), {"/v1/jobs": fields, **_open_of_others(picture())})


def _open_of_others(data: bytes) -> dict[str, dict[str, Any]]:
    """The fields of AUTOMATIC1111's API by what reads them, and what is ours in OpenAI's."""
    import base64

    body = webui_asked.Body({"prompt": "fox"})
    webui_asked.from_words(body, webui_asked.Here((), (), {}, False, lambda picture, size: picture))
    words: dict[str, Any] = dict.fromkeys(sorted(body.read))
    words |= {"prompt": "fox", "steps": 1, "override_settings": {"sd_model_checkpoint": TINY}}
    coded = base64.b64encode(data).decode()
    images = {**words, "init_images": [coded], "mask": None}
    ours = {"model": TINY, "steps": 1}
    return {
        "/sdapi/v1/txt2img": words,
        "/sdapi/v1/img2img": images,
        "/sdapi/v1/options": {"sd_model_checkpoint": TINY, "sd_vae": "None"},
        "/sdapi/v1/png-info": {"image": coded},
        "/v1/images/generations": {**ours, "lora": None, "size": "8x8"},
        "/v1/images/edits": ours,
        "/v1/images/variations": ours,
    }


# --- the attacks ------------------------------------------------------------------------------

NAMES = {"model", "lora", "embedding", "image", "mask", "reference", "control", "region", "prompt"}
NAMES |= {"image-prompt", "refiner", "negative", "init_images", "sd_model_checkpoint", "picture"}
"""Fields of jobs that get every text, as paths do; others have every eleventh."""


def texts(server: Attacked) -> list[str]:
    """Names of files elsewhere, and of those that lie beside the server's folders."""
    up = ["../" * n + f"canary.{end}" for n in (1, 2, 3, 4, 5) for end in ("png", "safetensors")]
    ours = [f"{server.folder}/canary.txt", "__../../canary__", f"__{server.folder}/canary__"]
    return [*PATHS, *up, *ours, "<lora:../../canary:1>", "<lora:../canary:1>:0.5"]


def tree(folder: Path) -> dict[str, int]:
    """What lies beside the server's data."""
    found = (path for path in folder.rglob("*") if path.is_file())
    own = (folder / "data", folder / "watch", folder / "server.log")
    return {
        str(path): path.stat().st_size
        for path in found
        if not any(path.is_relative_to(each) for each in own)
    }


def strange(server: Attacked, since: int) -> list[tuple[str, ...]]:
    """What was opened since and is neither the server's nor of the program and its libraries."""
    ours = [server.folder / each for each in ("data", "models", "home")]
    ours += [Path(each) for each in (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev")]
    ours += [Path(sysconfig.get_path("stdlib")), Path(__file__).parents[2] / "src"]
    ours += [Path(__file__).parents[2], server.folder / "watch", *map(Path, filter(None, sys.path))]
    found = []
    for event, *told in server.opened()[since:]:
        name = told[0].removeprefix("PosixPath('").removesuffix("')")
        if name.isdigit() or (event == "os.remove" and "/" not in name):
            continue  # open already, or in a folder that is
        known = not name or any(Path(name).is_relative_to(each) for each in ours)
        if not known or event in ("subprocess.Popen", "os.system", "socket.connect"):
            found.append((event, *told))
    return found


def sent(client: httpx.Client, asked: httpx.Request) -> tuple[int, bytes]:
    """An answer; of one that has no end its head."""
    answer = client.send(asked, stream=True)
    live = answer.headers.get("content-type", "").startswith("text/event-stream")
    body = b"" if live else answer.read()
    answer.close()
    return answer.status_code, body


@pytest.mark.slow  # minutes: the pictures that are asked for are made
def test_names_of_files_elsewhere(attacked: Attacked, client: httpx.Client, known: Known) -> None:
    document = client.get("/v1/openapi.json").json()
    every = sorted(spots(document, known), key=lambda spot: spot.method == "DELETE")
    assert len(every) > 400 and {each.where for each in every} >= {"path", "json", "form", "file"}
    before, since, attacks = tree(attacked.folder), len(attacked.opened()), texts(attacked)
    wrong = []
    for number, spot in enumerate(every):
        all_of_them = spot.where == "path" or (
            spot.route == "/v1/jobs" and str(spot.keys[-1]) in NAMES
        )
        step = len(attacks) if spot.keys[-1] in ("not-known", "authorization") else 11
        for text in attacks if all_of_them else attacks[number % step :: step]:
            status, body = sent(client, request(attacked.base, document, known, spot, text))
            if status >= 500 or SECRET.encode() in body or b"root:" in body:
                wrong.append((str(spot), text[:40], status, body[:200]))
    assert not wrong
    settled(client)
    assert strange(attacked, since) == []
    assert tree(attacked.folder) == before
    assert attacked.log.read_text() == ""


def settled(client: httpx.Client) -> None:
    """Wait until no job is left; none may have failed by a fault of the program."""
    while any(
        client.get("/v1/jobs", params={"state": state}).json()["jobs"]
        for state in ("submitted", "running")
    ):
        time.sleep(0.1)
    failed = client.get("/v1/jobs", params={"state": "failed", "limit": 200}).json()["jobs"]
    assert [job for job in failed if job["error"]["fault"] == "program"] == []
