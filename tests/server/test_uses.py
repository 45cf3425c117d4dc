"""A file lies in the store as long as anything names it, and no longer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, update

from mezzotint.apps.server import boards, canvases, gallery, queue, recovery, space, uses
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.queue import Asked, Made
from mezzotint.apps.server.store import Store
from mezzotint.apps.server.tables import uploads

FOX, OWL, MASK, LAYER = ("f" * 64, "0" * 64, "a" * 64, "1" * 64)


def keep(engine: Engine, file: str, owner: str = "anna", **named: str) -> str:
    """An output with a file, whose recipe names others."""
    files = [
        {"option": option, "name": "a.png", "fingerprint": f"sha256:{name}"}
        for option, name in named.items()
    ]
    recipe = {"files": files, "options": {"prompt": f"sha256:{MASK}"}}  # what says so in words
    queue.submit(engine, Asked(owner, "generate", {}, 1, 1))
    job = queue.claim(engine, "w")
    assert job is not None
    made = Made(0, file, "image/png", 1, 8, 8, 7, "icons", "a", "MIT", json.dumps(recipe))
    name = queue.keep(engine, job, made)
    assert name is not None and queue.finish(engine, job)
    return name


def test_what_others_are_made_of_stays(engine: Engine) -> None:
    first = keep(engine, FOX)
    second = keep(engine, OWL, image=FOX, model="d" * 64)
    assert gallery.forget(engine, first, "anna") == []
    assert gallery.file_of(engine, FOX, "anna") == FOX  # it is made again from it
    assert gallery.file_of(engine, FOX, "ben") is None
    row = gallery.output(engine, second, "anna")
    assert row is not None and boards.family(engine, row, "anna")[0] == []
    assert gallery.forget(engine, second, "ben") is None and uses.is_used(engine, FOX)
    assert gallery.forget(engine, second, "anna") == [OWL, FOX]
    assert gallery.file_of(engine, FOX, "anna") is None


def test_what_is_given_stays(engine: Engine) -> None:
    gallery.enter(engine, "anna", FOX, "image/png", 1, "fox.png")
    name = keep(engine, OWL, image=FOX)
    assert gallery.forget(engine, name, "anna") == [OWL]
    assert gallery.file_of(engine, MASK, "anna") is None  # a prompt names no file


def test_what_a_canvas_is_made_of_stays(engine: Engine) -> None:
    kept = canvases.Kept(name="a", document={}, files=[LAYER])
    assert canvases.keep(engine, "anna", "c" * 32, kept) == 1
    assert gallery.forget(engine, keep(engine, LAYER), "anna") == []
    with engine.begin() as connection:
        connection.execute(canvases.canvases.delete())
    assert gallery.forget(engine, keep(engine, LAYER), "anna") == [LAYER]


def test_what_a_job_waits_for_stays(engine: Engine) -> None:
    name = keep(engine, FOX)
    wish: dict[str, Any] = {"options": {"image": FOX}, "pictures": [FOX]}
    job = queue.submit(engine, Asked("anna", "generate", wish, 1, 1))
    assert gallery.forget(engine, name, "anna") == []
    assert queue.cancel(engine, job.id) is not None
    assert not uses.is_used(engine, FOX)


def test_another_owner_has_it_too(engine: Engine) -> None:
    mine, theirs = keep(engine, FOX), keep(engine, FOX, "ben")
    assert gallery.forget(engine, mine, "anna") == []
    assert gallery.forget(engine, theirs, "ben") == [FOX]


def test_children_are_found_by_what_they_are_made_of(engine: Engine) -> None:
    first = keep(engine, FOX)
    second = keep(engine, OWL, image=FOX, mask=MASK)
    parent, child = (gallery.output(engine, name, "anna") for name in (first, second))
    assert parent is not None and child is not None
    ups, _, downs = boards.family(engine, parent, "anna")
    assert ups == [] and [(how, row.id) for how, row in downs] == [("image", second)]
    ups, _, downs = boards.family(engine, child, "anna")
    assert [(how, row.id) for how, row in ups] == [("image", first)] and downs == []


def test_what_was_given_and_nothing_is_made_of(engine: Engine) -> None:
    names = [f"{number:064x}" for number in range(8)]
    for number, name in enumerate(names):
        gallery.enter(engine, "anna", name, "image/png", 10**number, "a.png")
    gallery.enter(engine, "ben", names[0], "image/png", 1, "a.png")
    with engine.begin() as connection:
        long_ago = time.time() - space.NEW_SECONDS - 1
        connection.execute(
            update(uploads).where(uploads.c.file != names[1]).values(created=long_ago)
        )
    keep(engine, OWL, image=names[2], mask=names[3])
    document = {"layers": [{"of": [names[4]]}]}
    kept = canvases.Kept(name="a", document=document, files=[names[5]])
    assert canvases.keep(engine, "anna", "c" * 32, kept) == 1
    assert (
        canvases.keep(
            engine, "ben", "d" * 32, canvases.Kept(name="b", document={"a": names[0]}, files=[])
        )
        == 1
    )
    queue.submit(engine, Asked("anna", "generate", {"pictures": [names[6]]}, 1, 1))
    assert space.unused(engine, "anna") == {names[0]: 1, names[7]: 10**7}
    assert space.unused(engine, "ben") == {}  # his canvas has it


def test_a_file_that_nothing_names_is_swept(engine: Engine, tmp_path: Path) -> None:
    places = Places(tmp_path)
    store = Store(places.files)
    names = [store.put(bytes([number])) for number in range(6)]
    keep(engine, names[0], image=names[1])
    gallery.enter(engine, "ben", names[2], "image/png", 1, "a.png")
    queue.submit(engine, Asked("anna", "generate", {"pictures": [names[3]]}, 1, 1))
    document = {"layers": [{"of": [names[4]]}]}
    kept = canvases.Kept(name="a", document=document, files=[])
    assert canvases.keep(engine, "anna", "c" * 32, kept) == 1
    (store.folder / "ab").mkdir(exist_ok=True)
    (store.folder / "ab" / "notes.txt").write_text("mine")
    places.unclean.touch()
    recovery.started(engine, places)
    assert set(store.names()) == {*names} - {names[5]}
    assert (store.folder / "ab" / "notes.txt").exists()
