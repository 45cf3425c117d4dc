"""Jobs on their way: submitted, running, and then done, failed or cancelled; never lost.

A job runs with one worker at a time, and each time that it begins its *attempt* counts up.  All
that a worker writes names the attempt: who was taken for dead and goes on writes to nobody, so a
job is done once whatever the clocks and processes do.  What an attempt has made stays; the next one
makes the rest.

Turns are those of start-time fair queuing (Goyal et al. 1996): a job's turn is the later of the
turn that is being served and the end of its owner's last job, and an owner's end moves on by the
cost.  So of two owners each gets half, however many jobs one has asked for.

What takes the model that a worker has loaded goes before what does not, within bounds: a job is
passed by so much work and no more, and then it is its turn.  Turns stay as they are, so who was
passed has as much of the device in the end.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from mezzotint.apps.server import uses
from mezzotint.apps.server.tables import OPEN, jobs, outputs, reading, soft

State = Literal["submitted", "running", "done", "failed", "cancelled"]
CRASHES = 5
"""So often a job may bring its worker down."""
MOST_PASSED = 400.0
"""Once so many steps of others were done before a job out of turn, no more are."""


class QueueError(ValueError):
    """Something cannot be done to a job; one line that says why."""


class FullError(QueueError):
    """So many jobs wait that no more are taken; ask later."""


class KeyUsedError(QueueError):
    """An idempotency key came a second time with another wish."""


_SUBMITS, _CLAIMS = 1299861866, 1299861867  # names of PostgreSQL's advisory locks


@dataclass(frozen=True)
class Asked:
    """A job to be: kind and wish as wish.py reads them; cost: in steps, what it will take; batch:
    jobs that have the same take the same model; empty: none."""

    owner: str
    kind: str
    wish: Mapping[str, Any]
    pictures: int
    steps: int
    priority: int = 0
    key: str | None = None
    batch: str = ""

    @property
    def text(self) -> str:
        return json.dumps(self.wish, sort_keys=True)


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait and run: of all, and of one owner (None: as many)."""

    all: int = 1000
    owner: int | None = None


@dataclass(frozen=True)
class Made:
    """A picture that a worker has made and stored; seed: None of what no noise has made."""

    place: int
    file: str
    kind: str
    bytes: int
    width: int
    height: int
    seed: int | None
    model: str
    prompt: str
    licence: str
    recipe: str
    seen: bytes | None = None


def new_id() -> str:
    """An id that sorts by its time of birth, and that nobody guesses."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


# --- statements: of those that each job takes, building one costs as much as what it does ----


def _place() -> Any:
    """What tells whether there is room, and which turn: the turn that is served, how many jobs are
    open, and of ``whose`` how many are and where the last one ends."""
    served = select(jobs.c.turn).where(jobs.c.state != "submitted")
    served = served.order_by(jobs.c.turn.desc()).limit(1)  # by its index, of however many jobs
    open_ = select(func.count()).select_from(jobs).where(jobs.c.state.in_(OPEN))
    own = select(func.count(), func.max(jobs.c.turn + jobs.c.cost)).where(
        jobs.c.owner == bindparam("whose"), jobs.c.state.in_(OPEN)
    )
    return select(served.scalar_subquery(), open_.scalar_subquery(), *own.subquery().c)


def _claim(some: bool) -> Any:
    """Gives the next job to ``by``; some: of those that are ``loaded`` before others."""
    ahead = or_(jobs.c.batch.in_(bindparam("loaded", expanding=True)), jobs.c.passed >= MOST_PASSED)
    next_ = (
        select(jobs.c.number)
        .where(jobs.c.state == "submitted")
        .order_by(
            jobs.c.priority.desc(),
            *([case((ahead, 0), else_=1)] if some else []),
            jobs.c.turn,
            jobs.c.number,
        )
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has one writer at a time, and leaves it out
    )
    return (
        update(jobs)
        .where(jobs.c.number == next_.scalar_subquery(), jobs.c.state == "submitted")
        .values(
            state="running",
            worker=bindparam("by"),
            attempt=jobs.c.attempt + 1,
            beat=0,
            started=func.coalesce(jobs.c.started, bindparam("now")),
        )
        .returning(jobs)
    )


def _passes() -> Any:
    """Notes what a job that is taken costs with those whose turn was before."""
    turn, number = bindparam("its_turn"), bindparam("its_number")
    before = or_(jobs.c.turn < turn, and_(jobs.c.turn == turn, jobs.c.number < number))
    equal = jobs.c.priority == bindparam("its_priority")
    wheres = (jobs.c.state == "submitted", equal, before)
    return update(jobs).where(*wheres).values(passed=jobs.c.passed + bindparam("its_cost"))


_ITS = and_(jobs.c.number == bindparam("its_number"), jobs.c.attempt == bindparam("its_attempt"))
"""The job of an attempt; :func:`_its` says whose."""


def _standing() -> Any:
    """The state of an attempt's job, and its picture of ``its_place``, if it has one."""
    place = outputs.c.place == bindparam("its_place")
    there = select(outputs.c.id).where(outputs.c.job == bindparam("its_id"), place)
    return select(jobs.c.state, there.scalar_subquery()).where(_ITS).with_for_update()


