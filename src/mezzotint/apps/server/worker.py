"""A worker: a process with one device that takes jobs one by one and makes what they ask for.

It is told by lines on its standard input, and tells by lines of JSON on its standard output; what
must not be lost goes through the database and the store.  When its input ends, whoever started it
is gone, and it goes too; and so it does when it had nothing to do for long.
"""

from __future__ import annotations

import argparse
import base64
import gc
import io
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from sqlalchemy import Engine, Row
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from mezzotint.apps import derived
from mezzotint.apps.cli import parse
from mezzotint.apps.commands_generate import check_licences
from mezzotint.apps.errors import one_line
from mezzotint.apps.making import SOFTWARE, Made, begin, making
from mezzotint.apps.repeat import Used, followed
from mezzotint.apps.sealing import MIMES, Signing, sealed, signing
from mezzotint.apps.server import gallery, looking, queue, tables, uses
from mezzotint.apps.server.holding import Held, about
from mezzotint.apps.server.places import Places
from mezzotint.apps.server.store import Store, is_name
from mezzotint.apps.server.wish import FORMATS
from mezzotint.engine.request import Progress
from mezzotint.families.catalogue import device
from mezzotint.families.memory import parse as parse_memory
from mezzotint.families.memory import resident
from mezzotint.files import FULL, WriteError
from mezzotint.modalities import image as pictures
from mezzotint.provenance.grid import chosen
from mezzotint.provenance.identity import configured
from mezzotint.provenance.meter import Meter, Shares
from mezzotint.provenance.recipe import Document, Recipe

T = TypeVar("T")

BEAT_SECONDS = 1.0
LOOK_SECONDS = 1.0
"""How often one that waits looks for jobs that other servers have taken in."""
PREVIEW_SECONDS, TELL_SECONDS = 0.2, 0.05
_PREVIEW, _PREVIEW_QUALITY = 256, 80  # pixels of the longer edge; of a WebP
_MOST_WHY = 2000


class Gone(BaseException):
    """The job is no longer this worker's: cancelled, or given to another."""


class Voice:
    """What a worker tells, a line of JSON each; two threads speak."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def say(self, **told: Any) -> None:
        with self._lock, suppress(BrokenPipeError):
            self._stream.write(json.dumps(told) + "\n")
            self._stream.flush()


class Attempt:
    """A job while it is worked at: its beat, and whether it still is this worker's."""

    def __init__(self, engine: Engine, job: Row[Any], voice: Voice) -> None:
        self.job, self.gone = job, threading.Event()
        self.watched = threading.Event()
        self._engine, self._voice = engine, voice
        self._step, self._steps = 0, int(job.steps)
        self._shown = time.monotonic()  # what is done at once needs no preview
        self._told = 0.0
        self._over = threading.Event()
        self.telling = 0.0
        """Seconds that telling how far it is has taken."""

    def __enter__(self) -> Attempt:
        threading.Thread(target=self._beats, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _beats(self) -> None:
        """A thread's: loading a model takes longer than a step, and is no death."""
        while not self._over.wait(BEAT_SECONDS):
            with suppress(DBAPIError):  # the database may be away for a while
                if not queue.beat(self._engine, self.job, self._step, self._steps):
                    self.gone.set()
                    return

    def check(self) -> None:
        if self.gone.is_set():
            raise Gone

    def listen(self, number: int, count: int) -> Any:
        """The listener of a picture: how far all of them are, and perhaps how it looks."""

        def tell(progress: Progress) -> None:
            self.check()
            began = time.perf_counter()
            self._step = number * progress.steps + progress.step
            self._steps = count * progress.steps
            told: dict[str, Any] = {"place": number, "step": self._step, "steps": self._steps}
            now = time.monotonic()
            if now < self._told + TELL_SECONDS and progress.step < progress.steps:
                return  # of quick steps some are told: each goes to all who follow
            self._told = now
            if self.watched.is_set() and now >= self._shown + PREVIEW_SECONDS:
                self._shown = now
                told["preview"] = _small(progress)
            self._voice.say(job=self.job.id, attempt=self.job.attempt, **told)
            self.telling += time.perf_counter() - began

        return tell


def _small(progress: Progress) -> str:
    """What is believed now as a small WebP, in base64."""
    image = pictures.to_image(progress.preview())
    image.thumbnail((_PREVIEW, _PREVIEW))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_PREVIEW_QUALITY, method=0)  # without loss it takes ten times
    return base64.b64encode(file.getvalue()).decode()


