"""Writing files so that a reader sees the old one or the new one, never half of one; and reading
one once, as long as it stays.

Below all rooms: the standard library only.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

_SUFFIX = ".mezzotint-part"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What writing to a full disk fails with."""
_DISK = {*FULL, errno.EFBIG, errno.EIO, errno.EROFS}
"""What writing itself can fail with; other errors in the body belong to the caller."""


class WriteError(OSError):
    """A file could not be written; the message is one line and names file, cause and remedy."""


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no space left on the disk: free some, or choose another folder"
    if error.errno == errno.EDQUOT:
        return "the disk quota is used up: free some space, or choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder may not be written to: change its permissions, or choose another"
    return (error.strerror or str(error)).lower()


def stamp(path: Path) -> tuple[int, ...]:
    """What differs once a file was written anew: by it, what was read of the file can be kept.

    Raises:
        OSError: there is no such file.
    """
    there = path.stat()
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def once_a_file(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """A function of a path that is called once as long as the file stays as it is: a server asks
    for each picture.  Of folders, and of JSON, which names other files, it is called each time."""

    @lru_cache(64)
    def kept(path: Path, _: tuple[int, ...]) -> T:
        return read(path)

    @wraps(read)
    def found(path: Path) -> T:
        if not path.is_file() or path.suffix == ".json":
            return read(path)
        return kept(path, stamp(path))

    return found


def _flush_folder(folder: Path) -> None:
    """Make the folder's entry durable; a file system that cannot is left as it is."""
    if os.name == "nt":  # Windows has no handle on folders; its rename is journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _create(target: Path, temporary: Path) -> BinaryIO:
    """The new temporary file in the folder of ``target``, open for writing."""
    try:
        if target.exists() and not target.is_file():
            kind = "a folder" if target.is_dir() else "not a regular file"
            raise WriteError(f"cannot write {target}: it is {kind}: choose another name")
        if not target.parent.is_dir():
            raise WriteError(
                f"cannot write {target}: {target.parent} is not a folder: create it, or choose "
                "another"
            )
        return temporary.open("xb")  # not tempfile: its mode 0600 would outlive the rename
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write {target}: {_reason(error)}") from error


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {_reason(error)}") from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the name ``path`` only once it is whole and on the disk.

    Bytes go to a hidden temporary file in the same folder; at the end it is flushed
    (``fsync``), renamed over ``path``, and the folder is flushed.  If the body raises, or the
    program is interrupted, the temporary file is removed and ``path`` is as before.  After a
    kill that cannot be caught, ``path`` is as before and the temporary file stays behind
    (:func:`remove_leftovers`).

        with atomic_write("out/fox.png") as file:
            image.save(file, "PNG")

    Raises:
        WriteError: ``path`` cannot be written: no such folder, no permission, a full disk.
    """
    target = Path(os.path.realpath(path))  # through a link: the file behind it is replaced
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}{_SUFFIX}")
    try:  # before the file is there: an interruption may come as soon as it is
        with _create(target, temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, target)
    except OSError as error:
        if error.errno in _DISK:
            raise WriteError(f"cannot write {target}: {_reason(error)}") from error
        raise
    finally:
        with suppress(OSError):  # it is gone when all went well, and may never have been there
            temporary.unlink()
    _flush_folder(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """A new folder that takes the name ``path`` only once all in it is written.

    It is filled beside ``path`` under a hidden name and renamed at the end; if the body raises, or
    the program is interrupted, it is removed and ``path`` is as before.

    Args:
        replace: a folder that stands there is removed once the new one has its name; without it
            only an empty one may stand there.

    Raises:
        WriteError: ``path`` is taken, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    hidden = f".{target.name[:40]}.{secrets.token_hex(4)}"
    fresh, old = (target.with_name(f"{hidden}{end}{_SUFFIX}") for end in ("", ".old"))
    try:
        if target.exists() and not target.is_dir():
            raise WriteError(f"cannot write {target}: it is no folder: choose another name")
        taken = target.is_dir() and any(target.iterdir())
        if taken and not replace:
            raise WriteError(f"cannot write {target}: there are files in it: choose another name")
        fresh.mkdir()
        yield fresh
        if taken:
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if taken:
                old.rename(target)
            raise
        _flush_folder(target.parent)
    except WriteError:
        raise
    except OSError as error:
        if error.errno in _DISK or Path(error.filename or "") in (fresh, target):
            raise WriteError(f"cannot write {target}: {_reason(error)}") from error
        raise
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed :func:`atomic_write` calls left in ``folder``; the paths removed.

    Only for a folder with one writer, at its start: a write in progress would be removed too.
    """
    found = sorted(path for path in Path(folder).glob(f".*{_SUFFIX}") if path.is_file())
    for path in found:
        path.unlink()
    return found
