"""Atomic writing: the old file or the whole new one, whatever happens in between."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mezzotint.files import WriteError, atomic_folder, atomic_write, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    for content in (b"first", b"second, longer"):
        with atomic_write(target) as file:
            file.write(content)
            assert not target.exists() or target.read_bytes() == b"first"
        assert target.read_bytes() == content
    assert names(tmp_path) == ["a.bin"]


def test_the_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_in_the_body_leaves_everything_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_foreign_oserror_in_the_body_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()


def test_a_link_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"a\.bin: no space left on the disk: free some"):  # noqa: SIM117
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_a_write_that_the_system_refuses_is_a_clear_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WriteError, match="file too large"):  # noqa: SIM117
            with atomic_write(tmp_path / "a.bin") as file:
                file.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for target, message in (
        (tmp_path / "missing" / "a", "missing is not a folder: create it"),
        (tmp_path / "file" / "a", "file is not a folder"),
        (tmp_path, "it is a folder: choose another name"),
        (Path(os.devnull), "it is not a regular file"),
        (tmp_path / ("x" * 300), "file name too long"),
    ):
        with pytest.raises(WriteError, match=message) as caught:  # noqa: SIM117
            with atomic_write(target):
                pass
        assert "\n" not in str(caught.value)
    assert Path(os.devnull).is_char_device()


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # the superuser may write everywhere: play the system's part
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WriteError, match="may not be written to"):  # noqa: SIM117
        with atomic_write(tmp_path / "a"):
            pass


def test_killed_at_any_instant_the_file_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    code = (
        "import sys, itertools; from mezzotint.files import atomic_write\n"
        "for i in itertools.count():\n"
        "    with atomic_write(sys.argv[1]) as file:\n"
        "        for _ in range(64): file.write(bytes([i % 256]) * 4096)\n"
    )
    rng = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)])
        deadline = time.monotonic() + 20
        target.unlink(missing_ok=True)
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.wait()
        content = target.read_bytes()
        assert len(content) == 64 * 4096
        assert len(set(content)) == 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.bin"]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.bin.0011aabb.mezzotint-part", ".hidden", "a.mezzotint-part"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in remove_leftovers(tmp_path)] == [".a.bin.0011aabb.mezzotint-part"]
    assert names(tmp_path) == [".hidden", "a.mezzotint-part"]


def test_an_interruption_while_the_file_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.open

    def interrupted(self: Path, *args: object) -> None:
        plain(self, *args).close()  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.png"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as fresh:
        (fresh / "a").write_bytes(b"1")
        assert not target.exists()
    assert names(target) == ["a"]
    with pytest.raises(WriteError, match="there are files in it"), atomic_folder(target):
        pass
    with pytest.raises(KeyError), atomic_folder(target, replace=True) as fresh:
        (fresh / "b").write_bytes(b"2")
        raise KeyError
    assert names(target) == ["a"]
    with atomic_folder(target, replace=True) as fresh:
        (fresh / "b").write_bytes(b"2")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "out", Path.rename
    target.mkdir()
    (target / "a").write_bytes(b"1")

    def fail(path: Path, new: Path) -> Path:
        if new == target and not path.name.endswith(".old.mezzotint-part"):
            raise OSError(errno.ENOSPC, "full", str(path))
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(WriteError, match="no space left"), atomic_folder(target, replace=True):
        pass
    assert names(tmp_path) == ["out"] and names(target) == ["a"]
    with pytest.raises(WriteError, match="it is no folder"), atomic_folder(target / "a"):
        pass
    with pytest.raises(WriteError, match="cannot write"), atomic_folder(tmp_path / "no/out"):
        pass
