"""The processes that ``torchrun`` has started for one command: the first leads, the others train with it.

The first process does alone what is not training of a network. Meanwhile the others ask a key-value store, so no
collective call is open that could run into its time-out.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from mixtura.errors import MixturaError, UsageError

TIMEOUT = timedelta(minutes=30)
"""For one exchange, in which processes also wait for the first to write a checkpoint."""

PATIENCE = 10.0  # seconds for the last words of the other processes
PAUSE = 0.05  # seconds between two questions to the store
_TASK, _END, _TROUBLE, _GONE = "mixtura/task", "mixtura/end", "mixtura/trouble", "mixtura/gone"
_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST = ("gloo", "Connection", "connection", "NCCL", "Broken pipe")

LOST = (
    "Another process of this training has ended. Finished work is kept. Run the same command again: it goes on from "
    "the last commit."
)


def place() -> tuple[int, int]:
    """The number of this process, from 0, and how many ``torchrun`` has started; 0 and 1 without it.

    Raises:
        UsageError: the environment has only a part of what ``torchrun`` sets, or the numbers do not fit.
    """
    given = {name: os.environ.get(name) for name in _SET_BY_TORCHRUN}
    rank, count = given["RANK"], given["WORLD_SIZE"]
    if rank is None and count in (None, "1"):
        return 0, 1
    if count != "1" and (missing := [name for name, value in given.items() if value is None]):
        there = "RANK" if rank is not None else "WORLD_SIZE"
        raise UsageError(
            f"The environment sets {there} and not {' and '.join(missing)}. Start with torchrun, or unset {there}."
        )
    if not (str(rank).isdecimal() and str(count).isdecimal() and int(str(rank)) < int(str(count))):
        raise UsageError(f"RANK is {rank!r} and WORLD_SIZE {count!r} in the environment. Start with torchrun.")
    return int(str(rank)), int(str(count))


def restarted() -> bool:
    """Whether ``torchrun`` has started this process again after one has failed, or SLURM has queued its job again."""
    return any(os.environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


class Group:
    """The connected processes, and the store that they share.

    Args:
        store: of all processes.
        rank: number of this process.
        count: of processes.
    """

    def __init__(self, store: Any, rank: int, count: int) -> None:
        self.store, self.rank, self.count = store, rank, count
        self._tasks = 0

    def give(self, task: Any) -> None:
        """Send a task to all other processes; the first process does, and takes part in it."""
        self._tasks += 1
        self.store.set(f"{_TASK}/{self._tasks}", "ready")
        dist.broadcast_object_list([task], src=0)

    def taken(self) -> Any:
        """The next task, as soon as there is one; ``None`` when the first process has ended."""
        self._tasks += 1
        while not self.store.check([f"{_TASK}/{self._tasks}"]):
            if self.store.check([_END]):
                return None
            time.sleep(PAUSE)
        found: list[Any] = [None]
        dist.broadcast_object_list(found, src=0)
        return found[0]

    def end(self, code: int) -> None:
        """Tell the others that the first process ends with an exit code, and let them go."""
        self.store.set(_END, str(code))
        self._wait(lambda: all(self.store.check([f"{_GONE}/{rank}"]) for rank in range(1, self.count)))

    def code(self) -> int | None:
        """The exit code of the first process, once it has ended; ``None`` if it is gone without one."""
        ended = self._wait(lambda: self.store.check([_END]))
        code = int(self.store.get(_END)) if ended else None
        self.leave()
        return code

    def leave(self) -> None:
        """Tell the first process not to wait for this one."""
        with suppress(RuntimeError):
            self.store.set(f"{_GONE}/{self.rank}", "gone")

    def complain(self, error: MixturaError) -> None:
        """Leave an error for the first process, which prints it."""
        with suppress(RuntimeError):
            self.store.set(_TROUBLE, json.dumps([str(error), error.exit_code]))

    def trouble(self, error: BaseException) -> MixturaError:
        """The error that another process has left, or one that says that it is gone, as this process has found."""
        if not self._wait(lambda: self.store.check([_TROUBLE]), 1.0):
            return MixturaError(lost(error))
        message, code = json.loads(self.store.get(_TROUBLE))
        error = MixturaError(message)
        error.exit_code = code
        return error

    def _wait(self, done: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Whether something comes true within some seconds."""
        end = time.monotonic() + seconds
        with suppress(RuntimeError):  # the store is gone with the process that has held it
            while time.monotonic() < end:
                if done():
                    return True
                time.sleep(PAUSE)
        return False


@contextmanager
def connected(device: torch.device) -> Iterator[Group]:
    """The processes that ``torchrun`` has started, connected for the block: CPUs by gloo, GPUs by NCCL."""
    store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    try:
        yield Group(PrefixStore("mixtura", store), rank, count)
    finally:
        disconnect()


def disconnect() -> None:
    """Leave the group; who waits for this process in a collective call then gets an error."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost(error: BaseException | None) -> str:
    """A sentence that another process is gone, with what PyTorch says, as the cause may also be the connection."""
    said = str(error).strip().partition("\n")[0] if error is not None and is_lost(error) else ""
    return f"{LOST} PyTorch says: {said}" if said else LOST


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process does not answer."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
