"""A trained U-Net with more residual blocks: those put in are the identity, until they learn.

A residual block begins as the identity, since the ends of its branches are zero.  One put in at the
end of a level's way down leaves its input at a new port; its partner, the first of the level's way
up, merges that port by ``[1, 0]``: it takes what comes from below and leaves the port alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mezzotint.networks.unet import UNetConfig


def grows_into(old: object, new: object) -> bool:
    """Whether ``new`` is ``old`` with more residual blocks at some levels, and nothing else."""
    if not isinstance(old, UNetConfig) or not isinstance(new, UNetConfig):
        return False
    if replace(old, blocks=new.blocks) != new or len(old.depths) != len(new.depths):
        return False
    return old.skip_scale == 1 and all(a <= b for a, b in zip(old.depths, new.depths, strict=True))


def _places(old: UNetConfig, new: UNetConfig) -> tuple[list[int], list[int]]:
    """Where the blocks of ``old`` stand in ``new``: on the way down, and on the way up."""
    down: list[int] = []
    first = 0
    for had, has in zip(old.depths, new.depths, strict=True):
        down += range(first, first + had)
        first += has
    return down, [first - 1 - place for place in reversed(down)]


def grown(
    state: Mapping[str, Tensor], old: UNetConfig, new: UNetConfig, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of ``new`` that compute what ``state``, those of ``old``, do.

    Args:
        fresh: initial weights of ``new``, for the blocks put in.
    """
    down, up = _places(old, new)
    places = {"down": down, "up": up, "merge": up}
    found = dict(fresh)
    for number in set(range(sum(new.depths))) - set(up):
        weight = torch.zeros_like(fresh[f"merge.{number}.weight"])  # (C, 2 C, 1, …)
        weight.flatten(1).fill_diagonal_(1.0)
        found[f"merge.{number}.weight"] = weight
        found[f"merge.{number}.bias"] = torch.zeros_like(fresh[f"merge.{number}.bias"])
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part in places:
            number, _, rest = rest.partition(".")
            name = f"{part}.{places[part][int(number)]}.{rest}"
        found[name] = value
    return found
