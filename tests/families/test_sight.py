"""The eyes of our own models: their file, whose they are, and what they see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.checkpoints.rows import ROWS
from mezzotint.families import catalogue
from mezzotint.families.native import EMBEDDINGS, load_model
from mezzotint.families.sight import (
    PACKAGED,
    Eyes,
    EyesConfig,
    load_eyes,
    ready,
    save_eyes,
    sight_for,
)
from mezzotint.networks.efficientnet_lite import EfficientNetLiteConfig, Stage

CONFIG = EyesConfig(EfficientNetLiteConfig(4, (Stage(3, 2, 1, 4, 1),), 8, (0,)), 5, "their hash")


def drawing(ground: tuple[int, int, int] | None = None, shift: int = 0) -> Image.Image:
    """A red heart's stand-in: a disc with a green bar, on nothing or on a colour."""
    image = Image.new("RGBA", (128, 128), (0, 0, 0, 0) if ground is None else (*ground, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30 + shift, 30, 89 + shift, 89), (200, 20, 30, 255))
    draw.rectangle((50 + shift, 10, 69 + shift, 29), (20, 160, 40, 255))
    return image


def photo(number: int) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(values)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b))


# --- their file -------------------------------------------------------------------------------


def test_eyes_come_back_from_their_file(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eyes = Eyes(CONFIG).eval().requires_grad_(False)
        eyes.mean.normal_()
        eyes.spread.uniform_(0.5, 2)
        unit = torch.rand(3, 4, 64, 64)
    save_eyes(tmp_path / "a.safetensors", eyes)
    back = load_eyes(tmp_path / "a.safetensors")
    assert back.config == CONFIG and back(unit).shape == (3, 5)
    assert float((back(unit) - eyes(unit)).norm() / eyes(unit).norm()) < 0.02
    assert any(name.endswith(ROWS) for name in load(tmp_path / "a.safetensors")[0])


def test_another_file_has_none(tmp_path: Path) -> None:
    for said in ({}, {"mezzotint": "{"}, {"mezzotint": '{"kind": "text encoder", "config": {}}'}):
        save(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, said)
        with pytest.raises(CheckpointError, match="a.safetensors: has no eyes"):
            load_eyes(tmp_path / "a.safetensors")


def test_they_are_of_the_packaged_model_and_of_no_other(tmp_path: Path) -> None:
    model, config = load_model(catalogue.PACKAGED["icons"])
    assert model.sight is not None and catalogue.sees("icons")
    assert load_eyes(PACKAGED).config.of == config.notes[EMBEDDINGS]
    assert sight_for(None) is None and sight_for("another") is None
    save(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    assert not catalogue.sees(str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="no model 'icon'"):
        catalogue.sees("icon")


# --- what they see ----------------------------------------------------------------------------


def test_a_drawing_is_seen_without_its_ground_and_where_it_lies() -> None:
    alone = ready(drawing())
    assert alone.shape == (1, 4, 64, 64)
    for other in (drawing((255, 255, 255)), drawing((40, 60, 90)), drawing(shift=20)):
        assert float((ready(other) - alone).abs().max()) < 0.02
    assert torch.equal(ready(photo(0))[:, 3, 20:44], torch.ones(1, 24, 64))  # as wide as it is
    assert bool((ready(photo(0))[:, 3, :10] == 0).all())
    assert bool(ready(Image.new("RGB", (9, 9), "white")).eq(1).all())


def test_embeddings_are_of_unit_size_and_tell_pictures_apart() -> None:
    embed = catalogue.load("icons", "cpu").sight
    assert embed is not None
    found = embed.embed(drawing())
    assert found.shape == (1, 256) and 0.3 < float(found.square().mean().sqrt()) < 2
    assert torch.equal(found, embed.embed(drawing()))
    assert cosine(found, embed.embed(drawing((255, 255, 255)))) > 0.95
    assert cosine(found, embed.embed(photo(0))) < 0.5


def test_they_see_what_the_prior_imagines() -> None:
    """A picture that is drawn of an imagined embedding is seen as it, more than as another's."""
    from mezzotint.engine import generate as engine
    from mezzotint.engine.request import Request
    from mezzotint.modalities.image import to_image

    model = catalogue.load("icons", "cpu")
    assert model.sight is not None
    imagined, drawn = list[Tensor](), list[Tensor]()
    for prompt in ("red heart, emoji, noto style", "sun, weather icon, filled style"):
        wish = Request(prompt, (1,), steps=6)
        told = engine.told_of(model, engine.plan(model, wish), 1).vector
        assert told is not None
        imagined.append(told[:, 384:])
        drawn.append(model.sight.embed(to_image(engine.generate(model, wish)[0])))
    for own, other in ((0, 1), (1, 0)):
        alike = cosine(drawn[own], imagined[own])
        assert alike > 0.5 and alike > cosine(drawn[own], imagined[other]) + 0.3
