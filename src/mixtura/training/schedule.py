"""Learning rates: a factor for each step that follows from the step and, for plateaus, from recorded losses."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixtura.errors import UnknownName, UsageError
from mixtura.names import nearest

Number = int | float


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate at each step; a value, so a resumed run has the same rates.

    After the warmup, at t epochs, fractions included::

        constant     1
        cosine       (1 + cos(pi t / period)) / 2: falls for one period, rises for the next, and so on
        restarts     the same, but each period begins at 1 again
        step         gamma^floor(t / step)
        milestones   gamma^(number of milestones at or before t)
        plateau      gamma^(number of times that ``step`` epochs in a row brought no lower validation loss)

    Args:
        name: a name in :data:`SCHEDULES`.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: of the whole training, warmup included; needed for a period that is not given.
        period: cosine, restarts: epochs; what remains of ``epochs`` after the warmup, over ``cycles``, if ``None``.
        cycles: cosine, restarts: periods in the training, where ``period`` is ``None``; 1 if ``None``.
        step: step, plateau: epochs.
        milestones: milestones: epochs, ascending.
        gamma: step, milestones, plateau: factor, above 0; 0.1 if ``None``.
        warmup: epochs at the beginning in which the factor rises by equal amounts in each step to 1. The epochs of the
            schedule itself are counted from its end.

    Raises:
        UnknownName: there is no such schedule.
        UsageError: a value is missing, out of range, or not one of this schedule.

    Source: Loshchilov and Hutter, SGDR (ICLR 2017); Goyal et al., Accurate, large minibatch SGD (2017), section 2.2.
    """

    name: str = "cosine"
    steps_per_epoch: int = 1
    epochs: int | None = None
    period: Number | None = None
    cycles: int | None = None
    step: Number | None = None
    milestones: tuple[Number, ...] | None = None
    gamma: Number | None = None
    warmup: Number = 0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise UnknownName(f"There is no schedule {self.name!r}. {nearest(self.name, SCHEDULES)}")
        for key in ("period", "cycles", "step", "milestones", "gamma"):
            value = getattr(self, key)
            if value is not None and key not in SCHEDULES[self.name].keys:
                known = ", ".join(SCHEDULES[self.name].keys) or "none but warmup"
                raise UsageError(f"The schedule {self.name!r} has no {key}. Its keys: {known}.")
            listed = value if isinstance(value, tuple) else () if value is None else (value,)
            if not all(0 < one < math.inf for one in listed):
                raise UsageError(f"The {key} of the schedule {self.name!r} is {value}. Give numbers above 0.")
        if self.milestones and list(self.milestones) != sorted(self.milestones):
            raise UsageError(f"The milestones {self.milestones} of the schedule are out of order. Sort them.")
        for key in SCHEDULES[self.name].needed:
            if getattr(self, key) is None:
                raise UsageError(f"The schedule {self.name!r} needs {key}, in epochs. Add it.")
        if not 0 <= self.warmup < math.inf:
            raise UsageError(f"A warmup of {self.warmup} epochs is out of range. Give 0 or more.")
        if self.steps_per_epoch < 1:
            raise UsageError(f"An epoch of {self.steps_per_epoch} steps has no schedule. Give 1 or more.")
        if self.depends_on_epochs and self.epochs is None:
            raise UsageError(f"The schedule {self.name!r} needs a period or the number of epochs. Give one.")

    @property
    def depends_on_epochs(self) -> bool:
        """Whether the rates follow from the length of the training, so that it cannot be made longer later."""
        return "period" in SCHEDULES[self.name].keys and self.period is None

    @property
    def uses_losses(self) -> bool:
        """Whether the rates follow from validation losses, so that they need an evaluation after each epoch."""
        return SCHEDULES[self.name].uses_losses

    def factor(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return what the learning rate of a step is multiplied by.

        Args:
            step: optimizer steps before this one, over all epochs.
            losses: validation loss of each epoch before this step, in nats; NaN counts as no improvement. Further
                ones are not read, so a record of more epochs than those before the step does no harm.

        Raises:
            UsageError: the schedule needs the losses of epochs that are not there.
        """
        warmup = self._warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        done = step // self.steps_per_epoch
        if self.uses_losses and len(losses) < done:
            raise UsageError(f"The schedule {self.name!r} needs {done} validation losses, and there are {len(losses)}.")
        return SCHEDULES[self.name].factor(self, (step - warmup) / self.steps_per_epoch, losses[:done])

    @property
    def fall(self) -> float:
        """Epochs in which a cosine falls from 1 to 0."""
        left = (self.epochs or 0) - self._warmup_steps / self.steps_per_epoch
        return float(self.period or max(left, 1 / self.steps_per_epoch) / (self.cycles or 1))

    @property
    def decay(self) -> float:
        """The factor of one fall of a schedule with steps."""
        return 0.1 if self.gamma is None else float(self.gamma)

    @property
    def _warmup_steps(self) -> int:
        return round(self.warmup * self.steps_per_epoch)


def layer_factors(groups: int, decay: float) -> tuple[float, ...]:
    """Return the factor of the learning rate of each group of layers, from the input to the output.

    The last group has the factor 1, each one before it ``decay`` times that of the next.

    Args:
        groups: their number, the head included.
        decay: above 0, at most 1; 1 for one rate everywhere.

    Raises:
        UsageError: the decay is out of range.

    Source: Clark et al., ELECTRA (ICLR 2020), appendix A.

    >>> layer_factors(3, 0.5)
    (0.25, 0.5, 1.0)
    """
    if not 0 < decay <= 1:
        raise UsageError(f"A layer decay of {decay} is out of range. Give a factor above 0, at most 1.")
    return tuple(decay ** (groups - 1 - group) for group in range(groups))


Factor = Callable[[Schedule, float, Sequence[float]], float]
"""A factor from a schedule, epochs since the warmup, and losses."""


def _constant(schedule: Schedule, t: float, losses: Sequence[float]) -> float:
    return 1.0


def _cosine(schedule: Schedule, t: float, losses: Sequence[float]) -> float:
    return (1 + math.cos(math.pi * t / schedule.fall)) / 2


def _restarts(schedule: Schedule, t: float, losses: Sequence[float]) -> float:
    return _cosine(schedule, max(0.0, t - _whole(t, schedule.fall) * schedule.fall), losses)


def _step(schedule: Schedule, t: float, losses: Sequence[float]) -> float:
    return schedule.decay ** _whole(t, schedule.step or 1)


def _milestones(schedule: Schedule, t: float, losses: Sequence[float]) -> float:
    return schedule.decay ** sum(_whole(t, milestone) > 0 for milestone in schedule.milestones or ())


def _plateau(schedule: Schedule, t: float, losses: Sequence[float]) -> float:
    falls, since, best = 0, 0, math.inf
    for loss in losses:
        since = 0 if loss < best else since + 1
        best = min(best, loss) if loss == loss else best
        if since >= (schedule.step or 1):
            falls, since = falls + 1, 0
    return schedule.decay**falls


def _whole(t: float, part: Number) -> int:
    """How often ``part`` goes into ``t``; 3 times into 0.3 for 0.1, which floats alone do not see."""
    return math.floor(t / part + 1e-9)


@dataclass(frozen=True)
class Kind:
    """A schedule of the table: its factor, the keys that it takes, those that it needs, and whether it reads losses."""

    factor: Factor
    keys: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    uses_losses: bool = False


SCHEDULES: dict[str, Kind] = {
    "constant": Kind(_constant),
    "cosine": Kind(_cosine, ("period", "cycles")),
    "restarts": Kind(_restarts, ("period", "cycles")),
    "step": Kind(_step, ("step", "gamma"), ("step",)),
    "milestones": Kind(_milestones, ("milestones", "gamma"), ("milestones",)),
    "plateau": Kind(_plateau, ("step", "gamma"), ("step",), uses_losses=True),
}
"""Schedules by name."""
