"""The studio's files: served as they are, from a table, with nothing from elsewhere in them."""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mezzotint.apps.cli import parse
from mezzotint.apps.server import tables
from mezzotint.apps.server.hub import Hub
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.queue import Limits
from mezzotint.apps.server.service import Service
from mezzotint.apps.server.store import Store
from mezzotint.apps.studio import pages, run

ROOT = Path(__file__).parents[2]
OWN = [path for path in pages.STATIC.rglob("*.js") if path.parent.name != "vendor"]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    app, places = FastAPI(redirect_slashes=False), Places(tmp_path)
    engine = tables.connect(tables.of_file(tmp_path / "a.db"))
    hub, limits = Hub(lambda job, begins: None), Limits()
    app.state.service = Service(engine, Store(places.files), places, hub, limits)  # at rest
    app.include_router(pages.router)
    with TestClient(app) as client:
        yield client


def test_every_file_is_served_with_its_type(client: TestClient) -> None:
    for name, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/create/view.js", "text/javascript"),
        ("/vendor/preact.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/mark.svg", "image/svg+xml"),
    ):
        answer = client.get(name)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        tag = answer.headers["etag"]
        again = client.get(name, headers={"if-none-match": tag})
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag


def test_nothing_else_is_served(client: TestClient) -> None:
    for name in (
        "/nothing.js",
        "/index.html/",
        "/../pages.py",
        "/..%2Fpages.py",
        "/%2e%2e/pages.py",
        "/static/app.js",
        "//etc/passwd",
        "/vendor/..%5C..%5Cpages.py",
        "/vendor/preact.d.ts",
        "/" + str(pages.STATIC / "app.js"),
    ):
        assert client.get(name).status_code == 404, name


def test_imports_lead_to_files_that_are_there() -> None:
    seen = set[Path]()
    waiting = [pages.STATIC / "app.js"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        named = re.findall(
            r'(?:\bfrom *|^import *|\bimport\()"(\.{0,2}[^"\s]*)"', text, re.MULTILINE
        )
        for name in named:
            assert name.startswith("."), f"{path}: {name} is none of ours"
            there = (path.parent / name).resolve()
            assert there.is_file(), f"{path}: {name}"
            waiting.append(there)
    unused = set(OWN) - seen
    assert not unused, f"nothing imports {unused}"


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    page = (pages.STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", page)
    assert "url(" not in (pages.STATIC / "style.css").read_text(encoding="utf-8")
    for path in OWN:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path
        for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert banned not in text, f"{path}: {banned}"
        assert "dangerouslySet" not in text, path
        assert not re.search(r'\sstyle="', text), path


def test_what_is_vendored_has_its_licence() -> None:
    vendor = pages.STATIC / "vendor"
    told = (vendor / "README.md").read_text(encoding="utf-8")
    for path in vendor.glob("*.js"):
        row = next(line for line in told.splitlines() if path.name in line)
        licence = row.rpartition(" ")[0].rpartition(" ")[2]
        assert (vendor / licence).is_file(), row


@pytest.mark.parametrize("opens", [True, False])
def test_the_browser_opens_once_somebody_answers(
    monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    opened: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(run.webbrowser, "open", opened.put)
    with socket.create_server(("127.0.0.1", 0)) as listens:
        address = f"http://127.0.0.1:{listens.getsockname()[1]}/"

        def served(args: argparse.Namespace, told: Callable[[str], None]) -> int:
            told(address)
            return 0

        monkeypatch.setattr(run.server, "run", served)
        args = parse(["studio", *([] if opens else ["--no-browser"])])
        before = threading.active_count()
        assert run.run(args) == 0
        if opens:
            assert opened.get(timeout=30) == address
        else:
            assert threading.active_count() == before and opened.empty()


def _tsc() -> list[str] | None:
    """TypeScript's checker: of the environment, of this folder, or on the path."""
    if given := os.environ.get("TSC"):
        return [given]
    own = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
    node = shutil.which("node")
    if own.is_file() and node:
        return [node, str(own)]
    found = shutil.which("tsc")
    return [found] if found else None


def test_types() -> None:
    command = _tsc()
    if command is None:
        pytest.skip("no tsc: npm install --no-save --no-package-lock typescript@5.9.3")
    config = pages.STATIC.parent / "jsconfig.json"
    done = subprocess.run([*command, "-p", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
