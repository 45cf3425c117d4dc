"""Networks that mind no masks, called so that they need none."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.families.model import WHOLE, NetworkCall, Weaker


def _only(told: Conditioning, number: int) -> Conditioning:
    """What one sample of a batch is told, without what fills up its context."""
    one = slice(number, number + 1)

    def one_of(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[one]

    assert told.context is not None and told.context.mask is not None
    values, more = told.context.values[one, told.context.mask[number]], told.tokens
    if more is not None:
        more = Tokens(more.values[one], one_of(more.mask), one_of(more.ids))
    return told._replace(
        vector=one_of(told.vector),
        context=Tokens(values),
        tokens=more,
        concat=one_of(told.concat),
        residuals=None if told.residuals is None else tuple(one_of(r) for r in told.residuals),
    )


def apart(call: NetworkCall) -> NetworkCall:
    """A network without masks, called for each sample alone where contexts differ in length."""

    def each(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        if conditioning.context is None or conditioning.context.mask is None:
            return call(x, time, conditioning, weaker)
        samples = [(slice(n, n + 1), _only(conditioning, n)) for n in range(len(x))]
        return torch.cat([call(x[one], time[one], told, weaker) for one, told in samples])

    return each
