"""Layers that are scaled and turned, and the canvas by keys alone."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
from test_canvas import begin, drag, keys, no_canvas, pixels, saved, tool, undone, until

__all__ = ["no_canvas"]  # a fixture for all tests here


def press(page: Any, *pressed: str) -> None:
    for key in pressed:
        page.keyboard.press(key)


def middle(picture: np.ndarray) -> tuple[float, float]:
    down, across = np.nonzero(picture[..., 3])
    return float(across.mean()), float(down.mean())


def test_a_layer_is_turned_by_numbers_and_is_what_it_was(page: Any, client: httpx.Client) -> None:
    begin(page)
    tool(page, "Shapes")
    drag(page, (0.25, 0.25), (0.5, 0.375))
    drag(page, (0.25, 0.25), (0.3125, 0.5))
    first = pixels(page)
    tool(page, "Move and turn a layer")
    options = page.get_by_role("group", name="Move and turn a layer: options")
    options.get_by_role("button", name="Quarter turn").click()
    options.get_by_text("90°").wait_for()
    turned = pixels(page)
    assert turned[..., 3].sum() == first[..., 3].sum() and (turned != first).any()
    y, x = 32 + np.arange(32), 32 + np.arange(32)
    np.testing.assert_array_equal(turned[y][:, x], np.rot90(first[y][:, x], -1))
    options.get_by_role("button", name="Mirror", exact=True).click()
    until(page, lambda: (pixels(page) != turned).any())
    options.get_by_text("Exactly …").click()
    for name, value in (("Left", "10"), ("Width", "64"), ("Angle", "30")):
        options.get_by_label(name, exact=True).fill(value)
    options.get_by_role("button", name="Apply").click()
    options.get_by_text("64 × 32, 30°").wait_for()
    assert abs(middle(pixels(page))[0] - 42) < 24
    for words in ("move and turn", "mirror", "turn"):
        undone(page, "Control+z", f"Undone: {words}")
    np.testing.assert_array_equal(pixels(page), first)
    keys(page, "Control+y", "Control+y", "Control+y")
    options.get_by_text("64 × 32, 30°").wait_for()
    last = pixels(page)
    saved(page)
    page.reload()
    page.wait_for_selector(".cv-stage")
    np.testing.assert_array_equal(pixels(page), last)  # it reopens as it was


def test_turning_there_and_back_loses_nothing(page: Any) -> None:
    begin(page)
    tool(page, "Brush")
    drag(page, (0.3, 0.3), (0.7, 0.6))
    first = pixels(page)
    keys(page, "v", ">", ".", "<", ">")
    until(page, lambda: page.locator(".cv-options", has_text="16°").count())
    assert (pixels(page) != first).any()
    keys(page, "<", ",")
    until(page, lambda: not page.locator(".cv-options", has_text="°").count())
    np.testing.assert_array_equal(pixels(page), first)  # turned from what it was, not six times


def test_handles_are_dragged(page: Any) -> None:
    begin(page)
    tool(page, "Shapes")
    drag(page, (0.25, 0.25), (0.5, 0.5))
    tool(page, "Move and turn a layer")
    options = page.get_by_role("group", name="Move and turn a layer: options")
    options.get_by_text("32 × 32").wait_for()
    drag(page, (0.5, 0.5), (0.75, 0.75))  # the corner at the bottom right
    options.get_by_text("64 × 64").wait_for()
    found = pixels(page)[..., 3] > 0
    assert found[32:96, 32:96].all() and found.sum() == 64 * 64
    drag(page, (0.5, 0.75), (0.5, 0.5))  # the bottom edge alone
    options.get_by_text("64 × 32").wait_for()
    assert (pixels(page)[..., 3] > 0).sum() == 64 * 32
    drag(page, (0.5, 0.3), (0.55, 0.3))  # within: it is moved
    until(page, lambda: not (pixels(page)[32:64, 32:36, 3] > 0).any())
    assert (pixels(page)[..., 3] > 0).sum() == 64 * 32


def test_everything_is_drawn_by_keys(page: Any, client: httpx.Client) -> None:
    """The arrows move a pointer, Enter puts the tool down and lifts it."""
    begin(page)
    page.locator(".cv-stage").focus()
    many = ["Shift+ArrowRight"] * 3
    press(page, "b", "Enter", *many, "Enter")  # a stroke from the middle to the right
    until(page, lambda: not page.get_by_label("Undo").is_disabled())
    stroke = pixels(page)
    assert stroke[64, 64:94, 3].all() and not stroke[64, :50, 3].any()
    page.locator(".cv-stage").focus()
    press(page, "e", *["ArrowLeft"] * 2, "Enter", "Enter")  # a dab of the eraser
    until(page, lambda: pixels(page)[..., 3].sum() < stroke[..., 3].sum())
    page.locator(".cv-stage").focus()
    press(page, "l", *["Shift+ArrowUp"] * 5, "Enter", *["Shift+ArrowLeft"] * 6)
    press(page, *["Shift+ArrowDown"] * 3, *["Shift+ArrowRight"] * 6, "Enter")
    stage = page.locator(".cv-stage")
    until(page, lambda: "a part is selected" in (stage.get_attribute("aria-label") or ""))
    press(page, "f", *["ArrowLeft"] * 5, "ArrowUp", "ArrowUp", "ArrowUp", "Enter")
    before = pixels(page)
    assert before[20:40, 45:85, 3].all() and not before[:12, :, 3].any()  # the fill stays in it
    stage.focus()
    press(page, "Control+d", "u", "Enter", *["Shift+ArrowDown"] * 8, "ArrowLeft", "Enter")
    until(page, lambda: (pixels(page) != before).any())
    stage.focus()
    press(page, "Enter", "Shift+ArrowLeft", "Escape")  # left: nothing of it stays
    after = pixels(page)
    page.get_by_role("button", name="New layer").press("Enter")
    stage.focus()
    press(page, "t")
    page.get_by_placeholder("Text: click where it begins, or Enter").fill("Hi")
    stage.focus()
    press(page, "Enter")
    page.locator(".cv-layer", has_text="Hi").wait_for()
    assert (pixels(page) != after).any()


def test_layers_have_names_and_opacity_by_keys(page: Any) -> None:
    begin(page)
    tool(page, "Shapes")
    drag(page, (0, 0), (1, 1))
    row = page.locator(".cv-layer-name").first
    row.focus()
    page.keyboard.press("F2")
    page.get_by_label("Name of the layer").fill("Ground")
    page.keyboard.press("Enter")
    page.locator(".cv-layer", has_text="Ground").wait_for()
    page.get_by_label("Opacity").last.fill("50")
    until(page, lambda: pixels(page)[64, 64, 3] in (127, 128))
    undone(page, "Control+z", "Undone: opacity")
    assert pixels(page)[64, 64, 3] == 255
    undone(page, "Control+z", "Undone: rename")
    page.locator(".cv-layer", has_text="Layer 1").wait_for()
