"""Weights that are read from their file each time they are used, and stand in memory only then.

So a network may be larger than the memory, and a quantized one takes what its file takes: a
weight of Q4_K is 4.5 bits there, one of float16 half of what it is multiplied as in float32.  The
numbers are the same bits as if they had been read once and kept, so a picture does not depend on
which is done.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.gguf import Packed
from mezzotint.checkpoints.keys import SAME, View

Change = Callable[[Tensor], Tensor]
_ALIGNMENT = 64  # bytes; of all memory that torch allocates
_BLOCK = 1 << 18  # numbers that are converted at a time: a megabyte in float32


def _nothing() -> None:
    pass


Room = Callable[[Sequence[int], torch.dtype, torch.memory_format, torch.device], Tensor]
"""Memory for a tensor that is filled at once."""


def _fresh(
    shape: Sequence[int], kind: torch.dtype, order: torch.memory_format, place: torch.device
) -> Tensor:
    return torch.empty(tuple(shape), dtype=kind, memory_format=order, device=place)


class Scratch:
    """Memory that one weight after the other is read into.

    Fresh memory costs more than to fill it, several times as much where the system is slow to give
    it.  While anything refers to a weight that was read, another gets memory of its own.
    """

    def __init__(self) -> None:
        self._held = torch.empty(0, dtype=torch.uint8)
        self._lock = threading.Lock()
        self._alone = self._uses()

    def _uses(self) -> int:
        """How many tensors and other objects share the memory."""
        return torch._C._storage_Use_Count(self._held.untyped_storage()._cdata)

    def __call__(
        self, shape: Sequence[int], kind: torch.dtype, order: torch.memory_format, _: torch.device
    ) -> Tensor:
        size = math.prod(shape) * kind.itemsize
        with self._lock, torch.inference_mode(False):
            if self._uses() > self._alone:
                return _fresh(shape, kind, order, self._held.device)
            if len(self._held) < size:
                self._held = torch.empty(0, dtype=torch.uint8)  # gone before there is another
                self._held = torch.empty(size, dtype=torch.uint8)
            flat = self._held[:size].view(kind)
        if order == torch.channels_last:
            count, channels, height, width = shape
            return flat.view(count, height, width, channels).permute(0, 3, 1, 2)
        return flat.view(tuple(shape))


def regular(pieces: Sequence[Tensor], kind: torch.dtype, room: Room = _fresh) -> Tensor:
    """Tensors along dimension 0 as one, in a precision, in one order and aligned, in one pass.

    Other weights are multiplied by other kernels, with other last bits.  Kernels of convolutions
    have their channels last, as the networks' activations do.  What is mapped from a file is left
    where it lies if it is so already.

    Raises:
        CheckpointError: they differ in another dimension.
    """
    first, *others = pieces
    order = torch.channels_last if first.ndim == 4 else torch.contiguous_format
    if not others and first.dtype == kind and first.is_contiguous(memory_format=order):
        return first.clone() if first.data_ptr() % _ALIGNMENT else first
    if any(piece.shape[1:] != first.shape[1:] for piece in others):
        shapes = ", ".join(str(list(piece.shape)) for piece in pieces)
        raise CheckpointError(f"its parts differ: {shapes}")
    rows = [len(piece) for piece in pieces] if others else []
    shape = (sum(rows), *first.shape[1:]) if others else first.shape
    made = room(shape, kind, order, first.device)
    for place, piece in zip(made.split(rows) if others else [made], pieces, strict=True):
        _copy(piece, place)
    return made


def _copy(piece: Tensor, place: Tensor) -> None:
    """Fill a place, in blocks that stay in the processor's cache where float16 becomes bfloat16:
    torch has fast kernels from and to float32 only, and by way of it takes a third of the time."""
    if (piece.dtype, place.dtype) != (torch.float16, torch.bfloat16) or not piece.ndim:
        place.copy_(piece)
        return
    rows = max(1, _BLOCK // max(1, piece[:1].numel()))
    for here, given in zip(place.split(rows), piece.split(rows), strict=True):
        if given.ndim == 4:  # put in order as whole numbers, which torch is quicker at
            whole = given.view(torch.int16).contiguous(memory_format=torch.channels_last)
            given = whole.view(torch.float16)
        here.copy_(given.float())


@dataclass(frozen=True)
class Pieces:
    """A weight of ours as the tensors of a file that make it up.

    pieces: in their order along dimension 0, each with how it lies in ours.
    forget: gives the memory of what was read back to the system.
    """

    pieces: tuple[tuple[Tensor | Packed, View], ...]
    forget: Callable[[], None] = _nothing

    def read(self, kind: torch.dtype, room: Room = _fresh) -> Tensor:
        """Its numbers in a precision: see :func:`regular`."""
        found = [
            view.ours(theirs.unpack() if isinstance(theirs, Packed) else theirs)
            for theirs, view in self.pieces
        ]
        return regular(found, kind, room)

    def rows(self, numbers: Tensor, kind: torch.dtype) -> Tensor | None:
        """Some rows of it in a precision, the others are not read; None where it is made of more
        than one tensor as it is."""
        (theirs, view), *others = self.pieces
        if others or view != SAME or isinstance(theirs, Packed):
            return None
        return theirs[numbers.to(theirs.device)].to(kind)

    @property
    def packed(self) -> bool:
        """Whether a piece of it is quantized."""
        return any(isinstance(theirs, Packed) for theirs, _ in self.pieces)

    def narrow(self, kind: torch.dtype) -> bool:
        """Whether it is half as large in the file as in a precision, and no number is rounded."""
        halves = (torch.float16, torch.bfloat16)
        return kind == torch.float32 and all(
            isinstance(theirs, Tensor) and theirs.dtype in halves for theirs, _ in self.pieces
        )

    def ordered(self) -> Pieces:
        """This weight with kernels put in order once, if it has any: they take as long to be put
        in order as to be widened, at every step."""
        (theirs, view), *others = self.pieces
        if others or isinstance(theirs, Packed) or (ours := view.ours(theirs)).ndim != 4:
            return self
        return Pieces(((regular([ours], theirs.dtype), SAME),))

    @property
    def shape(self) -> torch.Size:
        """The shape it has here."""
        shadows = [view.ours(torch.empty(t.shape, device="meta")) for t, view in self.pieces]
        return regular(shadows, torch.float32).shape

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return sum(
            theirs.data.numel() if isinstance(theirs, Packed) else theirs.nbytes
            for theirs, _ in self.pieces
        )

    def finite(self, kind: torch.dtype) -> bool:
        """Whether all of its numbers are finite in a precision."""
        most = torch.finfo(kind).max if kind.is_floating_point else 0
        if any(isinstance(t, Tensor) and not _within(t.dtype, most) for t, _ in self.pieces):
            return finite(self.read(kind))
        return all(t.finite() if isinstance(t, Packed) else finite(t) for t, _ in self.pieces)


def _within(kind: torch.dtype, most: float) -> bool:
    """Whether what is finite in a file's precision is so in one that goes up to ``most``."""
    return kind in (torch.float16, torch.bfloat16, torch.float32) and torch.finfo(kind).max <= most


def finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity: its least and its largest number tell both.

    One reading of the memory, a tenth of a second a GB, and no copy.
    """
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)  # as it lies in memory
    least, most = torch.aminmax(tensor)
    return bool(torch.isfinite(least) & torch.isfinite(most))


class Streamed(nn.Module):
    """A layer whose weight is read each time it is used.

    packed: the weight; kind: the precision it is multiplied in.
    scratch: where it is put for that.
    stays: what was read of the file stays in memory as the file has it.
    change: what adapters do to the weight, for as long as they are attached.
    instead: what they have made of it, where it stays.
    """

    packed: Pieces
    kind: torch.dtype
    scratch: Scratch
    stays: bool
    change: Change | None
    instead: Tensor | None
    _place: torch.device

    @classmethod
    def of(
        cls, layer: nn.Module, packed: Pieces, kind: torch.dtype, scratch: Scratch, stays: bool
    ) -> Streamed:
        """A layer as it is, but for its weight."""
        made = cls.__new__(cls)
        made.__dict__.update(layer.__dict__)
        held = layer._parameters  # pyright: ignore[reportPrivateUsage]
        made._parameters = {name: p for name, p in held.items() if name != "weight"}
        made.packed, made.kind, made.scratch, made.stays = packed, kind, scratch, stays
        made.change, made.instead, made._place = None, None, torch.device("cpu")
        return made

    @property
    def own(self) -> Tensor:
        """The weight without adapters, on the CPU."""
        found = self.packed.read(self.kind, self.scratch)
        if not self.stays:
            self.packed.forget()
        return found

    @property
    def weight(self) -> Tensor:
        """The weight as it acts; a new tensor each time, which nothing keeps."""
        if self.instead is not None:
            return self.instead.to(self._place)
        weight = self.own if self.change is None else self.change(self.own)
        return weight.to(self._place)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Streamed:
        self._place = fn(torch.empty(0)).device
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]
        return self


class StreamedEmbedding(Streamed, nn.Embedding):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Reads the rows that it is asked for."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.change is None and self.instead is None:
            numbers, where = torch.unique(input, return_inverse=True)
            if (rows := self.packed.rows(numbers, self.kind)) is not None:
                return F.embedding(where, rows.to(self._place))
        return F.embedding(input, self.weight)


@lru_cache
def _kind_of(layer: type[nn.Module]) -> type[Streamed] | None:
    """What a layer becomes that reads its weight; None where it cannot."""
    if layer is nn.Embedding:
        return StreamedEmbedding
    if issubclass(layer, nn.Linear | nn.Conv2d) and not issubclass(layer, Streamed):
        return type(f"Streamed{layer.__name__}", (Streamed, layer), {})
    return None


_LEAST = 1 << 12  # numbers of a weight that is worth the trouble
_READ = 1 << 26  # bytes of a file after which their memory is given back: each time takes a while


def give(
    module: nn.Module,
    state: Mapping[str, Pieces],
    kind: Callable[[str], torch.dtype],
    source: str,
    room: int | None = None,
    narrow: bool = False,
    scratch: Scratch | None = None,
) -> dict[str, Tensor]:
    """Give a network those weights that it reads when it uses them; the rest of ``state``, read.

    Args:
        kind: in which precision a weight is.
        room: bytes for the weights that could be read each time; the first ones stay in memory as
            long as there is room.  None: all stay but the packed ones.
        narrow: where all stay, those that are narrower in the file do so as they are there.
        scratch: where they are put to be used; None: the network has one of its own.

    Raises:
        CheckpointError: a number is not finite, or a weight that is not read now has another shape
            than its layer's.
    """
    rest: dict[str, Tensor] = {}
    names, scratch, left = set(module.state_dict()), scratch or Scratch(), _READ
    for name, pieces in state.items():
        own, stream, stays = kind(name), False, False
        if name in names and _streams(module, name):
            size = pieces.shape.numel() * own.itemsize
            stays = room is None and narrow and pieces.narrow(own)
            stream = stays or pieces.packed or (room is not None and size > room)
            if room is not None and not stream:
                room -= size
        if stream:
            if not pieces.finite(own):
                raise CheckpointError(not_finite(source, name))
            lying = pieces.ordered() if stays else pieces
            _stream(module, name, lying, source, (own, scratch, stays))
        else:
            rest[name] = pieces.read(own)
            if not finite(rest[name]):
                raise CheckpointError(not_finite(source, name))
        left -= pieces.size
        if left < 0:
            pieces.forget()
            left = _READ
    for pieces in list(state.values())[-1:]:
        pieces.forget()
    return rest


def _streams(module: nn.Module, name: str) -> bool:
    """Whether a weight of a network can be read each time that it is used."""
    path, _, leaf = name.rpartition(".")
    layer = module.get_submodule(path)
    return (
        leaf == "weight"
        and _kind_of(type(layer)) is not None
        and layer.get_parameter("weight").numel() >= _LEAST
    )


def _stream(
    module: nn.Module,
    name: str,
    pieces: Pieces,
    source: str,
    how: tuple[torch.dtype, Scratch, bool],
) -> None:
    """Put a layer that reads its weight in the place of one that has it; ``how`` as
    :meth:`Streamed.of` takes it."""
    path = name.rpartition(".")[0]
    parent, _, leaf = path.rpartition(".")
    layer = module.get_submodule(path)
    shape = layer.get_parameter("weight").shape
    if pieces.shape != shape:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}: {name} is {list(pieces.shape)} in "
            f"the file, {list(shape)} here"
        )
    made = _kind_of(type(layer))
    assert made is not None
    setattr(module.get_submodule(parent), leaf, made.of(layer, pieces, *how))


def bytes_streamed(module: nn.Module, kind: Callable[[str], torch.dtype]) -> int:
    """How many bytes of a network's weights could be read each time, not kept."""
    return sum(
        weight.numel() * kind(name).itemsize
        for name, weight in module.state_dict().items()
        if _streams(module, name)
    )


def not_finite(source: str, name: str) -> str:
    """What is wrong with a tensor that is not :func:`finite`."""
    return (
        f"{source}: tensor {name!r} has numbers that are not finite (NaN or infinity): the file is "
        "damaged, or they are too large for this precision"
    )


def shapes(module: nn.Module) -> dict[str, Tensor]:
    """A network's state dict by names and shapes alone, its streamed weights too: on meta."""
    found = {name: value.to("meta") for name, value in module.state_dict().items()}
    for path, layer in module.named_modules():
        if isinstance(layer, Streamed):
            found[f"{path}.weight"] = torch.empty(layer.packed.shape, device="meta")
    return found
