"""Data sets of pictures for training: a folder, or a prepared uncompressed zip archive.

Both are files by name.  With a ``metadata.jsonl`` at the top its rows are the data set; one JSON
object a line, fields: ``file`` (or ``file_name``), ``captions`` (or ``text``), ``label``,
``split`` ("train" if absent), ``set``, ``weight`` (1 if absent), ``licence``; others are ignored.
Without one every picture in it is: captions from ``name.txt`` beside ``name.png`` (one a line),
and the label from the first folder if all pictures lie in folders.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from torch import Tensor

from mezzotint.modalities.image import (
    READABLE,
    Channels,
    ImageError,
    decode,
    fit,
    to_tensor,
)

METADATA = "metadata.jsonl"
MIN_EDGE = 4
"""Pictures with a shorter edge than this are taken for damage (tracking pixels, cut files)."""


class DatasetError(ValueError):
    """A data set cannot be used; one line.  ``bad`` holds "name: reason" for every bad file."""

    def __init__(self, message: str, bad: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.bad = tuple(bad)


@dataclass(frozen=True)
class Item:
    """One picture: its name in the data set, and what is known of it.

    captions: none or more texts; label: a class or None; weight: how often it is drawn,
    relative to the others.
    """

    name: str
    captions: tuple[str, ...]
    label: str | None
    weight: float


# --- where the bytes lie ----------------------------------------------------------------------


class _Files(Protocol):
    """Files by their name with "/" between folders.  Reading is safe in threads and processes."""

    @property
    def names(self) -> frozenset[str]: ...

    def read(self, name: str) -> bytes:
        """Raises ImageError if the file cannot be read."""
        ...

    def stamp(self, names: Iterable[str]) -> str:
        """Changes when the files do, as far as sizes and times tell."""
        ...


@dataclass(frozen=True)
class _Folder:
    root: Path
    names: frozenset[str]

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot be read: {(error.strerror or str(error)).lower()}") from error

    def stamp(self, names: Iterable[str]) -> str:
        lines = [str(self.root)]
        for name in names:
            status = (self.root / name).stat()
            lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
        return "\n".join(lines)


def _folder(root: Path) -> _Folder:
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(folder).relative_to(root)
        names += [(relative / name).as_posix() for name in files if not name.startswith(".")]
    return _Folder(root, frozenset(names))


@dataclass(frozen=True)
class _Archive:
    """A zip archive whose entries are stored as they are: each is one seek and one read."""

    path: Path
    entries: Mapping[str, tuple[int, int, int]]  # offset of the bytes, their count, CRC-32

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.entries)

    def read(self, name: str) -> bytes:
        offset, count, crc = self.entries[name]
        try:
            # Opened anew each time (microseconds): no file position is shared by forked workers.
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(count)
        except OSError as error:
            raise ImageError(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
        if len(data) != count or zlib.crc32(data) != crc:
            raise ImageError("is damaged: its bytes do not match the archive's checksum")
        return data

    def stamp(self, names: Iterable[str]) -> str:
        status = self.path.stat()
        return "\n".join([f"{self.path} {status.st_size} {status.st_mtime_ns}", *names])


def _archive(path: Path) -> _Archive:
    entries: dict[str, tuple[int, int, int]] = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if info.compress_type != zipfile.ZIP_STORED:
                    raise DatasetError(
                        f"{path}: {info.filename} is compressed, which forbids reading at random: "
                        "pack it uncompressed (zip -0)"
                    )
                file.seek(info.header_offset)
                header = file.read(30)  # the local header's lengths may differ from the index's
                if header[:4] != b"PK\x03\x04":
                    raise zipfile.BadZipFile(f"no entry where {info.filename} should be")
                skip = sum(struct.unpack("<HH", header[26:30]))
                entries[info.filename] = (info.header_offset + 30 + skip, info.file_size, info.CRC)
    except (zipfile.BadZipFile, struct.error) as error:
        raise DatasetError(f"{path}: not a readable zip archive: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return _Archive(path, entries)


def _files(path: Path) -> _Files:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    if path.suffix.lower() != ".zip":
        raise DatasetError(f"{path}: a data set is a folder of pictures or a prepared .zip archive")
    return _archive(path)


# --- what is known of the pictures ------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    item: Item
    split: str
    set: str | None
    licence: str | None


def _text_field(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} must be a text, not {value!r}")
    return value


def _row(text: str, names: frozenset[str]) -> _Row:
    """One line of metadata.  Raises ValueError with what is wrong."""
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError("is no JSON object")
    name = _text_field(row, "file") or _text_field(row, "file_name")
    if not name:
        raise ValueError("names no 'file'")
    if name not in names:
        raise ValueError(f"{name} is not there")
    captions = row.get("captions", row.get("text")) or []
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, list) or not all(
        isinstance(c, str) and c.strip() for c in captions
    ):
        raise ValueError(f"{name}: captions must be texts that say something")
    weight = row.get("weight", 1.0)
    if type(weight) not in (int, float) or not 0 < weight < math.inf:
        raise ValueError(f"{name}: the weight must be a number above 0, not {weight!r}")
    return _Row(
        Item(name, tuple(captions), _text_field(row, "label"), float(weight)),
        split=_text_field(row, "split") or "train",
        set=_text_field(row, "set"),
        licence=_text_field(row, "licence") or _text_field(row, "license"),
    )


def _from_metadata(files: _Files) -> tuple[list[_Row], list[str]]:
    rows: list[_Row] = []
    bad: list[str] = []
    seen: set[str] = set()
    names = files.names
    lines = files.read(METADATA).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line, names)
            if row.item.name in seen:
                raise ValueError(f"{row.item.name} was named before")
        except ValueError as error:
            bad.append(f"{METADATA} line {number}: {error}")
            continue
        seen.add(row.item.name)
        rows.append(row)
    return rows, bad


def _from_names(files: _Files) -> tuple[list[_Row], list[str]]:
    rows: list[_Row] = []
    bad: list[str] = []
    names = files.names
    pictures = sorted(n for n in names if PurePosixPath(n).suffix.lower() in READABLE)
    classes = all("/" in name for name in pictures)
    for name in pictures:
        captions: tuple[str, ...] = ()
        beside = str(PurePosixPath(name).with_suffix(".txt"))
        if beside in names:
            lines = files.read(beside).decode("utf-8", "replace").splitlines()
            captions = tuple(line.strip() for line in lines if line.strip())
            if not captions:
                bad.append(f"{beside}: the caption is empty")
                continue
        label = name.split("/", 1)[0] if classes else None
        rows.append(_Row(Item(name, captions, label, 1.0), "train", None, None))
    return rows, bad


def _select(
    path: Path, rows: list[_Row], split: str | None, sets: Sequence[str] | None
) -> list[_Row]:
    if split is not None:
        known = Counter(row.split for row in rows)
        if split not in known:
            have = ", ".join(f"{name} ({count})" for name, count in sorted(known.items()))
            raise DatasetError(f"{path}: no pictures in split {split!r}; it has {have}")
        rows = [row for row in rows if row.split == split]
    if sets is not None:
        names = sorted({row.set for row in rows if row.set is not None})
        for name in sets:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3) or names[:8]
                have = f"nearest: {', '.join(near)}" if near else "it names no sets"
                raise DatasetError(f"{path}: no set {name!r} here; {have}")
        rows = [row for row in rows if row.set in sets]
    if not rows:
        raise DatasetError(f"{path}: the selection leaves no pictures: name at least one set")
    return rows


# --- looking at every picture before training -------------------------------------------------


def _flaw(files: _Files, name: str, channels: Channels) -> str | None:
    """What is wrong with a picture."""
    try:
        image = decode(files.read(name))
        if min(image.size) < MIN_EDGE:
            raise ImageError(f"{image.width}x{image.height} is too small")
        if image.mode == "F":
            to_tensor(image, channels)  # says why not
        alpha = image.getchannel("A") if channels == "rgba" and "A" in image.getbands() else None
        if alpha is not None and alpha.getextrema() == (0, 0):
            raise ImageError("is wholly transparent")
    except ImageError as error:
        return str(error)
    return None


def _cache_folder() -> Path:
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mezzotint" / "checked"


def _flaws(files: _Files, names: Sequence[str], channels: Channels) -> dict[str, str]:
    """Name → what is wrong.  That nothing was is remembered, until a size or a time changes."""
    stamp = f"1 {channels}\n{files.stamp(names)}"
    remembered = _cache_folder() / hashlib.sha256(stamp.encode()).hexdigest()
    if remembered.exists():
        return {}
    workers = max(1, min(8, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        flaws = pool.map(lambda name: _flaw(files, name, channels), names)
        found = {name: flaw for name, flaw in zip(names, flaws, strict=True) if flaw}
    if not found:
        with suppress(OSError):  # no place to remember: the next run looks again
            remembered.parent.mkdir(parents=True, exist_ok=True)
            remembered.touch()
    return found


def _complaint(path: Path, bad: Sequence[str]) -> DatasetError:
    shown = "; ".join(bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
    return DatasetError(
        f"{path}: {len(bad)} bad file{'s' * (len(bad) > 1)} ({shown}): "
        "mend or remove them, or skip them (--skip-bad)",
        bad,
    )


# --- the data set -----------------------------------------------------------------------------


def _expression(rows: Sequence[_Row]) -> str | None:
    stated = sorted({row.licence for row in rows if row.licence})
    if not stated:
        return None
    lacking = [] if all(row.licence for row in rows) else ["unknown"]
    return " AND ".join(f"({x})" if " " in x else x for x in [*stated, *lacking])


def licences(path: str | os.PathLike[str]) -> dict[str, int]:
    """How many pictures of a data set are under which licence, "" where none is stated; no picture
    is read.

    Raises:
        DatasetError: no such path, or its metadata are damaged.
    """
    files = _files(Path(path).absolute())
    rows, bad = _from_metadata(files) if METADATA in files.names else _from_names(files)
    if bad:
        raise _complaint(Path(path), bad)
    return dict(Counter(row.licence or "" for row in rows).most_common())


@dataclass(frozen=True)
class Dataset:
    """Pictures and what is known of them, in an order that depends on the names only.

    classes: the labels, sorted.  licence: an SPDX expression over all pictures, None if no
    picture states one, with "unknown" in it if some do not.  bad: "name: reason" of what was
    skipped, by consent.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    licence: str | None
    bad: tuple[str, ...]
    channels: Channels
    _files: _Files = field(repr=False)
    _size: int | None = None

    def __len__(self) -> int:
        return len(self.items)

    def picture(self, index: int, size: int | None) -> Tensor:
        """Picture ``index`` as ``(C, H, W)`` float32 in [−1, 1], RGBA premultiplied.

        size: the middle square in ``size`` × ``size``; None is what the data set was opened
        with, and if that is None too, the picture as it is.

        Raises:
            ImageError: the file was changed or removed since the data set was opened.
        """
        name = self.items[index].name
        size = self._size if size is None else size
        try:
            image = decode(self._files.read(name))
            if size is None:
                return to_tensor(image, self.channels)
            return fit(image, self.channels, (size, size))
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error


