"""Which numbers a checkpoint's networks compute with: bfloat16 where the machine is faster at it.

Weights and activations are rounded; norms and softmax add up in float32 inside, and so do time
embeddings, rotary angles and all of the sampling.  An autoencoder stays in float32 next to a
picture and a code, and all of it where float16 is asked for, which its numbers overflow.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import Tensor, nn

from mezzotint.checkpoints.streamed import Streamed
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.networks.ldm_autoencoder import WIDE, LdmAutoencoder
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder

AUTO = "auto"
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_EDGES, _OTHER_EDGES = ((64, 0.2), (256, 0.75), (512, 1.5)), ((4096, 1.5),)
"""Of the products that are timed, on a CPU and elsewhere, with what bfloat16 must gain to go on.

The last is far from the noise of a clock, so the choice is stable.  The first ones are small and
ask for little: where bfloat16 is emulated, hundreds of times slower, one of 1024 takes seconds.
On a GPU they must outlast their start."""
_ROUNDS = 5


def _seconds(kind: torch.dtype, place: torch.device, edge: int) -> float:
    """The fastest of a few matrix products."""
    a = torch.ones(edge, edge, dtype=kind, device=place)
    found: list[float] = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        float((a @ a)[0, 0])  # a GPU is waited for
        found.append(time.perf_counter() - began)
    return min(found)


@lru_cache
def fastest(place: torch.device) -> torch.dtype:
    """bfloat16 if products of it take at most two thirds of the time, measured at first use."""
    try:
        for edge, gain in _EDGES if place.type == "cpu" else _OTHER_EDGES:
            wide, half = (_seconds(kind, place, edge) for kind in (torch.float32, torch.bfloat16))
            if wide < gain * half:
                return torch.float32
    except RuntimeError:  # a device that has none
        return torch.float32
    return torch.bfloat16


def kind_of(name: str, place: torch.device) -> torch.dtype:
    """A precision by its name, ``auto`` for the fastest.

    Raises:
        ValueError: there is no such precision.
    """
    if name == AUTO:
        return fastest(place)
    if name not in KINDS:
        raise ValueError(f"no precision {name!r}: choose one of {', '.join([AUTO, *KINDS])}")
    return KINDS[name]


def stored(module: nn.Module, name: str, kind: torch.dtype) -> torch.dtype:
    """What a weight of a part is rounded to where its model works in a precision."""
    if not isinstance(module, LdmAutoencoder | TinyAutoencoder):
        return kind
    return torch.float32 if kind == torch.float16 or name.startswith(WIDE) else kind


def working(network: nn.Module) -> torch.dtype:
    """What a network computes with: the type of its matrices."""
    held = next((weight for weight in network.parameters() if weight.ndim > 1), None)
    if held is not None:  # at hand at every step: the first one tells
        return held.dtype
    return next(layer.kind for layer in network.modules() if isinstance(layer, Streamed))


def _tokens(tokens: Tokens | None, kind: torch.dtype) -> Tokens | None:
    return None if tokens is None else tokens._replace(values=tokens.values.to(kind))


def rounded(network: nn.Module, x: Tensor, told: Conditioning) -> tuple[Tensor, Conditioning]:
    """The input and what is told, in the network's precision."""
    kind = working(network)

    def one(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(kind)

    residuals = None if told.residuals is None else tuple(one(r) for r in told.residuals)
    return x.to(kind), Conditioning(
        one(told.vector),
        _tokens(told.context, kind),
        _tokens(told.tokens, kind),
        one(told.concat),
        residuals,
    )
