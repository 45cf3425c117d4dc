"""`docs/parity.md`: which family, task and layout is tested beside others, made by the tests.

    python tests/parity_matrix.py            runs the tests that are marked so, and writes the page
    python tests/parity_matrix.py --list     prints the cells and their numbers of tests, runs none

A test (`test_parity_matrix.py`) compares the page with the list, so it cannot fall behind.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import measured
from mezzotint.families import catalogue

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "parity.md"
BASES = ("sd1", "sd2", "sdxl", "sd3", "sd35-medium", "sd35-large", "flux-dev", "flux-schnell")
FAMILIES = (*BASES, *(f.name for f in catalogue.FAMILIES if f.name not in BASES))
LAYOUTS = ("diffusers folder", "single file", "separate files", "GGUF")
_ALIKE = {"flux": "flux-dev"}
_PARAMETERS = ("name", "kin", "trained", "family")
Cell = tuple[str, str, str]
"""Family, task, layout."""

_HEAD = """# The parity matrix

Small random models of the true architectures, built on the spot by `diffusers` and `transformers`,
from the prompt to the picture: each cell has the number of tests and the largest difference of any
number of the picture (in [0, 1]) from theirs, which must stay below 1e-3. "same bits" is a picture
that equals, bit for bit, the one from the layout that is compared with theirs. An empty cell is not
tested. The networks alone (denoisers, text encoders, autoencoders) are compared in
`tests/networks/` within 1e-5 to 1e-4, relative; the tensors of full-size releases are listed in
`tests/checkpoints/test_releases.py`.

Made by `python tests/parity_matrix.py`; `tests/test_parity_matrix.py` fails where this page and the
tests say different things.
"""


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test fills, if it is one of the matrix."""
    mark = item.get_closest_marker("parity")
    if mark is None:
        return None
    task, layout = mark.args
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    named = [
        getattr(parameters[key], "name", parameters[key])
        for key in _PARAMETERS
        if key in parameters
    ]
    family = mark.kwargs.get("family") or named[0]
    family = _ALIKE.get(family, family)
    assert family in FAMILIES and layout in LAYOUTS, f"{item.nodeid}: {family}, {layout}"
    return family, task, layout


class Collected:
    """A plugin of pytest: the cells, and each test's worst error."""

    def __init__(self) -> None:
        self.tests: dict[Cell, list[str]] = defaultdict(list)
        self.errors: dict[Cell, list[float]] = defaultdict(list)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if (cell := cell_of(item)) is not None:
                self.tests[cell].append(item.nodeid)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        measured.noted.clear()

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if (cell := cell_of(item)) is not None:
            assert measured.noted, f"{item.nodeid} compares nothing"
            self.errors[cell] += measured.noted


def collect(*more: str) -> tuple[Collected, int]:
    found = Collected()
    code = pytest.main(["-q", "-m", "parity", *more, str(ROOT / "tests")], plugins=[found])
    return found, int(code)


def _shown(tests: list[str], errors: list[float]) -> str:
    worst = max(errors)
    return f"{len(tests)}: {'same bits' if worst == 0 else f'{worst:.1e}'}"


def page(found: Collected) -> str:
    text = _HEAD
    tasks = {task for _, task, _ in found.tests}
    for task in sorted(tasks, key=lambda task: (not task.startswith("text to"), task.lower())):
        text += f"\n## {task[0].upper()}{task[1:]}\n\n| | {' | '.join(LAYOUTS)} |\n|---|"
        text += "---|" * len(LAYOUTS) + "\n"
        for family in FAMILIES:
            cells = [(family, task, layout) for layout in LAYOUTS]
            row = [
                _shown(found.tests[c], found.errors[c]) if c in found.tests else "" for c in cells
            ]
            if any(row):
                text += f"| {family} | {' | '.join(row)} |\n"
    return text


def read(text: str) -> dict[Cell, tuple[int, str]]:
    """The cells of the page, tasks in small letters: number of tests, and what they measured."""
    found: dict[Cell, tuple[int, str]] = {}
    task = ""
    for line in text.splitlines():
        if line.startswith("## "):
            task = line[3:].lower()
        if match := re.match(r"\| ([\w.-]+) \|(.*)\|$", line):
            for layout, cell in zip(LAYOUTS, match[2].split("|"), strict=True):
                if cell.strip():
                    number, _, error = cell.strip().partition(": ")
                    found[match[1], task, layout] = int(number), error
    return found


def main() -> int:
    if sys.argv[1:] == ["--list"]:
        found, code = collect("--collect-only")
        cells = [[f, task.lower(), at, len(n)] for (f, task, at), n in found.tests.items()]
        print(json.dumps(cells))
        return code
    found, code = collect()
    if code == 0:
        PAGE.write_text(page(found), "utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
