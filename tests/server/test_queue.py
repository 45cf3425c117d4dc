"""Jobs are lost by nothing, done once, and taken in a fair order."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, func, select

from mezzotint.apps.server import gallery, queue, tables
from mezzotint.apps.server.queue import Asked, FullError, KeyUsedError, Limits, Made


def asked(owner: str = "a", steps: int = 1, priority: int = 0, key: str | None = None) -> Asked:
    return Asked(owner, "generate", {"owner": owner}, 1, steps, priority, key)


def made(place: int = 0) -> Made:
    return Made(place, "0" * 64, "image/png", 1, 8, 8, 2**64 - 1, "icons", "a fox", "CC0-1.0", "{}")


def order(engine: Engine, *jobs: Asked) -> str:
    """The owners in the order in which their jobs are taken and done."""
    for each in jobs:
        queue.submit(engine, each)
    found = ""
    while (job := queue.claim(engine, "w")) is not None:
        found += job.owner
        assert queue.finish(engine, job)
    return found


def test_one_after_another(engine: Engine) -> None:
    first = queue.submit(engine, asked())
    second = queue.submit(engine, asked())
    job = queue.claim(engine, "w")
    assert job is not None and job.id == first.id and job.attempt == 1
    other = queue.claim(engine, "v")
    assert other is not None and other.id == second.id
    assert queue.claim(engine, "u") is None
    assert queue.keep(engine, job, made()) is not None
    assert queue.finish(engine, job, {"a": 1})
    row = gallery.job(engine, job.id, "a")
    assert row is not None and (row.state, row.result, row.worker) == ("done", '{"a": 1}', None)
    (kept,) = gallery.outputs_by_job(engine, [job.id])[job.id]
    assert kept.seed == str(2**64 - 1)
    assert gallery.job(engine, job.id, "b") is None  # somebody else's


def test_owners_take_turns_by_cost(engine: Engine) -> None:
    """Of two who have asked for much each gets half, whoever was first and however often."""
    assert order(engine, *[asked("a")] * 10, *[asked("b")] * 3)[:7].count("b") == 3
    dear = order(engine, *[asked("a", steps=4)] * 4, *[asked("b", steps=1)] * 8)
    assert dear[:6].count("a") <= 2  # one of his weighs as much as four of the other's


def test_priority_goes_before_turns(engine: Engine) -> None:
    assert order(engine, asked("a"), asked("b", priority=-1), asked("c", priority=5)) == "cab"
    waits = queue.submit(engine, asked("d"))
    late = queue.submit(engine, asked("e"))
    assert queue.hasten(engine, late.id, 1)
    job = queue.claim(engine, "w")
    assert job is not None and job.id == late.id
    assert not queue.hasten(engine, late.id, 2)  # it runs
    assert queue.hasten(engine, waits.id, -3)


def test_a_key_is_done_once(engine: Engine) -> None:
    first = queue.submit(engine, asked(key="k"))
    assert queue.submit(engine, asked(key="k")).id == first.id
    assert queue.submit(engine, asked("b", key="k")).id != first.id  # another's key
    with pytest.raises(KeyUsedError, match="'k' was used for another request"):
        queue.submit(engine, Asked("a", "generate", {"another": 1}, 1, 1, 0, "k"))
    job = queue.claim(engine, "w")
    assert job is not None and queue.finish(engine, job)
    assert queue.submit(engine, asked(key="k")).state == "done"


def test_so_many_wait(engine: Engine) -> None:
    limits = Limits(all=3, owner=2)
    for _ in range(2):
        queue.submit(engine, asked(), limits)
    with pytest.raises(FullError, match="2 jobs of this token wait"):
        queue.submit(engine, asked(), limits)
    queue.submit(engine, asked("b"), limits)
    with pytest.raises(FullError, match="3 jobs wait already"):
        queue.submit(engine, asked("c"), limits)
    job = queue.claim(engine, "w")
    assert job is not None and queue.finish(engine, job)
    queue.submit(engine, asked("c"), limits)


def test_the_dead_write_to_nobody(engine: Engine) -> None:
    """A worker that was taken for dead goes on: what it says of the old attempt changes nothing."""
    queue.submit(engine, asked())
    old = queue.claim(engine, "old")
    assert old is not None and queue.beat(engine, old, 1, 2)
    assert queue.keep(engine, old, made(0)) is not None
    assert queue.give_back(engine, [(old.id, old.attempt)]) == [old.id]
    assert queue.give_back(engine, [(old.id, old.attempt)]) == []
    new = queue.claim(engine, "new")
    assert new is not None and (new.id, new.attempt) == (old.id, 2)
    assert not queue.beat(engine, old, 2, 2)
    assert queue.keep(engine, old, made(1)) is None
    assert not queue.finish(engine, old) and not queue.fail(engine, old, "no", "program")
    assert queue.places(engine, new) == {0}  # what was made stays
    assert queue.finish(engine, new)
    assert queue.cancel(engine, new.id).state == "done"  # type: ignore[union-attr]


def test_cancelled_is_no_longer_its_workers(engine: Engine) -> None:
    queue.submit(engine, asked())
    job = queue.claim(engine, "w")
    assert job is not None
    assert queue.cancel(engine, job.id, "b") is None  # not his
    cancelled = queue.cancel(engine, job.id, "a")
    assert cancelled is not None and cancelled.state == "cancelled"
    assert not queue.beat(engine, job, 1, 1) and not queue.finish(engine, job)
    assert queue.claim(engine, "w") is None


def test_what_brings_workers_down_fails_at_last(engine: Engine) -> None:
    queue.submit(engine, asked())
    for number in range(queue.CRASHES):
        job = queue.claim(engine, "w")
        assert job is not None and job.attempt == 2 * number + 1
        queue.give_back(engine, [(job.id, job.attempt)])  # a server that stops is not its fault
        job = queue.claim(engine, "w")
        assert job is not None
        queue.give_back(engine, [(job.id, job.attempt)], crashed=True)
    assert queue.claim(engine, "w") is None
    row = gallery.job(engine, job.id, None)
    assert row is not None and (row.state, row.fault) == ("failed", "program")
    assert row.error == "its worker died 5 times at it"


def test_many_workers_and_askers_at_once(engine: Engine) -> None:
    """Each job is taken by one worker; nobody is refused because another writes."""
    errors: list[BaseException] = []
    taken: list[str] = []

    def ask(owner: str) -> None:
        try:
            for _ in range(20):
                queue.submit(engine, asked(owner))
        except BaseException as error:
            errors.append(error)

    def work(name: str) -> None:
        try:
            idle = 0
            while idle < 20:
                job = queue.claim(engine, name)
                if job is None:
                    idle += 1
                    threading.Event().wait(0.01)
                    continue
                idle = 0
                taken.append(job.id)
                assert queue.keep(engine, job, made()) and queue.finish(engine, job)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
    threads += [threading.Thread(target=work, args=(f"w{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(taken) == len(set(taken)) == 60
    with tables.reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(tables.outputs)) == 60


def test_the_gallery_is_searched(engine: Engine) -> None:
    for prompt in ("a red fox", "a blue fox", "100% wool"):
        queue.submit(engine, asked())
        job = queue.claim(engine, "w")
        assert job is not None
        each = made()
        said = Made(**{**each.__dict__, "prompt": prompt})
        assert queue.keep(engine, job, said) and queue.finish(engine, job)

    def found(**how: object) -> list[str]:
        page = gallery.Page(**how)  # type: ignore[arg-type]
        return [row.prompt for row in gallery.outputs_of(engine, "a", page)]

    assert found(words="FOX") == ["a blue fox", "a red fox"]
    assert found(words="fox red") == ["a red fox"]
    assert found(words="%") == ["100% wool"]  # no pattern of a database
    assert found(words="'; DROP TABLE jobs; --") == []
    assert found(limit=1) == ["100% wool"]
    (row,) = gallery.outputs_of(engine, "a", gallery.Page(limit=1))
    assert found(before=row.number) == ["a blue fox", "a red fox"]
    assert gallery.outputs_of(engine, "b", gallery.Page()) == []
    assert gallery.forget(engine, row.id, "b") is None
    assert gallery.forget(engine, row.id, "a") == []  # others have it too
    assert gallery.is_used(engine, "0" * 64)
