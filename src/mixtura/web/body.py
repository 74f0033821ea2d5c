"""The body of a request, read whole before anything is done with it: counted, timed, and bounded for all together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive

from mixtura.web.problems import Refusal, busy
from mixtura.web.request_info import RequestInfo
from mixtura.web.settings import Settings

MAX_JSON_VALUES = 20_000
"""Commas, colons and brackets in a body of JSON, at most: a photo has none of them, and a reader of JSON needs a
hundred times the memory and the time for a body that is made of them."""


class ClientDisconnected(Exception):
    """The client has closed the connection; nobody waits for an answer."""


class BodyReader:
    """Reads bodies; ``held`` counts the bytes of all that are being read or worked on."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.held = settings, 0

    @asynccontextmanager
    async def read(self, receive: Receive, request: RequestInfo, limit: int) -> AsyncIterator[Receive]:
        """A ``receive`` that gives the whole body at once.

        Args:
            receive: where it comes from.
            request: what its head has said.
            limit: bytes it may have.

        Raises:
            Refusal: 413 above the limit, 408 below the slowest rate, 422 for too many values, 503 while too much is
                held.
            ClientDisconnected: the client has left.
        """
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        body, more = bytearray(), True
        began = asyncio.get_running_loop().time()
        try:
            while more:
                allowed = self._settings.body_grace + len(body) / self._settings.min_body_rate
                chunk, more = await _chunk(receive, began + allowed)
                self.held += len(chunk)
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
                if self.held > self._settings.held_bytes:
                    raise busy("Too much is being uploaded. Retry in a few seconds.", 5)
            if request.content_type == "application/json" and sum(map(body.count, b",:[{")) > MAX_JSON_VALUES:
                raise Refusal(422, f"The JSON holds more than {MAX_JSON_VALUES} values. Send fewer at a time.")
            yield _replay(bytes(body), receive)
        finally:
            self.held -= len(body)


async def _chunk(receive: Receive, deadline: float) -> tuple[bytes, bool]:
    """The next piece of a body, and whether more will follow."""
    try:
        async with asyncio.timeout_at(deadline):
            message = await receive()
    except TimeoutError:
        raise Refusal(408, "The body arrived too slowly. Send it again.") from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    return message.get("body", b""), message.get("more_body", False)


def _too_large(limit: int) -> Refusal:
    size = f"{limit / 2**20:g} MiB" if limit >= 2**20 else f"{limit / 2**10:g} KiB"
    return Refusal(413, f"The body exceeds {size}, the limit here. Send smaller or fewer photos.")


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()  # nothing but the end of the connection can come
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
