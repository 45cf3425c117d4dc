"""Which numbers a checkpoint's networks compute with: bfloat16 where the machine is faster at it.

Weights and activations are rounded; norms and softmax add up in float32 inside, and so do time
embeddings, rotary angles and all of the sampling.  An autoencoder stays in float32 next to a
picture and a code, and all of it where float16 is asked for, which its numbers overflow.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from mezzotint.checkpoints.streamed import Streamed
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.networks.ldm_autoencoder import WIDE, LdmAutoencoder
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder

AUTO = "auto"
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PRODUCTS = ("amx_bf16", "avx512_bf16", "bf16")
"""What a CPU's instructions for products of bfloat16 are called: of x86, and of ARM."""


def fastest(place: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it by itself, else float32.

    It is asked, not timed: a clock answers one way on an idle machine and another on a busy one,
    and the same request has to give the same bytes.  The products are 2 to 7 times as fast there
    (docs/speed), and hundreds of times slower where bfloat16 is emulated.
    """
    if place.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    if place.type != "cpu" or sys.platform == "darwin":
        return torch.float32
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(has.get(name) for name in _PRODUCTS) else torch.float32


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
