"""Which picture is the n-th of a run: a pure function of the seed and n.

An epoch draws every item ``floor(w)`` times and once more with probability ``w − floor(w)``, w its
weight, and shuffles what it drew.  Draws and order come from counter-based streams, so sample n is
the same whatever the batch, the process or the restart that asks for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.diffusion.noise import uniform

BLOCK = 4096


class Streams:
    """Uniform numbers by global sample number: one float64 in (0, 1) a name and sample.

    ``uniform(seed, "train/name", n // 4096, (4096,))[n % 4096]``: drawn in blocks, since the cost
    of a draw is the call.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._blocks: dict[tuple[str, int], Tensor] = {}

    def block(self, name: str, number: int) -> Tensor:
        """The numbers of samples ``BLOCK * number`` to ``BLOCK * (number + 1) − 1``."""
        if (name, number) not in self._blocks:
            if len(self._blocks) > 64:  # samples come nearly in order: old blocks are not needed
                self._blocks.clear()
            self._blocks[name, number] = uniform(self.seed, f"train/{name}", number, (BLOCK,))
        return self._blocks[name, number]

    def __call__(self, name: str, numbers: Sequence[int]) -> Tensor:
        """``(len(numbers),)`` float64."""
        drawn = [self.block(name, n // BLOCK)[n % BLOCK] for n in numbers]
        return torch.stack(drawn)


class DataOrder:
    """Item numbers by global sample number.

    Raises:
        ValueError: there is no item with a finite weight above 0.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self.weights = torch.tensor(weights, dtype=torch.float64)
        if not len(weights) or not bool((self.weights.isfinite() & (self.weights > 0)).all()):
            raise ValueError("an order needs items, each with a finite weight above 0")
        self.seed = seed
        self._starts = [0]  # the first sample number of each epoch known so far
        self._order: dict[int, Tensor] = {}

    def _draw(self, epoch: int) -> Tensor:
        """The items of an epoch in their order."""
        count = (len(self.weights),)
        chance = uniform(self.seed, "train/repeats", epoch, count)
        repeats = self.weights.floor() + (chance < self.weights.frac())
        items = torch.arange(len(self.weights)).repeat_interleave(repeats.long())
        keys = uniform(self.seed, "train/order", epoch, (len(items),))
        return items[keys.argsort(stable=True)]

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._order:
            if len(self._order) > 2:
                self._order.clear()
            self._order[epoch] = self._draw(epoch)
        return self._order[epoch]

    def item(self, number: int) -> int:
        """The item of sample ``number``, counted from 0 over the whole run."""
        while self._starts[-1] <= number:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        epoch = bisect_right(self._starts, number) - 1
        return int(self._epoch(epoch)[number - self._starts[epoch]])

    def epoch(self, number: int) -> int:
        """The epoch, from 0, that sample ``number`` belongs to."""
        self.item(number)
        return bisect_right(self._starts, number) - 1
