"""From one layout into another: the same numbers as by way of ours, made only when asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import (
    MATRIX,
    SWAPPED,
    TRANSPOSED,
    Part,
    Table,
    parts,
    to_ours,
    to_theirs,
)
from mezzotint.checkpoints.relayout import relay

Q, K, V = parts("{n}.qkv.weight", 3)
SPLIT: Table = {
    "{n}.q": Q,
    "{n}.k": K,
    "{n}.v": V,
    "conv": Part("linear", view=MATRIX),
    "modulation": Part("turn", view=SWAPPED),
    "old": None,
}
FUSED: Table = {
    "l{n}.all": "{n}.qkv.weight",
    "matrix": Part("linear", view=TRANSPOSED),
    "modulation": "turn",
}
ODD: Table = {  # queries alone, keys and values together
    "{n}.query": Part("{n}.qkv.weight", 0, (1, 2)),
    "{n}.rest": Part("{n}.qkv.weight", 1, (1, 2)),
    "linear": "linear",
    "turn": "turn",
}
WANTED = {"0.qkv.weight": (12, 3), "1.qkv.weight": (12, 3), "linear": (5, 2), "turn": (4,)}


def ours(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in WANTED.items()}


@pytest.mark.parametrize("source", [SPLIT, FUSED, ODD])
@pytest.mark.parametrize("target", [SPLIT, FUSED, ODD])
def test_the_same_as_by_way_of_ours(source: Table, target: Table) -> None:
    wanted, state = ours(), to_theirs(ours(), source)
    relaid = relay(state, source, target, wanted)
    expected = to_theirs(to_ours(state, source, wanted), target)
    assert relaid.tensors.keys() == expected.keys()
    for name, later in relaid.tensors.items():
        made = later.make()
        assert torch.equal(made, expected[name])
        assert (later.dtype, later.shape) == (made.dtype, tuple(made.shape))


def test_what_has_no_place_is_told() -> None:
    state = {**to_theirs(ours(), SPLIT), "old": torch.zeros(1)}
    assert relay(state, SPLIT, FUSED, ours()).left_out == ("old",)


def test_types_are_kept_or_changed() -> None:
    state = to_theirs(ours(), SPLIT)
    state["0.q"], state["1.k"] = state["0.q"].half(), state["1.k"].bfloat16()
    kept = relay(state, SPLIT, SPLIT, ours()).tensors
    assert {n: t.dtype for n, t in kept.items()} == {n: t.dtype for n, t in state.items()}
    joined = relay(state, SPLIT, FUSED, ours()).tensors["l0.all"]
    assert joined.dtype == torch.float32
    assert torch.equal(joined.make()[:4], state["0.q"].float())
    half = relay(state, SPLIT, FUSED, ours(), torch.float16).tensors
    assert {t.dtype for t in half.values()} == {torch.float16}
    assert torch.equal(half["matrix"].make(), state["conv"][..., 0, 0].T.half())


def test_a_number_that_a_type_cannot_hold_is_an_error() -> None:
    state = to_theirs(ours(), SPLIT)
    state["1.v"] = state["1.v"] + 70_000
    later = relay(state, SPLIT, SPLIT, ours(), torch.float16).tensors
    later["1.q"].make()
    with pytest.raises(CheckpointError, match=r"'1\.v' has numbers beyond float16: .* bfloat16"):
        later["1.v"].make()
    assert relay(state, SPLIT, SPLIT, ours(), torch.bfloat16).tensors["1.v"].make().isfinite().all()
    state["1.v"] = torch.full((4, 3), float("inf"))  # as it is in the file
    assert relay(state, SPLIT, SPLIT, ours(), torch.float16).tensors["1.v"].make().isinf().all()


def test_types_of_eight_bits() -> None:
    small = torch.float8_e4m3fn
    state = to_theirs(ours(), SPLIT)
    state = {name: tensor.to(small) for name, tensor in state.items()}
    kept = relay(state, SPLIT, FUSED, ours()).tensors["l0.all"]
    assert kept.dtype == small and torch.equal(kept.make()[:4].float(), state["0.q"].float())
    wide = relay(state, SPLIT, FUSED, ours(), torch.float16).tensors["l1.all"]
    assert torch.equal(wide.make()[4:8], state["1.k"].half())
    state["1.k"] = state["1.k"].half()
    with pytest.raises(CheckpointError, match=r"'1\.qkv\.weight' are of several types, .* --dtype"):
        relay(state, SPLIT, FUSED, ours())
    relay(state, SPLIT, FUSED, ours(), torch.float16)


def test_packed_weights_are_unpacked_when_made() -> None:
    gguf = pytest.importorskip("gguf")
    wanted = {"linear": torch.zeros(4, 64)}
    numbers = torch.randn(4, 64)
    kind = gguf.GGMLQuantizationType.Q8_0
    data = torch.from_numpy(gguf.quants.quantize(numbers.numpy(), kind))
    state = {"linear": Packed("Q8_0", (4, 64), data)}
    later = relay(state, {"linear": "linear"}, {"it": "linear"}, wanted).tensors["it"]
    assert later.dtype == torch.float32
    assert torch.equal(later.make(), state["linear"].unpack())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.q": torch.zeros(5, 3)}, r"'0\.q' is of another network: .* \[13, 3\] .* \[12, 3\]"),
        ({"conv": torch.zeros(5, 3, 1, 1)}, r"'conv' is of another network"),
        ({"strange": torch.zeros(1)}, "unknown key 'strange'"),
    ],
)
def test_another_network_is_refused(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        relay({**to_theirs(ours(), SPLIT), **change}, SPLIT, FUSED, ours())
