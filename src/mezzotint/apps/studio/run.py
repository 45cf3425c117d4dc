"""`mezzotint studio`: the server, with its page opened in the browser."""

from __future__ import annotations

import argparse
import socket
import threading
import time
import webbrowser
from urllib.parse import urlsplit

from mezzotint.apps.server import run as server

_PATIENCE = 60.0


def _opened(address: str) -> None:
    """A thread's: open the page as soon as somebody answers there."""
    at = urlsplit(address)
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            socket.create_connection((at.hostname or "", at.port or 80), 1.0).close()
        except OSError:
            time.sleep(0.1)
            continue
        webbrowser.open(address)
        return


def run(args: argparse.Namespace) -> int:
    """Serve the studio until it is stopped.

    Raises:
        UsageError, DatabaseError: as `mezzotint serve`.
    """

    def told(address: str) -> None:
        if args.browser:
            threading.Thread(target=_opened, args=(address,), daemon=True).start()

    return server.run(args, told)
