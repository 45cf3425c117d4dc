"""PyTorch's pickles (.ckpt, .pt, .pth, .bin): their tensors, by a machine that runs nothing.

What the program in a file may do is in :mod:`mezzotint.checkpoints.machine`; here are the two
formats around it, and where in a file's document its tensors are.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, looks_like, map_file, read_start
from mezzotint.checkpoints.limits import MAX_TENSORS, name_error, shown
from mezzotint.checkpoints.machine import Machine, Reads, Storage, View

_MAX_PROGRAM = 256 << 20  # bytes of pickle, without the weights; the largest honest ones have 20 MB
_MAX_DIRECTORY = 3 << 20  # bytes; an archive's entry takes about 80
_MAX_DEPTH = 9  # tables within tables
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP = b"PK\x03\x04"


def _steps(size: int) -> int:
    """How long a program may be in a file of a size: a tensor takes about 45 steps.

    A step takes less than 150 bytes of memory, so that a file of nothing but program takes less
    than twice its size, beside 36 MiB.
    """
    return 250_000 + size // 128


def _run(path: Path, machine: Machine, file: Reads) -> Any:
    try:
        return machine.run(file)
    except Exception as error:  # the bytes are a stranger's: anything may go wrong
        reason = shown(str(error))[1:-1] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is not a readable PyTorch file: {reason}") from None


# --- finding the tensors ----------------------------------------------------------------------

_NESTS = ("state_dict", "model", "module", "params_ema", "params", "string_to_param")
"""Where files keep their tensors, when not at the top."""


def _views(document: object) -> dict[str, View]:
    """The tensors of a document by dotted name: of the first nest that has some, or of all."""
    if not isinstance(document, Mapping):
        return {}
    for nest in _NESTS:
        if found := _flat(document.get(nest)):
            return found
    return _flat(document)


def _flat(value: object) -> dict[str, View]:
    found: dict[str, View] = {}
    seen: set[int] = set()  # a table that is its own grandchild, or a thousand tables' child

    def visit(value: object, prefix: str, depth: int) -> None:
        if isinstance(value, View):
            if (problem := name_error(prefix)) is not None:
                raise CheckpointError(problem)
            if len(found) == MAX_TENSORS:
                raise CheckpointError(f"it has more than {MAX_TENSORS} tensors")
            found[prefix] = value
        elif isinstance(value, Mapping) and id(value) not in seen and depth < _MAX_DEPTH:
            seen.add(id(value))
            for key, inner in value.items():
                if isinstance(inner, View | Mapping) and isinstance(key, str) and key.isprintable():
                    visit(inner, f"{prefix}.{key}" if prefix else key, depth + 1)

    visit(value, "", 0)
    return found


def _check(path: Path, name: str, view: View, raw: Mapping[str, memoryview]) -> None:
    """That a view lies within its storage, and this within the file."""
    storage, data = view.storage, raw.get(view.storage.key)
    if data is None or len(data) < storage.numbers * storage.dtype.itemsize:
        raise CheckpointError(f"{path}: is cut short: the weights of {name!r} are missing")
    count = math.prod(view.shape)
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    if count and (last >= storage.numbers or count > storage.numbers):
        raise CheckpointError(f"{path}: tensor {name!r} reaches beyond its storage")
    if math.prod(n for n in view.shape if n) >= 2**63:
        raise CheckpointError(f"{path}: tensor {name!r} has an impossible shape")


def _build(view: View, raw: Mapping[str, memoryview]) -> Tensor:
    """The tensor of a view, over the file's memory."""
    storage = view.storage
    if not math.prod(view.shape):
        return torch.empty(view.shape, dtype=storage.dtype)
    data = raw[storage.key]
    flat = torch.frombuffer(data, dtype=storage.dtype, count=storage.numbers)
    return flat.as_strided(view.shape, view.stride, view.offset)


# --- the two file formats ---------------------------------------------------------------------


class _Bounded(io.FileIO):
    """A file of which `zipfile` cannot read a directory longer than any honest one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of {size} bytes is too long")
        return super().read(size)


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """What an archive's directory lists; anything may be raised, for it is a stranger's."""
    with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        return archive.infolist()


def _stored(path: Path, entry: zipfile.ZipInfo, data: memoryview) -> memoryview:
    """The bytes of an entry, which PyTorch never compresses: a bomb could be in it."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise CheckpointError(f"{path}: its weights are compressed, as PyTorch never does")
    if entry.flag_bits & 1:
        raise CheckpointError(f"{path}: its weights are encrypted")
    start = entry.header_offset
    head = bytes(data[start : start + 30])
    if len(head) < 30 or not head.startswith(_ZIP):
        raise CheckpointError(f"{path}: is cut short or damaged: fetch it again")
    # The local header repeats the name and has an extra field of its own length.
    start += 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    found = data[start : start + entry.file_size]
    if len(found) < entry.file_size:
        raise CheckpointError(f"{path}: is cut short: fetch it again")
    return found


