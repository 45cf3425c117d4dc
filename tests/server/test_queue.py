"""Jobs are lost by nothing, done once, and taken in a fair order."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine, Row, func, select

from mezzotint.apps.server import gallery, queue, tables, uses
from mezzotint.apps.server.queue import Asked, FullError, KeyUsedError, Limits, Made


def asked(
    owner: str = "a", steps: int = 1, priority: int = 0, key: str | None = None, batch: str = ""
) -> Asked:
    return Asked(owner, "generate", {"owner": owner}, 1, steps, priority, key, batch)


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
    kept = queue.keep(engine, job, made())
    assert kept is not None
    assert queue.keep(engine, job, made()) == kept  # once more, as if the answer had been lost
    assert queue.finish(engine, job, {"a": 1})
    row = gallery.job(engine, job.id, "a")
    assert row is not None and (row.state, row.result, row.worker) == ("done", '{"a": 1}', None)
    (kept,) = gallery.outputs_by_job(engine, [job.id])[job.id]
    assert kept.seed == str(2**64 - 1)
    assert gallery.job(engine, job.id, "b") is None  # somebody else's


def test_with_its_last_picture_a_job_is_done(engine: Engine) -> None:
    queue.submit(engine, asked())
    job = queue.claim(engine, "w")
    assert job is not None
    kept = queue.keep(engine, job, made(0), {"a": 1})
    assert kept is not None
    row = gallery.job(engine, job.id, "a")
    assert row is not None and (row.state, row.result, row.worker) == ("done", '{"a": 1}', None)
    assert row.step == row.steps and row.finished >= row.started
    assert queue.keep(engine, job, made(0), {"a": 1}) == kept  # as if the answer had been lost
    assert queue.keep(engine, job, made(1)) is None
    assert not queue.finish(engine, job) and queue.claim(engine, "w") is None
    assert len(gallery.outputs_by_job(engine, [job.id])[job.id]) == 1


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


def taken(engine: Engine) -> list[Row[Any]]:
    """All jobs in the order in which a worker with room for one model takes them."""
    found: list[Row[Any]] = []
    while (job := queue.claim(engine, "w", [row.batch for row in found[-1:]])) is not None:
        found.append(job)
        assert queue.finish(engine, job)
    return found


def interleaved(engine: Engine, count: int, steps: int) -> list[Row[Any]]:
    """So many jobs of each of two owners, whose models are two, in turns."""
    both = [asked("a", steps, batch="x"), asked("b", steps, batch="y")]
    for each in both * count:
        queue.submit(engine, each)
    return taken(engine)


def reloads(rows: list[Row[Any]]) -> int:
    return sum(one.batch != next_.batch for one, next_ in pairwise(rows))


def test_what_is_loaded_goes_first_until_others_were_passed(engine: Engine) -> None:
    """Jobs of 100 steps: the first of B is passed by four of A, those after it by fewer, so B's
    run is twice as long before the first of A has been passed by 400 steps."""
    rows = interleaved(engine, 20, 100)
    assert "".join(row.owner for row in rows).startswith("aaaaabbbbbbbbbaaaaaaaa")
    assert len(rows) == 40 and reloads(rows) == 5  # taken by turns it would be 39
    for owner in "ab":
        own = [row.number for row in rows if row.owner == owner]
        assert own == sorted(own)


@pytest.mark.parametrize("steps", [7, 50, 100, 1000])
def test_nobody_is_passed_by_more_and_everybody_gets_his_share(engine: Engine, steps: int) -> None:
    rows = interleaved(engine, 12, steps)
    most = queue.MOST_PASSED + steps
    for number, row in enumerate(rows):
        later = [o for o in rows[:number] if (o.turn, o.number) > (row.turn, row.number)]
        assert sum(o.cost for o in later) == row.passed < most
    served = {"a": 0.0, "b": 0.0}
    for row in rows:
        served[row.owner] += row.cost
        if min(served.values()) < 12 * steps:  # while both wait
            assert abs(served["a"] - served["b"]) <= most + steps


def test_one_who_asks_again_and_again_does_not_keep_others_waiting(engine: Engine) -> None:
    """Each of A's jobs comes when the last is done, and fits what is loaded."""
    queue.submit(engine, asked("a", 100, batch="x"))
    assert queue.claim(engine, "w") is not None
    queue.submit(engine, asked("b", 1, batch="y"))
    waited = 0
    while True:
        queue.submit(engine, asked("a", 100, batch="x"))
        job = queue.claim(engine, "w", ["x"])
        assert job is not None
        if job.owner == "b":
            break
        waited += 1
    assert waited == 4


def test_a_higher_priority_goes_before_what_is_loaded(engine: Engine) -> None:
    queue.submit(engine, asked("a", batch="x"))
    queue.submit(engine, asked("b", batch="y", priority=1))
    queue.submit(engine, asked("c", batch="y", priority=-1))
    order = [queue.claim(engine, "w", ["x"]) for _ in range(3)]
    assert [job.owner for job in order if job is not None] == ["b", "a", "c"]


def test_what_was_passed_and_comes_back_keeps_its_place(engine: Engine) -> None:
    """A worker that dies costs neither the attempt's number nor what was passed."""
    for each in (asked("a", 500, batch="y"), asked("b", 500, batch="x")):
        queue.submit(engine, each)
    first = queue.claim(engine, "w", ["x"])
    assert first is not None and first.owner == "b"
    passed = queue.claim(engine, "w", ["x"])
    assert passed is not None and (passed.owner, passed.passed, passed.attempt) == ("a", 500, 1)
    queue.submit(engine, asked("c", 500, batch="x"))
    assert queue.give_back(engine, [(passed.id, passed.attempt)], crashed=True)
    again = queue.claim(engine, "w", ["x"])
    assert again is not None and (again.id, again.attempt) == (passed.id, 2)


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
            for number in range(20):
                queue.submit(engine, asked(owner, 50, batch=f"w{number % 4}"))
        except BaseException as error:
            errors.append(error)

    def work(name: str) -> None:
        try:
            idle = 0
            while idle < 20:
                job = queue.claim(engine, name, [name])
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
    assert uses.is_used(engine, "0" * 64)
