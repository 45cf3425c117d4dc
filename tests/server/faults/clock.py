"""A clock that jumps, for the server and its workers alone: a library that is loaded before the
others answers for the clock of the wall.  Linux with a C compiler."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from faults import Found, Setup, setup

HOUR = 3600
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const long long *shift; /* seconds, in a file that who makes the clock jump writes into */
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIFT");
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) shift = found;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    if (!real) begin();
    int failed = real(id, at);
    int wall = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
    if (!failed && wall && shift) at->tv_sec += *shift;
    return failed;
}

int gettimeofday(struct timeval *at, void *zone) {
    (void)zone;
    struct timespec found;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    at->tv_sec = found.tv_sec;
    at->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (at) *at = found.tv_sec;
    return found.tv_sec;
}
"""


def is_possible() -> bool:
    return sys.platform == "linux" and shutil.which("cc") is not None


class Clock:
    """The clock of a server that is not started yet."""

    def __init__(self, at: Setup) -> None:
        folder = at.server.folder
        source, library, self._file = (folder / name for name in ("clock.c", "clock.so", "clock"))
        source.write_text(_SOURCE)
        self.jump(0)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        at.server.env |= {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Let it go wrong by so much from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))


def jumps(folder: Path, times: int, jobs: int) -> Iterator[Found]:
    """An hour on and back, so often, while jobs are asked for and done."""
    with setup(folder, "--most-jobs", str(times * jobs + 1)) as at:
        clock = Clock(at)
        at.server.start()
        at.done(at.job())
        names = [at.job(count=16, steps=20)]  # the others wait
        spent = []
        for n in range(times):
            clock.jump((HOUR, -HOUR, 0)[n % 3])
            names += [at.job(seed=seed) for seed in range(jobs)]
            spent.append(_spent(at))
        refused = at.ask()
        while at.waiting():
            for seconds in (HOUR, -HOUR):
                clock.jump(seconds)
                time.sleep(0.3)
            spent.append(_spent(at))
        rows = [at.get(f"jobs/{name}") for name in names]
        yield _found(rows, spent, refused, times)
        clock.jump(0)
        yield _kept(at, rows)


def _spent(at: Setup) -> float:
    """A number that may only rise, as Prometheus has it of what is counted."""
    return at.metrics()["mezzotint_job_seconds_total"]


def _found(
    rows: list[dict[str, Any]], spent: list[float], refused: httpx.Response, times: int
) -> Found:
    done = sum(row["state"] == "done" for row in rows)
    again = sum(row["attempt"] > 1 for row in rows)
    made = [output["number"] for row in rows for output in row["outputs"]]
    ids = {output["id"] for row in rows for output in row["outputs"]} | {r["id"] for r in rows}
    unique, order, rises = len(ids) == len(made) + len(rows), made == sorted(made), sorted(spent)
    created = [datetime.fromisoformat(row["created"]).timestamp() for row in rows]
    apart = max(created) - min(created)
    wait = refused.headers.get("retry-after", "")
    came = (
        f"the times of the jobs lie {apart / HOUR:.1f} hours apart; {done} of {len(rows)} done, "
        f"{again} begun again, "
        f"{'in' if order else 'not in'} their order; all ids are {'' if unique else 'not '}"
        f"different; the seconds spent {'only rise' if rises == spent else 'fall'}; one job too "
        f"many is answered {refused.status_code}, Retry-After {wait}"
    )
    good = done == len(rows) and not again and order and unique and rises == spent
    good = good and apart > HOUR
    return Found(
        f"the clock jumps an hour on and an hour back, {times} times while {len(rows)} jobs are "
        "asked for, and again and again while they are done",
        came,
        good and refused.status_code == 429 and 0 < int(wait) <= 60,
    )


def _kept(at: Setup, rows: list[dict[str, Any]]) -> Found:
    """What was made at the wrong times verifies at the right one, and its credentials hold."""
    paths = []
    for row in rows[1:]:
        for output in row["outputs"]:
            paths.append(at.server.folder / f"{output['id']}.png")
            paths[-1].write_bytes(at.client.get(at.server.base + output["url"]).content)
    counted = {}
    for command, words in (("verify", ["--in", str(at.model.parent)]), ("credentials", [])):
        env = {name: value for name, value in at.server.env.items() if name != "LD_PRELOAD"}
        line = [sys.executable, "-m", "mezzotint", command, *words, *map(str, paths)]
        ran = subprocess.run(line, capture_output=True, text=True, env=env)
        counted[command] = ran
    equal = counted["verify"].stdout.count(": bit-equal")
    held = counted["credentials"].returncode == 0
    return Found(
        "what was made at the wrong times",
        f"{equal} of {len(paths)} files verified; their credentials "
        f"{'hold' if held else 'do not hold'}",
        equal == len(paths) and held,
    )
