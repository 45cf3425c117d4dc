"""The judge: which words does a picture look like?  Trained on real drawings only.

A small network from picture features to MiniLM's space of sentences, by the contrastive loss of
CLIP (InfoNCE, arXiv 2103.00020).  It learns from the drawings of all concepts, held-out ones too:
only the model that draws must not know them; a judge who knows what a thing looks like is the
fairer one.  The drawings that give the ceiling are never among those it learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 1024
TEXT = 384
EPOCHS = 20
_BATCH = 1024
_RATE = 1e-3
_DECAY = 0.05
_DROPOUT = 0.3


class Judge(nn.Module):
    """Picture features ``(N, D)`` and sentence embeddings ``(N, 384)`` into one space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("text_mean", torch.zeros(TEXT))
        self.picture_net = nn.Sequential(
            nn.Dropout(_DROPOUT / 2),
            nn.Linear(width, HIDDEN),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(HIDDEN, TEXT),
        )
        self.text_net = nn.Linear(TEXT, TEXT)
        nn.init.eye_(self.text_net.weight)
        nn.init.zeros_(self.text_net.bias)
        self.scale = nn.Parameter(torch.tensor(2.5))  # log of the inverse temperature

    def whiten(self, sight: Tensor) -> Tensor:
        """Features with the mean and spread of the real drawings taken out."""
        return (sight.float() - self.mean) / self.std

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


def train(
    views: Sequence[Tensor],
    texts: Sequence[Tensor],
    concept: Tensor,
    epochs: int = EPOCHS,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> Judge:
    """Train a judge.

    Args:
        views: features ``(N, D)`` of the same drawings, clean or altered; each step takes a
            random view of each drawing.
        texts: sentence embeddings ``(N, 384)``, several wordings for each drawing.
        concept: ``(N,)`` numbers of the concepts.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(views[0].shape[1])
        judge.mean.copy_(views[0].float().mean(0))
        judge.std.copy_(views[0].float().std(0) + 0.02)  # rare features must not explode
        judge.text_mean.copy_(texts[0].mean(0))
        _fit(judge, views, texts, concept, epochs, generator, tell)
    return judge.eval().requires_grad_(False)


def _fit(
    judge: Judge,
    views: Sequence[Tensor],
    texts: Sequence[Tensor],
    concept: Tensor,
    epochs: int,
    generator: torch.Generator,
    tell: Callable[[str], None],
) -> None:
    count = len(concept)
    batch = min(_BATCH, count)
    steps = count // batch
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=epochs * steps, pct_start=0.1
    )
    for epoch in range(epochs):
        order = torch.randperm(count, generator=generator)
        total = 0.0
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            sight = _one_each(views, rows, generator).float()
            words = _one_each(texts, rows, generator)
            with torch.autocast("cpu", torch.bfloat16):
                seen, told = judge.picture_net(judge.whiten(sight)), judge.text(words)
            seen, told = F.normalize(seen.float(), dim=1), told.float()
            loss = contrastive(seen, told, judge.scale, concept[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        tell(f"judge: epoch {epoch + 1} of {epochs}, loss {total / steps:.3f}")


def _one_each(choices: Sequence[Tensor], rows: Tensor, generator: torch.Generator) -> Tensor:
    """For each row, the row of one of the choices, at random."""
    which = torch.randint(len(choices), (len(rows),), generator=generator)
    out = choices[0][rows]
    for number in range(1, len(choices)):
        out = torch.where((which == number)[:, None], choices[number][rows], out)
    return out