def _surely(change: Callable[[], T]) -> T:
    """What the database must take or tell, however long it is away, or its disk full."""
    waits = False
    while True:
        try:
            return change()
        except (OperationalError, InterfaceError) as error:
            if not waits:
                print(f"waiting for the database: {error.orig}", file=sys.stderr, flush=True)
            waits = True
            time.sleep(LOOK_SECONDS)


class _File(NamedTuple):
    """A picture in the store; kind: its media type."""

    made: Made
    name: str
    kind: str
    bytes: int
    document: Document


class Worker:
    """The state of a worker: what it holds, and what it is at."""

    def __init__(self, engine: Engine, store: Store, places: Places, name: str, voice: Voice):
        self.engine, self.store, self.places, self.name = engine, store, places, name
        self.voice = voice
        self.awake = threading.Event()
        self._lock = threading.Lock()
        self.attempt: Attempt | None = None
        self.device: str | None = None
        self.held, self.meter = Held(), Meter()

    def greet(self) -> None:
        """Say what there is to choose from."""
        self.voice.say(hello=about(self.places), software=SOFTWARE, memory=resident())

    # -- being told ---------------------------------------------------------------------------

    def hear(self, stream: IO[str]) -> None:
        """A thread's: what the server says, until it is gone."""
        for line in stream:
            word, _, name = line.strip().partition(" ")
            if word == "wake":
                self.awake.set()
            if word == "greet":
                with suppress(OSError):  # what is gone meanwhile will be told of once more
                    self.greet()
            with self._lock:
                if self.attempt is None or self.attempt.job.id != name:
                    continue
                if word == "cancel":
                    self.attempt.gone.set()
                elif word in ("watch", "unwatch"):
                    (self.attempt.watched.set if word == "watch" else self.attempt.watched.clear)()
        os._exit(0)

    # -- working ------------------------------------------------------------------------------

    def work(self, idle: float = 0.0) -> None:
        """Take jobs until there were none for so many seconds; 0: for ever."""
        last = time.monotonic()
        while not idle or time.monotonic() < last + idle:
            self.awake.clear()
            try:
                job = queue.claim(self.engine, self.name, self.held.batches)
            except DBAPIError as error:  # it may come back
                print(f"no database: {one_line(error)}", file=sys.stderr, flush=True)
                job = None
            if job is None:
                self.awake.wait(LOOK_SECONDS)
            else:
                self._do(job)
                last = time.monotonic()

    @contextmanager
    def _at(self, job: Row[Any]) -> Iterator[Attempt]:
        with Attempt(self.engine, job, self.voice) as attempt:
            with self._lock:
                self.attempt = attempt
            try:
                yield attempt
            finally:
                with self._lock:
                    self.attempt = None

    def _do(self, job: Row[Any]) -> None:
        with self._at(job) as attempt:
            self.voice.say(job=job.id, attempt=job.attempt, owner=job.owner, state="running")
            try:
                result = KINDS[job.kind](self, job, attempt)
                ended = result is None or _surely(partial(queue.finish, self.engine, job, result))
                self.voice.say(job=job.id, state="done" if ended else "gone")
            except Gone:
                self.voice.say(job=job.id, state="gone")
            except (WriteError, MemoryError) as error:
                self._failed(job, one_line(error), "program")
            except (ValueError, OSError) as error:
                full = isinstance(error, OSError) and error.errno in FULL
                self._failed(job, one_line(error), "program" if full else "request")
            except Exception as error:
                traceback.print_exc()
                memory = "not enough memory" in str(error) or "out of memory" in str(error)
                told = "not enough memory: take a smaller size or model"
                self._failed(job, told if memory else f"a fault: {one_line(error)}", "program")
        if (folder := self._folder(job)).exists():
            shutil.rmtree(folder, ignore_errors=True)

    def _failed(self, job: Row[Any], why: str, fault: Any) -> None:
        # it may quote a stranger's file, and no database takes everything; nobody's business is
        # where that lies here
        for folder in (self._folder(job), *self.places.models, self.places.data):
            why = why.replace(f"{folder}{os.sep}", "")
        why = "".join(c if c.isprintable() else "�" for c in why)[:_MOST_WHY]
        ended = _surely(partial(queue.fail, self.engine, job, why, fault))
        self.voice.say(job=job.id, state="failed" if ended else "gone", error=why)

    def _folder(self, job: Row[Any]) -> Path:
        return self.places.work(self.name) / str(job.id)

    def _standing(self, job: Row[Any], names: tuple[str, ...]) -> Path:
        """The folder of a job, with its input pictures under the names that its options say; where
        it has none, it is not made."""
        folder = self._folder(job)
        if not names:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in names:
            self.store.link(name, folder / name)
        return folder

    def options(self, job: Row[Any], wish: dict[str, Any]) -> argparse.Namespace:
        """The command line of a wish, with its files found in the server's folders only."""
        folder = self._standing(job, tuple(wish.get("pictures", ())))
        places = {
            "lora-dir": self.places.one_of("loras"),
            "embedding-dir": self.places.one_of("embeddings"),
            "wildcards": self.places.one_of("wildcards"),
        }
        given = {name: str(path) for name, path in places.items()}
        if self.device is not None:
            given["device"] = self.device
        recipe = Recipe(wish["options"], ())
        args = followed(recipe, folder / "wish", given, parse, self.places.sought())
        args.recipe, args.quiet, args.preview = None, True, False
        return args

    def generate(self, job: Row[Any], attempt: Attempt) -> dict[str, Any] | None:
        """Make the pictures of a job, each into the store as soon as it is there; with the last
        one it is done.

        Its result are the seconds that `mezzotint generate` takes too: until a file is there."""
        wish = json.loads(job.wish)
        args = self.options(job, wish)
        begin(args)
        how, kind = signing(args), FORMATS[wish["format"]]
        attempt.check()
        left = sorted(set(range(job.pictures)) - _surely(partial(queue.places, self.engine, job)))
        self.meter.take()  # what was spent since the last job is not this one's
        shares = Shares(self.meter, max(len(left), 1), chosen())
        used = Used(args, self.held.known(args))
        if args.commercial:
            check_licences(args, used, tuple(args.seed + place for place in left))
        model = self.held.of(args)
        attempt.check()
        spent = 0.0
        for place in left:
            listener, began = attempt.listen(place, job.pictures), time.perf_counter()
            made = next(iter(making(args, model, (args.seed + place,), used, listener, shares)))
            attempt.check()
            file = self._stored(job, place, made, kind, how, wish.get("quality"))
            spent += time.perf_counter() - began
            result = {"seconds": round(spent - attempt.telling, 4)}
            self._keep(job, place, file, result if place == left[-1] else None)
        return None if left else {"seconds": 0.0}

    def _stored(
        self,
        job: Row[Any],
        place: int,
        made: Made,
        kind: str,
        how: Signing | None,
        quality: int | None = None,
    ) -> _File:
        """A picture as a file in the store."""
        title = f"{job.id}-{place}.{kind.lower()}"  # in its credentials
        data, document = sealed(made, kind, title, how, quality)
        return _File(made, self.store.put(data), MIMES[kind], len(data), document)

    def _keep(
        self, job: Row[Any], place: int, file: _File, result: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Enter a stored picture; result: of the last one, with which the job is done.

        Raises:
            Gone: the job is not this attempt's any more.
        """
        made, name, document = file.made, file.name, file.document
        about = queue.Made(
            place=place,
            file=name,
            kind=file.kind,
            bytes=file.bytes,
            width=made.image.width,
            height=made.image.height,
            seed=made.seed if "seed" in document or "options" in document else None,
            model=made.model,
            prompt=str(document.get("prompt", "")),
            licence=made.licence,
            recipe=json.dumps(document),
            seen=looking.sight(made.image),
        )
        entered = _surely(partial(queue.keep, self.engine, job, about, result))
        if entered is None:
            if not _surely(partial(uses.is_used, self.engine, name)):
                self.store.drop(name)
            raise Gone
        self.voice.say(job=job.id, attempt=job.attempt, place=place, output=entered, file=name)
        return _result(entered, name, file.kind)

    def verify(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        path = self._seen(job)
        theirs = self._theirs(job)
        return looking.verify(path, self.store, theirs, self.places, self.held, self.device)

    def detect(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        return looking.detect(self._seen(job), self.places, self.held, self.device)

    def recipe(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        return looking.recipe(self._seen(job), self._theirs(job))

    def credentials(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        return looking.credentials(self._seen(job))

    def export(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        return looking.export(self._seen(job), json.loads(job.wish)["format"], self.store)

    def see(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        return looking.see(self._seen(job))

    def cutout(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        path = self._seen(job)
        if (there := self._made_before(job)) is not None:
            return there
        made, how = derived.cut(path), derived.signing_cut(path, configured())
        attempt.check()
        return self._keep(job, 0, self._stored(job, 0, made, "PNG", how))

    def composite(self, job: Row[Any], attempt: Attempt) -> dict[str, Any]:
        if (there := self._made_before(job)) is not None:
            return there
        wish = json.loads(job.wish)
        folder, kind = self._standing(job, tuple(wish["pictures"])), FORMATS[wish["format"]]
        layers = [derived.Layer(folder / file, name) for file, name in wish["layers"]]
        made = derived.composed(folder / wish["file"], wish["name"], layers, wish["lost"])
        how = derived.signing_composed(layers, configured())
        attempt.check()
        file = self._stored(job, 0, made, kind, how)
        return self._keep(job, 0, file) if wish["keep"] else {"file": file.name, "type": file.kind}

    def _made_before(self, job: Row[Any]) -> dict[str, Any] | None:
        """What an earlier attempt has made of a job of one picture."""
        made = _surely(partial(gallery.outputs_by_job, self.engine, [job.id]))
        found = made[job.id]
        return _result(found[0].id, found[0].file, found[0].kind) if found else None

    def _theirs(self, job: Row[Any]) -> looking.Theirs:
        """Which pictures are of the one who asks, or all for who sees everybody's: a stranger's
        recipe may name any."""
        sees = json.loads(job.wish).get("sees", job.owner)

        def theirs(file: str) -> bool:
            look = partial(gallery.file_of, self.engine, file, sees)
            return is_name(file) and _surely(look) is not None

        return theirs

    def _seen(self, job: Row[Any]) -> Path:
        """The picture that a job looks at."""
        (name,) = json.loads(job.wish)["pictures"]
        return self._standing(job, (name,)) / name


def _result(output: str, file: str, kind: str) -> dict[str, Any]:
    """What is told of a picture to whoever waits for it."""
    return {"output": output, "file": file, "type": kind}


KINDS = {
    "generate": Worker.generate,
    "verify": Worker.verify,
    "detect": Worker.detect,
    "recipe": Worker.recipe,
    "credentials": Worker.credentials,
    "export": Worker.export,
    "see": Worker.see,
    "cutout": Worker.cutout,
    "composite": Worker.composite,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="a worker of the server, which starts it")
    parser.add_argument("--database", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, action="append", default=[])
    parser.add_argument("--name", required=True)
    parser.add_argument("--device")
    parser.add_argument("--memory", type=parse_memory)
    parser.add_argument("--idle", type=float, default=0.0)
    args = parser.parse_args()
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints, prints there
    places = Places(args.data, tuple(args.models))
    folder = places.work(args.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)  # a name without a folder is one of its own files
    voice = Voice(told)
    engine = tables.connect(args.database)
    worker = Worker(engine, Store(places.files), places, args.name, voice)
    worker.device, worker.held = args.device, Held(args.memory)
    worker.meter.watch(device(args.device))
    threading.Thread(target=worker.hear, args=(sys.stdin,), daemon=True).start()
    worker.greet()
    gc.freeze()  # what is here stays: looking for it again takes time from a job
    worker.work(args.idle)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # the thread that hears cannot be waited for


if __name__ == "__main__":
    main()
