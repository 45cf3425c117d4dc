"""Which picture is the n-th of a run: a pure function of the seed and n.

An epoch draws every item ``floor(w)`` times and once more with probability ``w − floor(w)``, w its
weight, and shuffles what it drew.  Draws and order come from counter-based streams, so sample n is
the same whatever the batch, the process or the restart that asks for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from threading import Lock

import torch
from torch import Tensor

from mezzotint.diffusion.noise import uniform

BLOCK = 4096


def in_blocks(numbers: Sequence[int], block: Callable[[int], Tensor]) -> Tensor:
    """``block(n // 4096)[n % 4096]`` of each number: ``(len(numbers), …)``.

    Args:
        numbers: at least one.
    """
    places = torch.as_tensor(numbers)
    owners = places.div(BLOCK, rounding_mode="floor")
    places = places - owners * BLOCK
    parts = {number: block(number) for number in owners.unique().tolist()}
    if len(parts) == 1:
        return next(iter(parts.values()))[places]
    first = next(iter(parts.values()))
    drawn = first.new_empty(len(places), *first.shape[1:])
    for number, part in parts.items():
        mine = owners == number
        drawn[mine] = part[places[mine]]
    return drawn


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
        found = self._blocks.get((name, number))
        if found is None:  # threads may draw one twice, and get the same
            found = uniform(self.seed, f"train/{name}", number, (BLOCK,))
            if len(self._blocks) > 64:  # samples come nearly in order: old blocks are not needed
                self._blocks.clear()
            self._blocks[name, number] = found
        return found

    def __call__(self, name: str, numbers: Sequence[int]) -> Tensor:
        """``(len(numbers),)`` float64."""
        return in_blocks(numbers, lambda number: self.block(name, number))


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
        self._lock = Lock()  # threads draw batches ahead, and the epochs are counted as they come

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
        with self._lock:
            while self._starts[-1] <= number:
                self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
            epoch = bisect_right(self._starts, number) - 1
            return int(self._epoch(epoch)[number - self._starts[epoch]])

    def epoch(self, number: int) -> int:
        """The epoch, from 0, that sample ``number`` belongs to."""
        self.item(number)
        return bisect_right(self._starts, number) - 1
