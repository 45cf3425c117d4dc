"""Times and their spread: everything is repeated in turns, A B A B, and judged by medians."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def in_turns(actions: Sequence[Callable[[], T]], rounds: int, warm: int = 1) -> list[list[T]]:
    """The results of each action over ``rounds`` rounds of all of them, after ``warm`` unkept ones.

    Drift of the machine (heat, other work) then falls on all actions alike, and the ratio of two
    results of one round is free of most of it.
    """
    for _ in range(warm):
        for action in actions:
            action()
    found: list[list[T]] = [[] for _ in actions]
    for _ in range(rounds):
        for results, action in zip(found, actions, strict=True):
            results.append(action())
    return found


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval that holds the true median with at least this probability, whatever the law.

    From the k-th smallest to the k-th largest value, k as large as ``P(Binomial(n, 1/2) < k) <=
    (1 − confidence) / 2`` allows; below six values even the extremes do not reach 95 %, and they
    are what is given.
    """
    ordered, n, k = sorted(values), len(values), 1
    below = 1 / 2**n  # P(Binomial(n, 1/2) < 1)
    while k < n - k:
        below += math.comb(n, k) / 2**n
        if below > (1 - confidence) / 2:
            break
        k += 1
    return ordered[k - 1], ordered[n - k]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def load() -> float:
    """Processes that were running or waiting for a core in the last minute; nan where unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def gigaflops(size: int = 1024, rounds: int = 10) -> float:
    """float32 matrix products on the threads in use: what this machine gave in this run."""
    a, b = torch.ones(size, size), torch.ones(size, size)
    best = min(in_turns([lambda: seconds(lambda: a @ b)], rounds, warm=3)[0])
    return 2 * size**3 / best / 1e9
