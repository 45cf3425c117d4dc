"""`mezzotint studio`: the server, with its page opened in the browser."""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import time
import webbrowser

from mezzotint.apps.server import run as server

_PATIENCE = 60.0


def _address(args: argparse.Namespace) -> str:
    host = "localhost" if args.host in ("0.0.0.0", "::", "127.0.0.1", "::1") else args.host
    return f"http://{host}:{args.port}/"


def _opened(args: argparse.Namespace, over: threading.Event) -> None:
    """A thread's: open the page as soon as somebody answers, and say where it is."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and not over.wait(0.1):
        try:
            socket.create_connection((args.host, args.port), 1.0).close()
        except OSError:
            continue
        print(f"the studio is at {_address(args)} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if args.browser:
            webbrowser.open(_address(args))
        return


def run(args: argparse.Namespace) -> int:
    """Serve the studio until it is stopped.

    Raises:
        UsageError, DatabaseError: as `mezzotint serve`.
    """
    over = threading.Event()
    threading.Thread(target=_opened, args=(args, over), daemon=True).start()
    try:
        return server.run(args)
    finally:
        over.set()
