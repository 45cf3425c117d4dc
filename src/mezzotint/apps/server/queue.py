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

from sqlalchemy import Connection, Engine, Row, and_, case, func, insert, or_, select, update

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


# --- asking -----------------------------------------------------------------------------------


def _turn(connection: Connection, owner: str) -> float:
    """The turn of a new job."""
    served = select(jobs.c.turn).where(jobs.c.state != "submitted")
    served = served.order_by(jobs.c.turn.desc()).limit(1)  # by its index, of however many jobs
    last = select(func.max(jobs.c.turn + jobs.c.cost)).where(
        jobs.c.owner == owner, jobs.c.state.in_(OPEN)
    )
    return max(connection.scalar(served) or 0.0, connection.scalar(last) or 0.0)


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
        _check_room(connection, asked.owner, limits)
        cost = float(max(asked.steps, 1))
        values = {
            "id": new_id(),
            "owner": asked.owner,
            "kind": asked.kind,
            "wish": asked.text,
            "key": asked.key,
            "state": "submitted",
            "priority": asked.priority,
            "turn": _turn(connection, asked.owner),
            "cost": cost,
            "batch": asked.batch,
            "pictures": asked.pictures,
            "steps": asked.steps,
            "created": time.time(),
        }
        return connection.execute(insert(jobs).values(values).returning(jobs)).one()


def _of_key(connection: Connection, asked: Asked) -> Row[Any] | None:
    found = connection.execute(
        select(jobs).where(jobs.c.owner == asked.owner, jobs.c.key == asked.key)
    ).one_or_none()
    if found is not None and (found.kind, found.wish) != (asked.kind, asked.text):
        raise KeyUsedError(
            f"the idempotency key {asked.key!r} was used for another request: take a new one"
        )
    return found


def _check_room(connection: Connection, owner: str, limits: Limits) -> None:
    open_ = select(func.count()).select_from(jobs).where(jobs.c.state.in_(OPEN))
    if connection.scalar(open_) >= limits.all:  # type: ignore[operator]
        raise FullError(f"{limits.all} jobs wait already: ask again later")
    if limits.owner is not None:
        own = connection.scalar(open_.where(jobs.c.owner == owner)) or 0
        if own >= limits.owner:
            raise FullError(f"{limits.owner} jobs of this token wait already: ask again later")


# --- working ----------------------------------------------------------------------------------


def claim(engine: Engine, worker: str, loaded: Sequence[str] = ()) -> Row[Any] | None:
    """The job whose turn it is, which is the worker's from now on; None: none waits.

    loaded: the batches whose models the worker has.  Of the highest priority that waits, the first
    job that fits them is taken, unless one before it has been passed by :data:`MOST_PASSED`.
    """
    ahead = or_(jobs.c.batch.in_(loaded), jobs.c.passed >= MOST_PASSED)
    next_ = (
        select(jobs.c.number)
        .where(jobs.c.state == "submitted")
        .order_by(
            jobs.c.priority.desc(),
            *([case((ahead, 0), else_=1)] if loaded else []),
            jobs.c.turn,
            jobs.c.number,
        )
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has one writer at a time, and leaves it out
    )
    # lost in a power cut, the worker is gone too, and it waits again
    with soft(engine).begin() as connection:
        _alone(connection, _CLAIMS)
        job = connection.execute(
            update(jobs)
            .where(jobs.c.number == next_.scalar_subquery(), jobs.c.state == "submitted")
            .values(
                state="running",
                worker=worker,
                attempt=jobs.c.attempt + 1,
                beat=0,
                started=func.coalesce(jobs.c.started, time.time()),
            )
            .returning(jobs)
        ).one_or_none()
        if job is not None and loaded:
            _pass(connection, job)
        return job


def _pass(connection: Connection, job: Row[Any]) -> None:
    """Note what a job that is taken costs with those whose turn was before."""
    before = or_(jobs.c.turn < job.turn, and_(jobs.c.turn == job.turn, jobs.c.number < job.number))
    connection.execute(
        update(jobs)
        .where(jobs.c.state == "submitted", jobs.c.priority == job.priority, before)
        .values(passed=jobs.c.passed + job.cost)
    )


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
    with reading(engine) as connection:
        return set(connection.scalars(select(outputs.c.place).where(outputs.c.job == job.id)))


def keep(engine: Engine, job: Row[Any], made: Made, last: bool = False) -> str | None:
    """Enter a picture that is stored; its id, or None if the job is no longer this attempt's.

    last: the job is finished at once, which makes sure of both.
    """
    with (soft(engine) if last else engine).begin() as connection:
        held = select(jobs.c.number).where(_held(job)).with_for_update()
        if connection.execute(held).one_or_none() is None:
            return None
        there = select(outputs.c.id).where(outputs.c.job == job.id, outputs.c.place == made.place)
        if (entered := connection.scalar(there)) is not None:  # and the answer was lost
            return entered
        name = new_id()
        connection.execute(
            insert(outputs).values(
                id=name,
                job=job.id,
                place=made.place,
                owner=job.owner,
                file=made.file,
                kind=made.kind,
                bytes=made.bytes,
                width=made.width,
                height=made.height,
                seed="" if made.seed is None else str(made.seed),
                model=made.model,
                prompt=made.prompt,
                licence=made.licence,
                recipe=made.recipe,
                created=time.time(),
                seen=made.seen,
            )
        )
        uses.note(connection, name, json.loads(made.recipe))
        return name


def finish(engine: Engine, job: Row[Any], result: object = None) -> bool:
    """All is made."""
    told = None if result is None else json.dumps(result)
    return _ended(engine, job, state="done", result=told, step=jobs.c.steps)


def fail(engine: Engine, job: Row[Any], error: str, fault: Literal["request", "program"]) -> bool:
    """It cannot be made; one line that says why, and whose fault it is."""
    return _ended(engine, job, state="failed", error=error, fault=fault)


def _ended(engine: Engine, job: Row[Any], **values: Any) -> bool:
    now = max(time.time(), job.started)  # a clock that was set back
    with engine.begin() as connection:
        changed = connection.execute(
            update(jobs).where(_held(job)).values(finished=now, worker=None, **values)
        )
        return changed.rowcount == 1


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
