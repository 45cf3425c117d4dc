"""`--commercial`, and the licences that a recipe keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mezzotint.apps import cli, commands_generate
from mezzotint.apps.python import Maker
from mezzotint.modalities.image import read_text
from mezzotint.provenance.licences import LicenceError
from mezzotint.provenance.recipe import CHUNK

WISH = ["generate", "fox", "--seed", "7", "--steps", "1", "--quiet", "-o", "out.png"]


@pytest.fixture
def mine(here: Path, model: Path) -> Path:
    """The tiny model, of which nobody states a licence."""
    (here / "tiny.safetensors").write_bytes(model.read_bytes())
    return Path("tiny.safetensors")


def state(path: Path, text: str) -> None:
    path.with_name(f"{path.name}.licence.toml").write_text(text)


def told(path: str = "out.png") -> dict[str, Any]:
    return json.loads(read_text(path)[CHUNK])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "nobody states the licence of tiny.safetensors"),
        ('licence = "cc-by-nc-4.0"', "CC Attribution-NonCommercial 4.0, which does not allow"),
        ('licence = "my own"', "'my own', whose terms are not known here"),
    ],
)
def test_it_is_refused_before_anything_is_loaded(
    mine: Path,
    text: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands_generate, "loaded", lambda args: pytest.fail("was loaded"))
    if text is not None:
        state(mine, text)
    assert cli.main([*WISH, "--model", str(mine), "--commercial"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mezzotint: --commercial: ") and message in error
    assert error.count("\n") == 1 and not Path("out.png").exists()


def test_without_it_all_is_made_and_said(mine: Path) -> None:
    assert cli.main([*WISH, "--model", str(mine)]) == 0
    assert told()["licences"] == [
        {"option": "model", "name": "tiny.safetensors", "licence": "unknown"}
    ]
    assert "commercial" not in told()["options"]


def test_what_the_user_states_counts_and_is_kept(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state(mine, 'licence = "stabilityai-ai-community"\nattribution = "Foxes by Ada"')
    wish = [option for option in WISH if option != "--quiet"]
    assert cli.main([*wish, "--model", str(mine), "--commercial"]) == 0
    assert "commercial use: tiny.safetensors is under Stability AI" in capsys.readouterr().err
    (row,) = told()["licences"]
    assert row == {
        "option": "model",
        "name": "tiny.safetensors",
        "licence": "stabilityai-ai-community",
        "by": "you",
        "attribution": ["Foxes by Ada"],
    }
    assert told()["options"]["commercial"] is True
    state(mine, 'licence = "CC-BY-NC-4.0"')
    assert cli.main(["generate", "--from", "out.png", "--quiet", "-o", "b.png"]) == 2  # as asked
    assert cli.main(["verify", "out.png"]) == 0  # which only looks whether it was made so


def test_adapters_that_a_prompt_names_are_looked_at(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state(mine, 'licence = "MIT"')
    Path("loras").mkdir()
    lora = {"lora_unet_a.lora_down.weight": torch.zeros(2, 4)}
    save_file(lora, "loras/ink.safetensors", {"modelspec.license": "CC-BY-NC-SA-4.0"})
    monkeypatch.setattr(commands_generate, "loaded", lambda args: pytest.fail("was loaded"))
    wish = ["generate", "a fox {<lora:ink:0.5>}", "--model", str(mine), "--commercial"]
    assert cli.main(wish) == 2
    assert "ink.safetensors is under CC Attribution-NonCommercial" in capsys.readouterr().err
    assert cli.main([*wish[:1], "fox", *wish[2:], "--lora", "loras/ink.safetensors"]) == 2


def test_pictures_that_go_in_bring_their_licences(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state(mine, 'licence = "CC-BY-NC-4.0"')
    assert cli.main([*WISH, "--model", str(mine)]) == 0
    Path("out.png").rename("in.png")
    state(mine, 'licence = "MIT"')
    again = [*WISH, "--model", str(mine), "--image", "in.png", "--steps", "2"]
    assert cli.main([*again, "--commercial"]) == 2
    assert "in.png (tiny.safetensors) is under CC Attribution-NonC" in capsys.readouterr().err
    assert cli.main(again) == 0
    rows = {row["option"]: row["licence"] for row in told()["licences"]}
    assert rows == {"model": "MIT", "image": "CC-BY-NC-4.0"}
    Image.new("RGB", (8, 8)).save("photo.png")
    mine_too = [*WISH, "--model", str(mine), "--image", "photo.png", "--steps", "2", "--commercial"]
    assert cli.main(mine_too) == 0  # whose it is its owner knows


def test_from_python(mine: Path) -> None:
    maker = Maker.load(str(mine))
    with pytest.raises(LicenceError, match="nobody states the licence of tiny"):
        maker.generate("fox", steps=1, commercial=True)
    state(mine, 'licence = "MIT"')
    made = maker.generate("fox", steps=1, commercial=True)
    assert json.loads(made.info[CHUNK])["options"]["commercial"] is True
    assert "commercial" not in json.loads(maker.generate("fox", steps=1).info[CHUNK])["options"]
