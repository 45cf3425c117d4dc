"""Control-LoRA: a control network of the model's own weights and low-rank differences, equal to
`diffusers`' network of the sums."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import test_controls as of_unet
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import Tensor

import measured
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.tables import control_unet
from mezzotint.checkpoints.tables.control_unet import ALONE, LOW_RANK
from mezzotint.engine.attach import open_adapter
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Attached, Control
from mezzotint.families import controls
from mezzotint.families.ldm import load
from mezzotint.families.model import Model
from mezzotint.networks.control_unet import ControlUNet
from pipelines import small, stable_diffusion
from variants import picture

SIZE, RANK = of_unet.SIZE, 4


class Made:
    """A pipeline and the model of it; a file of Control-LoRA, and the network of the sums."""

    def __init__(self, name: str, place: Path) -> None:
        self.base: Any = stable_diffusion(name)
        self.base.save_pretrained(place)
        self.family, self.place = small(name), place
        self.model: Model = load(self.family, place)
        self.file = place / "control-lora.safetensors"
        config, convolutions = self.family.unet, name == "sd1"
        fresh = ControlUNet(config)
        table = control_unet.original(config.depths, config.blocks, convolutions)
        own = {
            key: value if key.startswith(ALONE) else attrgetter(key)(self.model.network)
            for key, value in fresh.state_dict().items()
        }
        self.state: dict[str, Tensor] = {LOW_RANK: torch.zeros(0)}
        sums: dict[str, Tensor] = {}
        torch.manual_seed(1)
        alone = ("input_hint_block.", "zero_convs.", "middle_block_out.")
        for key, weight in to_theirs(own, table).items():
            if key.startswith(alone) or weight.ndim < 2:
                sums[key] = self.state[key] = torch.randn(weight.shape) * 0.05 + (
                    weight.ndim == 1 and bool(weight.mean() > 0.9)
                )
                continue
            stem, rows = key.removesuffix(".weight"), weight.shape[2:]
            up, down = torch.randn(len(weight), RANK), torch.randn(RANK, weight[0].numel())
            up, down = up * 0.05, down * 0.05
            sums[key] = weight + (up @ down).view(weight.shape)
            ones = (1,) * len(rows)
            self.state[f"{stem}.up"] = up.view(*up.shape, *ones)
            self.state[f"{stem}.down"] = down.view(RANK, weight.shape[1], *rows)
        save(self.file, self.state, {})
        named = to_theirs(
            to_ours(sums, table, fresh.state_dict()), control_unet.diffusers(convolutions)
        )
        self.theirs = ControlNetModel.from_unet(self.base.unet)
        self.theirs.load_state_dict(named)  # all of them, no other
        self.theirs.eval()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(n, marks=pytest.mark.parity("ControlNet, as LoRA", "single file", family=n))
        for n in ("sd1", "sdxl")
    ],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp(request.param))


def test_it_is_the_network_of_the_sums(made: Made) -> None:
    assert str(inspect(made.file).kind).startswith("ControlNet as LoRA")
    control = Control(controls.load(made.model, made.file), picture(*SIZE), 0.7)
    wanted = of_unet.expected(made.base, made.theirs, 4, 6.0, controlnet_conditioning_scale=0.7)
    found = generate(made.model, of_unet.wish(4, 6.0, control))[0]
    measured.close(found / 2 + 0.5, wanted, 1e-3)
    plain = generate(made.model, of_unet.wish(4, 6.0))[0]
    assert float((found - plain).abs().max()) > 0.01


@pytest.mark.parametrize("made", ["sd1"], indirect=True)
def test_read_as_used_and_beside_a_lora(made: Made, tmp_path: Path) -> None:
    """It is of the model's own weights, wherever these are and whatever else acts on them."""
    room = dict.fromkeys(("network", "text", "text2", "autoencoder"), 0)
    read = load(made.family, made.place, room=room)
    kept, streamed = (controls.load(model, made.file) for model in (made.model, read))
    for name, weight in kept.network.state_dict().items():
        assert torch.equal(weight, streamed.network.state_dict()[name]), name
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    delta = {
        f"{stem}.lora_down.weight": torch.randn(2, 8),
        f"{stem}.lora_up.weight": torch.randn(32, 2),
    }
    save(tmp_path / "a.safetensors", delta, {})
    worn = Attached("a", open_adapter(made.model, tmp_path / "a.safetensors").fitted, 0.8)
    plain, control = of_unet.wish(2, 3.0), Control(kept, picture(*SIZE))
    first = generate(made.model, of_unet.wish(2, 3.0, control))[0]
    other = generate(made.model, of_unet.wish(2, 3.0, control, adapters=(worn,)))[0]
    assert not torch.equal(first, other)
    assert torch.equal(generate(made.model, of_unet.wish(2, 3.0, control))[0], first)
    assert not torch.equal(generate(made.model, plain)[0], first)


@pytest.mark.parametrize("made", ["sd1"], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_embed.0.up": None}, r"'time_embed.0.down' is without its .up"),
        ({"time_embed.0.down": None}, r"'time_embed.0.up' is without its .down"),
        ({"time_embed.0.down": torch.zeros(3, 32)}, "'time_embed.0.up' and its .down have shapes"),
        ({"time_embd.0.up": torch.zeros(3, 3)}, r"unknown key 'time_embd.0.up' \(nearest: time_em"),
        ({"time_embed.0.bias": None}, "time.0.bias"),
        ({"time_embed.0.bias": torch.full((128,), torch.nan)}, "numbers that are not finite"),
    ],
)
def test_what_does_not_fit_says_so(
    made: Made, change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state = {**made.state, **change}
    save(tmp_path / "a.safetensors", {k: v for k, v in state.items() if v is not None}, {})
    with pytest.raises(CheckpointError, match=message):
        controls.load(made.model, tmp_path / "a.safetensors")
