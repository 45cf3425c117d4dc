"""A tiny model file, and a folder to be in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzotint.families.model import Defaults
from mezzotint.families.native import NativeConfig, build, save_model
from mezzotint.networks.dit import DiTConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional RGBA model of 8 x 8 pixels with random weights, as a file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    config = NativeConfig(
        name="tiny",
        network=DiTConfig(4, 4, patch=4, width=24, depth=1, heads=2, vector_width=2),
        channels="rgba",
        condition="class",
        prediction="x0",
        schedule="flow",
        defaults=Defaults((8, 8), 3, 1.5, "euler", "linspace"),
        classes=("fox", "red fox"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = torch.nn.ModuleDict(build(config).parts)
        for weight in parts.parameters():  # a fresh network's last layer is zero
            torch.nn.init.normal_(weight, std=0.2)
    save_model(path, config, parts.state_dict())
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path
