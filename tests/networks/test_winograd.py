"""The convolution with a quarter of the products is the convolution."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.networks import winograd


def _drawn(batch: int, height: int, width: int, channels: tuple[int, int]) -> tuple[Tensor, ...]:
    drawn = torch.Generator().manual_seed(height * width)
    wide, narrow = channels
    x = torch.randn(batch, wide, height, width, generator=drawn)
    weight = torch.randn(narrow, wide, 3, 3, generator=drawn) / math.sqrt(9 * wide)
    bias = torch.randn(narrow, generator=drawn)
    order = torch.channels_last
    return x.contiguous(memory_format=order), weight.contiguous(memory_format=order), bias


def _distance(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> float:
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    with torch.inference_mode():
        found = winograd.convolved(x, weight, bias, padding)
    assert found.shape == exact.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    return float((found - exact).norm() / exact.norm())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Says how often the quicker way is taken."""
    taken: list[int] = []
    convolve = winograd._Strip.convolve

    def count(self: winograd._Strip, *given: object) -> None:
        taken.append(1)
        convolve(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(winograd._Strip, "convolve", count)
    return taken


def test_the_transforms_of_an_axis_are_exact() -> None:
    drawn = torch.Generator().manual_seed(0)
    d = torch.randn(6, 1, generator=drawn, dtype=torch.float64)
    g = torch.randn(3, 1, generator=drawn, dtype=torch.float64)
    points, y = d.new_empty(6, 1), d.new_empty(4, 1)
    winograd._outward(d.unbind(), points.unbind(), *d.new_empty(2, 1))
    products = points * (winograd._weighing() @ g)
    winograd._inward(products.unbind(), y.unbind(), *d.new_empty(2, 1))
    assert torch.allclose(y[:, 0], d[:, 0].unfold(0, 3, 1) @ g[:, 0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("size", "channels", "padding"),
    [
        ((64, 64), (64, 96), (1, 1)),
        ((44, 52), (128, 64), (1, 1)),  # strips that do not come out even
        ((50, 48), (64, 64), (0, 1)),  # rows that were given beside it
        ((48, 50), (64, 64), (1, 0)),
        ((46, 50), (256, 64), (0, 0)),
    ],
)
def test_it_is_the_convolution(
    size: tuple[int, int], channels: tuple[int, int], padding: tuple[int, int], counted: list[int]
) -> None:
    x, weight, bias = _drawn(2, *size, channels)
    assert _distance(x, weight, bias, padding) < 2e-6
    assert counted
    with torch.inference_mode():  # and of an input in the usual order
        plain = winograd.convolved(x.contiguous(), weight.contiguous(), bias, padding)
        assert torch.allclose(plain, winograd.convolved(x, weight, bias, padding), atol=1e-5)


@pytest.mark.parametrize("padding", [(1, 1), (0, 1), (1, 0)])
def test_a_map_that_is_enlarged_on_the_way(padding: tuple[int, int]) -> None:
    x, weight, bias = _drawn(2, 26, 30, (64, 64))
    there = [side + 2 * p - 2 for side, p in zip((26, 30), padding, strict=True)]
    with torch.inference_mode():
        assert winograd.pays(x, weight, padding, scale=2)
        found = winograd.convolve(x, weight, bias, padding, scale=2)
        large = F.interpolate(x.double(), scale_factor=2.0)
        exact = F.conv2d(large, weight.double(), bias.double(), padding=1)
    top, left = (2 * (1 - p) for p in padding)  # pixels that were beside the map
    exact = exact[:, :, top : top + 2 * there[0], left : left + 2 * there[1]]
    assert found.shape == exact.shape
    assert float((found - exact).norm() / exact.norm()) < 2e-6


def test_rounding_is_that_of_the_direct_sums() -> None:
    x, weight, bias = _drawn(1, 64, 64, (320, 320))
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    direct = float((F.conv2d(x, weight, bias, padding=1) - exact).norm() / exact.norm())
    assert _distance(x, weight, bias, (1, 1)) < 3 * direct + 1e-7


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    x, weight, bias = _drawn(3, 48, 48, (64, 64))
    with torch.inference_mode():
        together = winograd.convolved(x, weight, bias, (1, 1))
        alone = [winograd.convolved(x[n : n + 1], weight, bias, (1, 1)) for n in range(3)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    "case", ["small", "narrow", "bfloat16", "odd sides", "gradients", "other windows"]
)
def test_where_it_does_not_pay_it_is_torch(case: str, counted: list[int]) -> None:
    channels = (64, 32) if case == "narrow" else (64, 64)
    side = {"small": 32, "odd sides": 50}.get(case, 48)
    x, weight, bias = _drawn(1, side, side, channels)
    if case == "bfloat16":
        x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    if case == "other windows":
        weight = weight[:, :, :1, :1].contiguous()
    if case == "gradients":
        weight.requires_grad_()
        made = winograd.convolved(x, weight, bias, (1, 1))
        made.sum().backward()
        assert weight.grad is not None
    else:
        with torch.inference_mode():
            made = winograd.convolved(x, weight, bias, (1, 1))
    assert torch.equal(made, F.conv2d(x, weight, bias, padding=1))
    assert not counted