def _done() -> Any:
    """Ends an attempt's job: all is made."""
    told = {"finished": bindparam("its_end"), "result": bindparam("its_result")}
    ended = update(jobs).where(_ITS, jobs.c.state == "running")
    return ended.values(state="done", worker=None, step=jobs.c.steps, **told)


_PLACE, _ENTER = _place(), insert(jobs).returning(jobs)
_CLAIM, _PASS = {some: _claim(some) for some in (False, True)}, _passes()
_STANDING, _KEEP, _DONE = _standing(), insert(outputs), _done()

# --- asking -----------------------------------------------------------------------------------


def _alone(connection: Connection, what: int) -> None:
    """One who does so at a time, so that limits and turns hold; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(what)))


def submit(engine: Engine, asked: Asked, limits: Limits = Limits()) -> Row[Any]:
    """A new job, or the one that was asked for with the same key before.

    Raises:
        FullError: too many wait; KeyUsedError: its key was used for something else.
    """
    with engine.begin() as connection:
        _alone(connection, _SUBMITS)
        if asked.key is not None and (found := _of_key(connection, asked)) is not None:
            return found
        turn, cost = _turn(connection, asked.owner, limits), float(max(asked.steps, 1))
        values = {
            "id": new_id(),
            "owner": asked.owner,
            "kind": asked.kind,
            "wish": asked.text,
            "key": asked.key,
            "state": "submitted",
            "priority": asked.priority,
            "turn": turn,
            "cost": cost,
            "batch": asked.batch,
            "pictures": asked.pictures,
            "steps": asked.steps,
            "created": time.time(),
        }
        return connection.execute(_ENTER, values).one()


def _of_key(connection: Connection, asked: Asked) -> Row[Any] | None:
    found = connection.execute(
        select(jobs).where(jobs.c.owner == asked.owner, jobs.c.key == asked.key)
    ).one_or_none()
    if found is not None and (found.kind, found.wish) != (asked.kind, asked.text):
        raise KeyUsedError(
            f"the idempotency key {asked.key!r} was used for another request: take a new one"
        )
    return found


def _turn(connection: Connection, owner: str, limits: Limits) -> float:
    """The turn of a new job.

    Raises:
        FullError: there is no room for it.
    """
    first, waiting, mine, last = tuple(connection.execute(_PLACE, {"whose": owner}).one())
    if waiting >= limits.all:
        raise FullError(f"{limits.all} jobs wait already: ask again later")
    if limits.owner is not None and mine >= limits.owner:
        raise FullError(f"{limits.owner} jobs of this token wait already: ask again later")
    return max(first or 0.0, last or 0.0)


# --- working ----------------------------------------------------------------------------------


def claim(engine: Engine, worker: str, loaded: Sequence[str] = ()) -> Row[Any] | None:
    """The job whose turn it is, which is the worker's from now on; None: none waits.

    loaded: the batches whose models the worker has.  Of the highest priority that waits, the first
    job that fits them is taken, unless one before it has been passed by :data:`MOST_PASSED`.
    """
    given: dict[str, Any] = {"by": worker, "now": time.time()}
    given |= {"loaded": list(loaded)} if loaded else {}
    # lost in a power cut, the worker is gone too, and it waits again
    with soft(engine).begin() as connection:
        _alone(connection, _CLAIMS)
        job = connection.execute(_CLAIM[bool(loaded)], given).one_or_none()
        if job is not None and loaded:
            columns = ("turn", "number", "priority", "cost")
            connection.execute(_PASS, {f"its_{name}": getattr(job, name) for name in columns})
        return job


def _its(job: Row[Any]) -> dict[str, Any]:
    """An attempt, as :data:`_ITS` asks for it."""
    return {"its_number": job.number, "its_attempt": job.attempt}


def _held(job: Row[Any]) -> Any:
    """Whether a job is still this attempt's."""
    return and_(
        jobs.c.number == job.number, jobs.c.state == "running", jobs.c.attempt == job.attempt
    )


def beat(engine: Engine, job: Row[Any], step: int, steps: int) -> bool:
    """Say that the worker lives, and how far it is; False: the job is no longer its own."""
    with engine.begin() as connection:
        changed = connection.execute(
            update(jobs).where(_held(job)).values(beat=jobs.c.beat + 1, step=step, steps=steps)
        )
        return changed.rowcount == 1


def places(engine: Engine, job: Row[Any]) -> set[int]:
    """Which of its pictures an earlier attempt has made."""
    if job.attempt <= 1:
        return set()
    with reading(engine) as connection:
        return set(connection.scalars(select(outputs.c.place).where(outputs.c.job == job.id)))


