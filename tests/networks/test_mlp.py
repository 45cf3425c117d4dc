"""The MLP: its formula, its start, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.mlp import MLP, MLPConfig, embed_time

CONFIG = MLPConfig(5, 5, width=8, depth=2, hidden=12, vector_width=3)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(config: MLPConfig = CONFIG) -> MLP:
    network = MLP(config).double().eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    return network


def inputs(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(batch, 5).double(),
        torch.rand(batch).double(),
        torch.randn(batch, 3).double(),
    )


def written_out(network: MLP, x: Tensor, time: Tensor, vector: Tensor, skip: set[int]) -> Tensor:
    """The formulas once more, from the state dict alone."""
    w = network.state_dict()

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(y: Tensor) -> Tensor:
        return (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-5).sqrt()

    frequencies = 0.5 * 200 ** (torch.arange(32).double() / 31)
    angle = time[:, None] * frequencies
    told = linear("time", torch.cat([angle.cos(), angle.sin()], 1)) + linear("vector", vector)
    modulation = linear("modulation", F.silu(linear("embedding.1", F.silu(told))))
    y = linear("stem", x)
    for n in set(range(2)) - skip:
        scale, shift, gate = (modulation + w[f"blocks.{n}.offset"]).split(8, dim=1)
        inner = F.silu(linear(f"blocks.{n}.expand", norm(y) * (1 + scale) + shift))
        y = y + gate * linear(f"blocks.{n}.contract", inner)
    return linear("head", norm(y) * w["norm.weight"] + w["norm.bias"])


@pytest.mark.parametrize("skip", [set(), {0}, {1}])
def test_it_is_its_formula(skip: set[int]) -> None:
    network, (x, time, vector) = make(), inputs()
    got = network(x, time, vector, frozenset(skip))
    assert torch.allclose(got, written_out(network, x, time, vector, skip), rtol=0, atol=1e-12)


def test_it_starts_at_zero_and_learns() -> None:
    network, (x, time, vector) = MLP(CONFIG), inputs()
    told = x.float(), time.float(), vector.float()
    assert bool((network(*told) == 0).all())
    network(*told).sum().backward()
    assert network.head.weight.grad is not None and bool(network.head.weight.grad.any())


def test_dropout_only_while_it_learns() -> None:
    network, told = make(replace(CONFIG, dropout=0.5)), inputs()
    assert torch.equal(network(*told), network(*told))
    network.train()
    assert not torch.equal(network(*told), network(*told))


def test_times_are_told_apart() -> None:
    times = torch.linspace(0, 1, 101).double()
    assert bool((embed_time(times).diff(dim=0).norm(dim=1) > 0.1).all())


def test_what_does_not_fit_is_refused() -> None:
    network, (x, time, vector) = make(), inputs()
    for wrong in ((x[:, :4], time, vector), (x, time[:2], vector), (x, time, None)):
        with pytest.raises(ValueError, match="this MLP takes"):
            network(*wrong)
    with pytest.raises(ValueError, match="out of range"):
        network(x, time, vector, frozenset({2}))
    with pytest.raises(ValueError, match="depth is 0"):
        replace(CONFIG, depth=0)
    with pytest.raises(ValueError, match="dropout is 1"):
        replace(CONFIG, dropout=1.0)
