"""Pictures as prompts of the model in the package: nothing else is needed, and all is carried."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mezzotint.apps import cli
from mezzotint.apps.python import Maker
from mezzotint.engine.request import RequestError
from mezzotint.modalities.image import read_text
from mezzotint.provenance.recipe import CHUNK


def drawn(path: Path, colour: str, corners: int) -> str:
    image = Image.new("RGBA", (128, 128))
    ImageDraw.Draw(image).regular_polygon((64, 64, 58), corners, fill=colour)
    image.save(path)
    return path.name


@pytest.fixture
def two(here: Path) -> tuple[str, str]:
    return drawn(here / "one.png", "crimson", 3), drawn(here / "two.png", "royalblue", 6)


def make(prompt: str, *options: str) -> int:
    return cli.main(["generate", prompt, "--seed", "7", "--steps", "2", "--quiet", *options])


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_a_blend_verifies_and_carries_its_pictures(
    here: Path, two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = two
    assert make("", "--image-prompt", one, "--image-prompt", f"{other}:0.25", "-o", "a.png") == 0
    said = json.loads(read_text("a.png")[CHUNK])
    assert said["options"]["image-prompt"] == ["one.png:1", "two.png:0.25"]
    assert said["image_prompts"] == ["one.png:1", "two.png:0.25"]
    used = {(file["option"], file["name"]) for file in said["files"]}
    assert used == {("model", "icons"), ("image-prompt", one), ("image-prompt", other)}
    parts = {row["option"] for row in said["licences"]}
    assert "picture encoder" in parts
    assert cli.main(["verify", "a.png"]) == 0
    capsys.readouterr()
    assert cli.main(["credentials", "a.png", "--json"]) == 0
    told = capsys.readouterr().out
    assert one in told and other in told and "inputTo" in told
    # The same once more, with one of them another.
    assert make("", "--from", "a.png", "-o", "b.png") == 0
    assert pixels("a.png") == pixels("b.png")
    drawn(here / other, "gold", 5)
    assert cli.main(["verify", "a.png"]) != 0


def test_strengths_words_and_seeds_each_matter(here: Path, two: tuple[str, str]) -> None:
    one, other = two
    ways = {
        "alone": ("", "--image-prompt", one),
        "other": ("", "--image-prompt", other),
        "both": ("", "--image-prompt", one, "--image-prompt", other),
        "words": ("apple, emoji", "--image-prompt", f"{one}:0.5"),
        "more": ("apple, emoji", "--image-prompt", f"{one}:0.8"),
        "edited": ("apple", "--image-prompt", f"{one}:0.5", "--image", other),
        "varied": ("", "--image-prompt", one, "--vary", "3:strong"),
    }
    for name, (prompt, *options) in ways.items():
        assert make(prompt, *options, "-o", f"{name}.png") == 0
    assert len({pixels(f"{name}.png") for name in ways}) == len(ways)


def test_python_takes_files_and_pictures(here: Path, two: tuple[str, str]) -> None:
    maker = Maker.load("icons", "cpu")
    with Image.open(two[0]) as picture:
        held = maker.generate("", seed=7, steps=2, image_prompts=[(picture.copy(), 1.0)])
    assert make("", "--image-prompt", two[0], "-o", "a.png") == 0
    named = maker.generate("", seed=7, steps=2, image_prompts=[(two[0], 1.0)])
    assert named.tobytes() == pixels("a.png")
    # The mark in the pixels is of the recipe, in which the held one has no name.
    apart = np.abs(np.asarray(named, np.int16) - np.asarray(held, np.int16))
    assert apart.mean() < 2 and apart.max() < 24
    with pytest.raises(RequestError, match="at most 5"):
        maker.generate("", steps=2, image_prompts=[(two[0], 0.1)] * 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-prompt", "one.png:1.5"], "the strength of 'one.png' is 1.5"),
        (["--image-prompt", "one.png:0.1"] * 6, "6 image prompts: at most 5"),
        (["--image-prompt", "no.png"], "no.png: no such file"),
        (["--image-prompt", "words.txt"], "words.txt: "),
        (["--image-encoder", "words.txt"], "need --image-prompt"),
    ],
)
def test_errors_are_one_line(
    here: Path,
    two: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    (here / "words.txt").write_text("words")
    assert make("a fox", *options, "-o", "a.png") == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1
    assert not (here / "a.png").exists()
