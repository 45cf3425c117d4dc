"""What the OpenAPI document allows is asked: `benchmarks/server_schema.py`, for ten seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "server_schema.py"


def test_no_answer_is_an_error_of_the_server() -> None:
    command = [sys.executable, str(SCRIPT), "--seconds", "10"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    assert ran.stdout.count(" answers; ") == 2
