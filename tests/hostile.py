"""Files that a stranger changed to do harm: how they are read, and what is watched meanwhile.

    python tests/hostile.py COUNT SEED FOLDER

makes COUNT files one after the other and reads each in every way the program reads checkpoints,
in this one process, which a test starts and watches.  It prints a JSON object of what it saw.
"""

from __future__ import annotations

import codecs
import json
import random
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hostile_files import KINDS, Case
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.inspect import inspect, recognise
from mezzotint.checkpoints.source import describe, read
from mezzotint.families import catalogue

SECONDS = 1.0
"""Of processor time that one file may take, all ways of reading it together, where a loop of
Python takes `_LOOP`; a slower machine has longer."""
_LOOP = 0.025
SPARE = 8 << 20
"""Bytes that reading a file may take beside twice its size: what Python's own decoders and the
report take for the smallest of files.  Measured by `tracemalloc`: all of Python's and numpy's
memory; what is mapped from the file is the system's, not counted, and torch's is the resident
size's (below)."""
RESIDENT = 256 << 20
"""Bytes by which the process may have grown at its largest, after thousands of files."""
_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.")
_EVENTS += ("exec", "compile", "pickle.find_class", "shutil.", "os.remove", "os.rename", "os.mkdir")
_EVENTS += ("os.symlink", "os.chmod", "ctypes.dlopen", "import")


def seconds() -> float:
    """What one file may take on this machine, now."""
    found: list[float] = []
    for _ in range(3):
        began = time.process_time()
        sum(number & 3 for number in range(1_000_000))
        found.append(time.process_time() - began)
    return SECONDS * max(1.0, min(found) / _LOOP)


# --- reading and watching ---------------------------------------------------------------------


def read_in_every_way(path: Path) -> int:
    """Every public way into a file; only a CheckpointError may come out.  How many said no."""
    refused = 0

    def attempt(action: Callable[[], object]) -> Any:
        nonlocal refused
        try:
            return action()
        except CheckpointError as error:
            text = str(error)
            assert "\n" not in text and text.isprintable(), f"not one line: {text!r}"
            assert str(path.parent) in text or str(path) in text, f"names no file: {text}"
            assert len(text) < 1500 + 3 * len(str(path)), f"a message of {len(text)} characters"
            refused += 1
        return None

    if not path.is_dir():
        if (found := attempt(lambda: describe(path))) is not None:
            attempt(lambda: recognise(found).lines())
        for tensor in (attempt(lambda: read(path)) or {}).values():
            _ = tensor.kind if isinstance(tensor, Packed) else tensor.sum()
    attempt(lambda: inspect(path).lines())
    attempt(lambda: catalogue.identify(path))
    return refused


class _Watch:
    """Notes what the process does that reading a file must not."""

    def __init__(self) -> None:
        self.active, self.seen = False, Counter[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event.startswith(_EVENTS):
            self.seen[f"{event} {arguments!r}"[:200]] += 1


def make(seed: int, folder: Path) -> Case:
    """The hostile file of a number: each kind comes equally often."""
    dice = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = list(KINDS)[seed % len(KINDS)]
    case = KINDS[kind](dice, folder)
    return Case(case.path, f"{kind}, {case.how}")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else path.parent.glob("*")
    return sum(p.lstat().st_size for p in files)


class Sample(NamedTuple):
    """A hostile file: what messages call it, of which kind it is, and what a reader is given."""

    what: str
    kind: str
    given: Any


class Allowed(NamedTuple):
    """The memory that reading may take beside SPARE: in words, times the size, and the number of
    bytes for what a reader is given."""

    times: str
    of: Callable[[Any], int]


def measured(
    samples: Iterable[Sample],
    read: Callable[[Any], int],
    allowed: Allowed,
    watch: bool,
    traps: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Read hostile files one after the other; what was seen, the worst of each measure, and all
    failures.  What is imported and remembered at first use is to be so before.

    read: how many ways of reading said no; traps: whether code of a file ran.
    """
    watched = _Watch() if watch else None
    failures: list[str] = []
    worst = {"seconds": (0.0, ""), f"bytes beside {allowed.times} the size": (0.0, "")}
    refused, kinds = 0, Counter[str]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for what, kind, given in samples:
        kinds[kind] += 1
        tracemalloc.reset_peak()
        base, began = tracemalloc.get_traced_memory()[0], time.process_time()
        if watched is not None:
            watched.active = True
        try:
            refused += bool(read(given))
        except BaseException as error:  # whatever it is, it is a find
            failures.append(f"{what}: {type(error).__name__}: {error}"[:500])
        if watched is not None:
            watched.active = False
        taken = time.process_time() - began
        beside = tracemalloc.get_traced_memory()[1] - base - allowed.of(given)
        for name, value in zip(worst, (taken, beside), strict=True):
            worst[name] = max(worst[name], (value, what))
        if taken > SECONDS and taken > seconds():
            failures.append(f"{what}: {taken:.2f} s")
        if beside > SPARE:
            failures.append(f"{what}: {beside} bytes beside {allowed.times} the file's size")
        if traps():
            failures.append(f"{what}: its code ran")
    tracemalloc.stop()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > RESIDENT:
        failures.append(f"the process has grown by {grown} bytes")
    if watched is not None:
        failures += [f"it did {event}, {times} times" for event, times in watched.seen.items()]
    return {
        "files": kinds.total(),
        "of each kind": dict(kinds),
        "refused": refused,
        "worst": worst,
        "grown": grown,
        "failures": failures,
    }


def run(count: int, seed: int, folder: Path, watch: bool = True) -> dict[str, Any]:
    """Make and read so many files: see :func:`measured`."""
    codecs.lookup("raw_unicode_escape")
    for first in range(10 * len(KINDS)):  # what is imported and remembered at first use
        read_quietly(make(first, folder).path)

    def samples() -> Iterator[Sample]:
        for number in range(seed, seed + count):
            case = make(number, folder)
            yield Sample(f"{number} ({case.how})", case.how.split(",")[0], case.path)

    twice = Allowed("twice", lambda path: 2 * _size(path))
    trap = folder / "trap"
    return measured(samples(), read_in_every_way, twice, watch, trap.exists)


def report(script: str, *arguments: object, timeout: int = 3600) -> dict[str, Any]:
    """What such a script printed, run in a process of its own: its end is a find too."""
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def summary(seen: dict[str, Any]) -> str:
    """A report on a line, but for its failures."""
    return "\n" + ", ".join(f"{name}: {seen[name]}" for name in seen if name != "failures")


def read_quietly(path: Path) -> None:
    try:
        read_in_every_way(path)
    except Exception:
        return


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
