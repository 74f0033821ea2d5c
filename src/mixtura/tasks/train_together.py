"""Train one network in the processes that ``torchrun`` has started; the first does all else and speaks for all."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixtura.errors import INTERNAL, INTERRUPTED, TERMINATED, MixturaError, was_terminated
from mixtura.fitting.network import TrainedPart, train_part
from mixtura.fitting.network_material import Material
from mixtura.pipeline import factory
from mixtura.recipe import Recipe
from mixtura.sections import EncoderSection
from mixtura.training import distributed, processes

Origin = tuple[EncoderSection, int | None]
"""The section of an encoder, and the seed of its weights where they are drawn: what makes it in another process."""

_led: list[processes.Group] = []
"""The group that this process leads now, if it does."""


@dataclass(frozen=True)
class Task:
    """A part of a network to train; see :func:`mixtura.fitting.network.train_part`.

    Args:
        origin: of the encoder.
        material: what the part is trained with.
        part: its name.
        folder: of the run.
        head: tensors of a head to go on with.
    """

    origin: Origin
    material: Material
    part: str
    folder: Path
    head: Mapping[str, Tensor] | None = None

    def train(self, left: Callable[[], float]) -> TrainedPart | None:
        """Train the part; every process of a group must call it."""
        return train_part(self.material, self.part, self.folder, left, self.head)

    def sent(self) -> dict[str, Any]:
        """The values that make the task in another process; there, the network is made anew, and no one watches."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        material = {field.name: getattr(self.material, field.name) for field in fields(self.material)}
        return values | {"material": material | {"encoder": None, "progress": None}, "folder": self.folder.absolute()}

    @classmethod
    def received(cls, sent: Mapping[str, Any], before: "Task | None") -> "Task":
        """The task that another process has sent; what the one ``before`` has decoded is kept."""
        values: dict[str, Any] = {**sent}
        own: dict[str, Any] = {**sent["material"]}
        if before is not None and before.origin == sent["origin"]:
            values["material"] = before.material.with_section(own["section"])
        else:
            own["encoder"] = factory.trainable_of(*sent["origin"])
            values["material"] = Material(**own)
        return cls(**values)


def follows() -> bool:
    """Whether this process is one that ``torchrun`` has started to train with the first one.

    Raises:
        UsageError: see :func:`mixtura.training.processes.place`.
    """
    return processes.place()[0] > 0


@contextmanager
def leading(recipe: Recipe) -> Iterator[None]:
    """Connect the other processes for the block, which they end with; does nothing if there is no other.

    Raises:
        MixturaError: another process has failed or is gone.
    """
    if processes.place()[1] == 1:
        yield
        return
    with processes.connected(_device(recipe)) as group:
        _led.append(group)
        code = INTERNAL
        try:
            yield
            code = 0
        except BaseException as error:
            # Who waits in a collective call has to be woken before it can be told.
            processes.disconnect()
            told = group.trouble(error) if processes.is_lost(error) else error
            code = _code(told)
            if told is error:
                raise
            raise told from error
        finally:
            _led.remove(group)
            group.end(code)


def train(task: Task, left: Callable[[], float]) -> TrainedPart | None:
    """Train a part of a network, with the other processes where there are some.

    Args:
        task: the part.
        left: seconds that are left for it.

    Raises:
        NonFinite, CheckpointError, CannotWrite, OutOfSpace: see :func:`mixtura.training.trainer.train`.
    """
    for group in _led:
        group.give(task.sent())
    return task.train(left)


def follow(recipe: Recipe) -> int:
    """Take part in all training of the first process, and return its exit code; the first one speaks for this one.

    Raises:
        MixturaError: the first process is gone, so it says nothing.
    """
    with processes.connected(_device(recipe)) as group:
        failure: Exception | None = None
        try:
            _follow(group)
        except KeyboardInterrupt as stop:
            processes.disconnect()
            group.leave()
            return _code(stop)
        except Exception as error:
            failure = error
            if not processes.is_lost(error):
                group.complain(error if isinstance(error, MixturaError) else _fault(error))
            processes.disconnect()
        code = group.code()
        if code is None:
            raise MixturaError(processes.lost(failure)) from failure
        if failure is not None and not code:
            raise failure  # after the last task, so the first process has gone on without it
        return code


def _follow(group: processes.Group) -> None:
    """Train each part that the first process trains."""
    task: Task | None = None
    while (sent := group.taken()) is not None:
        task = Task.received(sent, task)
        task.train(lambda: math.inf)


def _device(recipe: Recipe) -> torch.device:
    """The device of this process."""
    return distributed.own_device(factory.device_of(recipe.encoder.device))


def _fault(error: Exception) -> MixturaError:
    """An error that is none of mixtura's, for the first process to print."""
    return MixturaError(f"This is a fault in mixtura ({type(error).__name__}: {error}).")


def _code(error: BaseException) -> int:
    """The exit code that an error ends with."""
    if isinstance(error, MixturaError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return TERMINATED if was_terminated(error) else INTERRUPTED
    return INTERNAL
