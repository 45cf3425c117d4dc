"""Every view by axe-core, in light and dark, on a phone and on a desk."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from driving import AXE, WAIT
from serving import Serving
from test_studio import make

VIEWS = ("create", "canvas", "grids", "gallery", "queue", "models")


def _faults(page: Any) -> list[str]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {node['html'][:120]}: {node['failureSummary'][:200]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe(browser: Any, server: Serving, client: httpx.Client, scheme: Any, width: int) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: npm install --no-save --no-package-lock axe-core@4.14.1")
    (output,) = make(client)
    client.post("/v1/jobs", json={"prompt": "a long one", "steps": 900})
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        base_url=server.base,
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT)
    page = context.new_page()
    for view in (*VIEWS, f"gallery/{output['id']}"):
        page.goto(f"/#/{view}")
        ready = ".panel .about" if "/" in view else "main h1, main .composer"
        page.locator(ready).first.wait_for(state="attached")
        if view == "create":
            page.get_by_role("button", name="More", exact=True).click()
            page.locator(".tile-open").first.wait_for()
        assert _faults(page) == [], view
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{view} is {wide} wide"
    context.close()
