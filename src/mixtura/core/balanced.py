"""Balanced assignment of many samples to components: Sinkhorn without the N x K matrix of scores.

Row masses are equal and are met exactly, so the potential of a sample follows from those of the components: a pass
over the scores maps K potentials to the K masses that they reach, and nothing else is kept. The passes read chunks,
or, where it fits, a matrix of exponentials that is built once.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import newton
from mixtura.core.em import LOG2_E, Reduce
from mixtura.core.newton import Reached, Trials
from mixtura.core.scale import upcast
from mixtura.errors import DataError, NonFinite, UsageError

CHUNK_ENTRIES = 1 << 19  # of one chunk of scores: 2 MB in float32, which stays in a cache
KERNEL_BYTES = 1 << 30  # the largest matrix of exponentials that is kept
ABSORB = 20.0  # nats by which a potential may leave the one that the matrix holds
LEAST_BITS = -100.0  # a smaller share of a row's largest entry counts as this; subnormal numbers are slow


@runtime_checkable
class ChunkedScores(Protocol):
    """Scores of samples and components, in nats, that are computed when they are asked for."""

    def __len__(self) -> int:
        """Number of samples of this process, which may be zero."""
        ...

    def chunk(self, start: int, stop: int) -> Float[Tensor, "B K"]:
        """Scores of the samples ``start`` to ``stop``, the same at each call; no samples give a tensor of 0 x K."""
        ...


@dataclass(frozen=True)
class Dense:
    """Scores that are in memory."""

    score: Float[Tensor, "N K"]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.score)

    def chunk(self, start: int, stop: int) -> Float[Tensor, "B K"]:
        """Some rows."""
        return self.score[start:stop]

    def within(self, rows: Int[Tensor, " B"], columns: slice) -> "Dense":
        """The scores of some samples and components."""
        return Dense(self.score[rows, columns])


@dataclass(frozen=True)
class Balance:
    """How evenly and how sharply samples are assigned, and at what cost.

    Args:
        regularization: above zero, in nats; small values approach a hard assignment, slowly.
        strength: how strongly the masses of the components are held to their targets, in nats for each nat of
            divergence; infinity meets them, a finite one lets large groups be large.
        steps: maximum number of updates, and of trials of Newton's method in their place.
        tolerance: deviation of a component's mass at which to stop, as a share of its own target.
        kernel_bytes: size of the matrix of exponentials up to which it is kept; 0 recomputes the scores at each step.
    """

    regularization: float = 0.04
    strength: float = math.inf
    steps: int = 500
    tolerance: float = 1e-3
    kernel_bytes: int = KERNEL_BYTES

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.regularization < math.inf:
            raise UsageError(f"Regularization {self.regularization} is out of range. Give a number of nats above 0.")
        if not self.strength > 0:
            raise UsageError(f"Strength {self.strength} is out of range. Give a number above 0, or infinity.")
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps were asked for. Give 1 or more.")

    @property
    def ratio(self) -> float:
        """Nats by which a mass falls below its target for each nat of its potential; 0 where targets are met."""
        return self.regularization / self.strength


ONLINE = Balance(0.05, steps=3)
"""For mini-batches in training, where three steps do: Caron et al., SwAV, NeurIPS 2020."""


@dataclass(frozen=True)
class Assignment:
    """Samples assigned to components.

    Args:
        labels: most responsible component of each sample.
        mass: share of the samples that each component holds, before they are rounded to labels.
        potential: what is added to ``score / regularization`` of each component, in nats.
        regularization: that of the solution.
        error: largest deviation of a component's mass from its target, as a share of the target.
        steps: number of updates and trials.
    """

    labels: Int[Tensor, " N"]
    mass: Float[Tensor, " K"]
    potential: Float[Tensor, " K"]
    regularization: float
    error: float
    steps: int

    def responsibilities(self, score: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Soft assignment of samples from their scores; rows sum to one.

        After :func:`~mixtura.core.two_levels.assign_within`, first put minus infinity where a component has another
        superclass, as :func:`~mixtura.core.ownership.mask_others` does.
        """
        return (score / self.regularization + self.potential.to(score.dtype)).softmax(1)

    def objection(self, tolerance: float = 1e-2) -> str:
        """A sentence to show where it has not converged, empty where it has.

        Args:
            tolerance: largest allowed deviation of a component's mass, as a share of its own target.
        """
        if self.error <= tolerance:
            return ""
        return (
            f"After {self.steps} steps of an assignment, a component's mass is off by {100 * self.error:.2g}% of its "
            f"target, above {100 * tolerance:g}%. A larger regularization would help."
        )


