"""A network of ours beside one of another library that has the same weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mezzotint.checkpoints.files import load_into
from mezzotint.checkpoints.keys import Table, to_ours, to_theirs


def take(ours: nn.Module, theirs: Mapping[str, Tensor], table: Table) -> None:
    """Give ``ours`` the other library's weights, each by its row of the table."""
    load_into(ours, to_ours(theirs, table, ours.state_dict()), "the other library")


def assert_named_once(state: Mapping[str, Tensor], *tables: Table) -> None:
    """Each layout gives every weight back, none twice, none unnamed."""
    for table in tables:
        back = to_ours(to_theirs(state, table), table, state)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)
