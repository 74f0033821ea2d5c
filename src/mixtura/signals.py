"""Hold a signal back until work that is worth keeping is on disk."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Hold back the first interrupt or termination signal until the block has ended; a second one acts at once.

    The block asks the function that it is given whether a signal has come. Only the main thread may set signal
    handlers; elsewhere this does nothing.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before: Mapping[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        restore()
    if received:
        # Committed and unlocked: now the signal does what it would have done, and the caller never goes on as if whole.
        signal.raise_signal(received[0])
        raise KeyboardInterrupt
