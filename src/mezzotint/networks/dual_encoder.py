"""A dual encoder: how well vectors of pictures go with vectors of texts.

Either side is taken into one space, where the cosine tells (CLIP, Radford et al. 2021, §2.3).  Both
begin as vectors that other networks made, so the pictures' side is one hidden layer and the texts'
side a matrix that begins as the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DualEncoderConfig:
    """in_channels: length of a picture's vector; vector_width: of a text's, and of the space.
    hidden: units of the pictures' side.
    dropout: probability before its second layer; half of it before the first.
    """

    in_channels: int
    vector_width: int
    hidden: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("in_channels", "vector_width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: it must lie in [0, 1)")


_SCALE = 2.5  # log of the inverse temperature at the start
_LARGEST = 100.0  # of the inverse temperature (Radford et al. 2021, §2.5)


class DualEncoder(nn.Module):
    """The network; see the module's docstring for its line of descent."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.picture = nn.Sequential(
            nn.Dropout(config.dropout / 2),
            nn.Linear(config.in_channels, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.vector_width),
        )
        self.text = nn.Linear(config.vector_width, config.vector_width)
        nn.init.eye_(self.text.weight)
        nn.init.zeros_(self.text.bias)
        self.scale = nn.Parameter(torch.tensor(_SCALE))

    def forward(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Logits ``(B, N)``: cosines over the temperature.

        Args:
            pictures: ``(B, in_channels)``; texts: ``(N, vector_width)``.

        Raises:
            ValueError: an argument does not fit the configuration.
        """
        wanted = (self.config.in_channels, self.config.vector_width)
        if (*pictures.shape[1:], *texts.shape[1:]) != wanted:
            raise ValueError(
                f"pictures and texts have shapes {tuple(pictures.shape)} and "
                f"{tuple(texts.shape)}, this dual encoder takes vectors of {wanted}"
            )
        picture = F.normalize(self.picture(pictures), dim=1)
        text = F.normalize(self.text(texts), dim=1)
        return self.scale.exp().clamp(max=_LARGEST) * picture @ text.T
