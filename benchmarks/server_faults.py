"""Kill the server and its workers at random moments under load; is every job done, once, and right?

    python benchmarks/server_faults.py                              # 100 rounds of 200 jobs, SQLite
    python benchmarks/server_faults.py --database postgresql://user@host/empty --rounds 10

A round submits jobs from several clients, each with an idempotency key, who ask again when nobody
answers; meanwhile SIGKILL meets the server or a worker, whichever the dice say, and a server that
was killed is started again.  Then: every key has one job, every job is done, its pictures are
there once and are those of an undisturbed run, bit by bit, and the database passes its own check;
of some the file is verified by `mezzotint verify`.  POSIX only.  Prints a row a round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "server")]

from serving import Serving  # noqa: E402

import tiny_model  # noqa: E402 (they are the tests')

CLIENTS = 4
SEEDS = 8
PATIENCE = 240.0


class Row(NamedTuple):
    """What came of a round."""

    round: int
    killed_server: int
    killed_worker: int
    jobs: int
    done: int
    lost: int
    twice: int
    wrong: int
    seconds: float

    @property
    def good(self) -> bool:
        return self.done == self.jobs and not (self.lost or self.twice or self.wrong)


class Load:
    """Clients that submit jobs until each is accepted."""

    def __init__(self, server: Serving, jobs: int, round_: int) -> None:
        self.accepted: dict[str, set[str]] = {f"{round_}-{n}": set() for n in range(jobs)}
        self._server = server
        self._threads = [
            threading.Thread(target=self._ask, args=(list(self.accepted)[n::CLIENTS],))
            for n in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self, keys: list[str]) -> None:
        for key in keys:
            seed = int(key.partition("-")[2]) % SEEDS
            wish = {"prompt": "fox", "model": "tiny.safetensors", "seed": seed, "steps": 1}
            while not self.accepted[key]:
                if self._once(key, wish):
                    if random.random() < 0.05:  # as if the answer had been lost
                        self._once(key, wish)
                else:
                    time.sleep(0.05)

    def _once(self, key: str, wish: dict[str, Any]) -> bool:
        """Ask; whether it was accepted."""
        with suppress(httpx.HTTPError, KeyError, ValueError):
            address, headers = f"{self._server.base}/v1/jobs", {"idempotency-key": key}
            answer = httpx.post(address, json=wish, headers=headers, timeout=5)
            if answer.status_code == 202:
                self.accepted[key].add(answer.json()["id"])
                return True
        return False


def _workers(server: Serving) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(server.process.pid), "-f", "server.worker"],
        capture_output=True,
        text=True,
    )
    return [int(pid) for pid in found.stdout.split()]


def _disturb(server: Serving, dice: random.Random, over: threading.Event) -> Counter[str]:
    """Kill now and then until the load is over."""
    killed: Counter[str] = Counter()
    while not over.wait(dice.uniform(0.2, 6)):
        if dice.random() < 0.5:
            server.kill()
            server.start(wait=False)
            killed["server"] += 1
        elif pids := _workers(server):
            with suppress(ProcessLookupError):
                os.kill(dice.choice(pids), signal.SIGKILL)
            killed["worker"] += 1
    return killed


def _all(server: Serving, what: str) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    found: list[dict[str, Any]] = []
    before = None
    while True:
        params = {"limit": 200} | ({} if before is None else {"before": before})
        page = httpx.get(f"{server.base}/v1/{what}", params=params, timeout=30).json()[what]
        if not page:
            return found
        found += page
        before = page[-1]["number"]


def _open(server: Serving) -> int:
    with suppress(httpx.HTTPError, KeyError, ValueError):
        return sum(
            len(httpx.get(f"{server.base}/v1/jobs?state={state}", timeout=30).json()["jobs"])
            for state in ("submitted", "running")
        )
    return 1


def _pixels(server: Serving, output: dict[str, Any]) -> bytes:
    answer = httpx.get(server.base + output["url"], timeout=30)
    return Image.open(io.BytesIO(answer.content)).tobytes()


def one_round(
    server: Serving, number: int, jobs: int, dice: random.Random, expected: dict[int, bytes]
) -> Row:
    """Load, faults, and what is there afterwards."""
    began = time.monotonic()
    over = threading.Event()
    killed: Counter[str] = Counter()
    disturbing = threading.Thread(target=lambda: killed.update(_disturb(server, dice, over)))
    with Load(server, jobs, number) as load:
        disturbing.start()
    end = time.monotonic() + PATIENCE
    while _open(server) and time.monotonic() < end:
        if time.monotonic() - began > 30:
            over.set()  # let it come to an end
        time.sleep(0.1)
    over.set()
    disturbing.join()
    end = time.monotonic() + PATIENCE
    while _open(server) and time.monotonic() < end:
        time.sleep(0.1)
    ids = [name for names in load.accepted.values() for name in names]
    rows = {row["id"]: row for row in _all(server, "jobs")}
    mine = [rows[name] for name in ids if name in rows]
    lost = len(ids) - len(mine)
    twice = len(ids) - len(load.accepted)
    wrong = sum(
        len(row["outputs"]) != 1
        or _pixels(server, row["outputs"][0]) != expected[int(row["outputs"][0]["seed"])]
        for row in mine
    )
    done = sum(row["state"] == "done" for row in mine)
    spent = time.monotonic() - began
    return Row(number, killed["server"], killed["worker"], jobs, done, lost, twice, wrong, spent)


def _expected(server: Serving) -> dict[int, bytes]:
    """The pictures of an undisturbed run."""
    wish = {"prompt": "fox", "model": "tiny.safetensors", "seed": 0, "steps": 1, "count": SEEDS}
    job = httpx.post(f"{server.base}/v1/jobs", json=wish).json()["id"]
    server.until(lambda: httpx.get(f"{server.base}/v1/jobs/{job}").json()["state"] == "done")
    made = httpx.get(f"{server.base}/v1/jobs/{job}").json()["outputs"]
    return {int(output["seed"]): _pixels(server, output) for output in made}


def _verified(server: Serving, model: Path, folder: Path, most: int) -> tuple[int, int]:
    """Of so many files, how many `mezzotint verify` finds bit-equal."""
    paths = []
    for output in _all(server, "outputs")[:most]:
        path = folder / f"{output['id']}.png"
        path.write_bytes(httpx.get(server.base + output["url"]).content)
        paths.append(str(path))
    ran = subprocess.run(
        [sys.executable, "-m", "mezzotint", "verify", "--in", str(model.parent), *paths],
        capture_output=True,
        text=True,
        env=server.env,
    )
    return ran.stdout.count(": bit-equal"), len(paths)


def _intact(address: str | None, data: Path) -> str:
    """What the database says of itself."""
    if address is not None:
        return "PostgreSQL"
    import sqlite3

    with sqlite3.connect(data / "mezzotint.db") as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def main(args: argparse.Namespace) -> int:
    dice = random.Random(args.seed)
    options = [] if args.database is None else ["--database", args.database]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = folder / "models"
        models.mkdir()
        tiny_model.write(models / "tiny.safetensors")
        limits = ["--models", str(models), "--most-jobs", "100000"]
        server = Serving(folder, [*options, *limits])
        server.start()
        expected = _expected(server)
        print("round  kills of server, worker    jobs   done   lost  twice  wrong  seconds")
        for number in range(args.rounds):
            row = one_round(server, number, args.jobs, dice, expected)
            rows.append(row)
            print(
                f"{row.round:5d}  {row.killed_server:15d} {row.killed_worker:7d} {row.jobs:7d} "
                f"{row.done:6d} {row.lost:6d} {row.twice:6d} {row.wrong:6d} {row.seconds:8.1f}",
                flush=True,
            )
        equal, checked = _verified(server, models / "tiny.safetensors", folder, args.verify)
        server.stop()
        intact = _intact(args.database, server.data)
    kills = sum(row.killed_server + row.killed_worker for row in rows)
    good = all(row.good for row in rows) and equal == checked and intact in ("ok", "PostgreSQL")
    print(f"{kills} kills; {equal} of {checked} verified; database: {intact}")
    if args.out is not None:
        data = {"rows": [row._asdict() for row in rows], "verified": [equal, checked]}
        args.out.write_text(json.dumps({**data, "database": intact}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="kill the server under load; is any job lost?")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--verify", type=int, default=100, help="files, at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database")
    parser.add_argument("--out", type=Path, help="a JSON file")
    sys.exit(main(parser.parse_args()))
