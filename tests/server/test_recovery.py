"""What a server that was killed has left is tidied up by the next, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from mezzotint.apps.server import gallery, queue, recovery
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.queue import Asked, Made
from mezzotint.apps.server.store import Store
from mezzotint.apps.server.tables import DatabaseError


def _claimed(engine: Engine, places: Places, worker: str, stood: bool = True) -> str:
    """A job that a worker is at; stood: whether its folder is here."""
    queue.submit(engine, Asked("a", "generate", {}, 1, 1))
    job = queue.claim(engine, worker)
    assert job is not None
    if stood:
        (places.work(worker) / job.id).mkdir(parents=True)
    return job.id


def _state(engine: Engine, name: str) -> str:
    row = gallery.job(engine, name, None)
    assert row is not None
    return row.state


def test_what_is_left(engine: Engine, tmp_path: Path) -> None:
    """Jobs of those who worked here go back, and files that nothing refers to go."""
    places = Places(tmp_path)
    store = Store(places.files)
    mine = _claimed(engine, places, "mine")
    theirs = _claimed(engine, places, "theirs", stood=False)  # another server's
    kept, given, lost = (store.put(data) for data in (b"kept", b"given", b"lost"))
    job = next(row for row in queue.running(engine) if row.id == theirs)
    whole = gallery.job(engine, job.id, None)
    assert whole is not None
    made = Made(0, kept, "image/png", 1, 8, 8, 1, "icons", "a fox", "CC0-1.0", "{}")
    assert queue.keep(engine, whole, made) is not None
    gallery.enter(engine, "a", given, "image/png", 5, "")
    half = store.path(kept).with_name(".half.00.mezzotint-part")
    half.write_bytes(b"ha")
    places.unclean.touch()
    recovery.started(engine, places)
    assert _state(engine, mine) == "submitted"
    lite = engine.dialect.name == "sqlite"  # which one server has alone
    assert _state(engine, theirs) == ("submitted" if lite else "running")
    assert set(store.names()) == {kept, given} and not half.exists()
    assert not places.works.exists() and places.unclean.exists()
    recovery.stopped(places)
    assert not places.unclean.exists()
    later = store.put(b"later")
    recovery.started(engine, places)  # after a good end nothing is looked for
    assert lost not in store.names() and later in store.names()


def test_a_database_that_takes_nothing_in(engine: Engine, tmp_path: Path) -> None:
    """One line instead of a server."""
    places = Places(tmp_path)
    _claimed(engine, places, "mine")

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def broken(_c: object, _d: object, statement: str, parameters: object, *_: object) -> object:
        return statement.replace("UPDATE jobs", "UPDATE nothing"), parameters

    with pytest.raises(DatabaseError, match="cannot be used: .*nothing") as caught:
        recovery.started(engine, places)
    assert "\n" not in str(caught.value)
