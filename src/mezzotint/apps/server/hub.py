"""Who listens to what happens to jobs, and what they are told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

_WAITING = 256
"""So many messages wait for a listener that does not read; of more it loses the oldest, and each
says how things are then, not what has changed."""
ALL = ""
END: dict[str, Any] = {"end": True}
"""The last message: the server stops."""


class Hub:
    """Messages of one event loop, by job; under ``ALL`` those of all."""

    def __init__(self, watched: Callable[[str, bool], None]) -> None:
        """watched: is told when somebody begins to look at a job's previews, and when nobody is
        left."""
        self._listeners: dict[str, set[asyncio.Queue[dict[str, Any]]]] = defaultdict(set)
        self._watched = watched

    def __len__(self) -> int:
        return sum(map(len, self._listeners.values()))

    def tell(self, told: dict[str, Any]) -> None:
        """Pass a message on to those who listen to its job."""
        for name in (told.get("job", ALL), ALL):
            for waiting in self._listeners.get(name, ()):
                if waiting.full():
                    waiting.get_nowait()
                waiting.put_nowait(told)

    def close(self) -> None:
        """Send everybody away, so that the server can stop."""
        for listeners in list(self._listeners.values()):
            for waiting in list(listeners):
                if waiting.full():
                    waiting.get_nowait()
                waiting.put_nowait(END)

    def rewatch(self, job: str) -> None:
        """A job has begun: its worker does not know yet that somebody looks."""
        if self._listeners.get(job) or self._listeners.get(ALL):
            self._watched(job, True)

    @contextmanager
    def listening(self, name: str = ALL) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """A queue of what happens from now on."""
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._listeners[name].add(waiting)
        self._watched(name, True)
        try:
            yield waiting
        finally:
            self._listeners[name].discard(waiting)
            if not self._listeners[name]:
                del self._listeners[name]
                self._watched(name, False)


async def messages(
    waiting: asyncio.Queue[dict[str, Any]], seconds: float
) -> AsyncIterator[dict[str, Any] | None]:
    """Messages as they come, and None after so long without one."""
    while True:
        try:
            async with asyncio.timeout(seconds):  # wait_for makes a task of each message
                told = await waiting.get()
        except TimeoutError:
            yield None
            continue
        if told is END:
            return
        yield told