def _zip(path: Path, mapped: mmap.mmap) -> tuple[Any, dict[str, memoryview]]:
    """The format since PyTorch 1.6: a zip archive with the pickle and a file a storage."""
    try:
        entries = sorted(_entries(path), key=lambda entry: entry.header_offset)
    except Exception as error:  # the library has one for each kind of damage
        reason = shown(str(error))[1:-1]
        raise CheckpointError(f"{path}: is damaged: {reason}: fetch it again") from None
    programs = [e for e in entries if e.filename.split("/")[1:] == ["data.pkl"]]
    if len(programs) != 1:
        raise CheckpointError(f"{path}: a zip archive, but not one of PyTorch's")
    program, data = programs[0], memoryview(mapped)
    if program.file_size > _MAX_PROGRAM:
        raise CheckpointError(f"{path}: its pickle of {program.file_size} bytes is too large")
    folder = program.filename[: -len("data.pkl")] + "data/"
    raw: dict[str, memoryview] = {}
    reached = 0
    for entry in entries:
        if entry.header_offset < reached:
            raise CheckpointError(f"{path}: two files in it overlap")
        reached = entry.header_offset + 30 + entry.compress_size
        if entry.filename.startswith(folder):
            key = entry.filename[len(folder) :]
            if key in raw:
                raise CheckpointError(f"{path}: the storage {shown(key)} comes twice")
            raw[key] = _stored(path, entry, data)
    code = _stored(path, program, data)
    if zlib.crc32(code) != program.CRC:
        raise CheckpointError(f"{path}: is damaged: its pickle is not what it was: fetch it again")
    return _run(path, Machine(_steps(len(data))), io.BytesIO(code)), raw


def _legacy(path: Path, data: mmap.mmap) -> tuple[Any, dict[str, memoryview]]:
    """The format before 1.6: pickles one after the other, then the storages."""
    data.seek(0)
    steps = _steps(len(data))
    if _run(path, Machine(steps), data) != _LEGACY_MAGIC:
        raise CheckpointError(f"{path}: a pickle, but not one of PyTorch's")
    _run(path, Machine(steps), data)  # the format's version
    _run(path, Machine(steps), data)  # the sizes of C's types where it was written
    machine = Machine(steps)
    document = _run(path, machine, data)
    storages: dict[str, Storage] = machine.storages
    keys = _run(path, Machine(steps), data)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"{path}: its list of storages is malformed")
    raw: dict[str, memoryview] = {}
    view, place = memoryview(data), data.tell()
    for key in keys:
        if key not in storages:
            raise CheckpointError(f"{path}: lists a storage that no tensor has")
        if key in raw:
            raise CheckpointError(f"{path}: lists the storage {shown(key)} twice")
        size = storages[key].numbers * storages[key].dtype.itemsize
        if place + 8 + size > len(view):
            raise CheckpointError(f"{path}: is cut short: fetch it again")
        raw[key] = view[place + 8 : place + 8 + size]  # 8 bytes repeat the count
        place += 8 + size
    return document, raw


def is_pickle(path: Path, start: bytes) -> bool:
    """Whether a file that begins with ``start`` is a pickle, or a zip archive around one."""
    if not start.startswith(_ZIP):
        return start.startswith(b"\x80") and looks_like(start) is not None
    try:
        return any(entry.filename.endswith("/data.pkl") for entry in _entries(path))
    except Exception:  # a damaged archive: reading it as a pickle says how
        return True


def load_pickle(path: str | os.PathLike[str], mapped: mmap.mmap | None = None) -> dict[str, Tensor]:
    """The tensors of a PyTorch pickle, mapped from the disk; nothing in the file is executed.

    Args:
        mapped: the file in memory, if it is there.

    Raises:
        CheckpointError: it is damaged, cut short, or holds no tensors.
    """
    path = Path(path)
    start = read_start(path)  # says what is wrong with a path at which there is nothing to read
    data = map_file(path) if mapped is None else mapped
    document, raw = (_zip if start.startswith(_ZIP) else _legacy)(path, data)
    try:
        views = _views(document)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not views:
        raise CheckpointError(f"{path}: there are no tensors in it")
    for name, view in views.items():
        _check(path, name, view, raw)
    return {name: _build(view, raw) for name, view in views.items()}
