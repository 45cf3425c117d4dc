"""Seamless convolutions: a shifted start gives the shifted picture; nothing is left afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mezzotint.adapters.seamless import convolutions, seamless
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request, RequestError
from mezzotint.families.flow import build as build_flow
from mezzotint.families.ldm import build, load
from mezzotint.families.model import Model
from pipelines import small, small_flow, stable_diffusion

BOTH = frozenset({0, 1})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("sd1")
    stable_diffusion("sd1").save_pretrained(path)
    return load(small("sd1"), path)


@pytest.mark.parametrize("axes", [BOTH, frozenset({0}), frozenset({1}), frozenset()])
@torch.inference_mode()
def test_shifted_in_shifted_out(model: Model, axes: frozenset[int]) -> None:
    """Along the axes that are seamless, and not along the others: U-Net and decoder."""
    x = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    told = model.conditioner(["a fox"])
    time = torch.tensor([500.0])

    def moves(call: object, axis: int, edge: int) -> bool:
        out = call(x)  # type: ignore[operator]
        moved = call(x.roll(4, dims=2 + axis))  # type: ignore[operator]
        wanted = out.roll(4 * edge, dims=2 + axis)
        return bool((moved - wanted).abs().max() < 1e-4 * wanted.abs().max())

    def network(x: Tensor) -> Tensor:
        return model.call(x, time, told)

    with seamless(model.parts.values(), axes):
        for axis in (0, 1):
            assert moves(network, axis, 1) is (axis in axes)
            assert moves(model.codec.decode, axis, 8) is (axis in axes)


def test_nothing_is_left_of_it(model: Model) -> None:
    request = Request("a fox", (3,), size=(64, 96), steps=2)
    before = generate(model, request)[0]
    tiled = generate(model, Request("a fox", (3,), size=(64, 96), steps=2, tiled=BOTH))[0]
    assert not torch.equal(before, tiled)
    assert torch.equal(generate(model, request)[0], before)
    found = [module for part in model.parts.values() for module in convolutions(part)]
    assert found and all(set(module.padding) == {1} for module in found)
    assert not any(module._forward_pre_hooks for module in found)
    with pytest.raises(KeyError), seamless(model.parts.values(), BOTH):
        raise KeyError
    assert torch.equal(generate(model, request)[0], before)


def test_one_dimension_and_three() -> None:
    for dims, kind in ((1, nn.Conv1d), (3, nn.Conv3d)):
        layer = kind(1, 1, 3, padding=1)
        x = torch.randn(1, 1, *(5, 6, 7)[:dims])
        with seamless([layer], frozenset(range(dims))):
            for axis in range(dims):
                moved = layer(x.roll(2, dims=2 + axis))
                torch.testing.assert_close(moved, layer(x).roll(2, dims=2 + axis))


def test_what_makes_no_tiles(tmp_path: Path) -> None:
    flux = build_flow(small_flow("flux-schnell"))
    with pytest.raises(RequestError, match="flux-schnell is no convolutional network"):
        generate(flux, Request("a fox", (3,), size=(64, 64), steps=1, tiled=BOTH))
    with pytest.raises(RequestError, match=r"no such axes to tile: \[2\] of 2"):
        generate(build(small("sd1")), Request("a fox", (3,), size=(64, 64), tiled=frozenset({2})))
