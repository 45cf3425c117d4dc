"""Many clients who listen and say nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime

from faults import LONG, Found, Setup, until
from faults.streams import files_of, memory_of, open_all, seconds_of

_DONE = b'"state": "done"'


def idle(at: Setup, count: int, seconds: float) -> Iterator[Found]:
    """So many follow all jobs, for so long; then so many follow one."""
    at.done(at.job())
    yield from asyncio.run(_all(at, count, seconds))
    yield asyncio.run(_one(at, count))


async def _timed(at: Setup) -> tuple[str, float]:
    """A job, and what it took from being taken in until it was done: the median of some."""
    took = []
    name = ""
    for seed in range(7):
        name = await asyncio.to_thread(at.job, seed=seed)
        row = await asyncio.to_thread(at.done, name)
        begin, end = (datetime.fromisoformat(row[when]) for when in ("created", "finished"))
        took.append((end - begin).total_seconds())
    return name, sorted(took)[3]


async def _all(at: Setup, count: int, seconds: float) -> list[Found]:
    pid = at.server.process.pid
    _, usual = await _timed(at)
    memory, files = memory_of(pid), files_of(pid)
    streams = await open_all(at.server.base, ["GET /v1/events"] * count)
    there = sum(await asyncio.gather(*(s.until(b": still here") for s in streams)))
    spent = seconds_of(pid)
    await asyncio.sleep(seconds)
    spent = seconds_of(pid) - spent
    each = (memory_of(pid) - memory) / count
    name, meanwhile = await _timed(at)
    ended = b'"job": "%s", "state": "done"' % name.encode()
    told = sum(await asyncio.gather(*(s.until(ended) for s in streams)))
    lived = sum(not s.ended.is_set() for s in streams)
    await asyncio.gather(*(s.close(rudely=False) for s in streams))
    left = await asyncio.to_thread(_left, at, files)
    return [
        Found(
            f"{count} clients follow all jobs and idle for {seconds:.0f} s",
            f"{there} connected; {each / 1024:.0f} kB of memory each, the server takes "
            f"{100 * spent / seconds:.1f} % of a processor",
            there == count,
        ),
        Found(
            "a job meanwhile",
            f"{1000 * meanwhile:.0f} ms, without them {1000 * usual:.0f} ms; {told} were told of "
            f"its end, {lived} still connected; gone, {left}",
            told == lived == count and left.startswith("0 listeners"),
        ),
    ]


async def _one(at: Setup, count: int) -> Found:
    """Each is told of the end of one job, and then its stream ends."""
    pid = at.server.process.pid
    files = files_of(pid)
    first = await asyncio.to_thread(at.job, **LONG)
    name = await asyncio.to_thread(at.job, seed=5)
    streams = await open_all(at.server.base, [f"GET /v1/jobs/{name}/events"] * count)
    there = sum(await asyncio.gather(*(s.until(b"event: state") for s in streams)))
    await asyncio.to_thread(at.cancel, first)  # and the next one's turn has come
    told = sum(await asyncio.gather(*(s.until(_DONE) for s in streams)))
    began = time.monotonic()
    answer = await asyncio.to_thread(at.get, "health")
    waited = time.monotonic() - began
    await asyncio.gather(*(asyncio.wait_for(s.ended.wait(), 60) for s in streams))
    await asyncio.gather(*(s.close(rudely=False) for s in streams))
    left = await asyncio.to_thread(_left, at, files)
    return Found(
        f"{count} clients follow one job to its end",
        f"{there} connected, {told} were told of its end; then another request took "
        f"{1000 * waited:.0f} ms; afterwards {left}",
        there == told == count and answer["ready"] and left.startswith("0 listeners"),
    )


def _left(at: Setup, files: int) -> str:
    until(lambda: at.metrics()["mezzotint_listeners"] == 0, 40)
    until(lambda: files_of(at.server.process.pid) <= files + 40, 40)
    listeners = int(at.metrics()["mezzotint_listeners"])
    more = files_of(at.server.process.pid) - files
    return f"{listeners} listeners and {max(more, 0)} more open files than before"
