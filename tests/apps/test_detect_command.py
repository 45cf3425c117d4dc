"""The watermark in the noise, looked for from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mezzotint.apps import cli
from mezzotint.provenance import keys


@pytest.fixture
def made(here: Path) -> Path:
    """Pictures of the model in the package: of another model none is found."""
    wish = ["generate", "a cake", "--seed", "7", "--quiet"]
    assert cli.main([*wish, "-o", "marked.png"]) == 0
    assert cli.main([*wish, "-o", "plain.png", "--watermark", "none"]) == 0
    with Image.open("marked.png") as image:
        Image.fromarray(np.asarray(image)).save("bare.png")
    return here


def found(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, object]]]:
    capsys.readouterr()
    code = cli.main(["detect", "--json", *options])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_mark_is_found_and_where_there_is_none_it_is_not(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (line,) = found(capsys, "marked.png")
    assert code == 0 and line["p_value"] <= 1e-6
    assert line["payload"] == f"{keys.payload(keys.PUBLIC, keys.seed_hash(7)):016x}"
    code, (line,) = found(capsys, "plain.png")
    assert code == 1 and line["p_value"] > 1e-3
    code, (line,) = found(capsys, "bare.png", "--prompt", "a cake")
    assert line["mark"] == "any mark in the noise" and line["p_value"] < 1e-3


def test_a_seed_that_is_known_is_confirmed_in_a_jpeg_without_a_recipe(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open("marked.png") as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        white.convert("RGB").save("spoiled.jpg", quality=50)
    known = ["--prompt", "a cake", "--seed", "7"]
    code, (line,) = found(capsys, "spoiled.jpg", *known)
    assert code == 0 and line["mark"] == "the mark of seed 7" and line["p_value"] <= 1e-6
    code, (line,) = found(capsys, "spoiled.jpg", "--prompt", "a cake", "--seed", "8")
    assert code == 1 and line["p_value"] > 1e-3


def test_a_secret_key_is_looked_for_beside_the_public_one(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("secret.key").write_text("cd" * 32)
    code, lines = found(capsys, "marked.png", "--mark-key", "secret.key")
    assert code == 0 and len(lines) == 2
    assert lines[0]["p_value"] <= 1e-6 < 1e-3 < lines[1]["p_value"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.png"], "nowhere.png: no such file"),
        (["text.png"], "text.png: is no picture of a known format"),
        (["a.png", "--mark-key", "text.png"], "text.png: is no key of watermarks"),
        (["a.png", "--model", "nothing"], "nothing"),
    ],
)
def test_errors_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    Path("text.png").write_text("words")
    Image.new("RGBA", (128, 128)).save("a.png")
    assert cli.main(["detect", *options]) == 2
    told = capsys.readouterr().err
    assert told.startswith("mezzotint: ") and message in told and told.count("\n") == 1
