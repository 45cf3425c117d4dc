"""SIGKILL of the server and its workers at random moments under load: POSIX only."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from PIL import Image
from sqlalchemy import Connection, Engine, select, text

from faults import Setup, until
from mezzotint.apps.server import tables
from mezzotint.apps.server.store import Store

CLIENTS = 4
SEEDS = 8
SPREAD = 0.2
"""Seconds at most between two jobs of a client, so that they still ask when the dice fall."""
LIVES = 5.0
"""Seconds at most between two kills: a worker has begun to work some 3 s after its start."""


class Round(NamedTuple):
    """What came of a round.

    lost: jobs that were taken and are not there; twice: jobs or pictures that are there more than
    once; wrong: pictures that are not those of an undisturbed run, or not what their file's name
    says; open: jobs that are not done.
    """

    round: int
    killed_server: int
    killed_worker: int
    jobs: int
    done: int
    open: int
    lost: int
    twice: int
    wrong: int
    seconds: float

    @property
    def good(self) -> bool:
        bad = self.open + self.lost + self.twice + self.wrong
        return self.done == self.jobs and not bad


class Load:
    """Clients that submit jobs until each is accepted."""

    def __init__(self, at: Setup, jobs: int, name: str, dice: random.Random) -> None:
        self.accepted: dict[str, set[str]] = {f"{name}-{n}": set() for n in range(jobs)}
        self._at = at
        self._threads = [
            threading.Thread(
                target=self._ask,
                args=(list(self.accepted)[n::CLIENTS], random.Random(dice.random())),
            )
            for n in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self, keys: list[str], dice: random.Random) -> None:
        for key in keys:
            seed = int(key.rpartition("-")[2]) % SEEDS
            while not self._once(key, seed):
                time.sleep(0.05)
            if dice.random() < 0.05:  # as if the answer had been lost
                self._once(key, seed)
            time.sleep(dice.uniform(0, SPREAD))

    def _once(self, key: str, seed: int) -> bool:
        """Ask; whether it was accepted."""
        with suppress(httpx.HTTPError, KeyError, ValueError):
            answer = self._at.ask(key, seed=seed)
            if answer.status_code == 202:
                self.accepted[key].add(answer.json()["id"])
                return True
        return False


def workers(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "server.worker"], capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split()]


def _disturb(at: Setup, dice: random.Random, kills: int, over: threading.Event) -> Counter[str]:
    """Kill so often, unless the round is over before."""
    killed: Counter[str] = Counter()
    for _ in range(kills):
        if over.wait(dice.uniform(0.1, LIVES)):
            break
        if dice.random() < 0.5:
            at.server.kill()
            at.server.start(wait=False)
            killed["server"] += 1
        elif pids := workers(at.server.process.pid):
            with suppress(ProcessLookupError):
                os.kill(dice.choice(pids), signal.SIGKILL)
            killed["worker"] += 1
    return killed


def _since(at: Setup, number: int) -> list[dict[str, Any]]:
    """All jobs after the one of a number."""
    found: list[dict[str, Any]] = []
    before: dict[str, int] = {}
    while True:
        page = at.get("jobs", limit=200, **before)["jobs"]
        found += [row for row in page if row["number"] > number]
        if not page or page[-1]["number"] <= number:
            return found
        before = {"before": page[-1]["number"]}


def _newest(at: Setup) -> int:
    rows = at.get("jobs", limit=1)["jobs"]
    return rows[0]["number"] if rows else 0


def _pixels(at: Setup, output: dict[str, Any]) -> bytes:
    """The pixels of a picture, whose file must be what its name says."""
    data = at.client.get(at.server.base + output["url"]).content
    if hashlib.sha256(data).hexdigest() != output["file"]:
        return b""
    return Image.open(io.BytesIO(data)).tobytes()


def expected(at: Setup) -> dict[int, bytes]:
    """The pictures of an undisturbed run."""
    made = at.done(at.job(count=SEEDS))["outputs"]
    return {int(output["seed"]): _pixels(at, output) for output in made}


def one_round(
    at: Setup, number: int, jobs: int, kills: int, dice: random.Random, right: dict[int, bytes]
) -> Round:
    """Load, kills, and what is there afterwards."""
    began, first = time.monotonic(), _newest(at)
    over = threading.Event()
    killed: Counter[str] = Counter()
    disturbing = threading.Thread(target=lambda: killed.update(_disturb(at, dice, kills, over)))
    with Load(at, jobs, f"{first}", dice) as load:
        disturbing.start()
    until(lambda: at.waiting() == 0)
    over.set()
    disturbing.join()
    until(lambda: at.waiting() == 0)  # the last kill may have met the last job
    rows = {row["id"]: row for row in _since(at, first)}
    ids = {name for names in load.accepted.values() for name in names}
    made = [row for row in rows.values() if row["state"] == "done"]
    pictures = [(row, output) for row in made for output in row["outputs"]]
    return Round(
        number,
        killed["server"],
        killed["worker"],
        jobs,
        len(made),
        len(rows) - len(made),
        len(ids - set(rows)),
        len(rows) - jobs + sum(abs(len(row["outputs"]) - 1) for row in made),
        sum(_pixels(at, output) != right[int(output["seed"])] for _, output in pictures),
        round(time.monotonic() - began, 1),
    )


# --- afterwards -------------------------------------------------------------------------------


class After(NamedTuple):
    """What is there at the end, when the server has been stopped."""

    files: int
    orphaned: int
    missing: int
    left_over: int
    database: str
    verified: int
    checked: int

    @property
    def good(self) -> bool:
        left = self.orphaned + self.missing + self.left_over
        return not left and self.database.startswith("ok") and self.verified == self.checked


def after(at: Setup, address: str | None, sample: int, dice: random.Random) -> After:
    """Stop the server, start it once more, as it tidies up then, stop it, and look."""
    at.server.stop()
    at.server.start()
    at.server.stop()
    data = at.server.data
    engine = tables.connect(address or tables.of_file(data / "mezzotint.db"))
    store = Store(data / "files")
    with tables.reading(engine) as connection:
        known = set(connection.scalars(select(tables.outputs.c.file)))
    there = set(store.names())
    left = list((data / "work").glob("*"))
    left += [path for path in (data / "files").rglob("*") if path.name.startswith(".")]
    chosen = dice.sample(sorted(known), min(sample, len(known)))
    verified = _verified(at, [store.path(name) for name in chosen])
    said = _checked(engine)
    engine.dispose()
    counts = (len(there), len(there - known), len(known - there), len(left))
    return After(*counts, said, verified, len(chosen))


def _verified(at: Setup, paths: list[Path]) -> int:
    """Of some files, how many `mezzotint verify` finds bit-equal: one process for all."""
    folder = at.server.folder / "verified"
    folder.mkdir(exist_ok=True)
    names = []
    for path in paths:
        name = folder / f"{path.parent.name}{path.name}.png"
        name.write_bytes(path.read_bytes())
        names.append(str(name))
    command = [sys.executable, "-m", "mezzotint", "verify", "--in", str(at.model.parent), *names]
    ran = subprocess.run(command, capture_output=True, text=True, env=at.server.env)
    return ran.stdout.count(": bit-equal")


_COUNTS = {
    "jobs without their picture": "SELECT count(*) FROM jobs WHERE state = 'done' AND kind = "
    "'generate' AND pictures <> (SELECT count(*) FROM outputs WHERE job = jobs.id)",
    "pictures without their job": "SELECT count(*) FROM outputs WHERE job NOT IN "
    "(SELECT id FROM jobs)",
    "places that are there twice": "SELECT count(*) FROM (SELECT 1 FROM outputs GROUP BY job, "
    "place HAVING count(*) > 1) AS twice",
    "keys that are there twice": "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE key IS NOT NULL "
    "GROUP BY owner, key HAVING count(*) > 1) AS twice",
}


def _checked(engine: Engine) -> str:
    """What the database says of itself, and what is counted in it: "ok" and how."""
    with engine.connect() as connection:
        for what, how in _COUNTS.items():
            if found := connection.scalar(text(how)):
                return f"{found} {what}"
        if engine.dialect.name == "sqlite":
            said = str(connection.scalar(text("PRAGMA integrity_check")))
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            return f"{said} (PRAGMA integrity_check)" if not broken else f"{len(broken)} keys"
        return _amcheck(connection)


def _amcheck(connection: Connection) -> str:
    """PostgreSQL's own check of its tables and indexes, where it has it."""
    there = text("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'")
    if not connection.scalar(there):
        return "ok (counts and constraints)"
    connection.execute(text("CREATE EXTENSION IF NOT EXISTS amcheck"))
    public = "relnamespace = 'public'::regnamespace"
    found = 0
    for (name,) in connection.execute(
        text(f"SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND {public}")
    ).all():
        found += len(connection.execute(text(f"SELECT * FROM verify_heapam('{name}')")).all())
    for (name,) in connection.execute(
        text(f"SELECT oid::regclass::text FROM pg_class WHERE relkind = 'i' AND {public}")
    ).all():  # raises when it finds something
        connection.execute(text(f"SELECT bt_index_check('{name}', true)"))
    return f"{found} damaged rows" if found else "ok (amcheck)"


def rounds(
    at: Setup, count: int, jobs: int, dice: random.Random, until_: float = float("inf")
) -> Iterator[Round]:
    """So many rounds, or as many as begin before a time of the monotonic clock."""
    right = expected(at)
    for number in range(count):
        if time.monotonic() > until_:
            return
        yield one_round(at, number, jobs, dice.randint(1, 3), dice, right)
