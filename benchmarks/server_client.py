"""A small client of the server for measurements: its own time is in what is measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit


class Client:
    """One connection of HTTP/1.1 that is kept."""

    def __init__(self, base: str, token: str = "") -> None:
        at = urlsplit(base)
        self._host, self._port, self._token = at.hostname or "", at.port or 80, token
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe[1].close()
            self._pipe = None

    async def _sent(self, method: str, path: str, body: bytes, kind: str) -> asyncio.StreamReader:
        if self._pipe is None:
            self._pipe = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        reader, writer = self._pipe
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}:{self._port}"]
        lines += [f"content-length: {len(body)}"] if body else []
        lines += [f"content-type: {kind}"] if kind else []
        lines += [f"authorization: Bearer {self._token}"] if self._token else []
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return reader

    async def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = ""
    ) -> tuple[int, AsyncIterator[bytes]]:
        """The status of an answer, and its body in the parts in which it comes."""
        for attempt in (0, 1):
            reader = await self._sent(method, path, body, kind)
            first = await reader.readline()
            if first or attempt:
                break
            self.close()  # a kept connection that the server has given up
        headers: dict[str, str] = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(first.split()[1]), self._parts(reader, headers)

    async def _parts(
        self, reader: asyncio.StreamReader, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        if "content-length" in headers:
            yield await reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()

    async def whole(self, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        _, parts = await self.ask(method, path, body, kind)
        return b"".join([part async for part in parts])

    async def json(self, method: str, path: str, body: object = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads(await self.whole(method, path, data, "application/json" if data else ""))

    async def ended(self, job: str) -> str | None:
        """Follow a job as `mezzotint generate --server` does; the last picture that was told."""
        _, parts = await self.ask("GET", f"/v1/jobs/{job}/events?previews=false")
        output, text = None, b""
        async for part in parts:
            text += part
            *events, text = text.split(b"\n\n")
            for event in events:
                if event.startswith(b"event: output"):
                    output = json.loads(event.partition(b"data: ")[2])["output"]
        return output

    async def picture(self, wish: Mapping[str, Any]) -> str:
        """Ask for a picture and have its bytes; the job's id."""
        job = (await self.json("POST", "/v1/jobs", wish))["id"]
        output = await self.ended(job)
        if output is None:  # it was done before anybody followed it
            output = (await self.json("GET", f"/v1/jobs/{job}"))["outputs"][0]["id"]
        assert (await self.whole("GET", f"/v1/outputs/{output}/file")).startswith(b"\x89PNG")
        return job


@asynccontextmanager
async def clients(base: str, count: int) -> AsyncIterator[list[Client]]:
    found = [Client(base) for _ in range(count)]
    try:
        yield found
    finally:
        for each in found:
            each.close()
