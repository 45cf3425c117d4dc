"""Databases: SQLite, and PostgreSQL where its programs are on this machine; and servers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import postgres
import pytest
from attacking import Attacked
from serving import Serving, serving
from sqlalchemy import Engine, text

from mezzotint.apps.server import tables


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL that lives as long as the tests."""
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed here")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        postgres.postgresql(Path(folder)) as running,
    ):
        yield running.address


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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of a file of tests."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base, timeout=60) as found:
        yield found


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """The server that all attacks are tried against."""
    server = Attacked(tmp_path_factory.mktemp("attacked"))
    server.start()
    yield server
    server.stop()
