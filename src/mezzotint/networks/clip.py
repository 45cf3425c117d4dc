"""CLIP's two halves: the text encoder and the picture encoder.

Radford et al. 2021, §2.4.  OpenCLIP's H and bigG are the same networks with another activation
and other widths.  The text encoder is causal, so its last token has seen the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class ClipTextConfig:
    """Widths of a text encoder; the defaults are those of CLIP ViT-L/14.

    projection: width of the projected whole, 0 for none
    activation: OpenAI's networks have "quick_gelu", OpenCLIP's "gelu"
    end: the id of the token that ends a text
    """

    vocabulary: int = 49_408
    positions: int = 77
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    projection: int = 768
    activation: Activation = "quick_gelu"
    end: int = 49_407


@dataclass(frozen=True)
class ClipVisionConfig:
    """Widths of a picture encoder; the defaults are those of CLIP ViT-L/14."""

    size: int = 224
    patch: int = 14
    width: int = 1024
    depth: int = 24
    heads: int = 16
    hidden: int = 4096
    projection: int = 768
    activation: Activation = "quick_gelu"


class Layer(nn.Module):
    """Attention, then two matrices with an activation between; both on the normalized input."""

    def __init__(self, width: int, heads: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.heads, self.activation = heads, activation
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """``x (B, N, C)``."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal
        )
        x = x + self.out(y.transpose(1, 2).flatten(2))
        h = self.mlp_in(self.norm2(x))
        h = h * torch.sigmoid(1.702 * h) if self.activation == "quick_gelu" else F.gelu(h)
        return x + self.mlp_out(h)


class Encoded(NamedTuple):
    """hidden: ``(B, N, C)`` of each token; pooled: ``(B, C)`` or ``(B, projection)``."""

    hidden: Tensor
    pooled: Tensor


class ClipText(nn.Module):
    """Word pieces to features of each and of the whole."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.layers = nn.ModuleList(
            Layer(config.width, config.heads, config.hidden, config.activation)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.projection = (
            nn.Linear(config.width, config.projection, bias=False) if config.projection else None
        )

    def forward(
        self,
        ids: Tensor,
        skip: int = 0,
        normalize: bool = True,
        words: Tensor | None = None,
    ) -> Encoded:
        """The features after all layers but the last ``skip``.

        Args:
            ids: ``(B, N)`` int64, ended by ``config.end``.
            skip: layers left out for ``hidden``; ``pooled`` has passed all.
            normalize: apply the last norm to ``hidden`` too.
            words: ``(B, N, C)`` in place of the embeddings of ``ids`` (textual inversion, weights).

        Returns:
            hidden; and, at the first end token, the last layer's normalized features, projected
            where there is a projection.

        Raises:
            ValueError: more tokens than positions, or no end token.
        """
        if ids.shape[1] > self.config.positions:
            raise ValueError(
                f"{ids.shape[1]} tokens are more than the {self.config.positions} positions of "
                "this encoder: encode them in chunks"
            )
        ends = ids == self.config.end
        if not bool(ends.any(dim=1).all()):
            raise ValueError(f"a text without its end token ({self.config.end})")
        x = self.words(ids) if words is None else words
        x = x + self.positions.weight[: ids.shape[1]]
        hidden = x
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, causal=True)
            hidden = x if number == len(self.layers) - skip else hidden
        last = self.norm(x)
        hidden = self.norm(hidden) if normalize else hidden
        pooled = last[torch.arange(len(ids), device=ids.device), ends.int().argmax(dim=1)]  # (B, C)
        return Encoded(hidden, pooled if self.projection is None else self.projection(pooled))


class ClipVision(nn.Module):
    """A picture to features of its patches and of the whole."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.config = config
        count = (config.size // config.patch) ** 2 + 1
        self.stem = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.whole = nn.Parameter(torch.zeros(config.width))
        self.positions = nn.Embedding(count, config.width)
        self.norm_in = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(
            Layer(config.width, config.heads, config.hidden, config.activation)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, x: Tensor, skip: int = 0) -> Encoded:
        """``x (B, 3, size, size)``, normalized by CLIP's mean and deviation.

        Returns:
            hidden: ``(B, 1 + patches, C)`` after all layers but the last ``skip``, not normalized
            (IP-Adapter Plus reads them with skip 1); pooled: ``(B, projection)``.
        """
        tokens = self.stem(x).flatten(2).transpose(1, 2)  # (B, N, C)
        whole = self.whole.expand(len(x), 1, -1)
        h = self.norm_in(torch.cat([whole, tokens], dim=1) + self.positions.weight)
        hidden = h
        for number, layer in enumerate(self.layers, start=1):
            h = layer(h, causal=False)
            hidden = h if number == len(self.layers) - skip else hidden
        return Encoded(hidden, self.projection(self.norm(h[:, 0])))
