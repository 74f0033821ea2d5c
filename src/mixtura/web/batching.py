"""Batches of photos from many requests.

While one batch is computed, the next one gathers: batches grow with the load by themselves, and a lone request is
answered at once. A batch waits, for a few milliseconds at most, only for photos that are being decoded already.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Gathers items into batches and computes them in one thread.

    Args:
        work: returns one result for each item, in their order; called in a thread of its own, one batch at a time.
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
        """Held while an item is prepared, which then comes or turns out to be unreadable."""
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
    with suppress(asyncio.InvalidStateError):  # the client has left
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
