"""The database: its migrations make the tables, a newer one is refused, tokens are hashed."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from mezzotint.apps.server import tables, tokens
from mezzotint.apps.server.tables import DatabaseError
from mezzotint.apps.server.tokens import TokenError


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    engine = tables.connect(tables.of_file(tmp_path / "a.db"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata()) == []
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
    tables.connect(tables.of_file(tmp_path / "a.db"))  # once more changes nothing


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    address = tables.of_file(tmp_path / "a.db")
    with tables.connect(address).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="of a newer mezzotint"):
        tables.connect(address)


def test_addresses(tmp_path: Path) -> None:
    (tmp_path / "torn.db").write_bytes(b"this is no database, but long enough to be read" * 100)
    for address, why in (
        ("what", "no address of a database"),
        ("mysql://host/name", "no database 'mysql'"),
        (tables.of_file(tmp_path / "none" / "a.db"), "unable to open"),
        (tables.of_file(tmp_path / "torn.db"), "not a database"),
    ):
        with pytest.raises(DatabaseError, match=why) as caught:
            tables.connect(address)
        assert "\n" not in str(caught.value)


def test_tokens_are_shown_once(tmp_path: Path) -> None:
    engine = tables.connect(tables.of_file(tmp_path / "a.db"))
    token = tokens.add(engine, "anna", "make read", 5)
    who = tokens.holder(engine, token)
    assert who is not None and (who.owner, who.jobs, who.sees) == ("anna", 5, "anna")
    assert token.encode() not in (tmp_path / "a.db").read_bytes()
    assert token.encode() not in (tmp_path / "a.db-wal").read_bytes()
    assert tokens.holder(engine, token[:-1]) is None and tokens.holder(engine, "") is None
    chief = tokens.holder(engine, tokens.add(engine, "chief", "read admin"))
    assert chief is not None and chief.sees is None
    for name, scopes, why in (("anna", "read", "is a token 'anna'"), ("b", "all", "no scope")):
        with pytest.raises(TokenError, match=why):
            tokens.add(engine, name, scopes)
    tokens.revoke(engine, "anna")
    assert tokens.holder(engine, token) is None
    with pytest.raises(TokenError, match="no token 'anna'"):
        tokens.revoke(engine, "anna")
    assert [row.name for row in tokens.listed(engine)] == ["anna", "chief"]
