"""Clients that are gone in the middle: followers, uploads and downloads."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator

from PIL import Image

from faults import LONG, Found, Setup, until
from faults.streams import files_of, memory_of, open_all

_WHOLE = 4_000_000  # bytes of an upload


class _Held:
    """What a server holds of its clients."""

    def __init__(self, at: Setup) -> None:
        told = at.metrics()
        self.listeners = int(told["mezzotint_listeners"])
        self.tasks = int(told["mezzotint_tasks"])
        self.files = files_of(at.server.process.pid)

    def no_more_than(self, other: _Held) -> bool:
        """Files: of the pools of connections and threads some are opened as they are needed."""
        mine = (self.listeners, self.tasks)
        return mine <= (other.listeners, other.tasks) and self.files <= other.files + 40


def gone(at: Setup, count: int) -> Iterator[Found]:
    """So many of each kind, one after the other; half of them go as a cable is cut."""
    picture = io.BytesIO()
    Image.frombytes("RGB", (1200, 1200), os.urandom(3 * 1200 * 1200)).save(picture, "PNG")
    given = at.client.post(f"{at.server.base}/v1/uploads", content=picture.getvalue())
    file = given.json()["id"]
    at.done(at.job())
    asyncio.run(_cut(at, ["GET /v1/events"] * 4))  # what is opened once is open
    until(lambda: at.metrics()["mezzotint_listeners"] == 0, 30)
    before, memory = _Held(at), memory_of(at.server.process.pid)
    job = at.job(**LONG)
    waits = at.job(seed=1)
    kinds = {
        "who follow a job that runs": f"GET /v1/jobs/{job}/events",
        "who follow a job that waits": f"GET /v1/jobs/{waits}/events",
        "who follow all": "GET /v1/events",
        "who fetch a picture of 4 MB": f"GET /v1/files/{file}",
    }
    for what, request in kinds.items():
        many = count // 3 if "fetch" in what else count  # each takes 4 MB of the server
        most = asyncio.run(_cut(at, [request] * many))
        yield _found(at, f"{many} {what}", before, most)
    body = b"\x89PNG\r\n\x1a\n" + b"\0" * 100_000
    most = asyncio.run(_cut(at, ["POST /v1/uploads"] * count, body))
    yield _found(at, f"{count} who send a picture of 4 MB", before, most)
    ended = [at.cancel(job), at.done(waits)["state"]]
    log = at.server.log.read_text()
    grown = (memory_of(at.server.process.pid) - memory) >> 20
    yield Found(
        "a job that runs meanwhile is cancelled, and one that waits is done",
        f"{', '.join(ended)}; the server's memory has grown by {grown} MB; its log has "
        f"{log.count('Traceback')} tracebacks",
        ended == ["cancelled", "done"] and "Traceback" not in log,
    )


async def _cut(at: Setup, requests: list[str], body: bytes = b"") -> int:
    """Open them all, let some of it come, and go; how many listeners there were at most."""
    streams = await open_all(at.server.base, requests, body, _WHOLE if body else 0)
    if not body:
        assert all(await asyncio.gather(*(stream.until(b"\r\n\r\n") for stream in streams)))
    told = await asyncio.to_thread(at.metrics)
    await asyncio.gather(*(s.close(rudely=n % 2 == 0) for n, s in enumerate(streams)))
    return int(told["mezzotint_listeners"])


def _found(at: Setup, did: str, before: _Held, most: int) -> Found:
    until(lambda: _Held(at).no_more_than(before), 40)
    now = _Held(at)
    came = (
        f"{most} listened; afterwards {now.listeners} listeners, {now.tasks} tasks (before: "
        f"{before.tasks}), {now.files} open files (before: {before.files})"
    )
    return Found(f"{did}, cut off", came, now.no_more_than(before))
