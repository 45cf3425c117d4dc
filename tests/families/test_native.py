"""Our own model files: they say what they are, and nothing else is needed to load them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.checkpoints.rows import ROWS, SCALE
from mezzotint.families import catalogue
from mezzotint.families.model import Defaults
from mezzotint.families.native import (
    KEY,
    LatentConfig,
    NativeConfig,
    build,
    from_json,
    load_model,
    save_model,
    to_json,
)
from mezzotint.networks.autoencoder import AutoencoderConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.unet import UNetConfig

CODE = AutoencoderConfig(4, 4, 16, 16, (1, 2), 1, 1, attention=False)
CONFIG = NativeConfig(
    name="tiny",
    network=DiTConfig(4, 4, patch=2, width=24, depth=1, heads=2),
    channels="rgba",
    condition="none",
    prediction="x0",
    schedule="flow",
    defaults=Defaults((8, 8), 4, 1.0, "euler", "linspace"),
    notes={"licence": "MIT"},
)
CONFIGS = [
    CONFIG,
    replace(CONFIG, network=UNetConfig(4, 4, 16, (1, 2), 1, (False, True), 16)),
    replace(CONFIG, latent=LatentConfig(CODE, (0.1, 0.2, 0.3, 0.4), (1.0, 2.0, 3.0, 4.0))),
    replace(CONFIG, condition="class", classes=("a", "b")),
    replace(CONFIG, defaults=replace(CONFIG.defaults, interval=(0.4, 1.0))),
]


def write(config: NativeConfig, path: Path) -> dict[str, torch.Tensor]:
    state = nn.ModuleDict(build(config).parts).state_dict()
    save_model(path, config, state)
    return state


@pytest.mark.parametrize("config", CONFIGS)
def test_a_round_trip(config: NativeConfig, tmp_path: Path) -> None:
    assert from_json(to_json(config)) == config
    state = write(config, tmp_path / "m.safetensors")
    model, read = load_model(tmp_path / "m.safetensors")
    assert read == config
    again = nn.ModuleDict(model.parts).state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    write(CONFIG, tmp_path / "m.safetensors")
    before = torch.random.get_rng_state()
    load_model(tmp_path / "m.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_checkpoint_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    state = write(CONFIG, path)
    wider = replace(CONFIG, network=DiTConfig(4, 4, patch=2, width=48, depth=1, heads=2))
    save(path, state, {KEY: to_json(wider)})
    with pytest.raises(CheckpointError, match="network") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_and_a_damaged_description() -> None:
    document = json.loads(to_json(CONFIG))
    with pytest.raises(CheckpointError, match="format 2, this version reads 1: update"):
        from_json(json.dumps(document | {"format": 2}))
    with pytest.raises(CheckpointError, match="damaged"):
        from_json(json.dumps(document | {"network": "rnn"}))
    document["config"]["surprise"] = 1
    with pytest.raises(CheckpointError, match="damaged"):
        from_json(json.dumps(document))


def test_a_safetensors_file_of_something_else(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="not a Mezzotint model"):
        load_model(tmp_path / "x.safetensors")


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="no model 'icon': .* icons"):
        catalogue.load("icon")
    with pytest.raises(ValueError, match="unknown 'velocity'"):
        build(replace(CONFIG, prediction="velocity"))


def test_a_device_that_is_not_there() -> None:
    assert catalogue.device("cpu") == torch.device("cpu")
    assert catalogue.device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"no device 'cuda:99' here: choose one of cpu"):
        catalogue.load("icons", "cuda:99")


def test_prompts_that_a_model_cannot_take() -> None:
    with pytest.raises(ValueError, match="unconditional"):
        build(CONFIG).conditioner(["fox"])
    classes = build(CONFIGS[3]).conditioner
    told = classes(["b", ""]).vector
    assert told is not None and told.tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match="nearest: a, b"):
        classes(["fox"])


def test_the_packaged_model_loads_and_says_where_it_is_from() -> None:
    model, config = load_model(catalogue.PACKAGED["icons"])
    assert config.condition == "text" and model.codec.channels == 4
    assert {"licence", "pictures", "data"} <= config.notes.keys()
    assert config.prior is not None and {"licence", "pictures", "data"} <= config.prior.notes.keys()
    state, _ = load(catalogue.PACKAGED["icons"])
    rows = {name for name, tensor in state.items() if tensor.dtype == torch.int8}
    assert len(rows) > 50 and all(name.endswith(ROWS) for name in rows)
    floats = {tensor.dtype for name, tensor in state.items() if not name.endswith((ROWS, SCALE))}
    assert floats == {torch.float16}
    total = sum(p.stat().st_size for p in catalogue.DATA.iterdir() if p.is_file())
    assert total <= 80_000_000
