"""The server without HTTP: what can be asked of it, whoever asks and in whatever way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Engine, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from mezzotint.apps.server import gallery, queue, uses, wish
from mezzotint.apps.server.crew import Crew
from mezzotint.apps.server.hub import ALL, END, Hub, of
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.store import Store
from mezzotint.apps.server.tokens import Who

Kind = Literal["verify", "detect", "recipe", "credentials", "export", "see", "cutout"]
LOOKS_FIRST = 10
"""Priority of what somebody waits for, and is done at once: before the pictures that wait."""
_GUESSED_STEPS, _GUESSED_PIXELS = 20, 512 * 512
_AWAY_SECONDS = 2.0  # between looks into a database that is away
_BYTES = 5  # a pixel, of a file on the disk, at most


class MissingError(ValueError):
    """There is no such thing, or it is somebody else's."""


class ForbiddenError(ValueError):
    """The token does not allow it."""


def _seed_of(owner: str, key: str) -> int:
    digest = hashlib.sha256(f"{owner}\0{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _note(known: dict[str, str], told: Mapping[str, Any]) -> None:
    """Keep the state of a job that is told, as long as it is open."""
    if "state" in told:
        known[told["job"]] = told["state"]
        if told["state"] not in queue.OPEN:
            del known[told["job"]]


@dataclass
class Service:
    """All that the interfaces share."""

    engine: Engine
    store: Store
    places: Places
    hub: Hub
    limits: queue.Limits
    crew: Crew | None = None
    counted: dict[str, int] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of models."""

    # -- jobs ---------------------------------------------------------------------------------

    def submit(
        self, who: Who, body: Mapping[str, object], priority: int = 0, key: str | None = None
    ) -> Row[Any]:
        """A new job that makes pictures.

        Raises:
            WishError, MissingError, ForbiddenError: it cannot be asked for; QueueError: not now;
            NoRoomError: the disk is full.
        """
        self.need(who, "make")
        if priority > 0:
            self.need(who, "admin")
        if isinstance(name := body.get("model"), str):
            body = {**body, "model": self.named(name)}
        if key is not None and body.get("seed") is None:  # asked again it is the same wish
            body = {**body, "seed": _seed_of(who.owner, key)}
        asked = wish.read(body)
        options = asked.as_json()
        for name in asked.pictures:
            file = gallery.file_of(self.engine, name, who.sees)
            if file is None:
                raise MissingError(f"no picture {name!r}: give it first")
            options = json.loads(json.dumps(options).replace(name, file))
        self._check_name(options["options"].get("model", "icons"))
        pixels = asked.pixels or _GUESSED_PIXELS
        self.store.check_room(asked.count * pixels * _BYTES)
        steps = asked.count * (asked.steps or _GUESSED_STEPS)
        entered = queue.Asked(
            who.owner, "generate", options, asked.count, steps, priority, key, asked.batch
        )
        return self._enter(who, entered)

    def look(self, who: Who, kind: Kind, name: str, form: str | None = None) -> Row[Any]:
        """A new job that looks at a picture; form: as what it is to be exported.

        Raises:
            MissingError, ForbiddenError, QueueError: as :func:`submit`.
        """
        self.need(who, "make")
        self.need(who, "read")
        file = gallery.file_of(self.engine, name, who.sees)
        if file is None:
            raise MissingError(f"no picture {name!r}: give it first")
        made = int(kind == "cutout")
        self.store.check_room(made * _GUESSED_PIXELS * _BYTES)
        wished = {"file": file, "pictures": [file], "format": form, "sees": who.sees}
        return self._enter(who, queue.Asked(who.owner, kind, wished, made, 1, LOOKS_FIRST))

    def compose(
        self, who: Who, data: bytes, parts: Sequence[str], name: str, form: str, keep: bool
    ) -> Row[Any]:
        """A new job that seals a picture that somebody has put together.

        Args:
            data: its file, as it was painted.
            parts: ids of the pictures of which there is something in it; those that are not here
                any more are counted.
            form: of the file that is to be made, of :data:`~mezzotint.apps.server.wish.FORMATS`.
            keep: in the gallery.

        Raises:
            UploadError: it is no picture; ForbiddenError, QueueError: as :func:`submit`;
            NoRoomError, WriteError.
        """
        self.need(who, "make")
        self.need(who, "read")
        gallery.kind_of(data)
        self.store.check_room(2 * len(data))
        found = [gallery.file_of(self.engine, part, who.sees) for part in dict.fromkeys(parts)]
        files = list(dict.fromkeys(file for file in found if file is not None))
        file = self.store.put(data)
        wished = {
            "file": file,
            "pictures": [file, *files],
            "layers": [(file, gallery.called(self.engine, file, who.sees)) for file in files],
            "lost": found.count(None),
            "name": name,
            "format": form,
            "keep": keep,
        }
        asked = queue.Asked(who.owner, "composite", wished, int(keep), 1, LOOKS_FIRST)
        return self._enter(who, asked)

    def tidy(self, files: Sequence[str]) -> None:
        """Drop those of some files that nothing names any more."""
        for file in files:
            if not uses.is_used(self.engine, file):
                self.store.drop(file)

    def _enter(self, who: Who, asked: queue.Asked) -> Row[Any]:
        limits = queue.Limits(self.limits.all, who.jobs or self.limits.owner)
        return queue.submit(self.engine, asked, limits)

    def named(self, model: str) -> str:
        """The model of a name, which may be another one of it."""
        return self.aliases.get(model, model)

    def about(self, model: str) -> Mapping[str, Any]:
        """What is told of a model; nothing of one that is not known."""
        told = [] if self.crew is None else self.crew.about.get("models", [])
        return next((each for each in told if each["name"] == self.named(model)), {})

    def _check_name(self, model: str) -> None:
        """Raise WishError for a model that nobody has, where it is known what there is."""
        told = [] if self.crew is None else self.crew.about.get("models", [])
        if told and model not in {each["name"] for each in told}:
            there = ", ".join(each["name"] for each in told)
            raise wish.WishError(f"no model {model!r}: there is {there}", "model")

    def job(self, who: Who, name: str) -> Row[Any]:
        """A job.

        Raises:
            MissingError: there is none.
        """
        self.need(who, "read")
        found = gallery.job(self.engine, name, who.sees)
        if found is None:
            raise MissingError(f"no job {name[:40]!r}")
        return found

    def cancel(self, who: Who, name: str) -> Row[Any]:
        """Cancel a job; one that has ended stays as it is."""
        self.need(who, "make")
        found = queue.cancel(self.engine, name, who.sees)
        if found is None:
            raise MissingError(f"no job {name[:40]!r}")
        return found

    def need(self, who: Who, scope: str) -> None:
        if scope not in who.scopes:
            raise ForbiddenError(f"this token has not the scope {scope!r}")

    # -- what is told -------------------------------------------------------------------------

    def hear(self, told: dict[str, Any]) -> None:
        """What workers tell, in the loop's thread."""
        if "job" not in told:
            return
        state = told.get("state")
        if state is not None:
            self.counted[state] = self.counted.get(state, 0) + 1
        if state == "running":
            self.hub.begins(told["job"], told["owner"])
        self.hub.tell(told)
        if state not in (None, "running"):
            self.hub.ends(told["job"])

    def began(self, job: Row[Any]) -> None:
        """A job was taken in: in the loop's thread."""
        if self.crew is not None:
            self.crew.wake()
        self.hub.tell({"job": job.id, "state": job.state}, job.owner)

    def ended(self, job: Row[Any]) -> None:
        """A job was cancelled: in the loop's thread."""
        if self.crew is not None:
            self.crew.tell("cancel", job.id)
        self.hub.tell({"job": job.id, "state": job.state}, job.owner)

    def watched(self, job: str, begins: bool) -> None:
        """Somebody begins, or nobody goes on, to look at a job's previews."""
        if self.crew is not None:
            self.crew.tell("watch" if begins else "unwatch", job)

    async def follow(
        self, who: Who, name: str, seconds: float = 15.0, looks: bool = True
    ) -> AsyncGenerator[dict[str, Any] | None]:
        """What happens to a job until it ends, beginning with how it is; None now and then, when
        nothing happens.  It looks into the database too: another server may have the job.

        looks: at previews too, which take time to make."""
        with self.hub.listening(name, looks) as waiting:
            while True:
                job = await self._seen(who, name)
                if job is not None:
                    yield {"job": name, "state": job.state, "step": job.step, "steps": job.steps}
                    if job.state not in queue.OPEN:
                        return
                patience = seconds if job is not None else min(seconds, _AWAY_SECONDS)
                steps, told = 0 if job is None else job.steps, {"steps": 0}
                try:
                    while told.get("state") in (None, "running"):
                        async with asyncio.timeout(patience):
                            told = await waiting.get()
                        if told is END:
                            return
                        steps = told.get("steps", steps)
                        if "state" not in told:
                            yield told
                        elif told["state"] == "running" and job is not None:
                            yield {
                                "job": name,
                                "state": "running",
                                "step": job.step,
                                "steps": steps,
                            }
                    if told["state"] == "done":  # as the database has it: see Worker._do
                        yield {"job": name, "state": "done", "step": steps, "steps": steps}
                        return
                except TimeoutError:
                    yield None

    async def _seen(self, who: Who, name: str) -> Row[Any] | None:
        """A job; None: the database is away, and may come back."""
        try:
            return await asyncio.to_thread(self.job, who, name)
        except (DBAPIError, NoConnectionError):
            return None

    async def follow_all(
        self, who: Who, seconds: float = 15.0
    ) -> AsyncIterator[dict[str, Any] | None]:
        """What happens to all jobs that somebody may see, beginning with those that are open; None
        now and then.  It looks into the database too: other servers may have some of them."""
        self.need(who, "read")
        known: dict[str, str] = {}
        with self.hub.listening(ALL if who.sees is None else of(who.owner)) as waiting:
            while True:
                for row in await asyncio.to_thread(self._changed, who, known):
                    told = {"job": row.id, "state": row.state, "step": row.step, "steps": row.steps}
                    _note(known, told)
                    yield told
                yield None
                until = time.monotonic() + seconds
                with suppress(TimeoutError):
                    while True:
                        async with asyncio.timeout(until - time.monotonic()):
                            told = await waiting.get()
                        if told is END:
                            return
                        _note(known, told)
                        yield told

    def _changed(self, who: Who, known: Mapping[str, str]) -> list[Row[Any]]:
        """Jobs that are open, or were, whose state is another one than is known; none while the
        database is away."""
        page = gallery.Page(limit=gallery.MOST_ROWS, state="open")
        try:
            rows = {row.id: row for row in gallery.jobs_of(self.engine, who.sees, page)}
            ended = [gallery.job(self.engine, name, who.sees) for name in known if name not in rows]
        except (DBAPIError, NoConnectionError):
            return []
        found = [*rows.values(), *(row for row in ended if row is not None)]
        return [row for row in found if known.get(row.id) != row.state]

    async def end(self, who: Who, name: str) -> Row[Any]:
        """A job when it has ended."""
        async for _ in self.follow(who, name, 5.0, looks=False):
            pass
        return await asyncio.to_thread(self.job, who, name)
