"""One connection of uvicorn, with deadlines: nobody holds a place by being slow, and nobody keeps others out.

uvicorn closes a connection that is idle after an answer, but waits forever for a first request, for the rest of a
head, and for a client that does not read.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""Until the head of a request is complete, from the opening of the connection or the end of the answer before."""

REQUEST_SECONDS = 40.0
"""Until a request is answered and the answer taken; longer than the service gives itself."""

MOST = 512
"""Open connections; beyond, the one that has let us wait longest makes room."""

_BAD_REQUEST = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "This is not a request in HTTP, or its head is too long.",
}


class Connection(H11Protocol):
    """The same with deadlines and at most ``most`` at a time."""

    head_seconds, request_seconds, most = HEAD_SECONDS, REQUEST_SECONDS, MOST

    def connection_made(self, transport: Any) -> None:
        """Start the first deadline; make room if there is none."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._last: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._within(self.head_seconds)
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._clear()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Give a request that has just begun its own deadline."""
        super().handle_events()
        if self.cycle is not self._last:
            self._last = self.cycle
            self._within(self.request_seconds)

    def on_response_complete(self) -> None:
        """Wait for the next request, but not forever."""
        self.since = self.loop.time()
        self._within(self.timeout_keep_alive + self.head_seconds)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request in the form of all errors."""
        body = json.dumps(_BAD_REQUEST).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        waiting = sorted((other for other in others if other.waits), key=lambda other: other.since)
        for other in [*waiting, self][:1]:
            self.connections.discard(other)
            other.transport.abort()

    def _within(self, seconds: float) -> None:
        self._clear()
        if not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _clear(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
