"""How a model is kept within a number of bytes: what stays in memory, what is read when it is used.

The networks are walked once without numbers, and what is alive at a time is counted; so no family
needs constants of its own.  Then, in this order, only as far as needed: text encoders are read from
the file when they are used (once a prompt), then the autoencoder (once a picture), then the
denoiser's last layers (at every step).  No choice changes a bit of a picture.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mezzotint.checkpoints.streamed import bytes_streamed
from mezzotint.diffusion.guidance import cat_conditioning
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.families.codec import ScaledCodec
from mezzotint.families.model import Model
from mezzotint.families.precision import stored
from mezzotint.families.separate import AUTOENCODER, NETWORK, NO_TEXT, TINY
from mezzotint.networks.ldm_unet import LdmUNet
from mezzotint.networks.mmdit import MMDiT

_SLACK = 1.15  # of what is counted: libraries have room for themselves, and so has the allocator
_RUNTIME = 150_000_000  # bytes of kernels and threads that come with the first picture
_LAYER = 2  # a layer that is read is there as the file has it, and as it is used
_TOKENS = 589  # of the longest prompts that a family is told: T5's and CLIP's
_TEXT = 100_000_000  # bytes for reading a prompt, beside the weights


class TooLittleError(ValueError):
    """A model does not fit into the memory it may take; one line that says what it needs."""


class Needs(NamedTuple):
    """Bytes at work, beside the weights: of a step, and of decoding a picture."""

    step: int
    decode: int


class Plan(NamedTuple):
    """room: for the matrices of each part that is not kept whole; said: that, in words."""

    room: Mapping[str, int]
    said: str


class _Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, without numbers in them."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Attention(TorchFunctionMode):
    """Attention as it is computed where there are numbers: without the matrix of all pairs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, value = args[0], args[2]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


def most(model: Model, work: Callable[[], object]) -> int:
    """The bytes of tensors that are alive at a time of some work, beside the model's weights."""
    weights = [weight for part in model.parts.values() for weight in part.parameters()]
    with torch.inference_mode(), _Attention(), _Alive(weights) as alive:
        work()
    return alive.most


def needs(model: Model, size: Sequence[int], kind: torch.dtype) -> Needs:
    """What a step with guidance, and decoding, take for media of a size.

    Args:
        model: without numbers: its weights are on the meta device.
    """
    for part in model.parts.values():
        for name, weight in part.named_parameters():
            weight.data = weight.data.to(stored(part, name, kind))
    place, shape = torch.device("meta"), model.codec.shape(size)
    sizes: Any = model.network.config
    width = sizes.vector_width + model.distilled
    told = Conditioning(
        torch.empty(1, width, device=place) if width else None,
        Tokens(torch.empty(1, _TOKENS, sizes.context_width, device=place)),
    )
    patches = 1 if isinstance(model.network, LdmUNet | MMDiT) else 4  # which Flux takes as one
    if more := sizes.in_channels // patches - shape[0]:
        told = told._replace(concat=torch.empty(1, more, *shape[1:], device=place))
    if model.joined is not None and model.joined.free_size:  # a reference of the usual size
        channels, *code = model.codec.shape(model.defaults.size)
        tokens = math.prod(code) // patches
        values = torch.empty(1, tokens, channels * patches, device=place)
        ids = torch.empty(1, tokens, 3, device=place)
        told = told._replace(tokens=Tokens(values, None, ids))
    both = 1 if model.distilled else 2
    told = told if both == 1 else cat_conditioning(told, told)
    x, time = torch.empty(both, *shape, device=place), torch.empty(both, device=place)
    return Needs(
        most(model, lambda: model.call(x, time, told)),
        most(model, lambda: model.codec.decode(torch.empty(1, *shape, device=place))),
    )


def resting(parts: Iterable[str]) -> dict[str, int]:
    """What stays of a family's parts where no amount was given: all of the denoiser, nothing of
    those that a prompt or a picture uses once; see :func:`mezzotint.families.ldm.fill`."""
    return {name: 0 for name in parts if name != NETWORK}


def parse(text: str) -> int:
    """A number of bytes as people write it: ``6GB``, ``800 MB``.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(MB|GB)", text.strip().upper())
    if found is None:
        raise ValueError(f"{text!r} is no amount of memory: write 6GB or 800MB")
    return int(float(found[1]) * {"MB": 1e6, "GB": 1e9}[found[2]])


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def release() -> None:
    """Give the memory of what nothing refers to back to the system: without this a C library
    keeps much of it for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def plan(model: Model, size: Sequence[int], kind: torch.dtype, memory: int) -> Plan:
    """What of a model stays in memory, so that it takes at most so many bytes.

    Args:
        model: without numbers; size: of the media that are to be made.

    Raises:
        TooLittleError: it does not fit however little stays.
    """
    step, decode = (int(_SLACK * found) for found in needs(model, size, kind))
    base = resident() + _RUNTIME
    kinds = {name: partial(stored, part, kind=kind) for name, part in model.parts.items()}
    whole = {
        name: sum(w.numel() * kinds[name](n).itemsize for n, w in part.state_dict().items())
        for name, part in model.parts.items()
    }
    could = {name: bytes_streamed(part, kinds[name]) for name, part in model.parts.items()}
    largest = max(
        weight.numel() * 4 for part in model.parts.values() for weight in part.parameters()
    )
    at_work = max(step, decode, _TEXT)
    texts = [name for name in whole if name not in NO_TEXT]
    pictures = [name for name in (AUTOENCODER, TINY) if name in whole]
    room: dict[str, int] = {}

    def taken() -> int:
        kept = sum(whole.values()) - sum(could[name] - left for name, left in room.items())
        return base + kept + at_work + (_LAYER * largest if room else 0)

    for names in (texts, pictures, [NETWORK]):
        if taken() <= memory:
            break
        room |= dict.fromkeys(names, 0)
    if taken() > memory:
        raise TooLittleError(
            f"{model.name} needs {_gb(taken(), up=True)} for a picture of this size, with every "
            f"layer read when it is used; {_gb(memory)} were given: give more, or make it smaller"
        )
    if "network" in room:
        room["network"] = min(memory - taken(), could["network"])
    said = _said(room, could, taken(), memory)
    if isinstance(model.codec, ScaledCodec) and model.codec.banded(size):
        said += "; decoded in bands, as every picture of this size"
    return Plan(room, said)


def _gb(number: int, up: bool = False) -> str:
    return f"{(number + 49_999_999 * up) / 1e9:.1f} GB"


def _said(room: Mapping[str, int], could: Mapping[str, int], taken: int, memory: int) -> str:
    if not room:
        return f"everything stays in memory: about {_gb(taken)} of {_gb(memory)}"
    read = ", ".join(
        f"{100 * (could[name] - left) / could[name]:.0f} % of the {name}"
        for name, left in room.items()
        if could[name]
    )
    return f"read from the file when used: {read}; about {_gb(taken)} of {_gb(memory)}"
