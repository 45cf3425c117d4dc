"""A tiny model file, and a folder to be in."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional RGBA model of 8 x 8 pixels with random weights, as a file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny_model.write(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path
