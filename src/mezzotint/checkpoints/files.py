"""Safetensors files, read and written strictly: nothing is executed, nothing is guessed.

A safetensors file is an unsigned 64-bit length (little endian), a JSON header of that length
that gives each tensor's dtype, shape and byte range, and the tensors' bytes without a gap.  The
header alone tells what a file is, so it is checked whole, before a weight is touched.
"""

from __future__ import annotations

import difflib
import json
import math
import mmap
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mezzotint.checkpoints.limits import MAX_TENSORS, name_error, parse, shown
from mezzotint.files import atomic_write

M = TypeVar("M")

_MAX_HEADER = 16 << 20  # bytes; honest ones have 1 MB, with a trainer's metadata a few
_MAX_DIMS = 64  # torch's own limit

# name in the header: bits of an element, the type in torch (None: torch has none)
_DTYPES: dict[str, tuple[int, torch.dtype | None]] = {
    "BOOL": (8, torch.bool),
    "U8": (8, torch.uint8),
    "I8": (8, torch.int8),
    "U16": (16, torch.uint16),
    "I16": (16, torch.int16),
    "U32": (32, torch.uint32),
    "I32": (32, torch.int32),
    "U64": (64, torch.uint64),
    "I64": (64, torch.int64),
    "F16": (16, torch.float16),
    "BF16": (16, torch.bfloat16),
    "F32": (32, torch.float32),
    "F64": (64, torch.float64),
    "C64": (64, torch.complex64),
    "F8_E4M3": (8, torch.float8_e4m3fn),
    "F8_E5M2": (8, torch.float8_e5m2),
    "F8_E8M0": (8, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F4": (4, None),
}
NAMES = {dtype: name for name, (_, dtype) in _DTYPES.items() if dtype is not None}

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch pickle (.ckpt, .pt)"),
    (b"\x80\x02", "a pickle (.ckpt, .pt, .pkl)"),
    (b"\x80\x03", "a pickle (.ckpt, .pt, .pkl)"),
    (b"\x80\x04", "a pickle (.ckpt, .pt, .pkl)"),
    (b"\x80\x05", "a pickle (.ckpt, .pt, .pkl)"),
    (b"GGUF", "a GGUF file"),
    (b"GGML", "an old GGML file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a RIFF file (WebP, WAV, AVI)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer: the download lacks the weights themselves"),
    (b"<!DOCTYPE", "a web page: the download was an error page or needs a login"),
    (b"<!doctype", "a web page: the download was an error page or needs a login"),
    (b"<html", "a web page: the download was an error page or needs a login"),
)

_FILLS = {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}


class CheckpointError(ValueError):
    """A file of weights cannot be used; the message is one line and says which, why and what to do.

    Also for a state dict that does not fit its network.
    """


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: its dtype as the header names it, its shape, its bytes.

    ``start`` and ``end`` count from the first byte after the header.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds, without its weights.

    tensors: name -> :class:`Entry`, in the file's byte order
    metadata: the file's own text fields
    size: of the whole file in bytes
    """

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    size: int


def looks_like(start: bytes) -> str | None:
    """What a file that begins with ``start`` (16 bytes or more) is, if its first bytes tell."""
    if start[4:9] == b"\0\0\0\0{":
        return None  # safetensors, whatever the length of its header happens to spell
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[4:8] == b"ftyp":
        return "an MP4, AVIF or HEIC file"
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (nearest: …)`` with the likeliest of ``names``, or nothing where none is near."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (nearest: {found[0]})" if found else ""


def _open(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise CheckpointError(f"{path}: is a device or a pipe, not a file of weights")
        return path.open("rb")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise CheckpointError(f"{path}: no such file{nearest(path.name, siblings)}") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a folder, not a file of weights") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {(error.strerror or '').lower()}") from None


def read_start(path: Path) -> bytes:
    """The first 32 bytes, enough for :func:`looks_like`; CheckpointError where there are none."""
    with _open(path) as file:
        if not (start := file.read(32)):
            raise CheckpointError(f"{path}: is empty (0 bytes): fetch or write it again")
        return start


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file; no weight is read.

    Raises:
        CheckpointError: the file is missing, empty, cut short or longer than its header says, is
            of another kind (the message says which), or its header is malformed.
    """
    path = Path(path)
    start = read_start(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if (kind := looks_like(start)) is not None:
            raise CheckpointError(f"{path}: looks like {kind}, not like safetensors")
        if size < 8:
            raise CheckpointError(f"{path}: {size} bytes are too few for a safetensors file")
        length = int.from_bytes(start[:8], "little")
        if start[8:9] not in (b"{", b""):
            raise CheckpointError(f"{path}: is not safetensors: no JSON header at its start")
        if length > _MAX_HEADER:
            raise CheckpointError(
                f"{path}: claims a header of {length} bytes, over the limit of {_MAX_HEADER}: "
                "it is damaged or not safetensors"
            )
        if 8 + length > size:
            raise CheckpointError(
                f"{path}: is cut short: its header alone needs {8 + length} bytes and the file "
                f"has {size}: fetch it again"
            )
        file.seek(8)
        raw = file.read(length)
    tensors, metadata = _parse(path, raw)
    _check_ranges(path, tensors, size - 8 - length)
    return Header(tensors, metadata, size)


def _parse(path: Path, raw: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    try:
        document = parse(raw)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: its header is not valid JSON: {reason}") from None
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: its metadata is not a table of text")
    if len(document) > MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(document)} tensors are more than {MAX_TENSORS}")
    entries = {name: _entry(path, name, value) for name, value in document.items()}
    return dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end))), metadata


