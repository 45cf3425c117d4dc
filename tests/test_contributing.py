"""The walks of CONTRIBUTING.md, taken: its own blocks, in a copy of the package, and nothing else.

A block of Python says in its first line where it goes: a new file, a place before a table, or a
row of it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RANDOM = """
import sys, torch
from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.families.ldm import build
from mezzotint.families.postcard import POSTCARD as family
torch.manual_seed(0)
state = {}
for part, module in build(family).parts.items():
    named = to_theirs(module.state_dict(), family.file.tables[part])
    state |= {family.file.places[part] + name: value for name, value in named.items()}
save(sys.argv[1], state, {})
"""


def blocks(word: str, heading: str) -> list[tuple[str, str]]:
    """The blocks of a language under a heading: what stands behind its name, and the text."""
    section = TEXT.split(f"\n## {heading}")[1].split("\n## ")[0]
    return [(m[2], m[3]) for m in BLOCK.finditer(section) if m[1] == word]


def put(package: Path, place: str, text: str) -> str:
    """Do to a copy of the package what a block says; "new" or "changed"."""
    name, _, where = place.partition(" ")
    path = package / Path(name).relative_to("src")
    if not where:
        assert not path.exists(), f"{name} is there already"
        path.write_text(text, "utf-8")
        return "new"
    source = path.read_text("utf-8")
    *how, table = where.split()
    (start,) = re.finditer(rf"^{table}\b[^\n]*= ?\S*[({{]", source, re.MULTILINE)
    if how == ["before"]:
        source = source[: start.start()] + text + "\n\n" + source[start.start() :]
    elif how == ["first", "in"]:
        source = source[: start.end()] + "\n" + text + source[start.end() :]
    else:
        assert how == ["last", "in"], where
        end = source.index("\n)", start.end()) + 1
        source = source[:end] + text + source[end:]
    path.write_text(source, "utf-8")
    return "changed"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, its data by links."""
    copy = tmp_path / "src"
    ignored = shutil.ignore_patterns("data", "__pycache__")
    shutil.copytree(ROOT / "src" / "mezzotint", copy / "mezzotint", ignore=ignored)
    (copy / "mezzotint/families/data").symlink_to(ROOT / "src/mezzotint/families/data")
    return copy


def run(package: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_sampler(package: Path) -> None:
    for place, text in blocks("python", "A sampler"):
        assert put(package, place, text) == "changed"
    assert "halfway" in run(package, "-m", "mezzotint", "samplers")
    tests = str(ROOT / "tests/diffusion/test_samplers.py")
    passed = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "halfway", tests)
    assert int(re.search(r"(\d+) passed", passed)[1]) >= 4  # type: ignore[index]


def test_a_prediction_type(package: Path) -> None:
    for place, text in blocks("python", "A prediction type"):
        assert put(package, place, text) == "changed"
    tests = str(ROOT / "tests/diffusion/test_prediction.py")
    passed = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "towards", tests)
    assert int(re.search(r"(\d+) passed", passed)[1]) >= 2  # type: ignore[index]


def test_a_checkpoint_family(package: Path) -> None:
    """One file and one key table; then every command knows it."""
    found = blocks("python", "A checkpoint family")
    assert [place for place, _ in found] == [
        "src/mezzotint/checkpoints/tables/postcard.py",
        "src/mezzotint/families/postcard.py",
    ]
    assert [put(package, place, text) for place, text in found] == ["new", "new"]
    here = package.parent
    run(package, "-c", _RANDOM, "card.safetensors")
    ((_, script),) = blocks("sh", "A checkpoint family")
    said = [run(package, "-m", *shlex.split(line)) for line in script.splitlines()]
    assert "Postcard checkpoint" in said[0]
    pictures = [(here / name).read_bytes() for name in ("card.png", "same.png")]
    assert len(pictures[0]) > 500
    from PIL import Image

    images = [Image.open(here / name) for name in ("card.png", "same.png")]
    assert images[0].size == (48, 32)
    assert images[0].tobytes() == images[1].tobytes()  # from file and folder, bit for bit
    with pytest.raises(AssertionError, match="is there already"):
        put(package, *found[0])
