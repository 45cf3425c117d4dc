"""A picture that forms while one waits: progress in the terminal, with a small live preview."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType

from PIL import Image
from rich.color import Color
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.style import Style
from rich.text import Text

from mezzotint.modalities.image import on_checkerboard

WIDTH = 32
"""Columns of the preview; a column is one pixel wide, a line two pixels high."""
_PAUSE = 0.2  # seconds between two frames, at least
_SHARE = 20  # and this many times what one took: all of them stay below 5 % of the time


def can_show(console: Console) -> bool:
    """Whether a terminal shows 24-bit colour, as far as it says so itself."""
    colours = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    return console.is_terminal and colours and "NO_COLOR" not in os.environ


def half_blocks(image: Image.Image, width: int = WIDTH) -> Text:
    """A picture as text: every "▀" is two pixels, its ink the upper and its ground the lower."""
    lines = max(1, round(image.height * width / image.width / 2))
    flat = on_checkerboard(image).resize((width, 2 * lines), Image.Resampling.BOX)
    pixels = flat.tobytes()  # RGB, row by row

    def colour(x: int, y: int) -> Color:
        at = 3 * (y * width + x)
        return Color.from_rgb(*pixels[at : at + 3])

    text = Text(no_wrap=True)
    for y in range(0, 2 * lines, 2):
        for x in range(width):
            text.append("▀", Style(color=colour(x, y), bgcolor=colour(x, y + 1)))
        text.append("\n")
    return text


class Watch:
    """A progress bar over all steps of all pictures, and above it the picture so far.

    Shows nothing where the console is no terminal, or with ``quiet``.
    """

    def __init__(self, console: Console, quiet: bool, preview: bool) -> None:
        self._shown = console.is_terminal and not quiet
        self._preview = self._shown and preview and can_show(console)
        self._next = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None
        # Not redirected: what is printed meanwhile belongs on its own stream.
        self._live = Live(
            console=console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Watch:
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._live.stop()

    def step(self, title: str, done: int, total: int, picture: Callable[[], Image.Image]) -> None:
        """Tell of one step: ``done`` of ``total`` over all pictures."""
        if not self._shown:
            return
        if self._task is None:
            self._task = self._bar.add_task(title, total=total)
        self._bar.update(self._task, description=title, completed=done)
        began = time.monotonic()
        if began < self._next and done < total:
            return
        shown = Group(half_blocks(picture()), self._bar) if self._preview else self._bar
        self._live.update(shown, refresh=True)
        now = time.monotonic()
        self._next = now + max(_PAUSE, _SHARE * (now - began))
