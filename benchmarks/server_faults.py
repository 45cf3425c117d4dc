"""Meet the server with faults; is every job done, once, and right, and does it live on?

    python benchmarks/server_faults.py --out docs/server                 # all of it, 50 minutes
    python benchmarks/server_faults.py --parts kill --databases sqlite --rounds 100 --minutes 25
    python benchmarks/server_faults.py --parts disk,client,idle

What is done is in `tests/server/faults/`, a file a part; the tests do less of the same.  `kill`: a
round submits jobs from several clients, each with an idempotency key, who ask again when nobody
answers; meanwhile SIGKILL meets the server or a worker, whichever the dice say, and a server that
was killed is started again.  Then every key has one job, every job is done, its picture is there
once and is that of an undisturbed run, bit by bit.  At the end the database passes its own check,
the store has the files of the pictures and no others, and many are verified by `mezzotint verify`.

PostgreSQL is started where its programs are on this machine.  Each part writes its rows into
`faults.json` and `faults.md` of the folder of --out as soon as they are there, in place of those of
an earlier run; several may run at a time.  POSIX only; the exit code is 1 if something is not as it
should be.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "server")]

import postgres  # noqa: E402 (they are the tests')
from faults import Found, client, clock, database, disk, idle, kill, running, setup  # noqa: E402

DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class Run(NamedTuple):
    """What a part is given: a folder of its own, and the database (None: SQLite)."""

    folder: Path
    cluster: postgres.PostgreSQL | None
    args: argparse.Namespace


class Told(NamedTuple):
    """What a part tells: its row so far, and what else is kept of it."""

    found: Found
    kept: dict[str, Any]


def _kill(run: Run) -> Iterator[Told]:
    args, dice = run.args, random.Random(run.args.seed)
    address = None if run.cluster is None else run.cluster.address
    options = ["--device", "cpu"] * (args.workers - 1)
    options += [] if address is None else ["--database", address]
    rows: list[kill.Round] = []
    end = time.monotonic() + args.minutes * 60
    with setup(run.folder, *options) as at:
        at.server.start()
        print("round  kills of server, worker    jobs   done   open   lost  twice  wrong  seconds")
        for row in kill.rounds(at, args.rounds, args.jobs, dice, end):
            rows.append(row)
            print(
                f"{row.round:5d}  {row.killed_server:15d} {row.killed_worker:7d} {row.jobs:7d} "
                f"{row.done:6d} {row.open:6d} {row.lost:6d} {row.twice:6d} {row.wrong:6d} "
                f"{row.seconds:8.1f}",
                flush=True,
            )
            yield _killed(rows, None)
        yield _killed(rows, kill.after(at, address, args.verify, dice))


def _killed(rows: list[kill.Round], after: kill.After | None) -> Told:
    """The row of all rounds."""

    def total(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    did = (
        f"{len(rows)} rounds of {rows[0].jobs} jobs; SIGKILL {total('killed_server')} times of "
        f"the server and {total('killed_worker')} times of a worker"
    )
    came = (
        f"{total('done')} of {total('jobs')} jobs done; {total('lost')} lost, {total('twice')} "
        f"twice, {total('wrong')} pictures not those of an undisturbed run"
    )
    good = all(row.good for row in rows)
    kept: dict[str, Any] = {"rounds": [row._asdict() for row in rows]}
    if after is None:
        came += "; not at its end yet"
    else:
        came += (
            f"; {after.verified} of {after.checked} files verified; the store's {after.files} "
            f"files: {after.orphaned} of nobody, {after.missing} missing, {after.left_over} "
            f"half-written or of work; database: {after.database}"
        )
        good, kept["after"] = good and after.good, after._asdict()
    return Told(Found(did, came, good), kept)


def _database(run: Run) -> Iterator[Told]:
    if run.cluster is not None:
        yield Told(database.stopped(run.folder, run.cluster, 30.0, 20), {})
    else:
        with running(run.folder) as at:
            yield Told(database.locked(at, 30.0, 20), {})


def _disk(run: Run) -> Iterator[Told]:
    if not disk.is_possible():
        print("no file system may be made here: left out", file=sys.stderr)
        return
    for found in disk.full(run.folder / "own"):
        yield Told(found, {})


def _client(run: Run) -> Iterator[Told]:
    with running(run.folder) as at:
        for found in client.gone(at, 300):
            yield Told(found, {})


def _clock(run: Run) -> Iterator[Told]:
    if not clock.is_possible():
        print("no C compiler here: left out", file=sys.stderr)
        return
    for found in clock.jumps(run.folder, 20, 5):
        yield Told(found, {})


def _idle(run: Run) -> Iterator[Told]:
    with running(run.folder) as at:
        for found in idle.idle(at, 1000, 60.0):
            yield Told(found, {})


PARTS = {
    "kill": _kill,
    "disk": _disk,
    "database": _database,
    "client": _client,
    "clock": _clock,
    "idle": _idle,
}
TITLES = {
    "kill": "Killed",
    "disk": "Disk full",
    "database": "Database gone",
    "client": "Clients gone",
    "clock": "Clock jumping",
    "idle": "Idle clients",
}
ALONE = {"kill", "database"}
"""Parts that differ from database to database."""


# --- the report -------------------------------------------------------------------------------


def _written(out: Path, key: str, entry: dict[str, Any]) -> None:
    """Put an entry into the report, with those of others that run meanwhile."""
    import fcntl

    from mezzotint.files import atomic_write

    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        path = out / "faults.json"
        entries = json.loads(path.read_text()) if path.exists() else {}
        entries[key] = entry
        order = [f"{part} {name}" for part in TITLES for name in DATABASES.values()]
        entries = {key: entries[key] for key in order if key in entries}
        with atomic_write(path) as file:
            file.write((json.dumps(entries, indent=1) + "\n").encode())
        with atomic_write(out / "faults.md") as file:
            file.write(_markdown(entries).encode())
    finally:
        os.close(handle)


def _markdown(entries: dict[str, Any]) -> str:
    lines = [
        "# Faults",
        "",
        "Made by `python benchmarks/server_faults.py --out docs/server`, which says what each part "
        "does; what was counted round by round is in [faults.json](faults.json).",
        "",
        "| | database | what was done | what came of it | as it should be |",
        "|---|---|---|---|---|",
    ]
    for entry in entries.values():
        for did, came, good in entry["found"]:
            said = "yes" if good else "**no**"
            title = TITLES[entry["part"]]
            lines.append(f"| {title} | {entry['database']} | {did} | {came} | {said} |")
    lines += ["", "| | database | when | minutes | on |", "|---|---|---|---|---|"]
    for entry in entries.values():
        lines.append(
            f"| {TITLES[entry['part']]} | {entry['database']} | {entry['when']} | "
            f"{entry['seconds'] / 60:.1f} | {entry['on']} |"
        )
    return "\n".join(lines) + "\n"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def _part(name: str, database: str, args: argparse.Namespace) -> bool:
    """Run a part; whether all is as it should be."""
    began, when = time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(f"# {name}, {DATABASES[database]}", flush=True)
    told: dict[str, Told] = {}
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        cluster = None
        if database == "postgresql":
            where = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            cluster = stack.enter_context(postgres.postgresql(Path(where)))
        for each in PARTS[name](Run(Path(made), cluster, args)):
            told[each.found.did if name != "kill" else ""] = each
            if args.out is None:
                continue
            entry: dict[str, Any] = {
                "part": name,
                "database": DATABASES[database],
                "when": when,
                "seconds": round(time.monotonic() - began, 1),
                "on": _machine(),
                "found": [list(told.found) for told in told.values()],
            }
            for kept in told.values():
                entry |= kept.kept
            _written(args.out, f"{name} {DATABASES[database]}", entry)
    for each in told.values():
        print(f"{'good' if each.found.good else 'BAD '}  {each.found.did}: {each.found.came}")
    return all(each.found.good for each in told.values())


def main(args: argparse.Namespace) -> int:
    names = args.databases.split(",")
    if "postgresql" in names and not postgres.is_installed():
        print("PostgreSQL is not installed here: left out", file=sys.stderr)
        names.remove("postgresql")
    good = True
    for part in args.parts.split(","):
        for name in names if part in ALONE else names[:1]:
            good &= _part(part, name, args)
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="meet the server with faults; does it live on?")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--databases", default=",".join(DATABASES))
    parser.add_argument("--rounds", type=int, default=100, help="of kill")
    parser.add_argument("--jobs", type=int, default=200, help="of a round")
    parser.add_argument("--workers", type=int, default=2, help="of kill")
    parser.add_argument("--minutes", type=float, default=60.0, help="of kill, for each database")
    parser.add_argument("--verify", type=int, default=1000, help="files, at the end of kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the folder of the report")
    sys.exit(main(parser.parse_args()))
