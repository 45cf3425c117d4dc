"""Ask the server whatever its own OpenAPI document allows, and much that it does not.

    pip install -e '.[test]'
    python benchmarks/server_schema.py --seconds 150 --seed 20261128

A real server with a tiny model is started on a temporary folder, and schemathesis sends what it
makes of the document for so many seconds each: to one that takes everybody at this machine, and to
one that takes tokens, with one that may do everything.  Numbers of answers by status are printed,
and what else schemathesis finds wrong (statuses or bodies that the document does not have) with
--all; answers of 5xx and the server's log are printed always, and the exit code is 1 where there
are any, or a traceback in the log.  With one seed the requests are the same, as far as the time
goes; their order is not, for four are asked at a time: pictures that take long would hold up all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "server")]

from serving import Serving  # noqa: E402

import tiny_model  # noqa: E402 (they are the tests')

ENDLESS = "/v1/events"
"""It is answered for as long as somebody listens."""
_MAIN = "from schemathesis.cli import schemathesis; schemathesis()"


class Found(NamedTuple):
    """Answers by status, those of 5xx in words, and what the server wrote into its log."""

    statuses: Counter[int]
    faults: list[str]
    log: str


def _command(server: Serving, args: argparse.Namespace, token: str, report: Path) -> list[str]:
    checks = "all" if args.all else "not_a_server_error"
    command = [sys.executable, "-c", _MAIN, "run", f"{server.base}/v1/openapi.json"]
    command += [f"--seed={args.seed}", f"--max-time={args.seconds}", "--continue-on-failure"]
    command += [f"--checks={checks}", "--phases=examples,coverage,fuzzing", "--no-color"]
    command += ["--request-timeout=10", "--workers=4", "--no-shrink", "--suppress-health-check=all"]
    command += ["--generation-database=none", f"--exclude-path={ENDLESS}", "--warnings=off"]
    command += [f"--report-ndjson-path={report}", "--output-sanitize=true"]
    return [*command, f"--header=authorization:Bearer {token}"] if token else command


def _answers(value: Any) -> Iterator[tuple[str, int]]:
    """Every answer in a line of the report, wherever it stands: its request and status."""
    if isinstance(value, dict):
        answer = value.get("response")
        if isinstance(answer, dict) and isinstance(answer.get("status_code"), int):
            asked = value.get("case") or value.get("request") or {}
            yield json.dumps(asked)[:2000], answer["status_code"]
        for each in value.values():
            yield from _answers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _answers(each)


def _against(folder: Path, args: argparse.Namespace, with_token: bool) -> Found:
    """What a new server answers."""
    (folder / "models").mkdir(parents=True)
    tiny_model.write(folder / "models" / "tiny.safetensors")
    options = ["--models", str(folder / "models"), *(["--token"] if with_token else [])]
    server, report, token = Serving(folder, options), folder / "report.ndjson", ""
    if with_token:
        add = [sys.executable, "-m", "mezzotint", "token", "add", "fuzz"]
        add += ["--scopes", "make read admin", "--data", str(server.data)]
        token = subprocess.check_output(add, env=server.env, text=True).strip().split()[-1]
    server.start()
    try:
        said = subprocess.run(
            _command(server, args, token, report), cwd=folder, capture_output=True, text=True
        )
    finally:
        server.stop()
    if args.all or not report.exists():
        print(said.stdout[-20_000:], said.stderr[-5_000:], sep="\n")
    statuses: Counter[int] = Counter()
    faults = []
    with report.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            for asked, status in _answers(json.loads(line)):
                statuses[status] += 1
                faults += [f"{status} {asked}"] if status >= 500 else []
    return Found(statuses, faults, server.log.read_text(errors="replace"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=150, help="each of the two servers")
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--all", action="store_true", help="say what else schemathesis finds")
    args = parser.parse_args()
    wrong = False
    for with_token in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            found = _against(Path(folder) / "server", args, with_token)
        counts = ", ".join(f"{status}: {n:,}" for status, n in sorted(found.statuses.items()))
        who = "with a token" if with_token else "without a token"
        print(f"{who}: {found.statuses.total():,} answers; {counts}", flush=True)
        for line in dict.fromkeys(found.faults):
            print(f"  {line}")
        print(found.log[-20_000:], end="")
        wrong |= bool(found.faults or "Traceback" in found.log or not found.statuses)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
