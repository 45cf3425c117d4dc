"""A PostgreSQL of one's own, where its programs are on this machine: with a socket in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACES = ("usr/lib/postgresql/*/bin", "usr/local/bin", "usr/local/pgsql/bin")


def _program(name: str) -> str | None:
    found = sorted(path for place in _PLACES for path in Path("/").glob(f"{place}/{name}"))
    return str(found[-1]) if found else shutil.which(name)


def is_installed() -> bool:
    return _program("initdb") is not None and _program("pg_ctl") is not None


class PostgreSQL:
    """A cluster in a folder, which is made when there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"postgresql://tests@/postgres?host={folder}"
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            self._as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            os.chown(folder, 65534, 65534)
        if not (folder / "data").exists():
            made = ("-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8")
            self._run("initdb", "-D", str(folder / "data"), *made)

    def _run(self, name: str, *words: str) -> None:
        program = _program(name)
        assert program is not None
        command = [*self._as_user, program, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), *words)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self._control("-o", options, "-w", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """As a crash ends it: all who are connected are cut off, and nothing is tidied up."""
        self._control("-m", "immediate", "stop")


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """One that runs; the folder may not lie in one that only its owner may enter."""
    found = PostgreSQL(folder)
    found.start()
    try:
        yield found
    finally:
        found.stop()
