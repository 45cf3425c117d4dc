"""A real server with a real worker, for tests: started as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

WAIT = 60.0


class Serving:
    """A running server: its process, address and folder."""

    def __init__(
        self, folder: Path, options: Sequence[str] = (), within: Sequence[str] = ()
    ) -> None:
        """within: a command that is to run the server's."""
        folder.mkdir(exist_ok=True)
        self.folder, self._options, self._within = folder, options, within
        self.env = os.environ | {"MEZZOTINT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes]
        self.base = ""

    def start(self, wait: bool = True) -> None:
        """Start it at a free port; wait: until a worker is there."""
        command = [*self._within, sys.executable, "-m", "mezzotint", "serve"]
        command += ["--data", str(self.data)]
        command += ["--port", "0", "--device", "cpu", *self._options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=self.env
            )
        assert self.process.stdout is not None
        with self.process.stdout as said:
            line = said.readline().decode()
        found = re.search(r"http://\S+", line)
        assert found is not None, self.log.read_text()
        self.base = found[0].rstrip("/")
        if wait:
            httpx.get(f"{self.base}/")  # workers rest until somebody is there
            self.until(lambda: httpx.get(f"{self.base}/v1/health").json()["ready"])

    def until(self, holds: object, seconds: float = WAIT) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not holds():  # type: ignore[operator]
            assert time.monotonic() < end, f"it took too long; {self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut ends it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Serving]:
    """A server that is stopped at the end."""
    server = Serving(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
