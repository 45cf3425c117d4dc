"""PyTorch's pickles (.ckpt, .pt, .pth, .bin), read by a machine that can build tensors only.

A pickle is a program: it names functions and calls them.  Here the names that build a tensor stand
for functions of ours, and every other name for an inert object that keeps nothing and does
nothing, whatever it is called with.  So nothing of the file's author ever runs, and a checkpoint
that holds a training program's objects beside its weights still opens.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, looks_like, natural, read_start

_MAX_PROGRAM = 256 << 20  # bytes of pickle, without the weights; the largest honest ones have 20 MB
_MAX_DEPTH = 9  # tables within tables
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Type(NamedTuple):
    """A storage class, as a pickle names it."""

    name: str


class _Storage(NamedTuple):
    """Numbers in the file: where they lie is known by ``key``."""

    key: str
    dtype: torch.dtype
    numbers: int


class _View(NamedTuple):
    """A tensor that is still in the file: part of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Table(dict[Any, Any]):
    """An ordered dictionary, which a program may fill but not give attributes."""

    __slots__ = ()

    def __setstate__(self, _: object) -> None: ...  # a state dict's versions of its modules


class _Inert:
    """What every other name of a pickle stands for."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> _Inert:
        return self

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...


def _tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> _View:
    """``torch._utils._rebuild_tensor_v2``, but for touching memory."""
    sizes = (shape, stride)
    if (
        not isinstance(storage, _Storage)
        or not natural(offset)
        or not all(isinstance(s, tuple) and all(map(natural, s)) for s in sizes)
        or len(shape) != len(stride)  # type: ignore[arg-type]
    ):
        raise pickle.UnpicklingError("a tensor's description is malformed")
    return _View(storage, offset, shape, stride)  # type: ignore[arg-type]


def _parameter(data: object, *_: object) -> object:
    """``torch._utils._rebuild_parameter``."""
    return data


_KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _Table,
}


class _Function:
    """One of the functions above, which a program may call but not change."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., object]) -> None:
        self._run = run

    def __call__(self, *arguments: object) -> object:
        return self._run(*arguments)

    def __setstate__(self, _: object) -> None:
        raise pickle.UnpicklingError("it tries to change a function")


class _Machine(pickle._Unpickler):
    """Runs the program of a pickle with nothing dangerous within its reach.

    The machine written in Python: that in C makes its memory as long as any number in the program
    asks for.  ``storages`` are those that the program has spoken of, by key.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _Function(_KNOWN[module, name])
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _Type(name)
        return _Inert

    def persistent_load(self, pid: Any) -> _Storage:
        """``("storage", type, key, device, count)``, and in old files a view, always None."""
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise pickle.UnpicklingError("it refers to something that is no storage of weights")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, _Type) or not isinstance(key, str) or not natural(count):
            raise pickle.UnpicklingError("a storage's description is malformed")
        if len(pid) == 6 and pid[5] is not None:
            raise pickle.UnpicklingError("it has views of storages, which no release writes")
        self.storages[key] = _Storage(key, _DTYPES[kind.name], count)
        return self.storages[key]


def _run(path: Path, machine: _Machine) -> Any:
    try:
        return machine.load()
    except Exception as error:  # the bytes are a stranger's: anything may go wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is not a readable PyTorch file: {reason}") from None


# --- finding the tensors ----------------------------------------------------------------------

_NESTS = ("state_dict", "model", "module", "params_ema", "params", "string_to_param")
"""Where files keep their tensors, when not at the top."""


def _views(document: object) -> dict[str, _View]:
    """The tensors of a document by dotted name: of the first nest that has some, or of all."""
    if not isinstance(document, Mapping):
        return {}
    for nest in _NESTS:
        if found := _flat(document.get(nest)):
            return found
    return _flat(document)


def _flat(value: object) -> dict[str, _View]:
    found: dict[str, _View] = {}
    seen: set[int] = set()  # a table that is its own grandchild, or a thousand tables' child

    def visit(value: object, prefix: str, depth: int) -> None:
        if isinstance(value, _View):
            found[prefix] = value
        elif isinstance(value, Mapping) and id(value) not in seen and depth < _MAX_DEPTH:
            seen.add(id(value))
            for key, inner in value.items():
                if isinstance(key, str) and key.isprintable():
                    visit(inner, f"{prefix}.{key}" if prefix else key, depth + 1)

    visit(value, "", 0)
    return found


def _build(path: Path, name: str, view: _View, raw: Mapping[str, memoryview]) -> Tensor:
    """The tensor of a view, over the file's memory."""
    storage = view.storage
    size = storage.dtype.itemsize
    data = raw.get(storage.key)
    if data is None or len(data) < storage.numbers * size:
        raise CheckpointError(f"{path}: is cut short: the weights of {name!r} are missing")
    count = math.prod(view.shape)
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    if count and (last >= storage.numbers or count > storage.numbers):
        raise CheckpointError(f"{path}: tensor {name!r} reaches beyond its storage")
    if not count:
        return torch.empty(view.shape, dtype=storage.dtype)
    flat = torch.frombuffer(data, dtype=storage.dtype, count=storage.numbers)
    return flat.as_strided(view.shape, view.stride, view.offset)


