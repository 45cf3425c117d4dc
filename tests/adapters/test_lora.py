"""LoRA files: every key style finds its places, strictly, and leaves no trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mezzotint.adapters.lora import Style, attached, fit, index, read
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.tables import ldm_unet as tables
from mezzotint.networks.ldm_unet import LdmUNet, LdmUNetConfig

CONFIG = LdmUNetConfig(width=32, multipliers=(1, 2), depths=(1, 0), context_width=24)
TABLES = (tables.diffusers(True), tables.original(CONFIG.depths, CONFIG.blocks, True))
STYLES = (Style("lora_unet_", False), Style("unet.", True), Style("base_model.model.", True))
ENDS = {
    "lora_unet_": (".lora_down.weight", ".lora_up.weight"),
    "unet.": (".lora.down.weight", ".lora.up.weight"),
    "base_model.model.": (".lora_A.weight", ".lora_B.weight"),
}


@pytest.fixture(scope="module")
def network() -> LdmUNet:
    torch.manual_seed(0)
    return LdmUNet(CONFIG).eval()


def _file(network: LdmUNet, style: Style, layout: int = 0) -> dict[str, Tensor]:
    """A LoRA of rank 2 on every matrix of the transformers, in a style."""
    torch.manual_seed(1)
    state: dict[str, Tensor] = {}
    down, up = ENDS[style.prefix]
    for name, weight in to_theirs(network.state_dict(), TABLES[layout]).items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or weight.ndim < 2 or "transformer_blocks" not in name:
            continue
        state[style.name(module) + down] = torch.randn(2, *weight.shape[1:])
        state[style.name(module) + up] = torch.randn(len(weight), 2) * 0.1
        if style.prefix == "lora_unet_":
            state[style.name(module) + ".alpha"] = torch.tensor(1.0)
    return state


def _bits(network: LdmUNet) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("style", STYLES)
def test_all_of_all_keys_apply_and_come_off_again(
    network: LdmUNet, style: Style, layout: int
) -> None:
    known = index("unet", network.state_dict(), TABLES, STYLES)
    state = _file(network, style, layout)
    fitted = fit(read(state), known)
    assert len(fitted) == len([key for key in state if key.endswith(ENDS[style.prefix][0])])
    before, theirs = _bits(network), to_theirs(network.state_dict(), TABLES[layout])
    with attached({"unet": network}, [(fitted, 0.5)]):
        after = to_theirs(network.state_dict(), TABLES[layout])
        down, up = ENDS[style.prefix]
        scale = 0.25 if style.prefix == "lora_unet_" else 0.5
        for name, weight in theirs.items():
            key = style.name(name.removesuffix(".weight"))
            if key + up not in state:
                assert torch.equal(after[name], weight)
                continue
            product = state[key + up] @ state[key + down].flatten(1)
            torch.testing.assert_close(after[name], weight + scale * product.view(weight.shape))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_several_add_up_in_any_order(network: LdmUNet) -> None:
    known = index("unet", network.state_dict(), TABLES, STYLES)
    a = fit(read(_file(network, STYLES[0])), known)
    b = fit(read(_file(network, STYLES[1])), known)
    before = _bits(network)
    with attached({"unet": network}, [(a, 0.5), (b, 0.25)]):
        first = _bits(network)
    with attached({"unet": network}, [(b, 0.25), (a, 0.5)]):
        second = _bits(network)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_one_renamed_key_is_an_error_that_names_it(network: LdmUNet) -> None:
    known = index("unet", network.state_dict(), TABLES, STYLES)
    state = _file(network, STYLES[0])
    key = next(iter(state)).removesuffix(".lora_down.weight")
    renamed = {name.replace(key, key.replace("to_q", "to_x")): v for name, v in state.items()}
    with pytest.raises(CheckpointError, match=r"1 of \d+ modules .*to_x'.*nearest: .*to_[qkv]\)"):
        fit(read(renamed), known)
    assert len(fit(read(renamed), known, partial=True)) == len(fit(read(state), known)) - 1


def test_what_is_no_adapter_says_so() -> None:
    with pytest.raises(CheckpointError, match="ends like no known kind"):
        read({"lora_unet_x.lora_sideways.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match="has only down of a lora"):
        read({"lora_unet_x.lora_down.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match="has no factors"):
        read({"lora_unet_x.alpha": torch.ones(1)})
    with pytest.raises(CheckpointError, match="factors of loha and lora"):
        read({"x.lora_down.weight": torch.ones(1), "x.hada_w1_a": torch.ones(1)})