def open_dataset(
    path: str | os.PathLike[str],
    channels: Channels,
    *,
    split: str | None = None,
    sets: Sequence[str] | None = None,
    skip_bad: bool = False,
    size: int | None = None,
) -> Dataset:
    """A data set, every picture of which was decoded once (or is known to be unchanged since).

    Args:
        path: a folder, or an uncompressed zip archive.
        channels: "grey", "rgb" or "rgba"; without alpha, transparency lies on white.
        split, sets: take these only; None takes all.
        skip_bad: leave bad files out, and list them in :attr:`Dataset.bad`.
        size: what :meth:`Dataset.picture` gives when it is asked for no size.

    Raises:
        DatasetError: no such path, no pictures, an unknown split or set, or bad files without
            ``skip_bad``; all of them are in ``error.bad``.
    """
    if size is not None and size < 1:
        raise ValueError(f"the size must be at least 1 pixel, not {size}")
    path = Path(path).absolute()
    files = _files(path)
    rows, bad = _from_metadata(files) if METADATA in files.names else _from_names(files)
    if not rows and not bad:
        known = ", ".join(suffix[1:] for suffix in READABLE)
        raise DatasetError(f"{path}: no pictures here; a data set needs files of {known}")
    if rows:
        rows = _select(path, rows, split, sets)
    flaws = _flaws(files, [row.item.name for row in rows], channels)
    bad += [f"{name}: {flaw}" for name, flaw in flaws.items()]
    if bad and not skip_bad:
        raise _complaint(path, bad)
    rows = [row for row in rows if row.item.name not in flaws]
    if not rows:
        raise _complaint(path, bad)
    return Dataset(
        items=tuple(row.item for row in rows),
        classes=tuple(sorted({row.item.label for row in rows if row.item.label is not None})),
        licence=_expression(rows),
        bad=tuple(bad),
        channels=channels,
        _files=files,
        _size=size,
    )
