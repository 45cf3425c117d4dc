"""Faults that a real server is met with; `benchmarks/server_faults.py` does more of the same."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from faults import Found, Setup, client, clock, database, disk, idle, kill, running, setup
from postgres import PostgreSQL


@pytest.fixture
def cluster() -> Iterator[PostgreSQL]:
    """A PostgreSQL of the test's own, which it may stop."""
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed here")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        postgres.postgresql(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """A server on SQLite that lives on."""
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


def good(*found: Found) -> None:
    for each in found:
        assert each.good, f"{each.did}: {each.came}"


@pytest.mark.parametrize("which", ["sqlite", "postgresql"])
def test_killed(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = None if which == "sqlite" else request.getfixturevalue("cluster").address
    options = [] if address is None else ["--database", address]
    dice = random.Random(82)  # the server, after 1 s
    with setup(tmp_path, *options) as at:
        at.server.start()
        rows = list(kill.rounds(at, 1, 40, dice))
        after = kill.after(at, address, 5, dice)
    assert rows[0].good and rows[0].killed_server == 1, rows
    assert after.good and after.checked == 5, after


@pytest.mark.skipif(not disk.is_possible(), reason="no file system may be made here")
def test_a_full_disk(tmp_path: Path) -> None:
    good(*disk.full(tmp_path / "own"))


def test_a_database_that_is_stopped_and_started(tmp_path: Path, cluster: PostgreSQL) -> None:
    good(database.stopped(tmp_path, cluster, 3.0, 3))


def test_a_database_that_is_locked(at: Setup) -> None:
    good(database.locked(at, 6.0, 3))


def test_clients_that_are_gone(at: Setup) -> None:
    good(*client.gone(at, 20))


def test_clients_that_idle(at: Setup) -> None:
    good(*idle.idle(at, 60, 1.0))


@pytest.mark.skipif(not clock.is_possible(), reason="no C compiler here")
def test_a_clock_that_jumps(tmp_path: Path) -> None:
    good(*clock.jumps(tmp_path, 3, 3))
