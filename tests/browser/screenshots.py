"""The pictures of docs/studio.md: `python tests/browser/screenshots.py` makes them anew.

They are of a real server with the model `icons`, at its usual steps; look at them afterwards.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from driving import CHROMIUM, ROOT, WAIT
from serving import Serving, serving
from test_studio import make

FOLDER = ROOT / "docs" / "studio"
MADE = (
    ("grinning face, emoji, glossy 3D style", 5),
    ("an umbrella, emoji, glossy 3D style", 11),
    ("red apple, emoji, noto style", 4),
    ("a red fox, emoji, noto style", 7),
)


def opened(browser: Browser, server: Serving, view: str, **how: Any) -> Page:
    how = {"viewport": {"width": 1280, "height": 900}, **how}
    context = browser.new_context(base_url=server.base, reduced_motion="reduce", **how)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.goto(f"/#/{view}")
    return page


def shoot(page: Page, name: str) -> None:
    page.wait_for_timeout(600)
    shot = Image.open(io.BytesIO(page.screenshot()))
    shot.save(FOLDER / f"{name}.webp", quality=82, method=6)
    page.context.close()


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "server") as server,
        httpx.Client(base_url=server.base, timeout=WAIT) as client,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        four = {"count": 4, "steps": 20}
        foxes = [make(client, prompt=words, seed=seed, **four) for words, seed in MADE][-1]
        make(client, prompt=MADE[-1][0], seed=70, vary=f"{foxes[0]['seed']}:subtle", **four)
        page = opened(browser, server, "gallery", color_scheme="dark")
        page.locator(".wall img").nth(15).wait_for()
        shoot(page, "gallery")
        page = opened(browser, server, f"gallery/{foxes[0]['id']}")
        page.locator(".panel .about").wait_for()
        shoot(page, "picture")
        phone = {"width": 390, "height": 844}
        page = opened(browser, server, "create", viewport=phone, device_scale_factor=1.333)
        page.locator(".tile-open").nth(3).wait_for()
        shoot(page, "phone")
        page = opened(browser, server, "create")
        page.get_by_role("textbox", name="What to draw").fill("a birthday cake")
        page.keyboard.press("Enter")
        page.locator(".tile.waiting img").first.wait_for()
        page.wait_for_timeout(2500)
        shoot(page, "create")
        browser.close()


if __name__ == "__main__":
    main()
