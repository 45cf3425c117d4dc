"""What a server costs beside the engine: time, memory, and models that are loaded again.

`python benchmarks/server_load.py --out docs/server` starts real servers, as a user starts them, on
loopback, and writes load.md and load.json.  It takes about eight minutes; give it an idle machine.
With --quick it takes one, for a look.  POSIX only.

**Added time.**  Fifty clients ask for pictures, each as `mezzotint generate --server` does: POST
/v1/jobs, follow its events, fetch the file.  A client thinks between its requests, so that the
worker is about half busy and the queue is not the whole of a request's time.  Of a job that took
from its POST to the last byte of its picture,

    added = latency - own - others

own: seconds that its worker spent on what `mezzotint generate` does too (drawing, watermark,
recipe, signature, a file on the disk), as the job says (`result.seconds`); others: the same of the
jobs that ran between its POST and its start; of one that ran already, as much as fits.  Everything
else is the server's: HTTP, database, messages between processes, reading the wish, what makes a
picture be found by its likeness, also where other jobs' share of it made this one wait.

The same without thinking, as throughput: the time of all jobs, less that of the same pictures made
and written by one command line, a job.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "server")]

from serving import Serving  # noqa: E402

import tiny_model  # noqa: E402 (they are the tests')
from server_client import Client, clients  # noqa: E402 (beside this file)

CLIENTS = 50
BUSY = 0.5
"""The share of the most that the server can do that is asked for, as long as clients think."""
MOST_ADDED, MOST_BYTES, MOST_GROWTH = 0.020, 150e6, 0.05
"""What may be: seconds, bytes, a share."""


# --- added time -------------------------------------------------------------------------------


class Timed(NamedTuple):
    """A job: when it was asked for, when its picture was there, and what the server says of it."""

    asked: float
    had: float
    started: float
    finished: float
    own: float


def added(one: Timed, all_: list[Timed]) -> float:
    """What the server added to a job, in seconds."""
    others = 0.0
    for other in all_:
        if other is not one and other.started < one.started and other.finished > one.asked:
            others += min(other.own, other.finished - one.asked)
    return one.had - one.asked - one.own - others


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


async def _run(
    server: Serving, wish: Mapping[str, Any], jobs: int, think: float
) -> tuple[list[Timed], float]:
    """So many jobs by all clients together, and the seconds from the first to the last."""
    dice, numbers = random.Random(0), iter(range(jobs))
    times: dict[str, tuple[float, float]] = {}

    async def work(client: Client) -> None:
        for number in numbers:
            await asyncio.sleep(dice.expovariate(1 / think) if think else 0)
            began = time.time()
            job = await client.picture({**wish, "seed": number})
            times[job] = began, time.time()

    async with clients(server.base, CLIENTS) as all_:
        await asyncio.gather(*map(work, all_))
        found: list[Timed] = []
        for job, (asked, had) in times.items():
            row = await all_[0].json("GET", f"/v1/jobs/{job}")
            own = row["result"]["seconds"]
            found.append(
                Timed(asked, had, _seconds(row["started"]), _seconds(row["finished"]), own)
            )
    return found, max(t.had for t in found) - min(t.asked for t in found)


def alone(args: argparse.Namespace) -> list[float]:
    """Seconds of each picture that a command line makes, by the functions that it is made of."""
    from mezzotint.apps.cli import parse
    from mezzotint.apps.commands_generate import seeds_of
    from mezzotint.apps.making import begin, loaded, making
    from mezzotint.apps.repeat import Used
    from mezzotint.apps.sealing import signing, write
    from mezzotint.provenance.grid import chosen
    from mezzotint.provenance.meter import Meter, Shares

    words = [f"--model={args.model}", f"--steps={args.steps}", "--quiet", "--device=cpu"]
    how = parse(["generate", *words, "--seed=0", f"--count={args.alone}", "--", args.prompt])
    how.recipe, how.preview = None, False
    begin(how)
    used, signs = Used(how), signing(how)
    model = loaded(how)
    shares = Shares(Meter(), args.alone, chosen())
    found: list[float] = []
    pictures = making(how, model, seeds_of(how), used, None, shares)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for made in pictures:
            write(made, Path(folder, f"{made.seed}.png"), signs)
            now = time.perf_counter()
            found.append(now - began)
            began = now
    return found


def _alone(server: Serving, model: str, wish: Mapping[str, Any], count: int) -> list[float]:
    command = [sys.executable, __file__, "--alone", str(count), "--model", model]
    command += ["--steps", str(wish["steps"]), "--prompt", str(wish["prompt"])]
    ran = subprocess.run(command, env=server.env, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def time_added(server: Serving, where: str, wish: dict[str, Any], jobs: int) -> dict[str, Any]:
    """The figures of a model; where: it lies for the command line."""
    own = statistics.mean(_alone(server, where, wish, max(jobs // 2, 6))[1:])
    asyncio.run(_run(server, wish, CLIENTS, 0.0))  # a warm-up
    closed, spent = asyncio.run(_run(server, wish, jobs, 0.0))
    think = CLIENTS * spent / jobs / BUSY
    thinking, _ = asyncio.run(_run(server, wish, jobs, think))
    each = sorted(added(one, thinking) for one in thinking)
    found = {
        "model": wish["model"],
        "steps": wish["steps"],
        "jobs": jobs,
        "own": statistics.median(t.own for t in thinking),
        "alone": own,
        "latency": statistics.median(t.had - t.asked for t in thinking),
        "added": statistics.median(each),
        "added_90": each[int(0.9 * len(each))],
        "busy": sum(t.own for t in thinking)
        / (max(t.had for t in thinking) - min(t.asked for t in thinking)),
        "closed_wall": spent / jobs,
        "closed_own": statistics.mean(t.own for t in closed),
        "closed_added": spent / jobs - own,
    }
    print(json.dumps(found), flush=True)
    return found


# --- memory -----------------------------------------------------------------------------------


def _of_process(pid: int) -> dict[str, int]:
    """Bytes of a process: RSS, and PSS, where what several share is counted once."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(value.split()[0]) << 10 for name, value in (r.split(":") for r in rows)}
    return {"rss": found["Rss"], "pss": found["Pss"]}


