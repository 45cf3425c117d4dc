"""The judge: which words does a picture look like?  Trained on real drawings only.

A small network from principal components of picture features to MiniLM's space of sentences, by
the contrastive loss of CLIP (InfoNCE, arXiv 2103.00020).  It learns from the drawings of all
concepts, held-out ones too: only the model that draws must not know them; a judge who knows what
a thing looks like is the fairer one.  The drawings that give the ceiling are never among those
that it learned from.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 1024
TEXT = 384
COMPONENTS = 768
EPOCHS = 12
_BATCH = 512
_RATE = 1e-3
_DECAY = 0.05
_DROPOUT = 0.4
_RARE = 0.02  # added to a feature's spread, so that one which is nearly always zero cannot explode
_FAINT = 0.05  # the same for the variance of a principal component


class Judge(nn.Module):
    """Picture features ``(N, D)`` and sentence embeddings ``(N, 384)`` into one space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        components = min(COMPONENTS, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.zeros(width, components))
        self.register_buffer("text_mean", torch.zeros(TEXT))
        self.picture_net = nn.Sequential(
            nn.Dropout(_DROPOUT / 2),
            nn.Linear(components, HIDDEN),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(HIDDEN, TEXT),
        )
        self.text_net = nn.Linear(TEXT, TEXT)
        nn.init.eye_(self.text_net.weight)
        nn.init.zeros_(self.text_net.bias)
        self.scale = nn.Parameter(torch.tensor(2.5))  # log of the inverse temperature

    def whiten(self, sight: Tensor) -> Tensor:
        """The principal components of the features, ``(N, 768)``, of unit variance."""
        return (sight.float() - self.mean) @ self.whitening

    def picture(self, sight: Tensor) -> Tensor:
        """Unit vectors ``(N, 384)``."""
        return F.normalize(self.picture_net(self.whiten(sight)), dim=1)

    def text(self, sentence: Tensor) -> Tensor:
        """Unit vectors ``(N, 384)``."""
        return F.normalize(self.text_net(sentence - self.text_mean), dim=1)


def contrastive(pictures: Tensor, texts: Tensor, scale: Tensor, concept: Tensor) -> Tensor:
    """InfoNCE both ways; other pairs of the same concept count neither for nor against."""
    logits = scale.exp().clamp(max=100) * pictures @ texts.T
    same = concept[:, None] == concept[None]
    logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), float("-inf"))
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def principal(sight: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(D,)`` and matrix ``(D, C)`` that take features to their principal components, and
    the variance ``(C,)`` of each, largest first.  Features are divided by their spread before.
    """
    mean, spread = sight.float().mean(0), sight.float().std(0) + _RARE
    covariance = torch.zeros(len(mean), len(mean))
    for part in sight.split(4096):
        scaled = (part.float() - mean) / spread
        covariance += scaled.T @ scaled / len(sight)
    variance, direction = torch.linalg.eigh(covariance)  # ascending
    variance, direction = variance.flip(0)[:components], direction.flip(1)[:, :components]
    return mean, direction / spread[:, None], variance


def whitening(sight: Tensor, components: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Mean ``(D,)`` and matrix ``(D, C)`` to principal components of (nearly) unit variance."""
    mean, matrix, variance = principal(sight, components)
    return mean, matrix / (variance + _FAINT).sqrt()


def train(
    sight: Tensor,
    texts: Tensor,
    concept: Tensor,
    epochs: int = EPOCHS,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> Judge:
    """Train a judge on N real drawings.

    Args:
        sight: features ``(N, D)``; texts: embeddings ``(N, 384)`` of the drawings' labels.
        concept: ``(N,)`` numbers of the concepts.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(sight.shape[1])
        mean, matrix = whitening(sight)
        judge.mean.copy_(mean)
        judge.whitening.copy_(matrix)
        judge.text_mean.copy_(texts.mean(0))
        _fit(judge, judge.whiten(sight), texts, concept, epochs, tell)
    return judge.eval().requires_grad_(False)


def _fit(
    judge: Judge,
    components: Tensor,
    texts: Tensor,
    concept: Tensor,
    epochs: int,
    tell: Callable[[str], None],
) -> None:
    batch = min(_BATCH, len(concept))
    steps = len(concept) // batch
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=epochs * steps, pct_start=0.1
    )
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(concept))[: steps * batch].view(steps, batch):
            with torch.autocast("cpu", torch.bfloat16):
                seen = judge.picture_net(components[rows])
            seen, told = F.normalize(seen.float(), dim=1), judge.text(texts[rows])
            loss = contrastive(seen, told, judge.scale, concept[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        tell(f"judge: epoch {epoch + 1} of {epochs}, loss {total / steps:.3f}")
