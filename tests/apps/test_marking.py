"""The watermark in the pixels of what `generate` makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mezzotint.apps import cli
from mezzotint.apps.python import Maker
from mezzotint.modalities.image import read_text
from mezzotint.provenance import keys, recipe
from mezzotint.provenance.blind import embed
from mezzotint.provenance.recipe import CHUNK

SIZE = ["--size", "96x96", "--seed", "7"]


def make(model: Path, *words: str) -> None:
    assert cli.main(["generate", "fox", "--model", str(model), "--quiet", *words]) == 0


def said(path: str) -> dict[str, object]:
    return json.loads(read_text(path)[CHUNK])


def test_it_is_there_and_made_again(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(model, *SIZE, "-o", "both.png")
    make(model, *SIZE, "-o", "noise.png", "--watermark", "noise")
    assert said("both.png")["marks"] == {"key": 0, "in": ["noise", "pixels"]}
    assert said("noise.png")["marks"] == {"key": 0, "in": ["noise"]}
    both, noise = (np.asarray(Image.open(name)) for name in ("both.png", "noise.png"))
    assert 0 < np.abs(both.astype(int) - noise).max() <= 40
    assert np.array_equal(both[both[..., 3] == 0], noise[both[..., 3] == 0])
    payload = keys.payload(keys.PUBLIC, recipe.short_hash(recipe.read(Path("both.png"))))
    # Of weights without sense there is nothing but noise, louder than any mark: the same is set.
    again = embed(Image.open("noise.png"), payload, keys.PUBLIC.secret)
    assert np.array_equal(np.asarray(again), both)
    renamed = here / "renamed.safetensors"
    renamed.write_bytes(model.read_bytes())
    names = ["both.png", "noise.png"]
    (here / model.name).write_bytes(model.read_bytes())
    assert cli.main(["verify", *names]) == 0
    assert capsys.readouterr().out.count("bit-equal") == 2
    repeat = ["generate", "--from", "both.png", "--model", str(renamed), "--quiet"]
    assert cli.main([*repeat, "-o", "again.png"]) == 0
    assert np.array_equal(np.asarray(Image.open("again.png")), both)
    assert cli.main(["generate", "--from", "noise.png", "--quiet", "-o", "old.png"]) == 0
    assert np.array_equal(np.asarray(Image.open("old.png")), noise)


def test_what_python_gives_is_what_the_file_has(here: Path, model: Path) -> None:
    image = Maker.load(str(model)).generate("fox", seed=7, size=(96, 96), output="a.png")
    assert np.array_equal(np.asarray(image), np.asarray(Image.open("a.png")))


def test_what_a_mask_keeps_is_kept(here: Path, model: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (96, 128, 4), np.uint8)
    picture[..., 3] = 255
    Image.fromarray(picture).save("in.png")
    where = np.zeros((96, 128), np.uint8)
    where[:, 32:] = 255
    Image.fromarray(where).save("large.png")
    Image.fromarray(where * (np.arange(128) < 48).astype(np.uint8)).save("small.png")
    for name, marks in (("large", ["noise", "pixels"]), ("small", ["noise"])):
        make(model, "--image", "in.png", "--mask", f"{name}.png", "-o", f"{name}-made.png")
        made, mask = np.asarray(Image.open(f"{name}-made.png")), Image.open(f"{name}.png")
        kept = np.asarray(mask) == 0
        assert np.array_equal(made[kept], picture[kept])
        told = said(f"{name}-made.png")["marks"]
        assert isinstance(told, dict) and told["in"] == marks
        assert ("without" in told) == (name == "small")


def test_a_small_picture_says_why_it_has_none(here: Path, model: Path) -> None:
    make(model, "--seed", "7", "-o", "tiny.png")
    told = said("tiny.png")["marks"]
    assert isinstance(told, dict) and told["in"] == ["noise"]
    assert told["without"].startswith("a picture of 8x8 pixels carries no watermark")
