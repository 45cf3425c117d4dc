"""Every view by axe-core, in light and dark, on a phone and on a desk."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from driving import AXE, WAIT
from serving import Serving
from test_studio import make

VIEWS = ("create", "canvas", "grids", "gallery", "queue", "models")


# Controls that are covered or cut off by what does not belong to them.
COVERED = """() => {
    const within = document.querySelector("dialog[open]") ?? document.querySelector("main");
    const fits = (one, over) => !within.contains(over) || one.contains(over)
        || [one.closest("label"), one.closest(".tile")].some((each) => each?.contains(over))
        || over.contains(one);
    const found = [];
    for (const one of within.querySelectorAll("button, input, select, textarea, a[href]")) {
        const { left, right, top, bottom } = one.getBoundingClientRect();
        if (right - left < 8 || !one.checkVisibility({ opacityProperty: true })) continue;
        for (const x of [left + 3, (left + right) / 2, right - 3]) {
            const over = document.elementFromPoint(x, (top + bottom) / 2);
            if (over && !fits(one, over))
                found.push(`${one.outerHTML.slice(0, 100)} below ${over.outerHTML.slice(0, 100)}`);
        }
    }
    return found;
}"""


def _faults(page: Any) -> list[str]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {node['html'][:120]}: {node['failureSummary'][:200]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1280])
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
            page.get_by_role("textbox", name="What to draw").fill("a pear")
            page.keyboard.press("Enter")
            page.get_by_role("button", name="History").wait_for()
        assert _faults(page) == [], view
        assert page.evaluate(COVERED) == [], view
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{view} is {wide} wide"
    context.close()
