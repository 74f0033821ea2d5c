"""The engine that decodes in threads while what was decoded before is used: by extraction and by training."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

THREAD_NAME = "decode"
"""What the names of the threads begin with."""

W = TypeVar("W")
R = TypeVar("R")


@contextmanager
def decode_ahead(decode: Callable[[W], R], work: Iterable[W], workers: int) -> Iterator[Iterator[R]]:
    """Give an iterator over ``decode(w)`` for each w of ``work``, in order, computed ahead of its use.

    At most ``workers`` + 2 results are computed or wait, so memory is bounded. An error in ``decode`` is raised where
    its result would have come. When the block ends, early or not, no thread is left.

    Args:
        decode: runs in a thread and must depend on its argument alone; then the number of threads changes no result.
        work: read in the caller's thread.
        workers: threads; with 0, ``decode`` runs in the caller's thread when its result is asked for.
    """
    if workers < 1:
        yield map(decode, work)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix=THREAD_NAME)
    left = iter(work)
    waiting: deque[Future[R]] = deque()

    def submit() -> None:
        for one in left:
            waiting.append(pool.submit(decode, one))
            return

    def results() -> Iterator[R]:
        while waiting:
            result = waiting.popleft().result()
            submit()
            yield result

    try:
        for _ in range(workers + 2):
            submit()
        yield results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
