"""The studio in Chromium, before a real server with the real model `icons`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from driving import CHROMIUM, WAIT
from serving import Serving, serving

SHORT = ("test_two_minutes.py", "test_accessible.py", "test_xss.py")
"""What runs without -m browser."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if item.path.name not in SHORT:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """It ends with its module: as long as it is there, this thread runs no other event loop."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("studio")) as server:
        yield server


@pytest.fixture
def client(server: Serving) -> Iterator[httpx.Client]:
    """The server's interface; what a test has left waiting is cancelled after it."""
    with httpx.Client(base_url=server.base, timeout=60) as client:
        yield client
        for job in client.get("/v1/jobs").json()["jobs"]:
            if job["state"] in ("submitted", "running"):
                client.delete(f"/v1/jobs/{job['id']}")


@pytest.fixture
def page(browser: Any, server: Serving, client: httpx.Client) -> Iterator[Any]:
    """A page of a browser that has never been here; whatever goes wrong in it fails the test."""
    size = {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, base_url=server.base, reduced_motion="reduce")
    context.set_default_timeout(WAIT)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
    )
    elsewhere: list[str] = []
    page.on("request", lambda asked: elsewhere.append(asked.url))
    yield page
    context.close()
    assert not faults
    assert all(url.startswith((server.base, "data:", "blob:")) for url in elsewhere)
