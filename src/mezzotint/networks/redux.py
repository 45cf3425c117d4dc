"""FLUX.1 Redux (Black Forest Labs 2024): features of a picture's patches to tokens of a text."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Redux(nn.Module):
    """Two matrices with an activation between, as its reference code has them.

    image: width of the features; context: of the tokens.
    """

    def __init__(self, image: int = 1152, context: int = 4096) -> None:
        super().__init__()
        self.up = nn.Linear(image, 3 * context)
        self.down = nn.Linear(3 * context, context)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, image) -> (B, N, context)``."""
        return self.down(F.silu(self.up(x)))
