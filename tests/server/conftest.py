"""Databases: SQLite, and PostgreSQL where its programs are on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from hostile import Attacked
from mezzotint.apps.server import tables

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin")


def _program(name: str) -> str | None:
    for place in _PLACES:
        root, _, pattern = place.partition("/*")
        found = sorted(Path(root).glob(f"*{pattern}/{name}")) if pattern else [Path(place) / name]
        if there := [path for path in found if path.exists()]:
            return str(there[-1])
    return shutil.which(name)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL that lives as long as the tests, with a socket in a folder."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL is not installed here")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield from _running(initdb, pg_ctl, Path(folder))


def _running(initdb: str, pg_ctl: str, folder: Path) -> Iterator[str]:
    as_user: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)

    def run(*command: str) -> None:
        done = subprocess.run([*as_user, *command], capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    run(initdb, "-D", data, "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run(pg_ctl, "-D", data, "-o", options, "-w", "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql://tests@/postgres?host={folder}"
    finally:
        run(pg_ctl, "-D", data, "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database with the server's tables."""
    if request.param == "sqlite":
        found = tables.connect(tables.of_file(tmp_path / "jobs.db"))
    else:
        found = tables.connect(request.getfixturevalue("postgresql"))
        with found.begin() as connection:
            names = ", ".join(table.name for table in tables.metadata().sorted_tables)
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    yield found
    found.dispose()


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """The server that all attacks are tried against."""
    server = Attacked(tmp_path_factory.mktemp("attacked"))
    server.start()
    yield server
    server.stop()
