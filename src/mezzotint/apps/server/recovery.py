"""What a server that was killed has left: its jobs go back to the queue, and its files that nothing
refers to go.

All of it is done before the next one begins, while the lock of its folder of data says that nobody
else is at work there.  A worker outlives its server by a moment; what it has not entered by then it
cannot enter any more, for its job is another attempt's.
"""

from __future__ import annotations

import shutil
from contextlib import suppress

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from mezzotint.apps.server import queue, uses
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.store import Store
from mezzotint.apps.server.tables import DatabaseError


def started(engine: Engine, places: Places) -> None:
    """Tidy up after the last server of these places.

    Raises:
        DatabaseError: the database is there, and takes nothing in.
    """
    try:
        _give_back(engine, places)
        if places.unclean.exists():  # else all that was stored was entered
            _sweep(engine, Store(places.files))
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise DatabaseError(f"the database cannot be used: {reason}") from None
    shutil.rmtree(places.works, ignore_errors=True)
    with suppress(OSError):  # a full disk
        places.unclean.touch()


def _give_back(engine: Engine, places: Places) -> None:
    """The jobs of the workers that stood here; in SQLite there are no others."""
    here = {path.name for path in places.works.glob("*")}
    lite = engine.dialect.name == "sqlite"
    held = [(row.id, row.attempt) for row in queue.running(engine) if lite or row.worker in here]
    queue.give_back(engine, held)


def _sweep(engine: Engine, store: Store) -> None:
    """Drop files that nothing refers to."""
    store.drop_halves()
    for name in set(store.names()) - uses.all_used(engine):
        store.drop(name)


def stopped(places: Places) -> None:
    """Nothing is left."""
    shutil.rmtree(places.works, ignore_errors=True)
    places.unclean.unlink(missing_ok=True)
