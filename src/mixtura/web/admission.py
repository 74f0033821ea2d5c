"""How many photos are in work at once, and who waits for a slot."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mixtura.web.problems import Refusal, busy

OVERLOAD_MEMORY = 0.4  # seconds
OVERLOAD_ABOVE, OVERLOAD_BELOW = 0.6, 0.3
"""The share of time without a free slot above which an overload begins, and below which it ends."""


class AdmissionQueue:
    """Slots for photos in work, given in the order in which they are asked for.

    A short rush may wait. In an overload, where somebody had to wait most of the time lately, waiting would only make
    every answer late: then there are only ``overload_slots``, other requests are refused almost at once, and those
    that are admitted are answered soon. It ends when these slots were free most of the time.

    Args:
        slots: photos that may be in work.
        max_wait: seconds that a request waits for its slots.
        overload_max_wait: the same in an overload.
        overload_slots: photos that may be in work in an overload.
    """

    def __init__(self, slots: int, max_wait: float, overload_max_wait: float, overload_slots: int) -> None:
        self.slots, self.overload_slots, self.taken = slots, overload_slots, 0
        self._max_wait, self._overload_max_wait = max_wait, overload_max_wait
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._overloaded, self._full, self._full_share, self._updated = False, False, 0.0, 0.0

    @asynccontextmanager
    async def admit(self, count: int, continues: bool = False) -> AsyncIterator[None]:
        """Slots for ``count`` photos, at most :attr:`slots`; a request that ``continues`` waits as long as it takes.

        Raises:
            Refusal: 503 if there are none in time.
        """
        await self._wait(count, None if continues else self._allowed_wait())
        try:
            yield
        finally:
            self._release(count)

    def check_overload(self) -> None:
        """Refuse a request that would only join the queue of an overload, before anything of it is read.

        Raises:
            Refusal: 503.
        """
        if self._waiting and self._update_overload():
            raise _no_slot()

    def _allowed_wait(self) -> float:
        return self._overload_max_wait if self._update_overload() else self._max_wait

    def _update_overload(self) -> bool:
        """Whether there is an overload now.

        The share of time in which somebody waited, or, in an overload, in which its slots were taken, is averaged with
        a memory of ``OVERLOAD_MEMORY`` seconds, or of ``max_wait`` where that is less.
        """
        now = asyncio.get_running_loop().time()
        memory = min(OVERLOAD_MEMORY, self._max_wait)
        kept = math.exp((self._updated - now) / memory) if memory else 0.0
        self._full_share = kept * self._full_share + (1 - kept) * self._full
        self._overloaded = self._full_share > (OVERLOAD_BELOW if self._overloaded else OVERLOAD_ABOVE)
        self._full = bool(self._waiting) or (self._overloaded and self.taken >= self.overload_slots)
        self._updated = now
        return self._overloaded

    async def _wait(self, count: int, seconds: float | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as stop:
            came_too_late = turn.done() and not turn.cancelled()
            turn.cancel()
            self._release(count if came_too_late else 0)
            if isinstance(stop, TimeoutError):
                raise _no_slot() from None
            raise

    def _release(self, count: int) -> None:
        self.taken -= count
        self._serve()

    def _serve(self) -> None:
        """Admit who is first in the queue, as long as there are slots."""
        limit = self.overload_slots if self._update_overload() else self.slots
        while self._waiting:
            count, turn = self._waiting[0]
            if not turn.done() and self.taken and count + self.taken > limit:
                break
            self._waiting.popleft()
            if not turn.done():
                self.taken += count
                turn.set_result(None)
        self._update_overload()


def _no_slot() -> Refusal:
    return busy("Too many photos are waiting. Retry in a second.")
