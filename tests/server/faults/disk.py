"""A disk that is full: a small file system of its own, in a user namespace of the server's.  Linux
only; nothing is left of it when the server has ended."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
from PIL import Image

from faults import Found, Setup, setup, until
from mezzotint.apps.server.store import SPARE

_SIZE = SPARE + (160 << 20)
_WITHIN = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$0" && shift && exec "$@"'


def is_possible() -> bool:
    """Whether file systems may be made in a namespace here."""
    try:
        command = [*_WITHIN, _MOUNT, "/mnt", "1m", "true"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


class _Disk:
    """The server's disk, seen from outside of its namespace."""

    def __init__(self, at: Setup) -> None:
        self.data = Path(f"/proc/{at.server.process.pid}/root{at.server.data}")
        self._ballast = self.data / "ballast"

    def fill(self, left: int) -> None:
        """Fill it but for so many bytes."""
        free = os.statvfs(self.data)
        size = free.f_bavail * free.f_frsize - left
        with self._ballast.open("ab", buffering=0) as file:
            try:
                for piece in [b"\0" * (1 << 20)] * (size >> 20) + [b"\0" * 4096] * 300:
                    if left and file.tell() >= size:
                        break
                    file.write(piece)
            except OSError:
                pass  # to the last byte

    def free(self) -> None:
        self._ballast.unlink()


def _png(edge: int) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((edge, edge), 100).save(data, "PNG")
    return data.getvalue()


def _upload(at: Setup, edge: int = 64) -> httpx.Response:
    return at.client.post(f"{at.server.base}/v1/uploads", content=_png(edge))


def _halves(disk: _Disk) -> int:
    return sum(path.name.startswith(".") for path in (disk.data / "files").rglob("*"))


def full(folder: Path) -> Iterator[Found]:
    """Nearly full, then filled to the last byte in the middle of a job, then free again."""
    data = folder / "data"
    data.mkdir(parents=True)
    within = (*_WITHIN, _MOUNT, str(data), str(_SIZE))
    with setup(folder, within=within) as at:
        at.server.start()
        disk = _Disk(at)
        first = at.done(at.job())
        disk.fill(SPARE // 2)
        answers = [at.ask(), _upload(at)]
        reads = at.client.get(at.server.base + first["outputs"][0]["url"])
        waiting = at.waiting()
        yield Found(
            "a disk that is nearly full",
            f"jobs and uploads are answered {_codes(answers)}, pictures {reads.status_code}; "
            f"{waiting} jobs wait",
            [a.status_code for a in answers] == [507] * 2
            and reads.status_code == 200 == 200
            and not waiting,
        )
        disk.free()
        job = at.job(count=64, steps=200)
        at.server.until(lambda: at.get(f"jobs/{job}")["outputs"])
        disk.fill(0)
        state = at.get(f"jobs/{job}")["state"]
        full = [at.ask(), _upload(at)]
        until(lambda: "disk is full" in at.server.log.read_text(), 10)  # that of the database
        reads = at.client.get(at.server.base + first["outputs"][0]["url"])
        halves = _halves(disk)
        disk.free()
        ended = at.done(job)
        after = at.done(at.job(seed=3))
        right = _right(at, ended)
        yield Found(
            "filled to the last byte in the middle of a job",
            f"new jobs {_codes(full)}, pictures {reads.status_code}; the job {ended['state']} "
            f"after {len(ended['outputs'])} pictures, all whole: {_why(ended)}; "
            f"{halves} half-written; freed, the next job is {after['state']}",
            state == "running"
            and [a.status_code for a in full] == [507] * 2
            and reads.status_code == 200
            and not halves
            and right
            and ended["state"] in ("failed", "done")
            and after["state"] == "done",
        )


def _codes(answers: list[httpx.Response]) -> str:
    return ", ".join(str(code) for code in dict.fromkeys(a.status_code for a in answers))


def _why(job: dict[str, object]) -> str:
    error = job["error"]
    return str(error["message"]).partition(": ")[2] if isinstance(error, dict) else "no error"


def _right(at: Setup, job: dict[str, object]) -> bool:
    """Whether all pictures of a job can be opened."""
    outputs = job["outputs"]
    assert isinstance(outputs, list)
    for output in outputs:
        answer = at.client.get(at.server.base + output["url"])
        Image.open(io.BytesIO(answer.content)).load()
    return True