# --- the two file formats ---------------------------------------------------------------------


def _map(path: Path) -> mmap.mmap:
    """The file in memory, copied on write: changing a tensor never changes the file."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _zip(path: Path) -> tuple[Any, dict[str, memoryview]]:
    """The format since PyTorch 1.6: a zip archive with the pickle and a file a storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            programs = [e for e in entries if e.filename.split("/")[1:] == ["data.pkl"]]
            if len(programs) != 1:
                raise CheckpointError(f"{path}: a zip archive, but not one of PyTorch's")
            program = programs[0]
            if program.file_size > _MAX_PROGRAM or program.compress_size != program.file_size:
                raise CheckpointError(f"{path}: its pickle is too large or compressed")
            document = _run(path, _Machine(io.BytesIO(archive.read(program))))
    except CheckpointError:
        raise
    except Exception as error:  # the library has one for each kind of damage
        raise CheckpointError(f"{path}: is damaged: {error}: fetch it again") from None
    data, folder = memoryview(_map(path)), program.filename[: -len("data.pkl")] + "data/"
    raw: dict[str, memoryview] = {}
    for entry in entries:
        if not entry.filename.startswith(folder):
            continue
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{path}: its weights are compressed, as PyTorch never does")
        # The local header repeats the name and has an extra field of its own length.
        start = entry.header_offset
        if start + 30 > len(data):
            raise CheckpointError(f"{path}: is cut short: fetch it again")
        name, extra = struct.unpack("<HH", data[start + 26 : start + 30])
        start += 30 + name + extra
        raw[entry.filename[len(folder) :]] = data[start : start + entry.file_size]
    return document, raw


def _legacy(path: Path) -> tuple[Any, dict[str, memoryview]]:
    """The format before 1.6: pickles one after the other, then the storages."""
    data = _map(path)
    if _run(path, _Machine(data)) != _LEGACY_MAGIC:
        raise CheckpointError(f"{path}: a pickle, but not one of PyTorch's")
    _run(path, _Machine(data))  # the format's version
    _run(path, _Machine(data))  # the sizes of C's types where it was written
    machine = _Machine(data)
    document, storages = _run(path, machine), machine.storages
    keys = _run(path, _Machine(data))
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"{path}: its list of storages is malformed")
    raw: dict[str, memoryview] = {}
    view, place = memoryview(data), data.tell()
    for key in keys:
        if key not in storages:
            raise CheckpointError(f"{path}: lists a storage that no tensor has")
        size = storages[key].numbers * storages[key].dtype.itemsize
        if place + 8 + size > len(view):
            raise CheckpointError(f"{path}: is cut short: fetch it again")
        raw[key] = view[place + 8 : place + 8 + size]  # 8 bytes repeat the count
        place += 8 + size
    return document, raw


def is_pickle(path: Path, start: bytes) -> bool:
    """Whether a file that begins with ``start`` is a pickle, or a zip archive around one."""
    if not start.startswith(b"PK\x03\x04"):
        return start.startswith(b"\x80") and looks_like(start) is not None
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:  # a damaged archive: reading it as a pickle says how
        return True


def load_pickle(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a PyTorch pickle, mapped from the disk; nothing in the file is executed.

    Raises:
        CheckpointError: it is damaged, cut short, or holds no tensors.
    """
    path = Path(path)
    read_start(path)  # says what is wrong with a path at which there is nothing to read
    document, raw = _zip(path) if zipfile.is_zipfile(path) else _legacy(path)
    views = _views(document)
    if not views:
        raise CheckpointError(f"{path}: there are no tensors in it")
    return {name: _build(path, name, view, raw) for name, view in views.items()}
