"""Weights as int8 rows: a quarter of float32, half of float16, for what the package ships.

Row ``r`` of a matrix (the weights of one output) is kept as ``round(r / s)``, ``s = max|r| / 127``;
its error is at most ``s / 2``.  ``layer.weight`` becomes ``layer.int8`` and ``layer.scale``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROWS, SCALE, WEIGHT = ".int8", ".scale", ".weight"


def pack(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A weight ``(out, …)`` as int8 rows and their float32 scales."""
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    layer = name.removesuffix(WEIGHT)
    packed = (rows / scale[:, None]).round().to(torch.int8).view(weight.shape)
    return {layer + ROWS: packed, layer + SCALE: scale}


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with every packed weight as float32; other tensors as they are."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        layer = name.removesuffix(ROWS)
        if name.endswith(ROWS) and layer + SCALE in state:
            scale = state[layer + SCALE].view(-1, *(1,) * (value.ndim - 1))
            found[layer + WEIGHT] = value.float().mul_(scale)
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) + ROWS in state):
            found[name] = value
    return found
