"""`mezzotint generate --server` and `mezzotint queue`: a server does the work.

Only the standard library speaks to it, and only to the address that is given.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from mezzotint.apps.errors import UsageError
from mezzotint.apps.table import columns

TOKEN = "MEZZOTINT_TOKEN"
_HERE = ("output", "quiet", "preview", "server", "count")
"""Options that stay on this side."""
_NOT_THERE = ("from", "pick", "lora-dir", "embedding-dir", "wildcards", "mark-key", "sidecar")
_SECONDS = 30.0


class Server:
    """A server at an address, asked with the token of the environment."""

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"{address!r} is no address of a server: http://HOST:PORT")
        self.address = address.rstrip("/")

    @contextmanager
    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> Iterator[HTTPResponse]:
        """An answer.

        Raises:
            UsageError: nobody is there, or it refuses; with what it says.
        """
        asked = urllib.request.Request(self.address + path, body, method=method)
        asked.add_header("Content-Type", kind)
        if token := os.environ.get(TOKEN):
            asked.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise UsageError(f"{self.address}: {_refused(error)}") from None
        except urllib.error.URLError as error:
            reason = getattr(error.reason, "strerror", None) or str(error.reason)
            raise UsageError(f"no server at {self.address}: {reason.lower()}") from None
        except (TimeoutError, HTTPException, ConnectionError) as error:
            raise UsageError(f"{self.address}: the answer broke off: {error}") from None

    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with self.ask(method, path, data) as answer:
            try:
                return json.load(answer)
            except ValueError:
                raise UsageError(f"{self.address}: is no server of mezzotint") from None

    def events(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens to a job, until it ends; no previews, which nobody sees here."""
        kind = ""
        with self.ask("GET", f"/v1/jobs/{name}/events?previews=false") as answer:
            for line in io.TextIOWrapper(answer, "utf-8"):
                if line.startswith("event: "):
                    kind = line[7:].strip()
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])

    def upload(self, path: Path) -> str:
        """The id of a picture that is given to it."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None
        with self.ask("POST", "/v1/uploads", data, "application/octet-stream") as answer:
            return json.load(answer)["id"]


def _refused(error: urllib.error.HTTPError) -> str:
    """What a server says, in one line."""
    try:
        said = json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = f"{error.code} {error.reason}"
    if error.code == 401:
        said += f" (here: {TOKEN}=…)"
    return " ".join(str(said).split())


def _wish(args: argparse.Namespace, server: Server) -> dict[str, Any]:
    """What was typed, with its pictures given to the server."""
    from mezzotint.apps.server.wish import PICTURES

    typed: Mapping[str, Any] = args.typed
    for name in _NOT_THERE:
        if name in typed or (name == "from" and args.source is not None):
            raise UsageError(f"--{name} does not go together with --server")
    wish = {name: value for name, value in typed.items() if name not in _HERE}
    for name in PICTURES:
        if name in wish:
            wish[name] = server.upload(Path(wish[name]))
    return {**wish, "count": args.count}


def run(args: argparse.Namespace) -> int:
    """Have a server make the pictures, and write them here."""
    from mezzotint.apps.output import prepare
    from mezzotint.files import atomic_write

    server = Server(args.server)
    output = prepare(args.output, args.prompt, args.count)
    ends = {".png": "png", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}
    form = ends.get(output.suffix.lower(), "jpeg")
    job = server.json("POST", "/v1/jobs", {**_wish(args, server), "format": form})
    try:
        for kind, told in server.events(job["id"]):
            if kind == "output":
                made = server.json("GET", f"/v1/outputs/{told['output']}")
                path = output.picture(int(made["seed"]))
                with server.ask("GET", made["url"]) as answer, atomic_write(path) as file:
                    file.write(answer.read())
                print(path, flush=True)
            elif not args.quiet and told.get("steps"):
                _shown(told)
    except KeyboardInterrupt:
        server.json("DELETE", f"/v1/jobs/{job['id']}")
        raise
    end = server.json("GET", f"/v1/jobs/{job['id']}")
    if end["state"] != "done":
        error = end["error"] or {"message": f"the job was {end['state']}"}
        raise UsageError(f"{server.address}: {error['message']}")
    return 0


def _shown(told: Mapping[str, Any]) -> None:
    if sys.stderr.isatty():
        end = "\n" if told["step"] == told["steps"] else ""
        print(f"\r{told['step']}/{told['steps']} steps", end=end, file=sys.stderr, flush=True)


def run_queue(args: argparse.Namespace) -> int:
    """Show the jobs of a server, cancel one, or let one go first."""
    server = Server(args.server)
    if args.cancel is not None:
        job = server.json("DELETE", f"/v1/jobs/{args.cancel}")
        print(f"{job['id']}: {job['state']}")
        return 0
    if args.priority is not None:
        name, priority = args.priority
        job = server.json("PATCH", f"/v1/jobs/{name}", {"priority": int(priority)})
        print(f"{job['id']}: priority {job['priority']}")
        return 0
    jobs = server.json("GET", f"/v1/jobs?limit={args.most}")["jobs"]
    rows = [("job", "state", "pictures", "steps", "owner", "")]
    for job in jobs:
        made = f"{len(job['outputs'])}/{job['count']}"
        steps = f"{job['step']}/{job['steps']}"
        asked = job["asked"] or {}
        said = job["error"]["message"] if job["error"] else asked.get("prompt", job["kind"])
        rows.append((job["id"], job["state"], made, steps, job["owner"], said[:60]))
    print(columns(rows))
    return 0
