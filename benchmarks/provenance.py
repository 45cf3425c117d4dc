"""All that the program promises of what a file carries, by its bars, in one run.

    python benchmarks/provenance.py                       # about an hour and a half on 2 cores
    python benchmarks/provenance.py --parts verify,time   # some
    python benchmarks/provenance.py --parts               # none: print what the last runs gave

Each part is a command of its own, which writes its own report; here the rows that have a bar are
printed together.  The exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from peers.report import shown

ROOT = Path(__file__).parents[1]
_DOCS = ROOT / "docs"
_PYTEST = ("-m", "pytest", "-q")


class Part(NamedTuple):
    """A command of Python, and the report that it writes (none: its exit code tells)."""

    what: str
    command: tuple[str, ...]
    report: Path | None = None


PARTS = {
    "verify": Part(
        "files made in every way are made again bit by bit",
        ("benchmarks/verify_all.py",),
        _DOCS / "verify/report.json",
    ),
    "pixels": Part(
        "the watermark in the pixels", ("benchmarks/watermark.py",), _DOCS / "watermark/blind.json"
    ),
    "sounds": Part(
        "the watermark in sounds",
        ("benchmarks/watermark_audio.py",),
        _DOCS / "watermark/audio.json",
    ),
    "noise": Part(
        "the watermark in the noise",
        ("benchmarks/noise_mark.py", "--out", "docs/watermark"),
        _DOCS / "watermark/noise.json",
    ),
    "time": Part(
        "what all of it takes",
        ("benchmarks/speed.py", "--rows", "icons", "--out", "docs/speed/icons"),
        _DOCS / "speed/icons/report.json",
    ),
    "hostile": Part(
        "100,000 mutated files, read without crash, hang or growth",
        (*_PYTEST, "-m", "slow", "tests/slow/test_hostile_media.py"),
    ),
    "credentials": Part(
        "an independent reader agrees, and tampering is reported",
        (*_PYTEST, "tests/provenance", "tests/apps/test_verify.py"),
    ),
}


class Line(NamedTuple):
    """A bar: of what, how far, how far it must be, and whether it is."""

    part: str
    name: str
    value: str
    bar: str
    met: bool


def _of_rows(part: str, rows: list[dict[str, Any]]) -> list[Line]:
    """The rows of a report that have a bar."""
    found: list[Line] = []
    for row in rows:
        if row.get("bar") is not None:
            sense, limit = row["bar"]
            value, bar = shown(row["median"], row["unit"]), shown(limit, row["unit"])
            found.append(
                Line(part, row["name"], value, f"{sense} {bar}", row["verdict"] != "missed")
            )
    return found


def lines(part: str, code: int | None) -> list[Line]:
    """What a part has found, or found last; code: its exit code, None: it was not run."""
    report = PARTS[part].report
    if report is None:
        if code is None:
            return []
        return [Line(part, PARTS[part].what, "passed" if code == 0 else "failed", "", code == 0)]
    if not report.is_file():
        return [Line(part, PARTS[part].what, "not measured", "", False)]
    data = json.loads(report.read_text("utf-8"))
    if part == "verify":
        equal = sum(row["verdict"] == "bit-equal" for row in data)
        name = "files that are bit-equal when they are made again"
        met = equal == len(data) >= 200
        return [Line(part, name, f"{equal} of {len(data)}", "all of at least 200", met)]
    return [
        line for key, rows in data["sections"].items() for line in _of_rows(f"{part}: {key}", rows)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="?", const="", default=",".join(PARTS))
    wanted = [part for part in parser.parse_args().parts.split(",") if part]
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    codes: dict[str, int] = {}
    for part in wanted:
        began = time.monotonic()
        codes[part] = subprocess.run([sys.executable, *PARTS[part].command], cwd=ROOT).returncode
        spent = (time.monotonic() - began) / 60
        print(f"provenance: {part}: {spent:.1f} minutes", file=sys.stderr)
    found = [line for part in PARTS for line in lines(part, codes.get(part))]
    print("| part | measure | | bar | |\n|---|---|---:|---|---|")
    for line in found:
        verdict = "met" if line.met else "**missed**"
        print(f"| {line.part} | {line.name} | {line.value} | {line.bar} | {verdict} |")
    return 0 if all(line.met for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
