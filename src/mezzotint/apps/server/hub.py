"""Who listens to what happens to jobs, and what they are told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_WAITING = 256
"""So many messages wait for a listener that does not read; of more it loses the oldest, and each
says how things are then, not what has changed."""
ALL = ""
"""Where those listen who hear of everybody's jobs."""


def of(owner: str) -> str:
    """Where one listens to hear of an owner's jobs."""
    return f"@{owner}"


END: dict[str, Any] = {"end": True}
"""The last message: the server stops."""


class Hub:
    """Messages of one event loop, by job, by owner, and under ``ALL`` those of all."""

    def __init__(self, watched: Callable[[str, bool], None]) -> None:
        """watched: is told when somebody begins to look at a job's previews, and when nobody is
        left."""
        self._listeners: dict[str, dict[asyncio.Queue[dict[str, Any]], bool]] = defaultdict(dict)
        self._running: dict[str, str] = {}
        self._watched = watched

    def __len__(self) -> int:
        return sum(map(len, self._listeners.values()))

    def tell(self, told: dict[str, Any], owner: str | None = None) -> None:
        """Pass a message on to those who listen to its job; owner: whose it is, if it is not
        running."""
        job = told.get("job", ALL)
        owner = self._running.get(job, owner)
        plain = {key: value for key, value in told.items() if key != "preview"}
        for name in (job, ALL) if owner is None else (job, ALL, of(owner)):
            for waiting, looks in self._listeners.get(name, {}).items():
                if waiting.full():
                    waiting.get_nowait()
                waiting.put_nowait(told if looks else plain)

    def close(self) -> None:
        """Send everybody away, so that the server can stop."""
        for listeners in list(self._listeners.values()):
            for waiting in list(listeners):
                if waiting.full():
                    waiting.get_nowait()
                waiting.put_nowait(END)

    def begins(self, job: str, owner: str) -> None:
        """A job runs from now on: its worker does not know yet whether somebody looks."""
        self._running[job] = owner
        if self._is_watched(job):
            self._watched(job, True)

    def ends(self, job: str) -> None:
        """A job does not run any more."""
        self._running.pop(job, None)

    def _is_watched(self, job: str) -> bool:
        names = (job, ALL, of(self._running[job]))
        return any(looks for name in names for looks in self._listeners.get(name, {}).values())

    @contextmanager
    def listening(
        self, name: str = ALL, looks: bool = True
    ) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """A queue of what happens from now on: to a job, to those :func:`of` an owner, to all.

        looks: at previews too, which are made only for those who do."""
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._listeners[name][waiting] = looks
        if looks:
            self._watch(name, True)
        try:
            yield waiting
        finally:
            del self._listeners[name][waiting]
            if not self._listeners[name]:
                del self._listeners[name]
            if looks:
                self._watch(name, False)

    def _watch(self, name: str, begins: bool) -> None:
        """Somebody begins to look there at the jobs that run, or does not any more."""
        for job, owner in self._running.items():
            if name in (job, ALL, of(owner)) and self._is_watched(job) == begins:
                self._watched(job, begins)
