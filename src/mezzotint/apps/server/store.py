"""Files by what is in them: a name is the SHA-256 of the bytes, so nothing is ever overwritten."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mezzotint.files import WriteError, atomic_write, remove_leftovers

_NAME = re.compile(r"[0-9a-f]{64}")
SPARE = 256 << 20
"""Bytes that stay free on the disk."""


class StoreError(ValueError):
    """A file cannot be stored or is not there; one line that says why."""


class NoRoomError(StoreError):
    """The disk is full, or nearly so."""


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


class Store:
    """A folder ``ab/cdef…`` of files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where the file of a name is, or would be.

        Raises:
            StoreError: it is no name.
        """
        if not is_name(name):
            raise StoreError("no such file")
        return self.folder / name[:2] / name[2:]

    def put(self, data: bytes) -> str:
        """Keep some bytes; their name.

        Raises:
            WriteError: the disk is full, or the folder cannot be written to.
        """
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        if not path.exists():
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise WriteError(f"cannot write {path.parent}: {error.strerror}") from error
            with atomic_write(path) as file:
                file.write(data)
        return name

    def get(self, name: str) -> bytes:
        """The bytes of a name.

        Raises:
            StoreError: there are none.
        """
        try:
            return self.path(name).read_bytes()
        except OSError:
            raise StoreError("no such file") from None

    def open(self, name: str) -> BinaryIO:
        """The file of a name, to be read; it is there until it is closed, whoever drops it.

        Raises:
            StoreError: there is none.
        """
        try:
            return self.path(name).open("rb")
        except OSError:
            raise StoreError("no such file") from None

    def link(self, name: str, to: Path) -> None:
        """The file of a name under another one too, without its bytes a second time."""
        source = self.path(name)
        try:
            os.link(source, to)
        except FileNotFoundError:
            raise StoreError("no such file") from None
        except OSError:  # another disk, or one that has no links
            shutil.copyfile(source, to)

    def drop(self, name: str) -> None:
        """Forget the file of a name, which nothing refers to any more."""
        self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """All names, in no order."""
        for path in self.folder.glob("??/*"):
            if is_name(path.parent.name + path.name):
                yield path.parent.name + path.name

    def drop_halves(self) -> None:
        """Forget what was half written: while nobody writes."""
        for folder in self.folder.glob("??"):
            remove_leftovers(folder)

    def check_room(self, wanted: int) -> None:
        """Raise NoRoomError unless there is room for so many bytes and some to spare."""
        free = shutil.disk_usage(self.folder).free
        if free < wanted + SPARE:
            raise NoRoomError(
                f"{free >> 20} MB are free on the disk, and {(wanted + SPARE) >> 20} are needed: "
                "free some"
            )