@torch.no_grad()
def assign(
    scores: ChunkedScores,
    column: Float[Tensor, " J"] | None = None,
    balance: Balance | None = None,
    reduce: Reduce | None = None,
) -> Assignment:
    r"""Assignment of all samples to components of given or equal masses, in O(N K) time and O(N + K) memory.

    .. math:: \max_P \sum_{nk} P_{nk} s_{nk} + \epsilon H(P) - \rho \, \mathrm{KL}(P^\top 1 \,\|\, b), \quad
        P 1 = \tfrac1N, \qquad P_{nk} = \tfrac1N \operatorname{softmax}_k(s_{nk} / \epsilon + v_k), \qquad
        v_k \leftarrow v_k + \tfrac{\rho}{\rho + \epsilon} \big[\log b_k - \tfrac\epsilon\rho v_k
        - \log \textstyle\sum_n P_{nk}\big]

    After ten updates, steps of Newton's method take their place where they bring the masses closer to the targets.
    A constant that is added to all scores of a sample changes nothing.

    Args:
        scores: what computes the scores of this process's samples.
        column: target of each component, above zero, in any unit; equal ones if not given.
        balance: regularization :math:`\epsilon`, strength :math:`\rho`, steps and memory.
        reduce: all-reduce (sum) of a tensor across processes, which then all find the same potentials.

    Raises:
        NonFinite: a score is NaN or infinite.
        DataError: there are no samples.
        UsageError: a target is not above zero.

    Source: Cuturi, Sinkhorn Distances, NeurIPS 2013; Chizat et al., Scaling algorithms for unbalanced optimal
    transport problems, Mathematics of Computation 2018, with the constant of v in closed form: Sejourne et al.,
    Faster unbalanced optimal transport, AISTATS 2022; kernels with absorbed potentials: Schmitzer, Stabilized sparse
    scaling algorithms, SIAM J. Sci. Comput. 2019.
    """
    balance = balance or Balance()
    reduce = reduce or _same
    empty = upcast(scores.chunk(0, 0))
    count = reduce(torch.full((1,), float(len(scores)), dtype=torch.float64, device=empty.device))
    if not count > 0:
        raise DataError("No sample is there to assign. Give at least one.")
    target = _targets(column, empty)
    fits = len(scores) * empty.shape[1] * empty.element_size() <= balance.kernel_bytes
    passes = (_Kernel if fits else _Streamed)(scores, balance.regularization)

    def reached(potential: Float[Tensor, " K"]) -> Reached:
        mass = reduce(passes.masses(potential)) / count
        if not mass.isfinite().all():
            raise _broken(scores)
        return Reached(potential, mass, (target - potential * balance.ratio).exp())

    now, step, trials = reached(torch.zeros_like(target)), 0, Trials()
    while now.error > balance.tolerance and step < balance.steps:
        step += 1
        if trials.is_due(now):
            overlap = reduce(passes.overlap(now.potential)) / count
            then = reached(newton.moved(now, overlap, balance.ratio, trials.damping))
            now = then if trials.judge(now, then) else now
        else:
            now = reached(_moved(now, target, balance.ratio))
    labels = _labels(scores, now.potential, balance.regularization)
    return Assignment(labels, now.mass, now.potential, balance.regularization, now.error, step)


def assign_batch(
    batch: Float[Tensor, "B K"],
    queue: Float[Tensor, "Q K"] | None = None,
    column: Float[Tensor, " J"] | None = None,
    balance: Balance = ONLINE,
    reduce: Reduce | None = None,
) -> Assignment:
    """Assignment of a mini-batch in training, balanced over it and over recent samples.

    Args:
        batch: scores of the mini-batch.
        queue: scores of recent samples, only those that are filled; with them few samples can fill many components.
        column: target of each component; see :func:`assign`.
        balance: as for :func:`assign`.
        reduce: as for :func:`assign`; each process gives its own batch and queue.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020.
    """
    both = batch.detach() if queue is None else torch.cat([batch.detach(), queue.detach().to(batch.dtype)])
    found = assign(Dense(both), column, balance, reduce)
    return Assignment(
        found.labels[: len(batch)], found.mass, found.potential, found.regularization, found.error, found.steps
    )


