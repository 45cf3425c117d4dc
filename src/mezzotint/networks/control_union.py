"""A control network of a U-Net that knows several kinds of pictures (Union).

After xinsir's ControlNetPlus (2024): one encoder reads pictures of every kind.  The kind is told
twice: as a sum with the time, and as an embedding that, with the mean of what was read, says how
far each channel of the hint is shifted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.control_unet import HINT_WIDTHS, ControlUNet
from mezzotint.networks.ldm_unet import LdmUNetConfig, embed_time

_TOLD = 256  # of each kind, whether it is one of those that are shown


class ShiftLayer(nn.Module):
    """A layer of a transformer that reads a picture as one token.

    It attends to its own token alone: the releases attend along the batch, and all of a picture's
    batch are the same.  So of queries and keys nothing depends; they are kept with the weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C)``."""
        x = x + self.out(self.qkv(self.norm1(x)).chunk(3, dim=-1)[2])
        inner = self.mlp_in(self.norm2(x))
        return x + self.mlp_out(inner * torch.sigmoid(1.702 * inner))  # near to GELU


class ControlUnion(ControlUNet):
    """The network.  ``told`` is called once for a picture of a kind, ``forward`` at each step.

    kinds: how many it knows; layers: of the transformer of its hint.
    """

    def __init__(
        self,
        config: LdmUNetConfig,
        kinds: int,
        layers: int = 1,
        hints: tuple[int, ...] = HINT_WIDTHS,
    ) -> None:
        super().__init__(config, hints)
        width, embedding = config.width, 4 * config.width
        self.kinds = nn.Parameter(torch.randn(kinds, width))
        self.layers = nn.ModuleList(ShiftLayer(width) for _ in range(layers))
        self.shift = nn.Linear(width, width)
        self.kind = nn.Sequential(
            nn.Linear(_TOLD * kinds, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )

    def told(self, picture: Tensor, kind: int) -> tuple[Tensor, Tensor]:
        """The hint ``(B, width, H/8, W/8)`` of pictures ``(B, 3, H, W)`` of a kind, and what is
        added to the time's embedding, ``(1, K)``."""
        hint = self.hint(picture)
        token = hint.mean(dim=(2, 3)) + self.kinds[kind]
        for layer in self.layers:
            token = layer(token)
        shown = F.one_hot(torch.tensor(kind, device=hint.device), len(self.kinds))
        embedding = self.kind(embed_time(shown.float(), _TOLD).to(hint.dtype).flatten()[None])
        return hint + self.shift(token)[..., None, None], embedding
