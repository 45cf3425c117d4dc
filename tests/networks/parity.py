"""A network of ours beside one of another library that has the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from mezzotint.checkpoints.files import load_into
from mezzotint.checkpoints.keys import Table, to_ours, to_theirs

N = TypeVar("N", bound=nn.Module)


def take(ours: nn.Module, theirs: Mapping[str, Tensor], table: Table) -> None:
    """Give ``ours`` the other library's weights, each by its row of the table."""
    load_into(ours, to_ours(theirs, table, ours.state_dict()), "the other library")


def alike(theirs: nn.Module, ours: N, table: Table) -> N:
    """Ours with the weights of theirs, all of which are made random: a fresh one has zeros."""
    for weight in theirs.parameters():
        weight.data.normal_(0, 0.1)
    take(ours, theirs.state_dict(), table)
    return ours.eval()


def assert_named_once(state: Mapping[str, Tensor], *tables: Table) -> None:
    """Each layout gives every weight back, none twice, none unnamed."""
    for table in tables:
        back = to_ours(to_theirs(state, table), table, state)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)
