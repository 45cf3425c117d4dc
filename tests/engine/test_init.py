"""Fine-tuning: a run that starts from the weights of a trained model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mezzotint.checkpoints.files import CheckpointError, load
from mezzotint.diffusion.level import Conditioning
from mezzotint.engine.config import TrainConfig
from mezzotint.engine.config_file import parse_config
from mezzotint.engine.state import TrainError
from mezzotint.engine.train import train
from mezzotint.families.native import load_model

CONFIG = """
name = "tiny"
[data]
source = "pictures"
size = 8
[network]
kind = "dit"
patch = 4
width = 24
depth = 1
heads = 2
[model]
prediction = "x0"
schedule = "flow"
[train]
pictures = 16
batch = 8
learning_rate = 1e-3
loss = "flow"
"""
AUTOENCODER = """
name = "folds"
[data]
source = "pictures"
size = 8
[autoencoder]
width = 16
decoder_width = 16
multipliers = [1, 2]
latent_channels = 4
attention = false
[train]
pictures = 16
batch = 8
learning_rate = 1e-3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    pixels = torch.randint(0, 256, (8, 8 * 8 * 3), generator=torch.Generator().manual_seed(0))
    (tmp_path / "pictures").mkdir()
    for number, row in enumerate(pixels.tolist()):
        Image.frombytes("RGB", (8, 8), bytes(row)).save(tmp_path / f"pictures/{number}.png")
    return tmp_path


def _config(folder: Path, model: str = "", text: str = CONFIG) -> TrainConfig:
    return parse_config(text.replace("[train]", f"{model}\n[train]"), folder)


def test_it_starts_from_the_weights(folder: Path) -> None:
    train(_config(folder), folder / "first")
    tuned = _config(folder, 'init = "first/model.safetensors"')
    # A rate of almost nothing leaves the weights where they start.
    slow = parse_config(
        CONFIG.replace("1e-3", "1e-12").replace(
            "[train]", 'init = "first/model.safetensors"\n[train]'
        ),
        folder,
    )
    train(slow, folder / "slow")
    train(tuned, folder / "tuned")
    states = [load(folder / name / "model.safetensors")[0] for name in ("first", "slow", "tuned")]
    first, kept, moved = states
    assert all(torch.allclose(first[n], kept[n], atol=1e-9) for n in first)
    assert any(not torch.allclose(first[n], moved[n], atol=1e-5) for n in first)


def test_a_latent_model_keeps_the_scale_of_its_latents(folder: Path) -> None:
    train(_config(folder, text=AUTOENCODER), folder / "code")
    latent = 'latent = "code/model.safetensors"\n'
    fine = CONFIG.replace("patch = 4", "patch = 1")
    train(_config(folder, latent, fine), folder / "first")
    (folder / "pictures/0.png").unlink()  # other statistics
    tuned = _config(
        folder,
        latent + 'init = "first/model.safetensors"',
        CONFIG.replace("patch = 4", "patch = 1"),
    )
    path = train(tuned, folder / "tuned")
    latents = [load_model(p)[1].latent for p in (folder / "first/model.safetensors", path)]
    assert latents[0] == latents[1] is not None


def test_the_decoder_may_be_another_but_not_the_code(folder: Path) -> None:
    train(_config(folder, text=AUTOENCODER), folder / "code")
    deeper = AUTOENCODER[: AUTOENCODER.index("[autoencoder]")] + (
        '[decoder]\nof = "code/model.safetensors"\nblocks = 3\n'
    )
    deeper += AUTOENCODER[AUTOENCODER.index("[train]") :]
    train(_config(folder, text=deeper), folder / "deeper")
    train(_config(folder, text="seed = 1\n" + AUTOENCODER), folder / "other")

    def model(latent: str, more: str = "") -> TrainConfig:
        latent = f'latent = "{latent}/model.safetensors"\n'
        return _config(folder, latent + more, CONFIG.replace("patch = 4", "patch = 1"))

    train(model("code"), folder / "first")
    init = 'init = "first/model.safetensors"\n'
    _, description = load_model(train(model("deeper", init), folder / "tuned"))
    assert description.latent is not None and description.latent.autoencoder.decoder_blocks == 3
    with pytest.raises(TrainError, match="another model: its latent differ"):
        train(model("other", init), folder / "wrong")
    with pytest.raises(TrainError, match="another model: its network, latent differ"):
        train(_config(folder, init), folder / "pixels")


def test_another_network(folder: Path) -> None:
    train(_config(folder), folder / "first")
    other = _config(
        folder, 'init = "first/model.safetensors"', CONFIG.replace("depth = 1", "depth = 2")
    )
    with pytest.raises(TrainError, match="another model: its network differ"):
        train(other, folder / "other")


UNET = CONFIG.replace(
    'kind = "dit"\npatch = 4\nwidth = 24\ndepth = 1\nheads = 2',
    'kind = "unet"\nwidth = 16\nmultipliers = [1, 2]\nblocks = [1, 1]\nattention = [false, true]\n'
    "head_width = 16",
)


@pytest.mark.parametrize("blocks", [[3, 1], [1, 2], [2, 3]])
def test_blocks_put_in_are_the_identity_and_learn(folder: Path, blocks: list[int]) -> None:
    first = train(
        _config(folder, text=UNET.replace("pictures = 16", "pictures = 80")), folder / "a"
    )
    deeper = UNET.replace("blocks = [1, 1]", f"blocks = {blocks}")
    init = 'init = "a/model.safetensors"'
    same = train(_config(folder, init, deeper.replace("1e-3", "1e-12")), folder / "same")
    (small, _), (large, description) = load_model(first), load_model(same)
    assert list(getattr(description.network, "depths", ())) == blocks
    x, time = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(2) / 2
    wanted = small.call(x, time, Conditioning())
    assert wanted.abs().max() > 1e-3  # it has learnt something
    assert torch.allclose(large.call(x, time, Conditioning()), wanted, atol=1e-6)
    fresh, _ = load(same)
    moved, _ = load(train(_config(folder, init, deeper), folder / "moved"))
    added = [n for n in moved if n.startswith("network.") and n not in load(first)[0]]
    ends = [n for n in added if n.endswith("conv2.weight")]
    assert ends and all(not torch.allclose(fresh[n], moved[n], atol=1e-5) for n in ends)


@pytest.mark.parametrize(
    "change", [("blocks = [1, 1]", "blocks = [1, 2]"), ("width = 16", "width = 32")]
)
def test_a_network_with_fewer_blocks_or_other_widths(folder: Path, change: tuple[str, str]) -> None:
    train(_config(folder, text=UNET.replace(*change)), folder / "a")
    with pytest.raises(TrainError, match="another model: its network differ"):
        train(_config(folder, 'init = "a/model.safetensors"', UNET), folder / "b")


def test_a_missing_model(folder: Path) -> None:
    with pytest.raises(CheckpointError):
        train(_config(folder, 'init = "nowhere.safetensors"'), folder / "run")
