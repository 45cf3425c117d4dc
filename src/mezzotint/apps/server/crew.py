"""The workers of a server: started when they are needed, listened to, and started again when they
die.

A worker that has had nothing to do for some time ends, and all its memory goes back to the system:
a server at rest is this process alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from mezzotint.apps.server import queue
from mezzotint.apps.server.places import Places

SILENT_SECONDS = 20.0
"""A job whose worker has not said so long that it lives is given to another."""
LOOK_SECONDS = 1.0
HELLO_SECONDS = 20.0
_SHORTEST, _LONGEST = 0.1, 10.0  # seconds before a worker that died at once is started again
_LINE = 4 << 20  # bytes of a line: a preview is in it

Hear = Callable[[dict[str, Any]], None]


@dataclass
class _Worker:
    name: str
    device: str | None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None
    job: tuple[str, int] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None


class Crew:
    """One worker a device."""

    def __init__(
        self,
        engine: Engine,
        address: str,
        places: Places,
        devices: list[str | None],
        hear: Hear,
        memory: str | None = None,
        idle: float = 0.0,
    ) -> None:
        """hear: is told what workers tell, in the loop's thread; memory, idle: of a worker."""
        self._engine, self._address, self._places, self._hear = engine, address, places, hear
        self._memory, self._idle = memory, idle
        here = secrets.token_hex(4)
        self._workers = [_Worker(f"{here}-{n}", device) for n, device in enumerate(devices)]
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._known = asyncio.Event()
        self.clean = True  # no worker has died at a job
        self._seen: dict[tuple[str, int], tuple[int, float]] = {}
        self._models = places.standing()

    @property
    def about(self) -> dict[str, Any]:
        """What the first worker that has said hello can do."""
        return next((w.about for w in self._workers if w.about), {})

    @property
    def alive(self) -> int:
        return sum(worker.alive for worker in self._workers)

    @property
    def rests(self) -> bool:
        """Whether none is there because none is needed."""
        return not any(worker.wanted.is_set() for worker in self._workers)

    def rouse(self) -> None:
        """Somebody is there: start those that rest."""
        for worker in self._workers:
            worker.wanted.set()

    async def known(self) -> None:
        """Wait until it is known what workers can do, which takes them some seconds once; not for
        ever, for they may not come."""
        if not self._known.is_set():
            self.rouse()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._known.wait(), HELLO_SECONDS)

    @property
    def tasks(self) -> int:
        """Tasks of the event loop, of requests too."""
        return 0 if self._loop is None else len(asyncio.all_tasks(self._loop))

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        self._tasks.append(asyncio.create_task(self._look()))

    async def stop(self, seconds: float = 10.0) -> None:
        """Let workers end what they are at for so long; what is not done by then is given back."""
        self._stopping = True
        until = time.monotonic() + seconds
        while any(w.job for w in self._workers) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                self.clean &= worker.job is None
                worker.process.kill()
                await worker.process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(DBAPIError):  # the next server gives them back
            await asyncio.to_thread(self._give_back_own)

    def _give_back_own(self) -> None:
        names = {worker.name for worker in self._workers}
        held = [(j.id, j.attempt) for j in queue.running(self._engine) if j.worker in names]
        queue.give_back(self._engine, held)

    # -- telling ------------------------------------------------------------------------------

    def _tell(self, worker: _Worker, line: str) -> None:
        process = worker.process
        if process is not None and process.stdin is not None and process.returncode is None:
            with suppress(ConnectionError, RuntimeError):
                process.stdin.write(line.encode())

    def wake(self) -> None:
        """There is a new job: for those that wait, or for those that rest, if no other waits."""
        waiting = [worker for worker in self._workers if worker.alive and worker.job is None]
        for worker in waiting:
            self._tell(worker, "wake\n")
        if not waiting:
            self.rouse()

    def tell(self, word: str, job: str) -> None:
        """``cancel``, ``watch`` or ``unwatch`` a job, if one of these workers is at it."""
        for worker in self._workers:
            if worker.job is not None and worker.job[0] == job:
                self._tell(worker, f"{word} {job}\n")

    async def _show_models(self) -> None:
        """Have workers say anew what there is to choose from, where that is another than it was."""
        now = self._models
        with suppress(OSError):  # a folder that goes in this moment
            now = await asyncio.to_thread(self._places.standing)
        if now == self._models:
            return
        self._models = now
        for worker in self._workers:
            self._tell(worker, "greet\n")
        if not self.alive:
            self.rouse()

    # -- keeping ------------------------------------------------------------------------------

    async def _keep(self, worker: _Worker) -> None:
        """Start a worker when it is needed, and again whenever it dies."""
        pause = _SHORTEST
        while not self._stopping:
            await worker.wanted.wait()
            began = time.monotonic()
            if await self._run(worker) == 0:  # it had nothing to do: a job that came now is found
                worker.wanted.clear()
                continue
            if worker.job is not None:
                held, worker.job, self.clean = worker.job, None, False
                await self._give_back([held], crashed=True)
            pause = _SHORTEST if time.monotonic() - began > _LONGEST else min(2 * pause, _LONGEST)
            await asyncio.sleep(pause)

    async def _run(self, worker: _Worker) -> int:
        """Start a worker and listen to it until it ends; how it did."""
        command = [sys.executable, "-m", "mezzotint.apps.server.worker"]
        command += ["--database", self._address, "--data", str(self._places.data.resolve())]
        for path in self._places.models:
            command += ["--models", str(path.resolve())]
        command += ["--name", worker.name, "--idle", str(self._idle)]
        command += [] if worker.device is None else ["--device", worker.device]
        command += [] if self._memory is None else ["--memory", self._memory]
        worker.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert worker.process.stdout is not None
        try:
            async for line in worker.process.stdout:
                self._heard(worker, line)
        except (ValueError, asyncio.LimitOverrunError):  # a line too long: it is not our worker
            worker.process.send_signal(signal.SIGKILL)
        return await worker.process.wait()

    def _heard(self, worker: _Worker, line: bytes) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return
        if "hello" in told:
            worker.about = told["hello"]
            self._known.set()
        if told.get("state") == "running":
            worker.job = (told["job"], told["attempt"])
        elif "state" in told:
            worker.job = None
        self._hear(told)

    async def _give_back(self, held: list[tuple[str, int]], crashed: bool = False) -> None:
        """Try until the database takes it: a job that nobody works at must not stay so."""
        while True:
            try:
                names = await asyncio.to_thread(queue.give_back, self._engine, held, crashed)
                break
            except DBAPIError:
                await asyncio.sleep(LOOK_SECONDS)
        self._told_back(names)

    def _told_back(self, names: list[str]) -> None:
        for name in names:
            self._hear({"job": name, "state": "submitted"})
        self.wake()

    async def _look(self) -> None:
        """Find jobs whose worker is silent, by the time that passes here: no clock can lie; and
        those that wait while workers rest, which other servers or other runs have taken in; and
        models that came or went."""
        while True:
            await self._show_models()
            try:
                if not self.alive and await asyncio.to_thread(queue.waits, self._engine):
                    self.rouse()
                rows = await asyncio.to_thread(queue.running, self._engine)
                now, seen = time.monotonic(), {}
                for row in rows:
                    last = self._seen.get((row.id, row.attempt))
                    same = last is not None and last[0] == row.beat
                    seen[row.id, row.attempt] = last if same and last else (row.beat, now)
                self._seen = seen
                silent = [key for key, (_, when) in seen.items() if now - when > SILENT_SECONDS]
                if silent:
                    await self._silence(silent)
            except DBAPIError:  # it takes nothing in, so that nobody can say that he lives
                self._seen = {}
            await asyncio.sleep(LOOK_SECONDS)

    async def _silence(self, silent: list[tuple[str, int]]) -> None:
        """Take jobs from those who are silent, in a database that can be written to."""
        names = await asyncio.to_thread(queue.give_back, self._engine, silent)
        for worker in self._workers:
            if worker.job in silent and worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.kill()
        self._told_back(names)
