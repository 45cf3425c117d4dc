"""Connections of HTTP/1.1 that wait for nobody for ever.

uvicorn's wait without an end for a request's head, for the rest of a body that nobody reads any
more, and for a client that does not take its answer; each holds a socket, and there are as many as
the system has.  What a request's body may take, guard.py says.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""From the last answer, or from the beginning, until the next request's head is there."""
TAKE_SECONDS = 60.0
"""In so long a client must take something of its answer."""


class Connection(H11Protocol):
    """One with deadlines; it makes no sockets of WebSocket."""

    _head: asyncio.TimerHandle | None = None
    _take: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # no request any more, in the middle of an answer
            self.transport.abort()
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._take):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        """Set the deadline where no request is being answered, and only then."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._head is not None:
            self._head.cancel()
            self._head = None
        elif not answering and self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(HEAD_SECONDS, self._end)

    def _end(self) -> None:
        self.transport.close()  # after what is still to be sent
        self._await_taking()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._take is not None:
            self._take.cancel()
            self._take = None

    def _await_taking(self, before: int | None = None) -> None:
        """End a connection of which nothing was taken since it was looked at."""
        left = self.transport.get_write_buffer_size()
        if left and left == before:
            self.transport.abort()
        elif left:
            self._take = self.loop.call_later(TAKE_SECONDS, self._await_taking, left)
