"""`docs/parity.md` says what the tests are, and what it says they measured is within the bounds."""

from __future__ import annotations

import json
import subprocess
import sys

import parity_matrix


def test_the_page_has_the_tests_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, parity_matrix.__file__, "--list"],
        capture_output=True,
        text=True,
        cwd=parity_matrix.ROOT,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    there = {tuple(row[:3]): row[3] for row in json.loads(done.stdout.splitlines()[-1])}
    said = parity_matrix.read(parity_matrix.PAGE.read_text("utf-8"))
    assert {cell: number for cell, (number, _) in said.items()} == there, (
        "run python tests/parity_matrix.py"
    )
    assert all(error == "same bits" or float(error) < 1e-3 for _, error in said.values())
