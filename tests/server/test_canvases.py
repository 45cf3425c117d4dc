"""Canvases: kept by version, of files that are one's own, seen by nobody else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from mezzotint.apps.server import tables, tokens
from mezzotint.apps.server.application import Settings, build
from mezzotint.apps.server.places import Places

NAME = "ab" * 16


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    address = tables.of_file(tmp_path / "a.db")
    engine = tables.connect(address)
    heads = {
        name: {"authorization": f"Bearer {tokens.add(engine, name, scopes)}"}
        for name, scopes in (("anna", "make read"), ("ben", "make read"), ("eve", "read"))
    }
    app, _ = build(engine, Settings(Places(tmp_path), address, tokens_needed=True))
    client = TestClient(app, base_url="http://localhost")  # type: ignore[arg-type]

    def asked(who: str, method: str, path: str, **more: Any) -> Any:
        return client.request(method, path, headers=heads[who], **more)

    return asked


def _picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def _kept(files: list[str], base: int = 0, **document: Any) -> dict[str, Any]:
    return {"name": "a fox", "document": document, "files": files, "base": base}


def test_a_canvas_comes_back_as_it_was_given(ask: Any) -> None:
    data = _picture("#123456")
    file = ask("anna", "POST", "/v1/uploads", content=data).json()["id"]
    kept = _kept([file], layers=[{"name": "Läufer", "file": file}])
    assert ask("anna", "PUT", f"/v1/canvases/{NAME}", json=kept).json()["version"] == 1
    found = ask("anna", "GET", f"/v1/canvases/{NAME}").json()
    assert (found["name"], found["document"], found["files"]) == (
        "a fox",
        kept["document"],
        [file],
    )
    layer = ask("anna", "GET", f"/v1/canvases/{NAME}/files/{file}")
    assert (layer.content, layer.headers["content-type"]) == (data, "image/png")
    (listed,) = ask("anna", "GET", "/v1/canvases").json()["canvases"]
    assert (listed["id"], listed["version"]) == (NAME, 1)
    assert ask("anna", "DELETE", f"/v1/canvases/{NAME}").status_code == 204
    assert ask("anna", "GET", f"/v1/canvases/{NAME}").status_code == 404


def test_what_was_changed_elsewhere_is_not_overwritten(ask: Any) -> None:
    def put(base: int, **document: Any) -> int:
        return ask(
            "anna", "PUT", f"/v1/canvases/{NAME}", json=_kept([], base, **document)
        ).status_code

    assert [put(0, n=0), put(1, n=1), put(1, n=2), put(0, n=3), put(7, n=4)] == [
        *(200, 200, 409, 409, 409)
    ]
    found = ask("anna", "GET", f"/v1/canvases/{NAME}").json()
    assert (found["version"], found["document"]) == (2, {"n": 1})


def test_a_canvas_is_its_owners(ask: Any) -> None:
    file = ask("anna", "POST", "/v1/uploads", content=_picture("red")).json()["id"]
    where = f"/v1/canvases/{NAME}"
    assert ask("anna", "PUT", where, json=_kept([file])).status_code == 200
    assert ask("ben", "GET", where).status_code == 404
    assert ask("ben", "GET", f"{where}/files/{file}").status_code == 404
    assert ask("ben", "DELETE", where).status_code == 404
    assert ask("ben", "GET", "/v1/canvases").json() == {"canvases": []}
    assert ask("ben", "PUT", where, json=_kept([], 1)).status_code == 409
    other = f"/v1/canvases/{'cd' * 16}"
    assert ask("ben", "PUT", other, json=_kept([file])).status_code == 404  # not his picture
    assert ask("eve", "PUT", other, json=_kept([])).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (f"/v1/canvases/{NAME}", {**_kept([]), "path": "/etc"}, 422),
        (f"/v1/canvases/{NAME}", _kept(["../x"]), 422),
        (f"/v1/canvases/{NAME}", _kept(["ef" * 32]), 404),
        (f"/v1/canvases/{NAME}", _kept([], text="x" * (4 << 20)), 413),
        ("/v1/canvases/..%2f..%2fetc", _kept([]), 404),
        ("/v1/canvases/me", _kept([]), 422),
    ],
)
def test_what_is_refused(ask: Any, path: str, body: dict[str, Any], code: int) -> None:
    answer = ask("anna", "PUT", path, json=body)
    assert answer.status_code == code and "\n" not in answer.json()["error"]["message"]