class _Kernel:
    """Masses by products with a matrix of exponentials in which the potentials are absorbed when they have grown."""

    def __init__(self, scores: ChunkedScores, regularization: float) -> None:
        self.scores, self.regularization = scores, regularization
        empty = upcast(scores.chunk(0, 0))
        self.matrix: Float[Tensor, "N K"] = empty.new_empty(len(scores), empty.shape[1])
        self.absorbed: Float[Tensor, " K"] | None = None

    def masses(self, potential: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        scale = self._shift(potential).exp()
        factor, total = scale.to(self.matrix.dtype), torch.zeros_like(scale)
        for block in self._blocks():  # stays in a cache for both products
            total += (block @ factor).reciprocal() @ block
        return total * scale

    def overlap(self, potential: Float[Tensor, " K"]) -> Float[Tensor, "K K"]:
        factor = self._shift(potential).exp().to(self.matrix.dtype)
        return _overlap((block * factor for block in self._blocks()), potential)

    def _blocks(self) -> Iterator[Float[Tensor, "B K"]]:
        rows = _chunk_rows(self.matrix.shape[1])
        return (self.matrix[start : start + rows] for start in range(0, len(self.matrix), rows))

    def _shift(self, potential: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """What the matrix does not hold yet, up to a constant."""
        if self.absorbed is not None:
            shift = potential - self.absorbed
            shift = shift - (shift.max() + shift.min()) / 2
            if shift.abs().max() <= ABSORB:
                return shift
        start = 0
        for block in _kernels(self.scores, self.regularization, potential):
            self.matrix[start : start + len(block)] = block
            start += len(block)
        self.absorbed = potential
        return torch.zeros_like(potential)


class _Streamed:
    """Masses by recomputing the scores: as exact as logarithms, in the memory of a chunk."""

    def __init__(self, scores: ChunkedScores, regularization: float) -> None:
        self.scores, self.regularization = scores, regularization

    def masses(self, potential: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        total = torch.zeros_like(potential)
        for kernel in _kernels(self.scores, self.regularization, potential):
            total += kernel.sum(1).reciprocal() @ kernel
        return total

    def overlap(self, potential: Float[Tensor, " K"]) -> Float[Tensor, "K K"]:
        return _overlap(_kernels(self.scores, self.regularization, potential), potential)


def _overlap(kernels: Iterable[Float[Tensor, "B K"]], potential: Float[Tensor, " K"]) -> Float[Tensor, "K K"]:
    """Sum over samples of the shares of two components multiplied."""
    total = potential.new_zeros(len(potential), len(potential))
    for kernel in kernels:
        share = kernel / kernel.sum(1, keepdim=True)
        total += share.T @ share
    return total


def _kernels(
    scores: ChunkedScores, regularization: float, potential: Float[Tensor, " K"]
) -> Iterator[Float[Tensor, "B K"]]:
    """Exponentials of scores and potentials by chunk, as shares of each row's largest; all NaN if a score is broken."""
    for chunk in _exponents(scores, regularization):
        broken = 0 * chunk.sum()  # without waiting for the device
        bits = chunk.add_((potential * LOG2_E).to(chunk.dtype))
        yield bits.sub_(bits.amax(1, keepdim=True) + broken).clamp_(min=LEAST_BITS).exp2_()


def _exponents(scores: ChunkedScores, regularization: float) -> Iterator[Float[Tensor, "B K"]]:
    """Scores by chunk, in bits of the regularization."""
    rows = _chunk_rows(scores.chunk(0, 0).shape[1])
    for start in range(0, len(scores), rows):
        yield upcast(scores.chunk(start, min(start + rows, len(scores)))) * (LOG2_E / regularization)


def _labels(scores: ChunkedScores, potential: Float[Tensor, " K"], regularization: float) -> Int[Tensor, " N"]:
    bits = potential * LOG2_E
    found = [(chunk + bits.to(chunk.dtype)).argmax(1) for chunk in _exponents(scores, regularization)]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=potential.device)


def _targets(column: Float[Tensor, " J"] | None, empty: Float[Tensor, "Z K"]) -> Float[Tensor, " K"]:
    """Logarithms of the components' target shares, in float64."""
    if column is None:
        return empty.new_full((empty.shape[1],), -math.log(empty.shape[1]), dtype=torch.float64)
    if column.shape != empty.shape[1:]:
        raise UsageError(f"{len(column)} masses are given for {empty.shape[1]} components. Give one for each.")
    if not bool(((column > 0) & column.isfinite()).all()):
        raise UsageError("The mass of a component is not above 0. Leave out the component, or give it mass.")
    return column.to(empty.device, torch.float64).log().log_softmax(0)


def _moved(now: Reached, target: Float[Tensor, " K"], ratio: float) -> Float[Tensor, " K"]:
    """The potentials after an update of Sinkhorn's.

    A finite strength fixes their constant, so that the goals that it allows sum to one.
    """
    gap = now.goal.log() - now.mass.log()
    if not ratio:
        return now.potential + gap
    moved = now.potential + gap / (1 + ratio)
    return moved + (target - moved * ratio).logsumexp(0) / ratio


def _broken(scores: ChunkedScores) -> NonFinite:
    """The error that names the first sample of this process whose scores are not finite."""
    rows = _chunk_rows(scores.chunk(0, 0).shape[1])
    for start in range(0, len(scores), rows):
        bad = ~scores.chunk(start, min(start + rows, len(scores))).isfinite().all(1)
        if bad.any():
            return NonFinite(
                f"The scores of sample {start + int(bad.int().argmax())} hold NaN or infinity. "
                "Check the embeddings: a network that diverges gives such values."
            )
    return NonFinite("Scores of another process hold NaN or infinity. Check the embeddings there.")


def _chunk_rows(columns: int) -> int:
    return max(1, CHUNK_ENTRIES // max(1, columns))


def _same(tensor: Tensor) -> Tensor:
    return tensor