def natural(value: object) -> bool:
    """Whether a value is a whole number of 0 or more that fits into 63 bits, as all sizes do."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def possible(shape: object) -> bool:
    """Whether a value is a list of sizes of which torch can make a tensor, even an empty one."""
    if not isinstance(shape, list | tuple) or len(shape) > _MAX_DIMS:
        return False
    return all(map(natural, shape)) and math.prod(n for n in shape if n) < 2**60


def _entry(path: Path, name: str, value: object) -> Entry:
    """One tensor's description, checked: known dtype, and a byte range that fits its shape."""
    if (problem := name_error(name)) is not None:
        raise CheckpointError(f"{path}: {problem}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{path}: tensor {name!r} needs exactly dtype, shape and data_offsets in the header"
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has the unknown type {shown(dtype)}"
            f"{nearest(shown(dtype), _DTYPES)}"
        )
    if not possible(shape):
        raise CheckpointError(f"{path}: tensor {name!r} has an impossible shape")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(map(natural, offsets))
        or offsets[0] > offsets[1]
    ):
        raise CheckpointError(f"{path}: tensor {name!r} has an impossible range of bytes")
    bits = math.prod(shape) * _DTYPES[dtype][0]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise CheckpointError(
            f"{path}: tensor {name!r} of type {dtype} and shape {shape} needs {-(-bits // 8)} "
            f"bytes, its range has {offsets[1] - offsets[0]}"
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _check_ranges(path: Path, tensors: dict[str, Entry], present: int) -> None:
    """The byte ranges must tile what follows the header: no overlap, no gap, nothing missing."""
    reached, before = 0, ""
    for name, entry in tensors.items():
        if entry.start < reached:
            raise CheckpointError(f"{path}: tensors {before!r} and {name!r} overlap")
        if entry.start > reached:
            raise CheckpointError(
                f"{path}: {entry.start - reached} bytes before tensor {name!r} belong to no tensor"
            )
        reached, before = entry.end, name
    if reached > present:
        raise CheckpointError(
            f"{path}: is cut short: its header promises {reached} bytes of weights and "
            f"{present} are there: fetch it again"
        )
    if reached < present:
        raise CheckpointError(
            f"{path}: {present - reached} bytes at its end belong to no tensor: it is damaged"
        )


def map_file(path: Path) -> mmap.mmap:
    """A file in memory, copied on write: a page is read when it is first touched, and changing
    what was read never changes the file."""
    with _open(path) as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def forget(mapped: mmap.mmap) -> None:
    """Give the memory of what was read back to the system: it is read again when it is touched.

    Only for what nobody writes to: changes are lost.
    """
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, which takes it back by itself
        mapped.madvise(mmap.MADV_DONTNEED)


def _mapped(data: mmap.mmap, dtype: torch.dtype, shape: tuple[int, ...], start: int) -> Tensor:
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    if start % dtype.itemsize:  # nothing may be read at such a place
        raw = bytearray(data[start : start + count * dtype.itemsize])
        return torch.frombuffer(raw, dtype=dtype).view(shape)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start).view(shape)


