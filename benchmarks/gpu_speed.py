"""Measure networks and whole pictures on one GPU beside diffusers on the same weights.

    python benchmarks/gpu_speed.py                          # about 2 minutes on an H100
    python benchmarks/gpu_speed.py --rows sd1,picture-sd1   # some
    python benchmarks/gpu_speed.py --compile                # with torch.compile, minutes more
    python benchmarks/gpu_speed.py --quick --device cpu     # tiny sizes, to try the program out

Random weights, made on the GPU; nothing is fetched.  Needs diffusers==0.42.1 and transformers.
Writes gpu.md and gpu.json after each group of rows, so what was measured stays if it is cut; the
exit code is 1 if a row misses its bar, 2 if nothing was measured.
"""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from peers import gpu, report
from peers.report import Section
from speed import check_packages, version

NAME = "gpu"
COMMAND = "python benchmarks/gpu_speed.py"


class GpuError(ValueError):
    """Nothing can be measured; one line that says why."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"took longer than its {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def facts(place: torch.device, quick: bool) -> dict[str, Any]:
    """What the numbers depend on, with warnings about what spoils them."""
    warnings = ["Tiny sizes (--quick): the numbers mean nothing."] if quick else []
    name, memory = platform.processor() or platform.machine(), "none"
    if place.type == "cuda":
        name = torch.cuda.get_device_name(place)
        memory = f"{torch.cuda.get_device_properties(place).total_memory / 1e9:.0f} GB"
    return {
        "warnings": warnings,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": name,
        "its memory": memory,
        "bfloat16 matrix products": f"{gpu.peak(place) / 1e12:.1f} TFLOP/s in this run",
        "Python": platform.python_version(),
        **{package: version(package) for package in ("torch", "diffusers", "transformers")},
    }


def run(options: argparse.Namespace) -> Section:
    """Measure what is asked for and write the report after each group.

    Raises:
        GpuError: an unknown row, or there is no such device; SpeedError: a package is missing.
    """
    rows = [name.strip() for name in options.rows.split(",")]
    if unknown := [name for name in rows if name not in gpu.ROWS]:
        raise GpuError(f"no rows {unknown[0]!r}: choose from {', '.join(gpu.ROWS)}")
    check_packages(["checkpoints"])
    place = torch.device(options.device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise GpuError("no GPU here: --device cpu --quick tries the program out")
    bench = gpu.Bench(place, options.quick, options.compile)
    with torch.inference_mode():
        known, found = facts(place, options.quick), []
        began = time.perf_counter()
        for name in rows:
            print(f"gpu: {name} …", file=sys.stderr, flush=True)
            try:
                with limited(options.limit):
                    found += gpu.ROWS[name](bench)
            except Exception as error:  # the other rows are worth having
                traceback.print_exc()
                reason = (str(error).splitlines() or [""])[0]
                known["warnings"].append(f"{name}: left out: {type(error).__name__}: {reason}")
            gpu.release(place)
            known["seconds taken"] = f"{time.perf_counter() - began:.0f}"
            section = gpu.section(found)
            report.write(options.out, [section], known, NAME, COMMAND)
    return gpu.section(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(gpu.ROWS), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("docs/speed"), help="report folder")
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=45, help="seconds a group of rows may take")
    parser.add_argument("--compile", action="store_true", help="time torch.compile of ours too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program out")
    options = parser.parse_args(arguments)
    try:
        section = run(options)
    except (ValueError, OSError) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    print((options.out / f"{NAME}.md").read_text("utf-8"))
    missed = report.missed([section])
    for name in missed:
        print(f"gpu: missed its bar: {name}", file=sys.stderr)
    return 2 if not section.rows else 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
