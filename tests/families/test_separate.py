"""Models whose parts lie in files of their own: the picture of the folder, bit by bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from PIL import Image
from torch import Tensor

import measured
import mezzotint
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.checkpoints.inspect import Report, inspect
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.layout import Beside
from mezzotint.checkpoints.source import Listing, describe, open_folder
from mezzotint.checkpoints.tables import clip
from mezzotint.checkpoints.tables.t5 import GGUF
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from mezzotint.families import catalogue, separate
from mezzotint.families.catalogue import Family, Limit
from mezzotint.families.flux1 import FLUX_DEV
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd3 import SD35_LARGE
from mezzotint.families.sdxl import SDXL
from mezzotint.families.separate import Given
from pipelines import FLOWS, flux, small, small_flow, stable_diffusion, stable_diffusion_3

NAMES = ("sd1", "sdxl", "sd35-large", "flux-dev")
REQUEST = Request("a red fox", (3,), size=(64, 64), steps=2)


def family_of(name: str) -> Family:
    return small_flow(name) if name in FLOWS else small(name)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    if name in FLOWS:
        (flux(name) if name.startswith("flux") else stable_diffusion_3(name)).save_pretrained(path)
    else:
        stable_diffusion(name).save_pretrained(path)
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Family]:
    """Lets the small networks of a family be recognised, whose sizes no signature has."""

    def make(name: str) -> Family:
        family = family_of(name)

        def recognise(listing: Listing) -> Report:
            theirs = any("down_blocks." in n or "transformer_blocks." in n for n in listing.tensors)
            return Report(Path(), 0, "", (family.folder if theirs else family.file).kind)

        monkeypatch.setattr(catalogue, "FAMILIES", (family,))
        monkeypatch.setattr(catalogue, "recognise", recognise)
        return family

    return make


def states(family: Family, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Each part of a folder under our names."""
    model = catalogue.load(str(folder), "cpu", precision="float32")
    assert model.name == family.name
    return {part: module.state_dict() for part, module in model.parts.items()}


def written(family: Family, folder: Path, to: Path) -> dict[str, Path]:
    """The parts of a folder as files of their own, as they are mostly distributed: the denoiser
    and the VAE in the original layout, the text encoders as `transformers` has them."""
    to.mkdir()
    tables = {part: family.file.tables[part] for part in ("network", "autoencoder")}
    paths: dict[str, Path] = {}
    for part, state in states(family, folder).items():
        paths[part] = to / f"{part}.safetensors"
        save(paths[part], to_theirs(state, tables.get(part, family.folder.tables[part])), {})
    return paths


def given(paths: Mapping[str, Path]) -> list[Given]:
    """All but the denoiser; where nothing but widths tells CLIP's encoders apart, which are the
    same here, it is said."""
    said = {"text": "clip_l", "text2": "clip_g"}
    return [
        Given(path, said.get(part) if "text2" in paths else None)
        for part, path in paths.items()
        if part != "network"
    ]


def made(path: Path, parts: list[Given], **more: Any) -> Tensor:
    return generate(catalogue.load(str(path), "cpu", given=parts, **more), REQUEST)[0]


@pytest.mark.parity("text to image", "separate files")
def test_the_picture_of_the_folder(
    name: str, folder: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    """Bit by bit, whatever lies where; under a limit of memory too."""
    family = known(name)
    paths, expected = written(family, folder, tmp_path / "parts"), made(folder, [])
    beside = given(paths)
    measured.same(made(paths["network"], beside), expected)
    file = convert(folder, tmp_path / "a.safetensors", "file").path
    measured.same(made(file, []), expected)
    # Behind the prefix of whole checkpoints, in the layout of diffusers, and its folder of shards.
    state = {family.file.places["network"] + n: t for n, t in load(paths["network"])[0].items()}
    save(tmp_path / "prefixed.safetensors", state, {})
    place = folder / family.folder.places["network"]
    shards = tmp_path / "shards"
    shards.mkdir()
    shutil.copy(place / "config.json", shards)
    theirs, index = load(place / "diffusion_pytorch_model.safetensors")[0], {}
    for number, inside in enumerate((sorted(theirs)[::2], sorted(theirs)[1::2])):
        shard = f"diffusion_pytorch_model-{number}-of-2.safetensors"
        save(shards / shard, {n: theirs[n] for n in inside}, {})
        index |= dict.fromkeys(inside, shard)
    (shards / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": index})
    )
    for path in (
        tmp_path / "prefixed.safetensors",
        place / "diffusion_pytorch_model.safetensors",
        place,
        shards,
    ):
        measured.same(made(path, beside), expected)
    room = Limit(2_000_000_000, REQUEST.size)
    measured.same(made(paths["network"], beside, limit=room), expected)
    tables = {part: family.folder.places[part] for part in paths if part != "network"}
    said = {g.path.stem: g.part for g in beside}
    parts = [Given(folder / place, said[part]) for part, place in tables.items()]
    measured.same(made(paths["network"], parts), expected)  # the parts of a folder of diffusers
