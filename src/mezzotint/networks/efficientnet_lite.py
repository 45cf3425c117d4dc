"""EfficientNet-Lite0 without its classifier: what it sees of a drawing, as one vector.

EfficientNet (Tan & Le 2019) of MobileNetV2's inverted bottlenecks (Sandler et al. 2018, §3), in the
variant for small machines: ReLU6, no squeeze-and-excitation.  Each batch norm is folded into the
convolution before it, so that there is none here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EDGE = 64
"""Pixels of the drawings; they are enlarged to twice that."""
THUMBNAIL = 8


class Stage(NamedTuple):
    """Blocks of one width: ``expand`` times that inside; the first has the stride."""

    kernel: int
    stride: int
    expand: int
    width: int
    blocks: int


LITE0 = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """stem, head: widths of the first and the last convolution; stages: what is between them;
    watched: of which stages the mean and the maximum over the picture are told too."""

    stem: int = 32
    stages: tuple[Stage, ...] = LITE0
    head: int = 1280
    watched: tuple[int, ...] = (2, 4)

    @property
    def features(self) -> int:
        """How many numbers are told of a drawing."""
        middle = sum(self.stages[number].width for number in self.watched)
        return 2 * (self.head + middle) + 4 * THUMBNAIL**2


class Convolution(nn.Conv2d):
    """A convolution padded so that a multiple of its stride is divided by it, the odd pixel at the
    right and at the bottom ("SAME")."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.around = (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as torch calls it
        return super().forward(F.pad(input, self.around) if any(self.around) else input)


class Block(nn.Module):
    """An inverted bottleneck: wider, each channel by itself, narrower; added where it fits."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = inputs * stage.expand
        self.expand = Convolution(inputs, inside, 1) if stage.expand > 1 else None
        self.depthwise = Convolution(inside, inside, stage.kernel, stride, groups=inside)
        self.project = Convolution(inside, stage.width, 1)
        self.added = stride == 1 and inputs == stage.width

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.added else y


class EfficientNetLite(nn.Module):
    """Drawings to what is seen of them."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.stem, *(stage.width for stage in config.stages)]
        self.stem = Convolution(3, config.stem, 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                Block(before, stage, stage.stride),
                *(Block(stage.width, stage, 1) for _ in range(stage.blocks - 1)),
            )
            for (before, _), stage in zip(itertools.pairwise(widths), config.stages, strict=True)
        )
        self.head = Convolution(widths[-1], config.head, 1)

    def forward(self, unit: Tensor) -> Tensor:
        """What is seen of drawings ``(B, 4, 64, 64)``, premultiplied RGBA in [0, 1], on white.

        Returns:
            ``(B, features)``: the mean of the last layer over the picture; mean and maximum of each
            stage that is watched; the maximum of the last layer; the drawing averaged to 8 × 8.

        Raises:
            ValueError: the drawings are of another shape.
        """
        if unit.ndim != 4 or unit.shape[1:] != (4, EDGE, EDGE):
            raise ValueError(f"drawings must be (B, 4, {EDGE}, {EDGE}), not {tuple(unit.shape)}")
        x = unit[:, :3] + 1 - unit[:, 3:]
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = (x * 255 - 127) / 128  # the scaling that its weights were trained with
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))
        middle: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.config.watched:
                middle += [x.mean((2, 3)), x.amax((2, 3))]
        x = F.relu6(self.head(x))
        small = F.interpolate(unit, size=(THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
        return torch.cat([x.mean((2, 3)), *middle, x.amax((2, 3)), small], 1)
