"""Weight deltas: equal to what PEFT adds to the same weights."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch import Tensor, nn

from mezzotint.adapters.deltas import KINDS, Delta, DeltaError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(12, 8)
        self.conv = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x


TARGETS = ["line", "conv"]
CONFIGS = {
    "lora": LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS),
    "dora": LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, use_dora=True),
    "loha": LoHaConfig(r=3, alpha=5, target_modules=TARGETS),
    "loha tucker": LoHaConfig(r=3, alpha=5, target_modules=TARGETS, use_effective_conv2d=True),
    "lokr": LoKrConfig(r=1, alpha=5, target_modules=TARGETS),
    "lokr both": LoKrConfig(r=1, alpha=5, target_modules=TARGETS, decompose_both=True),
    "lokr tucker": LoKrConfig(r=1, alpha=5, target_modules=TARGETS, use_effective_conv2d=True),
}
_NAMES = {"lora_A": "down", "lora_B": "up"} | {
    f"{kind}_{name}": name
    for kind in ("hada", "lokr")
    for name in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
}


def _delta(state: Mapping[str, Tensor], module: str, alpha: float, kind: str) -> Delta:
    """The factors of one module of PEFT's."""
    factors: dict[str, Tensor] = {}
    magnitude = None
    for name, value in state.items():
        if f".{module}." not in f".{name}":
            continue
        part = name.split(f"{module}.")[1].split(".")[0]
        if part == "lora_magnitude_vector":
            magnitude = value.flatten()  # of rows, whatever the weight
        elif part in _NAMES:
            factors[_NAMES[part]] = value
    return Delta(kind, factors, alpha, magnitude)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_peft(name: str) -> None:
    torch.manual_seed(0)
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    theirs = get_peft_model(net, CONFIGS[name])
    for key, weight in theirs.named_parameters():
        if weight.requires_grad and "magnitude" not in key:
            weight.normal_(0, 0.3)
        elif "magnitude" in key:
            weight.mul_(1 + 0.2 * torch.rand_like(weight))
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    merged = theirs.merge_and_unload()
    kind = "lora" if name == "dora" else name.split()[0]
    for module in TARGETS:
        delta = _delta(state, module, 5.0, kind)
        assert any(needed <= delta.factors.keys() for needed in KINDS[kind].needed)
        weight = before[f"{module}.weight"]
        expected = getattr(merged, module).weight
        torch.testing.assert_close(delta.applied(weight, 1.0), expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(delta.applied(weight, 0.0), weight)
        half = delta.applied(weight, 0.5)
        torch.testing.assert_close(half, (weight + expected) / 2, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_convolution_in_three_factors() -> None:
    """LoCon's Tucker form, against the composition of its three convolutions."""
    torch.manual_seed(0)
    down, mid, up = torch.randn(2, 6, 1, 1), torch.randn(3, 2, 3, 3), torch.randn(4, 3, 1, 1)
    delta = Delta("lora", {"down": down, "mid": mid, "up": up})
    x = torch.randn(1, 6, 8, 8)
    conv = nn.functional.conv2d
    expected = conv(conv(conv(x, down), mid), up)
    torch.testing.assert_close(conv(x, delta.matrix((4, 6, 3, 3))), expected, atol=1e-4, rtol=1e-4)


def test_scale_and_misfit() -> None:
    factors = {"down": torch.ones(2, 3), "up": torch.ones(4, 2)}
    assert Delta("lora", factors).matrix((4, 3)).unique().tolist() == [2.0]
    assert Delta("lora", factors, alpha=1.0).matrix((4, 3)).unique().tolist() == [1.0]
    full = Delta("full", {"diff": torch.ones(4, 3)}, alpha=8.0)
    assert full.matrix((4, 3)).unique().tolist() == [1.0]
    with pytest.raises(DeltaError, match=r"do not make a weight of \(5, 3\)"):
        Delta("lora", factors).matrix((5, 3))
    with pytest.raises(DeltaError, match="magnitude"):
        Delta("lora", factors, magnitude=torch.ones(7)).applied(torch.ones(4, 3), 1.0)
