"""The encoder of T5 (version 1.1 and later), which reads long prompts for SD3 and FLUX.

Raffel et al. 2020, §2.1, with the gated feed-forward layer of version 1.1 (Shazeer 2020).  No
bias anywhere, no scaling of the dot product, positions only as a learned bias by distance, the
same in every layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class T5Config:
    """Widths of an encoder; the defaults are those of T5 v1.1 XXL.

    head_width: of one attention head; heads times it need not be ``width``
    buckets, distance: how many biases by distance, and from which distance on all are one
    """

    vocabulary: int = 32_128
    width: int = 4096
    depth: int = 24
    heads: int = 64
    head_width: int = 64
    hidden: int = 10_240
    buckets: int = 32
    distance: int = 128


class Norm(nn.Module):
    """``x / rms(x) * gain``, the root mean square in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return self.weight * wide.to(self.weight.dtype)


class Layer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.norm1 = Norm(config.width)
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)
        self.norm2 = Norm(config.width)
        self.mlp_in = nn.Linear(config.width, 2 * config.hidden, bias=False)  # gates, then values
        self.mlp_out = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """``x (B, N, C)``, ``bias (B or 1, heads, N, N)`` added to the scores."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        gate, value = self.mlp_in(self.norm2(x)).chunk(2, dim=-1)
        return x + self.mlp_out(F.gelu(gate, approximate="tanh") * value)


def bucket(distance: Tensor, buckets: int, longest: int) -> Tensor:
    """The bucket of a signed distance (key − query).

    Half of the buckets for each direction; of these, half for distances one by one, the rest
    growing geometrically up to ``longest`` (Raffel et al. 2020, §2.1).
    """
    half = buckets // 2
    exact = half // 2
    far = distance.abs()
    scale = (half - exact) / math.log(longest / exact)
    grown = exact + ((far.clamp_min(1).float() / exact).log() * scale).long()
    return (distance > 0).long() * half + torch.where(far < exact, far, grown.clamp_max(half - 1))


class T5Encoder(nn.Module):
    """Word pieces to features of each."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.bias = nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = Norm(config.width)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``ids (B, N)`` int64, ``mask (B, N)`` True where real (None: all) → ``(B, N, C)``."""
        place = torch.arange(ids.shape[1], device=ids.device)
        distance = place[None, :] - place[:, None]  # (query, key)
        buckets = bucket(distance, self.config.buckets, self.config.distance)
        bias = self.bias(buckets).permute(2, 0, 1)[None]  # (1, heads, N, N)
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None, :], torch.finfo(bias.dtype).min)
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, bias)
        return self.norm(x)
