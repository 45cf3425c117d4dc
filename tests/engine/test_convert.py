"""`convert`: every layout of a family into every other, back bit by bit, and read by diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mezzotint.checkpoints.files import load
from mezzotint.checkpoints.inspect import Report
from mezzotint.engine.convert import convert
from mezzotint.families import catalogue
from pipelines import Pipeline, small, stable_diffusion

NAMES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Pipeline:
    return stable_diffusion(name)


@pytest.fixture(scope="module")
def folder(name: str, theirs: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "theirs"
    theirs.save_pretrained(path)
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the small networks of a family be recognised, whose sizes no signature has."""

    def make(name: str) -> None:
        family = small(name)

        def recognise(listing: object) -> Report:
            whole = "model.diffusion_model.out.2.bias" in listing.tensors  # type: ignore[attr-defined]
            return Report(Path(), 0, "", (family.file if whole else family.folder).kind)

        monkeypatch.setattr(catalogue, "FAMILIES", (family,))
        monkeypatch.setattr(catalogue, "recognise", recognise)

    return make


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder; the text encoders' by the names of newer releases."""
    found: dict[str, Tensor] = {}
    for path in folder.glob("*/*.safetensors"):
        state = load(path)[0]
        found |= {
            f"{path.parent.name}/{k.removeprefix('text_model.')}": v for k, v in state.items()
        }
    return found


def test_round_trips(name: str, folder: Path, known: Callable[[str], None], tmp_path: Path) -> None:
    """Folder → file → folder → file → folder: the same weights, and then the same bytes."""
    known(name)
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    convert(folder, file, "file")
    convert(file, tmp_path / "a", "folder")
    convert(tmp_path / "a", other, "file")
    convert(other, tmp_path / "b", "folder")
    assert file.read_bytes() == other.read_bytes()
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    before, after = weights(folder), weights(tmp_path / "a")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(before[key].dtype == after[key].dtype for key in before)
    said, own = ("scheduler/scheduler_config.json", (tmp_path / "a", folder))
    assert json.loads((own[0] / said).read_text()) == json.loads((own[1] / said).read_text())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_diffusers_loads_the_folder(
    name: str, theirs: Pipeline, folder: Path, known: Callable[[str], None], tmp_path: Path
) -> None:
    known(name)
    convert(folder, tmp_path / "a.safetensors", "file")
    convert(tmp_path / "a.safetensors", tmp_path / "a", "folder")
    found = DiffusionPipeline.from_pretrained(tmp_path / "a", local_files_only=True)
    assert type(found) is type(theirs)
    images = []
    for pipe in (theirs, found):
        pipe.set_progress_bar_config(disable=True)
        images.append(
            pipe(
                "a red fox, flat style",
                height=64,
                width=64,
                num_inference_steps=2,
                latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
                output_type="pt",
            ).images[0]
        )
    assert torch.equal(*images)
