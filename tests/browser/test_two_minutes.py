"""The two minutes of the README, as somebody new walks them in the studio: what he clicks is
counted, and every file that comes out is looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from driving import WAIT
from serving import Serving
from test_canvas import drag, no_canvas
from test_studio import card, done, newest, until

__all__ = ["no_canvas"]


class Hand:
    """Clicks, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def click(self, at: Any) -> None:
        at.click()
        self.count += 1


def test_four_vary_mask_svg_verify(
    page: Any, client: httpx.Client, server: Serving, tmp_path: Path
) -> None:
    hand = Hand()
    page.set_default_timeout(4 * WAIT)  # twelve pictures at the usual steps
    page.goto("/")
    hand.click(page.get_by_role("textbox", name="What to draw"))
    page.keyboard.type("a red fox")
    page.keyboard.press("Enter")
    card(page).locator(".tile-open").nth(3).wait_for()
    four = newest(client)
    assert four["count"] == 4 and four["asked"]["prompt"] == "a red fox, emoji, noto style"

    card(page).locator(".tile").nth(1).hover()
    hand.click(card(page).get_by_role("button", name="Vary subtly").nth(1))
    until(page, lambda: newest(client)["id"] != four["id"])
    card(page).locator(".tile-open").nth(3).wait_for()
    varied = done(client, newest(client)["id"])
    assert varied["asked"]["vary"] == f"{four['outputs'][1]['seed']}:subtle"

    card(page).locator(".tile").first.hover()
    hand.click(card(page).get_by_role("button", name="Mask and paint").first)
    page.wait_for_selector(".cv-stage")
    tools = page.get_by_role("toolbar", name="Tools")
    assert tools.locator("[aria-pressed=true]").get_attribute("aria-label") == "Paint the mask"
    drag(page, (0.3, 0.15), (0.7, 0.15), (0.6, 0.3))
    hand.count += 1
    hand.click(page.get_by_role("textbox", name="Fill the selection"))
    page.keyboard.type("a golden crown")
    page.keyboard.press("Control+Enter")
    until(page, lambda: page.locator(".cv-strip .cv-thumb[aria-label*=seed]").count() == 4)
    hand.click(page.get_by_role("button", name="Look at it"))
    viewer = page.get_by_role("dialog")
    hand.click(viewer.get_by_role("button", name="Verify"))
    viewer.get_by_text("every bit is equal").wait_for()
    with page.expect_download() as caught:
        hand.click(viewer.get_by_role("button", name="SVG"))
    path = tmp_path / "crown.svg"
    caught.value.save_as(path)
    hand.click(viewer.get_by_role("button", name="Close", exact=True))
    hand.click(page.get_by_role("button", name="Use", exact=True))
    page.locator(".cv-candidates").wait_for(state="detached")
    assert hand.count <= 10, "what one must click in the two minutes of the README"

    filled = done(client, newest(client)["id"])
    words = ["verify", str(path), "--in", str(server.data)]
    ran = subprocess.run(
        [sys.executable, "-m", "mezzotint", *words], env=server.env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "bit-equal" in ran.stdout
    kin = client.get(f"/v1/outputs/{filled['outputs'][0]['id']}/family").json()
    assert kin["uploads"]
