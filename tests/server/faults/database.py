"""A database that goes away and comes back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from postgres import PostgreSQL

from faults import Found, Setup, setup, until
from faults.kill import workers

_REQUESTS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("POST", "/v1/jobs", {"prompt": "fox", "model": "tiny.safetensors", "steps": 1}),
    ("POST", "/v1/images/generations", {"prompt": "fox", "model": "tiny.safetensors"}),
    ("GET", "/v1/jobs", None),
    ("GET", "/v1/outputs", None),
    ("GET", "/metrics", None),
)
_WRITES = 2
"""So many of them write; those who read are not hindered by who writes to SQLite."""
_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def stopped(folder: Path, cluster: PostgreSQL, seconds: float, jobs: int) -> Found:
    """PostgreSQL, as a crash ends it, and started again."""

    @contextmanager
    def away(_: Setup) -> Iterator[None]:
        cluster.stop()
        try:
            yield
        finally:
            cluster.start()

    with setup(folder, "--database", cluster.address) as at:
        at.server.start()
        did = f"PostgreSQL stopped (immediate) for {seconds:.0f} s and started, {jobs} jobs wait"
        return _gone(at, away, seconds, jobs, did, _REQUESTS)


def locked(at: Setup, seconds: float, jobs: int) -> Found:
    """SQLite, in which another process has begun to write and does not end."""

    @contextmanager
    def away(at: Setup) -> Iterator[None]:
        command = [sys.executable, "-c", _LOCK, str(at.server.data / "mezzotint.db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            yield
            process.stdin.close()

    did = f"SQLite locked by another process for {seconds:.0f} s, {jobs} jobs wait"
    return _gone(at, away, seconds, jobs, did, _REQUESTS[:_WRITES])


def _gone(
    at: Setup,
    away: Callable[[Setup], Any],
    seconds: float,
    jobs: int,
    did: str,
    requests: tuple[tuple[str, str, dict[str, Any] | None], ...],
) -> Found:
    there = workers(at.server.process.pid)
    names = [at.job(seed=n, count=4, steps=20) for n in range(jobs)]
    told: list[str] = []
    follows = threading.Thread(target=_follow, args=(at, names[-1], told))
    follows.start()
    at.server.until(lambda: at.get(f"jobs/{names[0]}")["outputs"])
    answers: Counter[tuple[int, bool]] = Counter()
    with away(at):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for method, path, body in requests:
                answer = _answer(at, method, path, body)
                answers[answer.status_code, "retry-after" in answer.headers] += 1
        health = at.get("health")
    until(lambda: at.waiting() == 0)
    follows.join(30)
    rows = [at.get(f"jobs/{name}") for name in names]
    done = sum(row["state"] == "done" and len(row["outputs"]) == 4 for row in rows)
    again = sum(row["attempt"] > 1 for row in rows)
    same = workers(at.server.process.pid) == there
    end_told = told[-1] if told else "nothing"
    codes = ", ".join(f"{code} {count} times" for (code, _), count in sorted(answers.items()))
    came = (
        f"answered {codes}, with Retry-After; {done} of {jobs} jobs done, {again} begun again; "
        f"the workers {'lived on' if same else 'were started anew'}; who followed a job was told "
        f"{end_told}"
    )
    good = set(answers) == {(503, True)} and health["workers"] == 1
    return Found(did, came, good and done == jobs and same and end_told == "done" and not again)


def _answer(at: Setup, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
    return at.client.request(method, at.server.base + path, json=body)


def _follow(at: Setup, name: str, told: list[str]) -> None:
    """Note the states that a follower is told."""
    import json

    with httpx.stream("GET", f"{at.server.base}/v1/jobs/{name}/events", timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                state = json.loads(line.removeprefix("data: ")).get("state")
                told += [] if state is None else [state]
