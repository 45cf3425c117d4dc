"""IP-Adapter: from a picture's features to tokens, and from these to further keys and values.

Ye et al. 2023, §3.2: beside the text's, every cross-attention has the keys and values of a few
tokens made of a picture, ``Attn(Q, K, V) + strength Attn(Q, K', V')`` (eq. 5), which are all that
was trained.  The sum is the denoiser's; here is what makes ``K'`` and ``V'``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64
"""Width of an attention head of the resampler."""


class Projection(nn.Module):
    """Features of the whole picture as a few tokens: one matrix and a norm (Ye et al., §3.2.1)."""

    def __init__(self, image: int, context: int, tokens: int) -> None:
        super().__init__()
        self.proj = nn.Linear(image, tokens * context)
        self.norm = nn.LayerNorm(context)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, image) -> (B, tokens, context)``."""
        return self.norm(self.proj(x).unflatten(1, (-1, self.norm.normalized_shape[0])))


class FullProjection(nn.Module):
    """Features of every patch, each as a token: two matrices, then a norm."""

    def __init__(self, image: int, context: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(image, image)
        self.proj_out = nn.Linear(image, context)
        self.norm = nn.LayerNorm(context)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, image) -> (B, N, context)``."""
        return self.norm(self.proj_out(F.gelu(self.proj_in(x))))


class Perceiver(nn.Module):
    """Latents attend to the picture and to themselves; then two matrices.

    Jaegle et al. 2021, "Perceiver", §3.1, as Alayrac et al. 2022, "Flamingo", §3.1.1 have it.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_image = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.q = nn.Linear(width, heads * HEAD, bias=False)
        self.kv = nn.Linear(width, 2 * heads * HEAD, bias=False)
        self.out = nn.Linear(heads * HEAD, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, hidden, bias=False)
        self.mlp_out = nn.Linear(hidden, width, bias=False)

    def forward(self, latents: Tensor, image: Tensor) -> Tensor:
        """``latents (B, T, C)``, ``image (B, N, C)``."""
        own = self.norm_latents(latents)
        q = self.q(own).unflatten(-1, (self.heads, HEAD))  # (B, T, h, d)
        seen = torch.cat([self.norm_image(image), own], dim=1)
        k, v = self.kv(seen).unflatten(-1, (2, self.heads, HEAD)).unbind(2)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        latents = latents + self.out(y.transpose(1, 2).flatten(2))
        return latents + self.mlp_out(F.gelu(self.mlp_in(self.norm(latents))))


class Resampler(nn.Module):
    """Features of every patch, gathered by learnt latents into a few tokens (IP-Adapter Plus)."""

    def __init__(
        self,
        image: int,
        context: int,
        tokens: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, tokens, width))
        self.proj_in = nn.Linear(image, width)
        self.layers = nn.ModuleList(Perceiver(width, heads, hidden) for _ in range(depth))
        self.proj_out = nn.Linear(width, context)
        self.norm_out = nn.LayerNorm(context)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, image) -> (B, tokens, context)``."""
        image = self.proj_in(x)
        latents = self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            latents = layer(latents, image)
        return self.norm_out(self.proj_out(latents))


class Banks(nn.Module):
    """Keys and values of the tokens for each cross-attention of a denoiser, one matrix each."""

    def __init__(self, context: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.kv = nn.ModuleList(nn.Linear(context, 2 * width, bias=False) for width in widths)

    def forward(self, tokens: Tensor, strength: float) -> list[tuple[Tensor, Tensor]]:
        """``(B, T, context)`` -> ``(B, T, width)`` keys, and values times the strength, of each.

        Attention is linear in the values, so what is attended to comes times the strength too.
        """
        pairs = (kv(tokens).chunk(2, dim=-1) for kv in self.kv)
        return [(keys, values * strength) for keys, values in pairs]
