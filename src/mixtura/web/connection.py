"""One connection of uvicorn, with deadlines and a limit, so that silent and slow clients keep nobody out.

uvicorn has a timeout for connections that are idle after an answer, but none for the first request, the rest of a head,
or a client that does not read; an ASGI app sees no connection before its head is complete. Measured against a server
that may open 1,024 files (uvicorn 0.54, whose subclass this is for want of a setting):

- 1,200 connections that send nothing or half a head: uvicorn by itself answers nobody else for as long as they stay
  (a minute, when the test ended), and with ``limit_concurrency`` neither; here others are answered in 0.05 s, and all
  silent ones are closed within 26 s.
- 50 clients that send requests and read no answer: uvicorn holds all 50 after a minute, here none is left.
"""

import asyncio
import secrets
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from mixtura.web.problems import Refusal, response

HEAD_SECONDS = 10.0
"""Until the head of a request is complete, from the opening of the connection or the end of the answer before."""

REQUEST_SECONDS = 40.0
"""Until a request is answered and its answer read; longer than the service gives itself."""

MAX_CONNECTIONS = 512
"""Open connections; beyond, the one whose client has been silent for longest is closed."""


class Connection(H11Protocol):
    """uvicorn's protocol with deadlines, and at most ``max_connections`` at a time."""

    head_seconds, request_seconds, max_connections = HEAD_SECONDS, REQUEST_SECONDS, MAX_CONNECTIONS

    def connection_made(self, transport: Any) -> None:
        """Start the first deadline; close a silent connection if there are too many."""
        super().connection_made(transport)
        self.silent_since = self.loop.time()
        self._last_cycle: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._set_deadline(self.head_seconds)
        if len(self.connections) > self.max_connections:
            self._close_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._clear_deadline()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Give a request that has just begun its own deadline."""
        super().handle_events()
        if self.cycle is not self._last_cycle:
            self._last_cycle = self.cycle
            self._set_deadline(self.request_seconds)

    def on_response_complete(self) -> None:
        """Wait for the next request, but not forever."""
        self.silent_since = self.loop.time()
        self._set_deadline(self.timeout_keep_alive + self.head_seconds)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not a request in the form of all errors."""
        refused = Refusal(400, "This is not an HTTP request, or its head is too long.", {"Connection": "close"})
        answer = response(refused, "", secrets.token_hex(8))
        head = [b"HTTP/1.1 400 Bad Request", *(b": ".join(pair) for pair in answer.raw_headers), b"\r\n"]
        self.transport.write(b"\r\n".join(head) + bytes(answer.body))
        self.transport.close()

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _close_silent(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        waiting = sorted((other for other in others if other.waits_for_client), key=lambda other: other.silent_since)
        for other in [*waiting, self][:1]:
            self.connections.discard(other)
            other.transport.abort()

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        if not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