def load(
    path: str | os.PathLike[str], mapped: mmap.mmap | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, mapped from the disk into memory, and its metadata.

    Args:
        mapped: the file in memory (:func:`map_file`), if it is there.

    Raises:
        CheckpointError: as :func:`read_header`, or a tensor has a type that torch lacks.
    """
    header = read_header(path)
    types = {name: _DTYPES[entry.dtype][1] for name, entry in header.tensors.items()}
    if lacking := next((name for name, dtype in types.items() if dtype is None), None):
        kind = header.tensors[lacking].dtype
        raise CheckpointError(f"{path}: tensor {lacking!r} has the type {kind}: torch has none")
    if mapped is None:
        mapped = map_file(Path(path))
    first = header.size - max((entry.end for entry in header.tensors.values()), default=0)
    found = {
        name: _mapped(mapped, dtype, header.tensors[name].shape, first + header.tensors[name].start)
        for name, dtype in types.items()
        if dtype is not None
    }
    return found, header.metadata


@dataclass(frozen=True)
class Later:
    """A tensor that is made only when it is written, so that a file needs no room in memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor | Later],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file atomically: after it ``path`` is the old file or the whole new one.

    The same tensors and metadata give the same bytes.  Tensors of wider types come first, so that
    each is aligned to its element size; then by name.

    Raises:
        CheckpointError: a tensor has a type the format lacks, or metadata is not text.
        mezzotint.files.WriteError: the file cannot be written: a full disk, no permission …
    """
    for name, tensor in tensors.items():
        if name == "__metadata__":
            raise CheckpointError(f"{path}: the tensor name {name!r} is reserved by the format")
        if tensor.dtype not in NAMES:
            raise CheckpointError(
                f"{path}: tensor {name!r} of type {tensor.dtype} cannot be stored"
            )
    for key, value in metadata.items():
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CheckpointError(
                f"{path}: metadata {key!r} must be text, not {type(value).__name__}"
            )
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    document: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name in order:
        tensor = tensors[name]
        end = position + math.prod(tensor.shape) * tensor.dtype.itemsize
        document[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    header = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the weights begin aligned
    with atomic_write(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in order:
            tensor = tensors[name]
            made = tensor.make() if isinstance(tensor, Later) else tensor
            if (made.dtype, tuple(made.shape)) != (tensor.dtype, tuple(tensor.shape)):
                raise CheckpointError(
                    f"{path}: tensor {name!r} was announced as {list(tensor.shape)} of "
                    f"{tensor.dtype} and is {list(made.shape)} of {made.dtype}"
                )
            flat = made.detach().cpu().contiguous().view(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def listed(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _problem(kind: str, names: Sequence[str], remark: Callable[[str], str], most: int = 3) -> str:
    """``2 missing: a (…), b (…)``, or nothing."""
    shown = [name + remark(name) for name in names[:most]]
    return f"{len(names)} {kind}: {listed([*shown, *names[most:]])}" if names else ""


class _SkipFilling(TorchFunctionMode):
    """Leaves parameters unfilled: no random draw, no memory touched."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", "") == nn.init.__name__:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def build_unfilled(build: Callable[[], M]) -> M:
    """What ``build`` makes, its parameters without values yet: :func:`load_into` gives them.

    It costs no time for random weights, and the global generator is left as it was.  Buffers are
    made as always.
    """
    with torch.random.fork_rng(devices=[]), _SkipFilling():
        return build()


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], source: str, assign: bool = False
) -> None:
    """Give a network its weights, every name and shape matching; else it is left as it was.

    Args:
        module: the network.
        state: tensors by the network's own names.
        source: what the message calls the state dict, such as the file's name.
        assign: the network takes over the tensors themselves, with their dtype and device; else
            they are copied into its own, which keep theirs.

    Raises:
        CheckpointError: names are missing or unexpected, or shapes differ; it counts each kind
            and gives the first few of it with the nearest name.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    problems = [
        _problem("missing", missing, lambda name: nearest(name, unexpected)),
        _problem("unexpected", unexpected, lambda name: nearest(name, missing or own)),
        _problem(
            "of another shape",
            misshaped,
            lambda name: f" ({list(state[name].shape)} in the file, {list(own[name].shape)} here)",
        ),
    ]
    if found := "; ".join(problem for problem in problems if problem):
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: {found}")
    module.load_state_dict(dict(state), strict=True, assign=assign)
