"""What a training run is made of, and its settings: plain values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from mixtura.errors import UsageError
from mixtura.training.checkpoint import Fact, Facts
from mixtura.training.hooks import Hook

RAW = "raw"
"""The name of the weights that the optimizer moves, beside those that hooks average."""

Batch = Mapping[str, Tensor]
Loss = Tensor | tuple[Tensor, Mapping[str, Tensor]]


def constant(step: int, losses: Sequence[float]) -> float:
    """A rate that stays."""
    return 1.0


@dataclass(frozen=True)
class Setup:
    """What is trained, by what, on what.

    Args:
        module: the network, on its device; parts in evaluation mode (frozen batch norm) stay so.
        objective: the loss of a batch, a mean over its rows; perhaps also a dict of scalars to log. Parameters are
            the module's only. Under several processes all that are trained must take part in the loss.
        optimizer: of the module's parameters; the learning rates of its groups are those of a rate of 1.
        batches: ``batches(epoch, first)`` gives the batches of an epoch (from 0) from batch ``first`` on, the same
            at every call; each a dict of tensors with one entry a row. Under several processes, this process's share
            of the rows, which may be none.
        steps: batches of an epoch.
        validate: results of the network, in evaluation mode, as numbers; ``loss`` is to be lowered. Under several
            processes each takes its :func:`~mixtura.training.distributed.own_rows` and adds up with ``totals``.
        rate: the factor on every learning rate for a step (from 0), given the validation losses of the epochs before.
        hooks: state beside the network, by name.
        without_rows: a loss of zero for a process that has no row of a step; needed where the forward pass exchanges
            statistics with the other processes, which then wait for this one.
        logged: names of the scalars that the objective logs. Under several processes all must be here, since a process
            without a row of a step logs nothing, and their sums are exchanged.
        facts: what the run depends on beside the settings, such as the recipe and the hash of the data.
    """

    module: nn.Module
    objective: Callable[[nn.Module, Batch], Loss]
    optimizer: torch.optim.Optimizer
    batches: Callable[[int, int], Iterator[Batch]]
    steps: int
    validate: Callable[[nn.Module], Mapping[str, float]]
    rate: Callable[[int, Sequence[float]], float] = constant
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    without_rows: Callable[[nn.Module, Batch], Tensor] | None = None
    logged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How long and how it is trained.

    Args:
        epochs: passes over the data.
        accumulate: parts into which a batch is split, so that it fits into memory; the gradient is that of the batch.
        clip: largest norm of the gradient; ``None`` for no limit.
        precision: of the forward pass; weights are float32 in both.
        patience: epochs without a better validation loss before training ends; ``None`` for never.
        last: whether the weights of the last epoch are kept, whatever their validation loss.
        incumbent: whether the start is validated too, as epoch 0, and kept if no epoch is better.
        seed: of what dropout and the like draw.
        commit_minutes: time between checkpoints within an epoch; each epoch ends with one anyway.
    """

    epochs: int
    accumulate: int = 1
    clip: float | None = None
    precision: Literal["float32", "bf16"] = "float32"
    patience: int | None = None
    last: bool = False
    incumbent: bool = True
    seed: int = 0
    commit_minutes: float = 10.0

    @property
    def same(self) -> dict[str, Fact]:
        """The settings that must be equal when a run goes on."""
        return {name: getattr(self, name) for name in ("accumulate", "clip", "precision", "seed")}


def check(setup: Setup, settings: Settings) -> None:
    """Check that a run can be trained with these settings.

    Raises:
        UsageError: a setting is out of range.
    """
    given = {"epochs": settings.epochs, "steps": setup.steps, "accumulate": settings.accumulate}
    given |= {} if settings.patience is None else {"patience": settings.patience}
    for name, value in given.items():
        if value < (least := int(name != "epochs")):
            raise UsageError(f"Training cannot have {name} = {value}. Give {least} or more.")
    if settings.clip is not None and not settings.clip > 0:
        raise UsageError(f"A gradient cannot be clipped to a norm of {settings.clip}. Give a number above 0.")
    if RAW in setup.hooks:
        raise UsageError(f"A hook cannot be named {RAW!r}, the name of the weights that it does not touch.")


def count(batch: Batch) -> int:
    """The rows of a batch."""
    return len(next(iter(batch.values())))


def parts(batch: Batch, number: int) -> list[Batch]:
    """A batch in so many parts, without empty ones; an empty batch is one part."""
    if number == 1 or not count(batch):
        return [batch]
    split = {name: tensor.tensor_split(number) for name, tensor in batch.items()}
    made = [{name: pieces[place] for name, pieces in split.items()} for place in range(number)]
    return [part for part in made if count(part)]
