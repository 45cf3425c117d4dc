"""Measure speed and memory against their bars, in ratios taken in one run.

    python benchmarks/speed.py                            # all rows, about 20 minutes on 2 cores
    python benchmarks/speed.py --rows overhead,startup    # some
    python benchmarks/speed.py --model random             # before there is an `icons` model

Needs an otherwise idle machine (it says so if it finds other work), and the packages of the tests
with one more, for training as diffusers' script does it: pip install accelerate==1.15.0.  Writes
report.md and report.json; the exit code is 1 if a row misses its bar, 2 if nothing was measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.families.catalogue import locate
from peers import report, timing
from peers.models import FULL, QUICK, Scale
from peers.report import Section

ROWS = ("overhead", "samplers", "training", "icons", "checkpoints", "fresh", "startup")
NEEDS = {
    "samplers": ("diffusers==0.42.1",),
    "training": ("diffusers==0.42.1", "accelerate==1.15.0"),
    "checkpoints": ("diffusers==0.42.1",),
    "fresh": ("diffusers==0.42.1",),
}
IDLE = 0.3
"""Load a core above which the machine counts as busy."""


class SpeedError(ValueError):
    """Nothing can be measured; one line that says why."""


def chosen(text: str) -> tuple[str, ...]:
    """The rows of a list such as "overhead,icons", in their own order.

    Raises:
        SpeedError: there is no such row.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in ROWS:
            raise SpeedError(f"no rows {name!r}: choose from {', '.join(ROWS)}")
    return tuple(row for row in ROWS if row in names)


def check_packages(rows: Sequence[str]) -> None:
    """Raises SpeedError if a row needs a package that is not installed."""
    wanted = dict.fromkeys(package for row in rows for package in NEEDS.get(row, ()))
    lacking = [p for p in wanted if importlib.util.find_spec(p.split("==")[0]) is None]
    if lacking:
        needy = ", ".join(row for row in rows if row in NEEDS)
        raise SpeedError(
            f"the rows {needy} need {' and '.join(lacking)}: pip install {' '.join(lacking)}, or "
            "leave them out with --rows"
        )


def _measure(row: str, scale: Scale, options: argparse.Namespace) -> Section:
    """One section; what it compares with is imported only for it."""
    if row == "overhead":
        from peers import overhead

        return overhead.measure(scale)
    if row == "samplers":
        from peers import samplers

        return samplers.measure(scale)
    if row == "training":
        from peers import training

        return training.measure(scale)
    if row == "icons":
        from peers import icons

        return icons.measure(scale, options.model, options.threads)
    if row == "checkpoints":
        from peers import checkpoints

        return checkpoints.measure(scale)
    if row == "fresh":
        from peers import fresh

        return fresh.measure(scale)
    from peers import startup

    return startup.measure(scale)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def facts(options: argparse.Namespace, rows: Sequence[str], load: float) -> dict[str, Any]:
    """What the numbers depend on, with warnings about what spoils them."""
    cores = os.cpu_count() or 1
    warnings: list[str] = []
    if load > IDLE * cores:
        warnings.append(
            f"The machine was busy when this began (load {load:.1f} on {cores} cores): the times "
            "mean little; run it again on an idle one."
        )
    if options.quick:
        warnings.append("Tiny sizes (--quick), to try the program out: the numbers mean nothing.")
    if len(rows) < len(ROWS):
        left_out = ", ".join(row for row in ROWS if row not in rows)
        warnings.append(f"Not all rows were measured; left out: {left_out}.")
    packages = ("torch", "diffusers", "accelerate")
    return {
        "warnings": warnings,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{_processor()}, {cores} cores, {options.threads} threads used",
        "float32 matrix products": f"{timing.gigaflops():.0f} GFLOP/s in this run",
        "load at the start": f"{load:.2f}",
        "Python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="default: %(default)s")
    parser.add_argument("--model", default="icons", help="of the rows `icons`: name, file, random")
    parser.add_argument("--out", type=Path, default=Path("docs/speed"), help="report folder")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program out")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[Section]:
    """Measure what is asked for and write the report.

    Raises:
        SpeedError, CheckpointError: an unknown row, a package or the model is missing.
    """
    rows = chosen(options.rows)
    check_packages(rows)
    if "icons" in rows and options.model != "random":
        try:
            if not locate(options.model).exists():
                raise CheckpointError(f"no model file for {options.model!r} yet")
        except CheckpointError as error:
            raise SpeedError(f"{error}; `--model random` measures a stand-in") from error
    load = timing.load()
    torch.set_num_threads(options.threads)
    known = facts(options, rows, load)
    for warning in known["warnings"]:
        print(f"speed: {warning}", file=sys.stderr)
    began, sections = time.perf_counter(), []
    for row in rows:
        print(f"speed: {row} …", file=sys.stderr, flush=True)
        sections.append(_measure(row, QUICK if options.quick else FULL, options))
    known["minutes taken"] = f"{(time.perf_counter() - began) / 60:.1f}"
    known["load at the end"] = f"{timing.load():.2f} (of this program itself, if of nothing else)"
    report.write(options.out, sections, known)
    return sections


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        sections = run(options)
    except (SpeedError, CheckpointError, OSError) as error:
        print(f"speed: {error}", file=sys.stderr)
        return 2
    print((options.out / "report.md").read_text("utf-8"))
    for name in report.missed(sections):
        print(f"speed: missed its bar: {name}", file=sys.stderr)
    return 1 if report.missed(sections) else 0


if __name__ == "__main__":
    sys.exit(main())
