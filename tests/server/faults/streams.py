"""Many clients who follow events: raw connections, each for some kilobytes of memory."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

_MOST = 256 << 10
"""Bytes after which a client reads no more, and does not go."""


def raise_limit(files: int) -> None:
    """Let this process, and those that it starts, have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        assert hard == resource.RLIM_INFINITY or hard >= files, f"only {hard} files may be open"
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


class Stream:
    """A connection on which one request was sent, and what has come on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.got, self.ended = bytearray(), asyncio.Event()
        self._reads = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, base: str, request: str, body: bytes = b"", whole: int = 0) -> Self:
        """Send a request, such as ``GET /v1/events``, with the beginning of a body of so many
        bytes."""
        place = urlsplit(base)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        lines = [f"{request} HTTP/1.1", f"host: {place.netloc}", f"content-length: {whole}"]
        writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        return cls(reader, writer)

    async def _read(self) -> None:
        try:
            while len(self.got) < _MOST:
                if not (data := await self._reader.read(1 << 14)):
                    self.ended.set()
                    return
                self.got += data
        except OSError:
            self.ended.set()

    async def until(self, text: bytes, seconds: float = 60.0) -> bool:
        """Wait until something has come; whether it has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while text not in self.got and not self.ended.is_set():
                    await asyncio.sleep(0.02)
        return text in self.got

    async def close(self, rudely: bool) -> None:
        """Go; rudely: as a machine goes that was switched off (RST)."""
        self._reads.cancel()
        if rudely:
            there = self._writer.get_extra_info("socket")
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def open_all(
    base: str, requests: list[str], body: bytes = b"", whole: int = 0
) -> list[Stream]:
    """A stream for each request, so many at a time as a server lets wait."""
    found: list[Stream] = []
    for n in range(0, len(requests), 50):
        these = (Stream.open(base, request, body, whole) for request in requests[n : n + 50])
        found += await asyncio.gather(*these)
    return found


def files_of(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def seconds_of(pid: int) -> float:
    """Seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
