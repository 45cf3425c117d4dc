"""`mezzotint serve`: the server, until it is stopped."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType

from mezzotint.apps.errors import UsageError
from mezzotint.apps.server import queue, recovery, tables, tokens
from mezzotint.apps.server.application import Settings, build, has_tokens
from mezzotint.apps.server.guard import App
from mezzotint.apps.server.hub import Hub
from mezzotint.apps.server.places import Places
from mezzotint.apps.table import columns
from mezzotint.provenance.identity import configuration_folder


def _data(given: Path | None) -> Path:
    """The folder of the server's data, which is made.

    Raises:
        UsageError: it cannot be.
    """
    folder = (configuration_folder() / "studio" if given is None else given).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"no folder {folder}: {(error.strerror or '').lower()}: --data") from None
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One server a folder, which the lock of a dead one does not hinder."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"a server runs in {folder} already: --data names another") from None
        yield


def _database(args: argparse.Namespace, folder: Path) -> str:
    given = args.database or os.environ.get("MEZZOTINT_DATABASE")
    return given or tables.of_file(Places(folder).database)


def run_token(args: argparse.Namespace) -> int:
    """Make a token, list them, or end one."""
    engine = tables.connect(_database(args, _data(args.data)))
    if args.action == "list":
        rows = [("name", "scopes", "jobs", "")]
        for each in tokens.listed(engine):
            ended = "revoked" if each.revoked is not None else ""
            rows.append((each.name, each.scopes, str(each.jobs or ""), ended))
        print(columns(rows))
        return 0
    if args.name is None:
        raise UsageError(f"token {args.action} needs a name: whom it is for")
    if args.action == "add":
        print(tokens.add(engine, args.name, args.scopes, args.jobs))
        print("it is not shown again: Authorization: Bearer …", file=sys.stderr)
    else:
        tokens.revoke(engine, args.name)
    return 0


def run(args: argparse.Namespace, told: Callable[[str], None] = lambda address: None) -> int:
    """Serve until it is stopped; told: is called with the address once it is known."""
    import uvicorn

    _keep_little()
    folder = _data(args.data)
    places = Places(folder, tuple(args.models) or (folder / "models",))
    with _alone(folder):
        address = _database(args, folder)
        engine = tables.connect(address)
        public = args.host not in ("localhost", "127.0.0.1", "::1")
        if public and not has_tokens(engine):
            raise UsageError(
                f"{args.host} can be reached from elsewhere, so a token is needed: make one with "
                "mezzotint token add NAME"
            )
        recovery.started(engine, places)
        settings = Settings(
            places=places,
            address=address,
            hosts=(args.host, *args.host_name),
            origins=args.origin,
            devices=tuple(args.device) or (None,),
            memory=args.memory,
            idle=args.idle,
            limits=queue.Limits(args.most_jobs),
            tokens_needed=public or args.token,
            aliases=dict(args.alias),
        )
        app, hub = build(engine, settings)
        _serve(uvicorn, app, hub, (args.host, args.port), told)
    return 0


def _keep_little() -> None:
    """Have glibc give large blocks back when they are free, and share what it keeps among threads:
    bodies of some megabytes would leave the server as large as all of them together were."""
    if os.name == "nt":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mmap_threshold, arena_max = -3, -8  # as malloc.h has them
        mallopt(mmap_threshold, 128 << 10)
        mallopt(arena_max, 2)


def _serve(
    uvicorn: ModuleType,
    app: App,
    hub: Hub,
    place: tuple[str, int],
    told: Callable[[str], None],
) -> None:
    """Listen, say where, and answer until a signal comes."""
    from mezzotint.apps.server.connections import Connection

    host, port = place
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where it sees the protocol, and 40 ms late elsewhere
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listens:
        listens.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listens.bind((host, port))
            listens.listen()  # who comes from now on waits, and is not sent away
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(f"cannot listen at {host}:{port}: {reason}: --port") from None
        at = listens.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(f"serving at http://{shown}:{at}/", flush=True)
        told(f"http://{shown}:{at}/")
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=10,
            timeout_keep_alive=20,
            h11_max_incomplete_event_size=64 << 10,
        )
        server = uvicorn.Server(config)
        stop = server.handle_exit

        def handle_exit(number: int, frame: FrameType | None) -> None:
            hub.close()  # those who follow jobs would keep it from stopping
            stop(number, frame)

        server.handle_exit = handle_exit
        gc.freeze()  # what is here stays: looking for it again takes time from a request
        server.run([listens])
