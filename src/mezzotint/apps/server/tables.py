"""The database of the server: which jobs there are, and what they have made.

SQLite beside the pictures, or PostgreSQL by its address; the same tables and statements for both.
Times are seconds since 1970 by the clock of the machine, and nothing but what people are shown
depends on them: what must be in order is counted (`number`, `turn`, `attempt`, `beat`).
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

BUSY_SECONDS = 5
"""How long a writer of SQLite waits for another, and who connects to PostgreSQL for an answer."""


OPEN = ("submitted", "running")
"""States of a job that has not ended."""


class DatabaseError(ValueError):
    """The database cannot be used; one line that says why."""


_META = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in an INTEGER only

jobs = Table(
    "jobs",
    _META,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),  # whose token it was asked with
    Column("kind", String(16), nullable=False),  # what is to be done: see wish.py
    Column("wish", Text, nullable=False),  # as JSON
    Column("key", String(256)),  # of the one who asked: asked twice, it is done once
    Column("state", String(12), nullable=False),  # see queue.py
    Column("priority", Integer, nullable=False),
    Column("turn", Float, nullable=False),  # in which order within a priority, fair among owners
    Column("cost", Float, nullable=False),
    Column("batch", String(16), nullable=False, default=""),  # what takes the same model has one
    Column("passed", Float, nullable=False, default=0.0),  # cost of what was taken out of turn
    Column("pictures", Integer, nullable=False),  # that are asked for
    Column("step", Integer, nullable=False, default=0),  # of all its pictures together
    Column("steps", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),  # of workers that were at it
    Column("worker", String(64)),
    Column("beat", Integer, nullable=False, default=0),  # counts up while the worker lives
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("error", Text),  # one line
    Column("fault", String(12)),  # whose: of the request, or of the program
    Column("result", Text),  # as JSON: what was found, or how long drawing took
    UniqueConstraint("owner", "key"),
)
Index("ix_jobs_next", jobs.c.state, jobs.c.priority, jobs.c.turn, jobs.c.number)
Index("ix_jobs_turn", jobs.c.turn)

outputs = Table(
    "outputs",
    _META,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("place", Integer, nullable=False),  # which of the job's, from 0
    Column("owner", String(64), nullable=False, index=True),
    Column("file", String(64), nullable=False, index=True),  # SHA-256 of its bytes
    Column("kind", String(32), nullable=False),  # its media type
    Column("bytes", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("seed", String(20), nullable=False),  # up to 2^64: no column of numbers holds it
    Column("model", String(256), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("recipe", Text, nullable=False),  # as JSON
    Column("created", Float, nullable=False),
    Column("seen", LargeBinary),  # what is seen of it: see likeness.py
    UniqueConstraint("job", "place"),
)

inputs = Table(
    "inputs",
    _META,
    Column("output", String(32), ForeignKey("outputs.id", ondelete="CASCADE"), primary_key=True),
    Column("file", String(64), primary_key=True, index=True),  # that its recipe names
    Column("how", String(32), nullable=False),  # by which option
)

uploads = Table(
    "uploads",
    _META,
    Column("file", String(64), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("name", String(256), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", LargeBinary),
)

boards = Table(
    "boards",
    _META,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(100), nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("owner", "name"),
)

board_outputs = Table(
    "board_outputs",
    _META,
    Column("board", String(32), ForeignKey("boards.id", ondelete="CASCADE"), primary_key=True),
    Column("output", String(32), ForeignKey("outputs.id", ondelete="CASCADE"), primary_key=True),
    Column("added", Float, nullable=False),
)

favourites = Table(
    "favourites",
    _META,
    Column("owner", String(64), primary_key=True),
    Column("output", String(32), ForeignKey("outputs.id", ondelete="CASCADE"), primary_key=True),
)

tokens = Table(
    "tokens",
    _META,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256: the token is random itself
    Column("scopes", String(128), nullable=False),  # with spaces between them
    Column("jobs", Integer),  # that may wait and run at once; none: no limit
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)

canvases = Table(
    "canvases",
    _META,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("name", String(256), nullable=False),
    Column("document", Text, nullable=False),  # as JSON, the studio's
    Column("files", Text, nullable=False),  # as JSON, the uploads that it is made of
    Column("version", Integer, nullable=False),  # counts up
    Column("changed", Float, nullable=False),
)


_READS, _SOFT = "mezzotint_reads", "mezzotint_soft"
_LOOK_SECONDS = 0.001  # between looks at a lock of SQLite, whose own grow to 0.1


def _tuned(connection: Any, _: Any) -> None:
    """What each connection to SQLite is told."""
    connection.isolation_level = None  # transactions begin where we say: see _begun
    cursor = connection.cursor()
    # a cache of 2 MB for each of many connections would fill with the gallery; the system has one
    cache = "cache_size=-256"
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", cache):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begun(connection: Connection) -> None:
    """A writer of SQLite takes the lock first: one that has read cannot always take it later."""
    options = connection.get_execution_options()
    if options.get(_READS, False):
        connection.exec_driver_sql("BEGIN")
        return
    flush = "NORMAL" if options.get(_SOFT, False) else "FULL"
    connection.exec_driver_sql(f"PRAGMA synchronous={flush}")
    lite: Any = connection.connection.dbapi_connection
    lite.execute("PRAGMA busy_timeout=0")
    try:
        if not _taken(lite):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # which says why
    finally:
        lite.execute(f"PRAGMA busy_timeout={1000 * BUSY_SECONDS}")


def _taken(lite: Any) -> bool:
    """Whether a transaction that writes could be begun soon enough."""
    until = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < until:
        try:
            lite.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                return False
        time.sleep(_LOOK_SECONDS)
    return False


def reading(engine: Engine) -> Connection:
    """A connection that looks and changes nothing; it waits for no writer."""
    return engine.connect().execution_options(**{_READS: True})


def soft(engine: Engine) -> Engine:
    """The database for changes that need not outlive a power cut, but for those that others follow
    which do: of SQLite's, where all who write die with the machine, they do not wait for the disk.
    """
    return engine.execution_options(**{_SOFT: True})


def of_file(path: Path) -> str:
    """The address of a SQLite database in a file."""
    return f"sqlite:///{path}"


def connect(address: str) -> Engine:
    """The database of an address, with the tables of this version.

    Raises:
        DatabaseError: it is not there, or of a newer version.
    """
    try:
        url = make_url(address)
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        elif url.get_backend_name() != "sqlite":
            raise DatabaseError(f"no database {url.get_backend_name()!r}: sqlite or postgresql")
        lite = url.get_backend_name() == "sqlite"
        arguments: dict[str, Any] = {"connect_timeout": BUSY_SECONDS}
        if lite:
            arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(url, connect_args=arguments, pool_pre_ping=not lite)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise DatabaseError("PostgreSQL needs psycopg: pip install psycopg[binary]") from None
        raise DatabaseError(
            "that is no address of a database: sqlite:///file.db, or postgresql://user@host/name"
        ) from None
    if lite:
        event.listen(engine, "connect", _tuned)
        event.listen(engine, "begin", _begun)
    try:
        _migrate(engine)
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise DatabaseError(f"the database cannot be used: {reason}") from None
    return engine


def _migrate(engine: Engine) -> None:
    """Bring the tables to this version, in one transaction; a newer one is left alone."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # of several servers that start, one at a time
            connection.execute(text("SELECT pg_advisory_xact_lock(1299861865)"))
        at = MigrationContext.configure(connection).get_current_revision()
        if at is not None and at not in known:
            raise DatabaseError("the database is of a newer mezzotint: update the program")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_full(error: Exception) -> bool:
    """Whether a database says that its disk is full."""
    said = getattr(error, "orig", None)
    lite = getattr(said, "sqlite_errorname", "") == "SQLITE_FULL"
    return lite or getattr(said, "sqlstate", "") == "53100"  # PostgreSQL's disk_full


def metadata() -> MetaData:
    """What the tables are to be, for the test that the migrations make them so."""
    return _META
