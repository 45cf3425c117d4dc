"""A network call recorded once as a CUDA graph, and replayed: no kernel is launched by itself.

For networks of small kernels the processor cannot launch them as fast as a GPU does them.  What
is recorded are the addresses of the weights and of the inputs, so it holds for one model without
adapters that come and go; inputs are copied to where the recording reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from mezzotint.diffusion.level import Conditioning
from mezzotint.families.model import WHOLE, NetworkCall, Weaker


class _Recording:
    """A call of one shape: its inputs, its output, and the kernels between."""

    def __init__(
        self, call: NetworkCall, given: Sequence[Tensor | None], spec: Any, weaker: Weaker
    ):
        self.given = [None if tensor is None else tensor.clone() for tensor in given]

        def run() -> Tensor:
            x, time, told = tree_unflatten(self.given, spec)
            return call(x, time, told, weaker)

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries choose and take their room before recording
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = run()

    def __call__(self, given: Sequence[Tensor | None]) -> Tensor:
        for place, tensor in zip(self.given, given, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor)
        self.graph.replay()
        return self.output.clone()


def replayed(call: NetworkCall) -> NetworkCall:
    """The call, recorded at the first use of each set of shapes."""
    known: dict[object, _Recording] = {}

    def again(
        x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE
    ) -> Tensor:
        leaves, spec = tree_flatten((x, time, conditioning))  # None where a slot is not told
        shapes = tuple(None if leaf is None else (leaf.shape, leaf.dtype) for leaf in leaves)
        key = (spec, shapes, weaker)
        if key not in known:
            known[key] = _Recording(call, leaves, spec, weaker)
        return known[key](leaves)

    return again