def _children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(server: Serving) -> dict[str, dict[str, int]]:
    """Bytes of the server's process, and of its workers together."""
    pid = server.process.pid
    workers = [_of_process(child) for child in _children(pid)]
    summed = {kind: sum(each[kind] for each in workers) for kind in ("rss", "pss")}
    return {"server": _of_process(pid), "workers": summed}


class Mixed:
    """Jobs of all kinds, drawn by dice; what came of each is counted."""

    def __init__(self, server: Serving, seed: int) -> None:
        self._dice, self._server = random.Random(seed), server
        self.counts: dict[str, int] = {}
        self._made: list[str] = []

    async def run(self, jobs: int, at_once: int = 4) -> None:
        numbers = iter(range(jobs))

        async def work(client: Client) -> None:
            for _ in numbers:
                await self._one(client)

        async with clients(self._server.base, at_once) as all_:
            await asyncio.gather(*map(work, all_))

    async def _one(self, client: Client) -> None:
        dice = self._dice
        kinds = {"make": 45, "edit": 15, "cancel": 8, "fail": 8, "upload": 4, "look": 20}
        kind = dice.choices([*kinds], [*kinds.values()])[0]
        if kind in ("edit", "look") and not self._made:
            kind = "make"
        if kind == "look":
            what = dice.choice(("verify", "detect", "recipe", "credentials", "export"))
            picture = dice.choice(self._made)
            if what == "export":
                await client.whole("POST", f"/v1/outputs/{picture}/export?format=webp")
            else:
                await client.json("POST", f"/v1/{what}", {"picture": picture})
            self._count(what)
            return
        if kind == "upload":
            size = dice.randrange(64, 1024)
            noise = Image.frombytes("RGB", (size, size), dice.randbytes(3 * size * size))
            file = io.BytesIO()
            noise.save(file, "PNG", compress_level=1)
            await client.whole("POST", "/v1/uploads", file.getvalue(), "application/octet-stream")
            self._count("upload")
            return
        job = await client.json("POST", "/v1/jobs", self._wish(kind))
        if kind == "cancel":
            await asyncio.sleep(dice.uniform(0, 0.3))
            await client.json("DELETE", f"/v1/jobs/{job['id']}")
        await client.ended(job["id"])
        row = await client.json("GET", f"/v1/jobs/{job['id']}")
        self._made += [each["id"] for each in row["outputs"]]
        self._count(row["state"])

    def _wish(self, kind: str) -> dict[str, Any]:
        dice = self._dice
        model = dice.choice(("tiny.safetensors", "tiny.safetensors", "icons"))
        small = model != "icons"
        wish = {"prompt": "fox", "model": model, "seed": dice.randrange(1000), "steps": 2}
        wish["size"] = dice.choice(("8", "16x8", "24", "32") if small else ("64", "48x64", "96"))
        wish["count"] = dice.choice((1, 1, 2, 4))
        wish["format"] = dice.choice(("png", "webp", "jpeg"))
        if kind == "cancel":
            wish |= {"steps": 100, "count": 8}
        if kind == "fail":  # seen by the worker, once the model is there
            wish["size"] = "9x7"
        if kind == "edit":
            del wish["size"]
            wish |= {"image": dice.choice(self._made), "strength": 0.6, "format": "png"}
        return wish

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def time_memory(server: Serving, jobs: int, idle: float) -> dict[str, Any]:
    """Bytes before anything was asked for, after a warm-up, after the jobs, and at rest."""
    found: dict[str, Any] = {"jobs": jobs, "at_start": memory(server)}
    warm = Mixed(server, 1)
    asyncio.run(warm.run(max(jobs // 8, 20)))
    time.sleep(1)
    found["warm"] = memory(server)
    mixed = Mixed(server, 2)
    asyncio.run(mixed.run(jobs))
    time.sleep(1)
    found |= {"after": memory(server), "kinds": mixed.counts}
    server.until(lambda: not _children(server.process.pid), idle + 30)
    time.sleep(1)
    found["at_rest"] = memory(server)
    print(json.dumps(found), flush=True)
    return found


# --- batching ---------------------------------------------------------------------------------


def _token(server: Serving, name: str) -> str:
    command = [sys.executable, "-m", "mezzotint", "token", "add", name, "--data", str(server.data)]
    return subprocess.run(
        command, env=server.env, capture_output=True, text=True, check=True
    ).stdout.strip()


async def _two(server: Serving, tokens: list[str], each: int, at_once: bool) -> list[Any]:
    """Two owners with a model each ask in turns: for all at once, or for one when the last is
    done."""
    asking = [Client(server.base, token) for token in tokens]
    found: list[tuple[Client, str]] = []
    for number in range(each):
        for client, model in zip(asking, MODELS, strict=True):
            wish = {"prompt": "a red fox", "model": model, "seed": number, "steps": 2}
            job = await client.json("POST", "/v1/jobs", wish)
            found.append((client, job["id"]))
            if not at_once:
                await client.ended(job["id"])
    for client, job in found:
        await client.ended(job)
    rows = [await client.json("GET", f"/v1/jobs/{job}") for client, job in found]
    files = [
        await client.whole("GET", f"{row['outputs'][0]['url']}")
        for (client, _), row in zip(found, rows, strict=True)
    ]
    for client in asking:
        client.close()
    return [(row, _pixels(file)) for row, file in zip(rows, files, strict=True)]


MODELS = ("one.safetensors", "two.safetensors")


def _pixels(file: bytes) -> bytes:
    return Image.open(io.BytesIO(file)).tobytes()


def time_batches(server: Serving, each: int) -> dict[str, Any]:
    """Loads and seconds of two owners' jobs, in turns and as the queue takes them."""
    tokens = [_token(server, name) for name in ("anna", "bert")]
    found: dict[str, Any] = {"jobs": 2 * each}
    pixels = []
    for name, at_once in (("in_turns", False), ("batched", True)):
        made = asyncio.run(_two(server, tokens, each, at_once))
        rows = sorted((row for row, _ in made), key=lambda row: row["started"])
        models = [row["asked"]["model"] for row in rows]
        changes = sum(one != next_ for one, next_ in pairwise(models))
        spent = _seconds(rows[-1]["finished"]) - _seconds(rows[0]["started"])
        found[name] = {"loads": changes + 1, "seconds": spent}
        pixels.append([each for _, each in made])
    found["equal"] = pixels[0] == pixels[1]
    print(json.dumps(found), flush=True)
    return found


# --- report -----------------------------------------------------------------------------------


def _mb(count: float) -> str:
    return f"{count / 1e6:.0f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def report(found: Mapping[str, Any]) -> str:
    """load.md"""
    lines = [
        "# What the server costs beside the engine",
        "",
        f"Written by `python benchmarks/server_load.py --out docs/server` on {found['machine']}; "
        "what is measured and how is said at the head of that file. Clients, server and worker "
        "share this machine.",
        "",
        f"## Time: {CLIENTS} clients",
        "",
        f"May be: {_ms(MOST_ADDED)} ms in the median. Clients that think (they ask for half of "
        "what the server can do): latency, less the engine's time for this job and for others "
        "before it. Clients that do not: seconds of all jobs over those of one command line, a "
        "job.",
        "",
        "| model | steps | jobs | device busy | latency, median ms | engine's own ms | **added, "
        "median ms** | 9 of 10 below ms | without thinking: added a job, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["time"]:
        lines.append(
            f"| {row['model']} | {row['steps']} | {row['jobs']} | {row['busy']:.0%} | "
            f"{_ms(row['latency'])} | {_ms(row['own'])} | **{_ms(row['added'])}** | "
            f"{_ms(row['added_90'])} | {_ms(row['closed_added'])} |"
        )
    kept = found["memory"]
    lines += [
        "",
        "## Memory",
        "",
        f"May be: {_mb(MOST_BYTES)} MB without a model. {kept['jobs']} mixed jobs after a warm-up "
        "of an eighth as many: "
        + ", ".join(f"{count} {name}" for name, count in sorted(kept["kinds"].items()))
        + ". PSS counts what processes share once.",
        "",
        "| MB (RSS, PSS) | server | workers |",
        "|---|---|---|",
    ]
    for name, said in (
        ("at_start", "started, nothing asked for"),
        ("warm", "after the warm-up"),
        ("after", "after the jobs"),
        ("at_rest", "when workers had nothing to do for `--idle` seconds"),
    ):
        cells = [f"{_mb(part['rss'])}, {_mb(part['pss'])}" for part in kept[name].values()]
        lines.append(f"| {said} | {' | '.join(cells)} |")
    batches = found["batches"]
    turns, batched = batches["in_turns"], batches["batched"]
    lines += [
        "",
        "## Two owners, two models, one worker that keeps one",
        "",
        f"{batches['jobs']} jobs, asked for in turns. One at a time: {turns['loads']} loads, "
        f"{turns['seconds']:.1f} s. All at once: {batched['loads']} loads, "
        f"{batched['seconds']:.1f} s. "
        + ("The pictures are the same bit by bit." if batches["equal"] else "PICTURES DIFFER."),
        "",
    ]
    return "\n".join(lines)


def good(found: Mapping[str, Any]) -> bool:
    """Whether all is as it may be."""
    kept = found["memory"]
    small = all(
        kept[name][of]["rss"] <= MOST_BYTES
        for name, of in (("at_start", "server"), ("at_rest", "server"))
    )
    grown = max(kept["after"][of]["rss"] / kept["warm"][of]["rss"] for of in ("server", "workers"))
    quick = all(row["added"] <= MOST_ADDED for row in found["time"])
    return quick and small and grown <= 1 + MOST_GROWTH and found["batches"]["equal"]


@contextmanager
def _stopped(server: Serving) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()


def main(args: argparse.Namespace) -> int:
    from mezzotint.families.catalogue import locate

    idle = 5.0
    found: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}", "time": []}
    found["machine"] += f", {os.cpu_count()} cores"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = folder / "models"
        models.mkdir()
        tiny = models / "tiny.safetensors"
        tiny_model.write(tiny)
        for name in MODELS:
            shutil.copyfile(locate("icons"), models / name)
        server = Serving(folder, ["--models", str(models), "--most-jobs", "100000"])
        server.start()
        with _stopped(server):
            share = 10 if args.quick else 1
            fox = {"prompt": "fox", "model": "tiny.safetensors", "steps": 2}
            found["time"].append(time_added(server, str(tiny), fox, 1000 // share))
            icon = {"prompt": "a red fox", "model": "icons", "steps": 2}
            found["time"].append(time_added(server, "icons", icon, 150 // share))
            found["batches"] = time_batches(server, 30 // share)
        server = Serving(folder / "memory", ["--models", str(models), "--idle", str(idle)])
        server.start(wait=False)
        with _stopped(server):
            time.sleep(2)
            found["memory"] = time_memory(server, 500 // share, idle)
    text = report(found)
    print(text)
    if args.out is not None:
        (args.out / "load.md").write_text(text)
        (args.out / "load.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0 if good(found) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what a server costs beside the engine")
    parser.add_argument("--out", type=Path, help="a folder for load.md and load.json")
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--prompt", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(alone(args)))
    else:
        sys.exit(main(args))
