"""Faults that real servers are met with, each at any size: short in the tests, long in
`benchmarks/server_faults.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from serving import Serving

import tiny_model
from faults.streams import raise_limit

WISH = {"prompt": "fox", "model": "tiny.safetensors", "seed": 0, "steps": 1}
"""A job of a few milliseconds."""
LONG = {"count": 64, "steps": 1000}
"""A job of minutes."""
PATIENCE = 240.0


class Found(NamedTuple):
    """What came of a fault: a row of the table.

    did: what was done; came: what came of it; good: whether that is as it should be.
    """

    did: str
    came: str
    good: bool


class Setup(NamedTuple):
    """A server of a small model, and who asks it."""

    server: Serving
    client: httpx.Client
    model: Path

    def get(self, path: str, **params: Any) -> Any:
        answer = self.client.get(f"{self.server.base}/v1/{path}", params=params)
        answer.raise_for_status()
        return answer.json()

    def ask(self, key: str | None = None, **wish: Any) -> httpx.Response:
        """Ask for a job."""
        headers = {} if key is None else {"idempotency-key": key}
        address = f"{self.server.base}/v1/jobs"
        return self.client.post(address, json={**WISH, **wish}, headers=headers)

    def job(self, **wish: Any) -> str:
        """The id of a new job, which is taken."""
        answer = self.ask(**wish)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def done(self, name: str) -> dict[str, Any]:
        """A job when it has ended."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.get(f"jobs/{name}"))
            return found["state"] not in ("submitted", "running")

        self.server.until(ended)
        return found

    def cancel(self, name: str) -> str:
        """Cancel a job; its state."""
        return self.client.delete(f"{self.server.base}/v1/jobs/{name}").json()["state"]

    def metrics(self) -> dict[str, float]:
        text = self.client.get(f"{self.server.base}/metrics").text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def waiting(self) -> int:
        """How many jobs wait or run; 1 when nobody answers."""
        with suppress(httpx.HTTPError, KeyError, ValueError):
            told = self.metrics()
            return int(
                sum(told[f'mezzotint_jobs{{state="{s}"}}'] for s in ("submitted", "running"))
            )
        return 1


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Setup]:
    """A server that has been started, and may have many clients."""
    raise_limit(5000)
    with setup(folder, *options) as at:
        at.server.start()
        yield at


@contextmanager
def setup(folder: Path, *options: str, within: Sequence[str] = ()) -> Iterator[Setup]:
    """A server, not started yet, which is stopped at the end."""
    folder.mkdir(exist_ok=True)
    models = folder / "models"
    models.mkdir(exist_ok=True)
    model = models / "tiny.safetensors"
    tiny_model.write(model)
    given = ["--models", str(models), "--most-jobs", "100000", *options]
    server = Serving(folder, given, within)
    # A server ends a connection that rests for 5 s: one that is taken up again must be younger.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=1)
    with httpx.Client(timeout=30, limits=limits) as client:
        try:
            yield Setup(server, client, model)
        finally:
            server.stop()


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait until something holds; whether it does."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
