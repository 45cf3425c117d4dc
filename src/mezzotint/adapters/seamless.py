"""Convolutions whose picture goes on at the other side: what they make can be laid as tiles."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def convolutions(network: nn.Module) -> list[Convolution]:
    """Those of a network that look beyond the border of what they are given."""
    found = (module for module in network.modules() if isinstance(module, Convolution))
    return [module for module in found if any(_widths(module))]


def _widths(module: Convolution) -> tuple[int, ...]:
    """What is padded at each end of each spatial axis."""
    if isinstance(module.padding, str):
        raise ValueError(f"a convolution padded by {module.padding!r} has no fixed border")
    return tuple(module.padding)


def _around(widths: tuple[int, ...]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor]]:
    """A hook that pads the input with what stands at its other end."""
    ends = [width for axis in reversed(widths) for width in (axis, axis)]  # the last axis first

    def pad(_: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor]:
        return (F.pad(given[0], ends, mode="circular"),)

    return pad


@contextmanager
def seamless(networks: Iterable[nn.Module], axes: frozenset[int]) -> Generator[None]:
    """Networks whose convolutions, along some spatial axes (0 is the first), have no border:
    beyond the last pixel comes the first.  Afterwards they are what they were.

    A network that is told no positions and that only convolves, attends and norms then maps a
    shifted input to the shifted output, so what it makes has no seam.
    """
    found = [module for network in networks for module in convolutions(network)] if axes else []
    aside = [(module, module.padding) for module in found]
    hooks: list[Any] = []
    try:
        for module in found:
            widths = _widths(module)
            around = tuple(w if axis in axes else 0 for axis, w in enumerate(widths))
            if any(around):
                hooks.append(module.register_forward_pre_hook(_around(around)))
                left = tuple(0 if axis in axes else w for axis, w in enumerate(widths))
                module.padding = left  # type: ignore[assignment]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, padding in aside:
            module.padding = padding  # type: ignore[assignment]
