"""Many requests, one batch: the encoder is kept busy with as many photos as are waiting, and never waits for more.

While a batch is computed, photos gather; when it is done, they are the next batch. So batches grow with the load by
themselves, and a lone request is answered at once. Only when other photos are being decoded at this very moment does a
batch wait for them, a few milliseconds at most.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Generic, TypeVar

from mixtura.web.problems import Refusal, busy

MEMORY = 0.4  # seconds
CROWDED, QUIET = 0.6, 0.3
"""The share of time without room beyond which too much is asked, and below which that is over."""

T = TypeVar("T")
R = TypeVar("R")


class Places:
    """Room for so many photos; who comes first is served first.

    A short rush may wait. Where somebody had to wait most of the time lately, more is asked than can be answered, and
    waiting would only make every answer late: then only ``few`` are taken in, requests are refused almost at once, and
    those that are answered are answered soon. It ends when there was room for these few most of the time.

    Args:
        count: photos that may be in work.
        patience: seconds that a request waits for room.
        brief: seconds that it waits while too much is asked.
        few: photos that may be in work while too much is asked.
    """

    def __init__(self, count: int, patience: float, brief: float, few: int) -> None:
        self.count, self.taken, self._patience, self._brief, self.few = count, 0, patience, brief, few
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._full, self._share, self._at, self._crowd = False, 0.0, 0.0, False

    @asynccontextmanager
    async def some(self, wanted: int, admitted: bool = False) -> AsyncIterator[None]:
        """Room for ``wanted`` photos, at most :attr:`count`; who is ``admitted`` already waits as long as it takes.

        Raises:
            Refusal: 503 if there is none in time.
        """
        await self._wait(wanted, None if admitted else self._allowed())
        try:
            yield
        finally:
            self.taken -= wanted
            self._serve()

    def check(self) -> None:
        """See that a request which comes now has a chance: that too much is asked, and the next place is promised, is
        known before anything of it is read.

        Raises:
            Refusal: 503.
        """
        if self._line and self._crowded():
            raise _full()

    def _allowed(self) -> float:
        """Seconds that a request may wait which comes now."""
        return self._brief if self._crowded() else self._patience

    def _crowded(self) -> bool:
        """Whether more is asked than can be answered.

        The share of time in which somebody waited, or, once too much was asked, in which the few places were taken, is
        averaged with a memory of ``MEMORY`` seconds, or of ``patience`` where that is less.
        """
        now = asyncio.get_running_loop().time()
        memory = min(MEMORY, self._patience)
        kept = math.exp((self._at - now) / memory) if memory else 0.0
        self._share = kept * self._share + (1 - kept) * self._full
        self._crowd = self._share > (QUIET if self._crowd else CROWDED)
        self._at, self._full = now, bool(self._line) or (self._crowd and self.taken >= self.few)
        return self._crowd

    async def _wait(self, count: int, seconds: float | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((count, turn))
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as stop:
            if turn.done() and not turn.cancelled():  # the place came at the moment of leaving
                self.taken -= count
            turn.cancel()
            self._serve()
            if isinstance(stop, TimeoutError):
                raise _full() from None
            raise

    def _serve(self) -> None:
        """Let in who is first, as long as there is room."""
        most = self.few if self._crowded() else self.count
        while self._line and (self._line[0][1].done() or self.taken == 0 or self._line[0][0] + self.taken <= most):
            count, turn = self._line.popleft()
            if not turn.done():
                self.taken += count
                turn.set_result(None)
        self._crowded()


def _full() -> Refusal:
    return busy("Too many photos are waiting. Ask again in a second.")


class Batcher(Generic[T, R]):
    """Gathers items into batches and has each computed in one thread.

    Args:
        work: one result for each item, in their order; called in a thread of its own, one batch at a time.
        size: items of a batch, at most.
        wait: seconds that a batch waits for items that are announced.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], size: int, wait: float) -> None:
        self._work, self._size, self._wait = work, size, wait
        self._queue: asyncio.Queue[tuple[T, asyncio.Future[R]]] = asyncio.Queue()
        self._announced = 0
        self.batches, self.items = 0, 0

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._queue.qsize()

    @contextmanager
    def announced(self) -> Iterator[None]:
        """An item will come soon, unless it turns out to be none."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1

    async def submit(self, item: T) -> R:
        """The result of one item."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, result))
        return await result

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "batches") as thread:
            while True:
                batch = [pair for pair in await self._gather() if not pair[1].done()]
                if not batch:
                    continue
                self.batches, self.items = self.batches + 1, self.items + len(batch)
                results = await loop.run_in_executor(thread, self._attempt, [item for item, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    _settle(future, result)

    async def _gather(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The next batch: what is there, and what is about to come."""
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._wait
        while len(batch) < self._size and (self._announced or not self._queue.empty()):
            try:
                async with asyncio.timeout_at(deadline if self._queue.empty() else None):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    def _attempt(self, items: Sequence[T]) -> Sequence[R | Exception]:
        """The results; where a batch fails, each item is tried alone, so that one cannot spoil the others."""
        try:
            return self._work(items)
        except Exception as error:
            return [error] if len(items) == 1 else [self._attempt([item])[0] for item in items]


def _settle(future: "asyncio.Future[R]", result: R | Exception) -> None:
    with suppress(asyncio.InvalidStateError):  # who asked has left
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
