"""Imports point down only (docs/rooms.md); family names stay in their rooms."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ROOT / "src" / "mezzotint"


def test_imports_point_down() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_family_names_stay_in_families_and_checkpoints() -> None:
    name = re.compile(r"\b(sdxl|sd1|sd2|sd3|flux1)\b")
    rooms = ("diffusion", "networks", "modalities", "adapters", "provenance", "engine", "apps")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for room in rooms
        for path in (ROOMS / room).rglob("*.py")
        if (match := name.search(path.read_text()))
    ]
    assert not found


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, mezzotint, mezzotint.apps.cli; assert 'torch' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
