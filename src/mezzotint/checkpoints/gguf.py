"""GGUF files: the header, strictly, and weights that stay packed until they are used.

The header is read here, since a stranger's header must not cost time or memory; the numbers are
unpacked by the `gguf` package (``pip install 'mezzotint[gguf]'``).
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, map_file, possible, read_start
from mezzotint.checkpoints.limits import MAX_TENSORS, name_error, shown

MAGIC = b"GGUF"
_MAX_DIMS, _MAX_TEXT, _MAX_ARRAY = 4, 1 << 20, 1 << 20
_LENGTH = struct.Struct("<Q")
_MAX_FIELDS, _MAX_TEXTS = 65_536, 16 << 20  # number of them; bytes of all their texts
_KEPT = 64  # values of an array that is kept
_SHAPE = "comfy.gguf.orig_shape."  # where a tensor's own shape stands if it was folded to be packed

# number in the file: name, elements of a block, bytes of a block
_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    30: ("BF16", 1, 2),
}
_PLAIN: dict[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
# where in a block the scales are, float16: all else in it is whole numbers
_SCALES: dict[str, slice] = {
    "Q4_0": slice(0, 2),
    "Q4_1": slice(0, 4),
    "Q5_0": slice(0, 2),
    "Q5_1": slice(0, 4),
    "Q8_0": slice(0, 2),
    "Q2_K": slice(80, 84),
    "Q3_K": slice(108, 110),
    "Q4_K": slice(0, 4),
    "Q5_K": slice(0, 4),
    "Q6_K": slice(208, 210),
}
# number in the file: how a value of metadata is packed
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Entry:
    """One tensor: how it is packed, its shape as torch has it, where its bytes are in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class GgufHeader:
    """tensors: by name, in the file's order; metadata: the file's own fields; size: in bytes."""

    tensors: dict[str, Entry]
    metadata: dict[str, Any]
    size: int


