"""Weights as int8 rows."""

from __future__ import annotations

import torch

from mezzotint.checkpoints.rows import pack, unpack


def test_every_weight_comes_back_within_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-3, 1, 6)[:, None, None, None]
    )
    weight[2] = 0
    packed = pack("a.conv.weight", weight)
    assert {name: value.dtype for name, value in packed.items()} == {
        "a.conv.int8": torch.int8,
        "a.conv.scale": torch.float32,
    }
    back = unpack(packed)["a.conv.weight"]
    step = weight.flatten(1).abs().amax(1) / 127
    assert bool(((back - weight).abs().flatten(1) <= step[:, None] * 0.5001).all())
    assert bool((back[2] == 0).all())
    assert float(back[5].abs().max()) == float(weight[5].abs().max())  # the largest is kept


def test_other_tensors_are_left_alone() -> None:
    state = {
        "norm.weight": torch.ones(3),
        "norm.scale": torch.ones(3),  # no rows beside it: somebody's own name
        "table.int8": torch.ones(3, dtype=torch.int8),  # no scale beside it
    }
    assert unpack(state | pack("x.weight", torch.ones(2, 2))).keys() == state.keys() | {"x.weight"}
