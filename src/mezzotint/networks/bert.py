"""A BERT encoder: post-norm transformer over word pieces (Devlin et al. 2018, §3).

Each layer is, with multi-head attention ``A`` and ``M(h) = W2 GELU(W1 h + b1) + b2``,

    h ← LayerNorm(h + A(h)),        h ← LayerNorm(h + M(h)),

the norm *after* the sum, as in Vaswani et al. 2017, §3.1, and the exact (erf) GELU.  MiniLM
(Wang et al. 2020) and the sentence encoders made from it are this network with narrow layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class BertConfig:
    """The size of a BERT encoder; the defaults are MiniLM-L6-H384.

    vocabulary: number of word pieces
    width: of a token's features, a multiple of ``heads``
    depth: number of layers
    heads: attention heads a layer
    hidden: width inside a layer's two-layer perceptron
    positions: the longest sequence
    segments: sentence types in the embedding table; only the first is ever used here
    eps: of every LayerNorm
    """

    vocabulary: int = 30522
    width: int = 384
    depth: int = 6
    heads: int = 12
    hidden: int = 1536
    positions: int = 512
    segments: int = 2
    eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"a width of {self.width} does not divide into {self.heads} heads: "
                "choose a multiple"
            )


class Embedding(nn.Module):
    """Word + position + segment embeddings, then a norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.segment = nn.Embedding(config.segments, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position.weight[: ids.shape[1]]  # (N, C)
        return self.norm(self.word(ids) + self.segment.weight[0] + positions)


class Layer(nn.Module):
    """One post-norm transformer layer: self-attention and a perceptron."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.eps)
        self.mlp_in = nn.Linear(width, config.hidden)
        self.mlp_out = nn.Linear(config.hidden, width)
        self.mlp_norm = nn.LayerNorm(width, eps=config.eps)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            project(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N, C / H)
            for project in (self.query, self.key, self.value)
        )
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        h = self.attention_norm(h + self.attention_out(seen.transpose(1, 2).flatten(2)))
        return self.mlp_norm(h + self.mlp_out(functional.gelu(self.mlp_in(h))))


class Bert(nn.Module):
    """The encoder: word-piece ids to their features in context (no pooler, no dropout)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The last hidden states.

        Args:
            ids: ``(B, N)`` int64, word pieces with the special tokens around them.
            mask: ``(B, N)`` bool, True where a token is real.

        Returns:
            ``(B, N, width)``; the rows of padding hold numbers without meaning.

        Raises:
            ValueError: the sequence is longer than ``positions``, the mask has another shape or
                type, or a sequence has no real token (its attention would be undefined).
        """
        if ids.shape[1] > self.config.positions:
            raise ValueError(
                f"{ids.shape[1]} tokens are more than the {self.config.positions} positions of "
                "this encoder: shorten the text"
            )
        if mask.shape != ids.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} and type {mask.dtype} does not fit ids of "
                f"shape {tuple(ids.shape)}: give one bool a token"
            )
        if not bool(mask.any(dim=1).all()):
            raise ValueError("a sequence without a real token: even empty text has [CLS] and [SEP]")
        h = self.embedding(ids)  # (B, N, C)
        attend = mask[:, None, None, :]  # (B, 1, 1, N): every query sees the real keys
        for layer in self.layers:
            h = layer(h, attend)
        return h


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The sentence embedding: mean over real tokens, scaled to unit length.

    ``e = m / |m|``, ``m = sum_i mask_i h_i / sum_i mask_i`` (Reimers & Gurevych 2019, §3, with
    the normalisation of the all-MiniLM models).

    Args:
        hidden: ``(B, N, C)`` last hidden states.
        mask: ``(B, N)`` bool, True where a token is real; at least one a row.

    Returns:
        ``(B, C)``, each row of length 1.
    """
    weight = mask.unsqueeze(-1).to(hidden.dtype)  # (B, N, 1)
    return functional.normalize((hidden * weight).sum(dim=1) / weight.sum(dim=1), dim=-1)
