"""--region: how it is written, from the command line and from Python to the same picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mezzotint.apps import cli
from mezzotint.apps.python import Maker
from mezzotint.apps.regions import Wanted, wanted
from mezzotint.engine.request import RequestError
from mezzotint.families import catalogue
from pipelines import small, stable_diffusion


def test_how_a_region_is_written() -> None:
    assert wanted("0,0,0.5,1=a fox") == Wanted((0, 0, 0.5, 1), "a fox")
    assert wanted(".25, 0, 1, 1=a=b, (c:1.2)") == Wanted((0.25, 0, 1, 1), "a=b, (c:1.2)")
    assert wanted("m.png,strength=0.7,feather=0.1=a") == Wanted("m.png", "a", 0.7, 0.1)
    assert str(wanted("a/m.png,feather=0.1=a")) == "m.png,feather=0.1"
    assert str(wanted("0,0,0.5,1,strength=0.5=a")) == "0,0,0.5,1,strength=0.5"
    for text in ("a fox", "=a fox", "m.png,strength=x=a", "m.png,feather=1,feather=2=a"):
        with pytest.raises(RequestError, match=r"give (where|a number)"):
            wanted(text)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("regions")
    stable_diffusion(width=768).save_pretrained(path / "sd1")
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(path / "left.png")
    (path / "wildcards").mkdir()
    (path / "wildcards/beast.txt").write_text("fox\n", "utf-8")
    return path


@pytest.fixture
def here(files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(files)
    monkeypatch.setattr(catalogue, "FAMILIES", (small("sd1", 768),))
    return tmp_path


COMMON = ["--model", "sd1", "--size", "64", "--steps", "2", "--seed", "1", "--quiet"]


def made(out: Path, *options: str) -> tuple[bytes, dict[str, object]]:
    words = ["generate", "snow", *COMMON, "--precision", "float32", "-o", str(out), *options]
    assert cli.main(words) == 0
    with Image.open(out) as image:
        return image.tobytes(), json.loads(image.info["parameters"])


def test_from_the_command_line_and_from_python(here: Path) -> None:
    plain, said = made(here / "plain.png")
    assert "regions" not in said
    box, said = made(here / "box.png", "--region", "0,0,0.5,1=a __beast__")
    assert said["regions"] == ["0,0,0.5,1=a fox"] and box != plain
    mask, said = made(here / "mask.png", "--region", "left.png=a fox")
    assert said["regions"] == ["left.png=a fox"] and mask == box
    found = Maker.load("sd1", "cpu", precision="float32").generate(
        "snow", seed=1, size=(64, 64), steps=2, regions=["0,0,0.5,1=a {fox}"]
    )
    assert found.tobytes() == box


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("a fox", "give where and what"),
        ("0.5,0,0.5,1=a", "0 <= left < right <= 1"),
        ("no.png=a", "no.png: no such file"),
        ("0,0,1,1,strength=2=a", "the strength of region 1 must lie in (0, 1]"),
        ("0,0,1,1=a <lora:x:1>", "ask for it in the prompt only"),
        ("0,0,1,1=a embedding:x", "no embedding 'x'"),
        ("0,0,1,1=a (fox", "'(' is not closed"),
    ],
)
def test_errors_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], region: str, message: str
) -> None:
    out = ["-o", str(here / "a.png")]
    assert cli.main(["generate", "snow", *COMMON, *out, "--region", region]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1
