"""How long until the program answers: fresh interpreters, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys

from peers.models import Scale
from peers.report import Bar, Row, Section
from peers.timing import in_turns, seconds

_HELP = "import sys; from mezzotint.apps.cli import main; sys.exit(main(['--help']))"
_NOTHING = "pass"
_IMPORT = """
import time
began = time.perf_counter()
import torch
between = time.perf_counter()
import mezzotint
import mezzotint.engine.generate
print(between - began, time.perf_counter() - between)
"""


def _run(code: str) -> str:
    # Installed packages have their bytecode beside them, and so must these.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return done.stdout


def _imports() -> tuple[float, float]:
    torch_alone, beyond = map(float, _run(_IMPORT).split())
    return torch_alone, beyond


def measure(scale: Scale) -> Section:
    helped, nothing = in_turns(
        [lambda: seconds(lambda: _run(_HELP)), lambda: seconds(lambda: _run(_NOTHING))],
        scale.starts,
    )
    (imported,) = in_turns([_imports], scale.starts)
    rows = (
        Row("`mezzotint --help`", tuple(helped), "s", Bar("below", 0.3)),
        Row("an interpreter that does nothing", tuple(nothing), "s"),
        Row(
            "`import mezzotint, mezzotint.engine.generate` after torch",
            tuple(beyond for _, beyond in imported),
            "s",
            Bar("below", 0.2),
        ),
        Row("`import torch`", tuple(alone for alone, _ in imported), "s"),
    )
    text = (
        "Each in a fresh interpreter, with bytecode written and files in the page cache: the whole "
        "process for `--help` (as the installed command calls it), and the seconds of the imports "
        "inside one."
    )
    return Section("startup", "Starting", text, rows)