def keep(
    engine: Engine, job: Row[Any], made: Made, result: Mapping[str, Any] | None = None
) -> str | None:
    """Enter a picture that is stored; its id, or None if the job is no longer this attempt's.

    result: of its last picture: the job is done with it.
    """
    with engine.begin() as connection:
        its = {**_its(job), "its_id": job.id, "its_place": made.place}
        found = connection.execute(_STANDING, its).one_or_none()
        state, entered = (None, None) if found is None else tuple(found)
        if state == "done" or (state == "running" and entered):  # and the answer was lost
            return entered
        if state != "running":
            return None
        name = new_id()
        values = {
            "id": name,
            "job": job.id,
            "place": made.place,
            "owner": job.owner,
            "file": made.file,
            "kind": made.kind,
            "bytes": made.bytes,
            "width": made.width,
            "height": made.height,
            "seed": "" if made.seed is None else str(made.seed),
            "model": made.model,
            "prompt": made.prompt,
            "licence": made.licence,
            "recipe": made.recipe,
            "created": time.time(),
            "seen": made.seen,
        }
        connection.execute(_KEEP, values)
        uses.note(connection, name, json.loads(made.recipe))
        if result is not None:
            connection.execute(_DONE, {**_its(job), **_ending(job, result)})
        return name


def finish(engine: Engine, job: Row[Any], result: object = None) -> bool:
    """All is made."""
    with engine.begin() as connection:
        changed = connection.execute(_DONE, {**_its(job), **_ending(job, result)})
        return changed.rowcount == 1


def fail(engine: Engine, job: Row[Any], error: str, fault: Literal["request", "program"]) -> bool:
    """It cannot be made; one line that says why, and whose fault it is."""
    why = {"state": "failed", "error": error, "fault": fault}
    with engine.begin() as connection:
        changed = connection.execute(
            update(jobs).where(_held(job)).values(finished=_end(job), worker=None, **why)
        )
        return changed.rowcount == 1


def _end(job: Row[Any]) -> float:
    return max(time.time(), job.started)  # a clock that was set back


def _ending(job: Row[Any], result: object) -> dict[str, Any]:
    """How :data:`_DONE` ends a job."""
    told = None if result is None else json.dumps(result)
    return {"its_end": _end(job), "its_result": told}


def give_back(engine: Engine, held: Sequence[tuple[str, int]], crashed: bool = False) -> list[str]:
    """Jobs, each with its attempt, whose worker is gone: back into the queue with their turn.

    crashed: the worker died at it, so it fails when that has happened too often.
    Returns the ids of those that were still theirs.
    """
    if not held:
        return []
    crashes = jobs.c.crashes + int(crashed)
    last = crashes >= CRASHES
    theirs = or_(*(and_(jobs.c.id == name, jobs.c.attempt == n) for name, n in held))
    with engine.begin() as connection:
        changed = connection.execute(
            update(jobs)
            .where(jobs.c.state == "running", theirs)
            .values(
                state=case((last, "failed"), else_="submitted"),
                crashes=crashes,
                worker=None,
                finished=case((last, time.time()), else_=None),
                error=case((last, f"its worker died {CRASHES} times at it"), else_=None),
                fault=case((last, "program"), else_=None),
            )
            .returning(jobs.c.id)
        )
        return list(changed.scalars())


def running(engine: Engine) -> list[Any]:
    """Who works at what, and how often it has said that it lives."""
    columns = (jobs.c.id, jobs.c.attempt, jobs.c.worker, jobs.c.beat)
    with reading(engine) as connection:
        wanted = select(*columns).where(jobs.c.state == "running")
        return [*connection.execute(wanted)]


def waits(engine: Engine) -> bool:
    """Whether any job waits."""
    with reading(engine) as connection:
        one = select(jobs.c.number).where(jobs.c.state == "submitted").limit(1)
        return connection.scalar(one) is not None


# --- steering ---------------------------------------------------------------------------------


def cancel(engine: Engine, name: str, owner: str | None = None) -> Row[Any] | None:
    """Cancel a job that waits or runs: its worker finds that it is no longer its own.

    owner: None may cancel everybody's.  Returns the job as it is now; None: there is none.
    """
    mine = [jobs.c.id == name] + ([] if owner is None else [jobs.c.owner == owner])
    with engine.begin() as connection:
        connection.execute(
            update(jobs)
            .where(*mine, jobs.c.state.in_(OPEN))
            .values(state="cancelled", finished=time.time(), worker=None)
        )
        return connection.execute(select(jobs).where(*mine)).one_or_none()


def hasten(engine: Engine, name: str, priority: int) -> bool:
    """Give a job that waits another priority."""
    with engine.begin() as connection:
        changed = connection.execute(
            update(jobs)
            .where(jobs.c.id == name, jobs.c.state == "submitted")
            .values(priority=priority)
        )
        return changed.rowcount == 1