@dataclass(frozen=True)
class Packed:
    """A quantized tensor: ``kind`` names its blocks, ``data`` has their bytes, uint8."""

    kind: str
    shape: tuple[int, ...]
    data: Tensor

    def unpack(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Its numbers.

        Raises:
            CheckpointError: the `gguf` package is not installed.
        """
        try:
            from gguf.constants import GGMLQuantizationType
            from gguf.quants import dequantize
        except ImportError:
            raise CheckpointError(
                "quantized GGUF weights need the gguf package: pip install 'mezzotint[gguf]'"
            ) from None
        numbers = dequantize(self.data.numpy(), GGMLQuantizationType[self.kind])
        return torch.from_numpy(numbers).reshape(self.shape).to(dtype)

    def finite(self) -> bool:
        """Whether all of its numbers are finite, told by the scales of its blocks alone."""
        width = next(width for kind, _, width in _TYPES.values() if kind == self.kind)
        scales = self.data.view(-1, width)[:, _SCALES[self.kind]].contiguous().view(torch.float16)
        return bool(torch.isfinite(scales).all())


class _Cursor:
    """Reads numbers one after the other, never past the end of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb")
        self.size = os.fstat(self.file.fileno()).st_size
        self.letters = 0  # of all texts so far

    def take(self, count: int) -> bytes:
        found = self.file.read(count) if count <= self.size else b""
        if len(found) < count:
            raise CheckpointError(f"{self.path}: is cut short or damaged: fetch it again")
        return found

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        self.letters += length
        if length > _MAX_TEXT or self.letters > _MAX_TEXTS:
            raise CheckpointError(f"{self.path}: claims a text of {length} bytes: it is damaged")
        return self.take(length).decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        """Pass over bytes; beyond the end, the next number is missing."""
        self.file.seek(min(count, self.size), os.SEEK_CUR)

    def skip_texts(self, count: int) -> None:
        """Pass over texts, hundreds of thousands in a tokenizer: nothing else is done for each."""
        read, seek, size, unpack = self.file.read, self.file.seek, self.size, _LENGTH.unpack
        try:
            for _ in range(count):
                seek(min(unpack(read(8))[0], size), os.SEEK_CUR)
        except struct.error:  # fewer than 8 bytes: the end of the file
            self.take(8)

    def left(self) -> int:
        return self.size - self.file.tell()


def _value(cursor: _Cursor, kind: int) -> Any:
    """A value of metadata; long arrays are passed over and told as their length."""
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY:
        raise CheckpointError(f"{cursor.path}: metadata of the unknown type {kind}: it is damaged")
    inner, count = cursor.number("I"), cursor.number("Q")
    least = 8 if inner == _STRING else struct.calcsize(_SCALARS.get(inner, "B"))
    if inner == _ARRAY or count * least > cursor.left() or count > _MAX_ARRAY:
        raise CheckpointError(f"{cursor.path}: claims an array of {count} values: it is damaged")
    if inner not in _SCALARS and inner != _STRING:
        raise CheckpointError(f"{cursor.path}: an array of the unknown type {inner}: it is damaged")
    if count <= _KEPT:
        return [_value(cursor, inner) for _ in range(count)]
    if inner in _SCALARS:
        cursor.skip(count * least)
    else:
        cursor.skip_texts(count)
    return f"{count} values"


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dims = cursor.text(), cursor.number("I")
    if (problem := name_error(name)) is not None:
        raise CheckpointError(f"{cursor.path}: {problem}")
    if dims > _MAX_DIMS:
        raise CheckpointError(
            f"{cursor.path}: tensor {name!r} has {dims} dimensions: it is damaged"
        )
    shape = tuple(cursor.number("Q") for _ in range(dims))
    kind = cursor.number("I")
    if kind not in _TYPES:
        raise CheckpointError(
            f"{cursor.path}: tensor {name!r} is packed in a way (number {kind}) that is not known "
            "here: convert the file to another kind, such as Q8_0"
        )
    return name, shape[::-1], kind, cursor.number("Q")


def read_gguf_header(path: str | os.PathLike[str]) -> GgufHeader:
    """Read and check the header; no weight is read.

    Raises:
        CheckpointError: the file is missing, cut short, of another kind, or its header malformed.
    """
    path = Path(path)
    if not read_start(path).startswith(MAGIC):
        raise CheckpointError(f"{path}: is no GGUF file")
    cursor = _Cursor(path)
    with cursor.file:
        cursor.take(len(MAGIC))
        version = cursor.number("I")
        if version not in (2, 3):
            raise CheckpointError(f"{path}: GGUF version {version} is not known here, only 2 and 3")
        tensors, fields = cursor.number("Q"), cursor.number("Q")
        if 24 * tensors > cursor.left() or tensors > MAX_TENSORS:
            raise CheckpointError(f"{path}: claims {tensors} tensors: it is cut short or damaged")
        if 12 * fields > cursor.left() or fields > _MAX_FIELDS:
            raise CheckpointError(f"{path}: claims {fields} fields: it is cut short or damaged")
        metadata: dict[str, Any] = {}
        for _ in range(fields):
            key = cursor.text()
            if key in metadata:
                raise CheckpointError(f"{path}: the field {shown(key)} comes twice")
            metadata[key] = _value(cursor, cursor.number("I"))
        rows = [_entry(cursor) for _ in range(tensors)]
        unit = metadata.get("general.alignment", 32)
        if not isinstance(unit, int) or unit < 8 or unit & (unit - 1):
            raise CheckpointError(
                f"{path}: its alignment {shown(unit)} is no power of two from 8 on"
            )
        first = -(-cursor.file.tell() // unit) * unit
        if crooked := next((name for name, _, _, offset in rows if offset % unit), None):
            raise CheckpointError(
                f"{path}: tensor {crooked!r} does not lie on a multiple of {unit}"
            )
        return GgufHeader(_entries(path, rows, first, metadata, cursor.size), metadata, cursor.size)


def _entries(
    path: Path,
    rows: list[tuple[str, tuple[int, ...], int, int]],
    first: int,
    metadata: dict[str, Any],
    size: int,
) -> dict[str, Entry]:
    """Where each tensor lies, checked: inside the file, none over another."""
    found: dict[str, Entry] = {}
    for name, shape, number, offset in rows:
        kind, elements, width = _TYPES[number]
        if not possible(shape):
            raise CheckpointError(f"{path}: tensor {name!r} has an impossible shape")
        count = math.prod(shape)
        if count % elements or (shape and shape[-1] % elements):
            raise CheckpointError(f"{path}: tensor {name!r} of shape {shape} cannot be {kind}")
        if name in found:
            raise CheckpointError(f"{path}: the name {name!r} comes twice")
        own = metadata.get(_SHAPE + name)
        if isinstance(own, list) and possible(own) and math.prod(own) == count:
            shape = tuple(own)
        found[name] = Entry(kind, shape, first + offset, count // elements * width)
    reached, before = first, ""
    for name, entry in sorted(found.items(), key=lambda item: item[1].start):
        if entry.start < reached:
            raise CheckpointError(f"{path}: tensors {before!r} and {name!r} overlap")
        reached, before = entry.start + entry.size, name
    if reached > size:
        raise CheckpointError(f"{path}: is cut short: {reached} bytes are promised, {size} there")
    return found


def load_gguf(
    path: str | os.PathLike[str], mapped: mmap.mmap | None = None
) -> tuple[dict[str, Tensor | Packed], dict[str, Any]]:
    """The tensors, mapped from the disk into memory, and the metadata; packed ones stay packed.

    Args:
        mapped: the file in memory, if it is there.

    Raises:
        CheckpointError: as :func:`read_gguf_header`.
    """
    header = read_gguf_header(path)
    if mapped is None:
        mapped = map_file(Path(path))
    whole = torch.frombuffer(mapped, dtype=torch.uint8)
    found: dict[str, Tensor | Packed] = {}
    for name, entry in header.tensors.items():
        data = whole[entry.start : entry.start + entry.size]
        if entry.kind in _PLAIN:
            found[name] = data.view(_PLAIN[entry.kind]).view(entry.shape)
        else:
            found[name] = Packed(entry.kind, entry.shape, data)
    return found, header.metadata
