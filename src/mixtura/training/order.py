"""Which rows each step of training takes: a function of a seed and an epoch, the same for any number of processes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from mixtura.errors import UsageError
from mixtura.training.keyed_random import bits

_PERMUTATION, _SAMPLE = "order", "sample"


@runtime_checkable
class RowOrder(Protocol):
    """Which rows each step of an epoch takes, as :class:`Order` has them; ``count`` is the number of rows of the data.

    What it returns follows from the epoch and the step alone.
    """

    @property
    def count(self) -> int:
        """Rows of the data."""
        ...

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        ...

    def rows(self, epoch: int) -> Int64[np.ndarray, " N"]:
        """The rows of an epoch, in the order of training."""
        ...

    def slices(self, first: int = 0, rank: int = 0, processes: int = 1) -> Iterator[slice]:
        """Which of an epoch's rows one of several processes takes in each step, from step ``first`` on."""
        ...

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Iterator[Int64[np.ndarray, " B"]]:
        """The rows of one process for each step of an epoch, from step ``first`` on."""
        ...


@dataclass(frozen=True, eq=False)
class Order:
    """The rows of each step of each epoch; a value that follows from its arguments, with no state to save.

    Step k of an epoch takes places k * ``batch_size`` to (k + 1) * ``batch_size`` of the epoch's rows; the last batch
    is kept and may be smaller. Several processes divide the rows of a step, so a step has the same rows for any
    number of them.

    Without weights and balance, each row occurs once per epoch. Otherwise an epoch has as many rows, row i expects to
    occur ``count * p_i`` times, and it occurs that often rounded up or down: more than once only if p_i demands it::

        p_i = w_i W_c^(-balance) / (their sum),    W_c = sum of the weights w in the class c of row i

    so the share of class c is proportional to W_c^(1 - balance): as in the data at 0, equal for all classes at 1.

    Args:
        seed: at least 0; other seeds give other orders.
        count: rows of the data.
        batch_size: rows of a step, over all processes together.
        labels: class of each row; needed for ``balance``.
        balance: strength of the balance of classes, 0 to 1.
        weights: relative weight of each row in sampling, at least 0; ``None`` for equal weights.

    Raises:
        UsageError: an argument is out of range, or the labels or weights are not one per row.

    Source: systematic sampling, Madow, On the theory of systematic sampling II (1949).
    """

    seed: int
    count: int
    batch_size: int
    labels: Int[np.ndarray, " N"] | None = None
    balance: float = 0.0
    weights: Float[np.ndarray, " N"] | None = None

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("count", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"The {name} of an order is {getattr(self, name)}. Give {least} or more.")
        if not 0 <= self.balance <= 1:
            raise UsageError(f"The balance of classes is {self.balance}. Give a strength from 0 to 1.")
        if self.balance and self.labels is None:
            raise UsageError(f"A balance of {self.balance} needs the class of each row. Give labels.")
        for name, column in (("labels", self.labels), ("weights", self.weights)):
            if column is not None and len(column) != self.count:
                raise UsageError(f"There are {len(column)} {name} for {self.count} rows. Give one per row.")
        weights = self.weights
        if weights is not None and not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
            raise UsageError("Weights for sampling must be finite and at least 0, with one above 0. Check the weights.")

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.count // self.batch_size)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the rows follow from, as plain values; two orders with equal identities are the same."""
        return {
            "seed": self.seed,
            "count": self.count,
            "batch_size": self.batch_size,
            "balance": self.balance,
            "labels": _hash(self.labels, np.int64) if self.labels is not None and self.balance else None,
            "weights": None if self.weights is None else _hash(self.weights, np.float64),
        }

    def rows(self, epoch: int) -> Int64[np.ndarray, " N"]:
        """Return the rows of an epoch, from 0, in the order of training."""
        if epoch < 0:
            raise UsageError(f"There is no epoch {epoch}. Count epochs from 0.")
        rows = np.arange(self.count) if self._uniform else self._sample(epoch)
        return rows[np.argsort(bits(self.count, _PERMUTATION, self.seed, epoch), kind="stable")]

    def slices(self, first: int = 0, rank: int = 0, processes: int = 1) -> Iterator[slice]:
        """Return which of an epoch's rows one of several processes takes in each step, from step ``first`` on.

        The slices of all ranks, in their order, are the rows of the step. They differ by at most one row; where the
        last batch has fewer rows than there are processes, some are empty.

        Args:
            first: a step of the epoch, from 0; the number of steps gives nothing.
            rank: of the process, from 0.
            processes: their number.

        Raises:
            UsageError: there is no such step or rank, or a batch has fewer rows than there are processes.
        """
        if not 0 <= first <= self.steps:
            raise UsageError(f"There is no step {first}: an epoch has {self.steps}, counted from 0.")
        if not 0 <= rank < processes:
            raise UsageError(f"There is no process {rank} of {processes}. Count ranks from 0.")
        if processes > self.batch_size:
            raise UsageError(
                f"{processes} processes cannot share a batch of {self.batch_size} rows. Give a batch_size of at least "
                f"{processes}, or use fewer processes."
            )
        return (self._slice(step, rank, processes) for step in range(first, self.steps))

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Iterator[Int64[np.ndarray, " B"]]:
        """Return the rows of one process for each step of an epoch, from step ``first`` on.

        Raises:
            UsageError: as :meth:`rows` and :meth:`slices`.
        """
        slices, rows = self.slices(first, rank, processes), self.rows(epoch)
        return (rows[own] for own in slices)

    def _slice(self, step: int, rank: int, processes: int) -> slice:
        start = step * self.batch_size
        size = min(self.batch_size, self.count - start)
        return slice(start + size * rank // processes, start + size * (rank + 1) // processes)

    @property
    def _uniform(self) -> bool:
        return self.weights is None and not self.balance

    def _expected(self) -> Float64[np.ndarray, " N"]:
        """How often each row is expected in an epoch."""
        weight = np.ones(self.count) if self.weights is None else self.weights.astype(np.float64)
        weight = weight / weight.max()
        if self.labels is not None and self.balance:
            _, label = np.unique(self.labels, return_inverse=True)
            total = np.bincount(label, weight)
            weight = weight * np.where(total > 0, total, 1.0)[label] ** -self.balance
        return self.count * weight / weight.sum()

    def _sample(self, epoch: int) -> Int64[np.ndarray, " N"]:
        """Each row as often as expected, rounded up or down, by systematic sampling of the fractions."""
        expected = self._expected()
        times = np.floor(expected + 1e-9).astype(np.int64)  # what rounding has put just below an integer
        fraction = np.maximum(expected - times, 0.0)
        # A random order of the rows makes pairs of rows nearly independent.
        random = bits(self.count + 1, _SAMPLE, self.seed, epoch)
        order = np.argsort(random[1:], kind="stable")
        order = order[fraction[order] > 0]
        left = self.count - int(times.sum())
        if left > 0:
            upper = np.cumsum(fraction[order])
            points = (np.arange(left) + int(random[0]) * 2.0**-64) * (upper[-1] / left)
            chosen = np.minimum(np.searchsorted(upper, points, side="right"), len(order) - 1)
            np.add.at(times, order[chosen], 1)
        return np.repeat(np.arange(self.count), times)


def repeats(rows: Int[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Return how often each row has occurred before, in the order given.

    >>> repeats(np.array([4, 2, 4, 4, 2]))
    array([0, 0, 1, 2, 1])
    """
    order = np.argsort(rows, kind="stable")
    place = np.arange(len(rows))
    new = np.r_[True, np.diff(rows[order]) != 0][: len(rows)]
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return found


def _hash(column: np.ndarray, dtype: type) -> str:
    return hashlib.sha256(column.astype(dtype).tobytes()).hexdigest()
