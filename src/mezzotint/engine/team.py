"""The processes of a run: one, or as many as ``torchrun`` started.

Each process learns from its share of every batch, gradients are summed, and the first process
writes.  Nothing else is shared, so the weights of all stay equal bit by bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Team:
    """rank: this process's number of ``size``; device: where its network lives."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def machines(self) -> int:
        """On how many of them its processes are, as far as ``torchrun`` says."""
        return max(1, self.size // int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def share(self, batch: int) -> range:
        """The places of a batch that belong to this process."""
        count = batch // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: torch.device | None) -> Iterator[Team]:
    """The team that the environment names (``WORLD_SIZE``, as ``torchrun`` sets it), or one alone.

    Args:
        device: where to compute; None takes this process's GPU if there is one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    if device is None:
        own = int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cuda", own) if gpu else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1 or dist.is_initialized():  # the caller's own group is used as it is
        several = size > 1
        yield Team(dist.get_rank() if several else 0, size, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
