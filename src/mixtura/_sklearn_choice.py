"""What "auto" means in MixtureClassifier: shrinkage from the sums, family and components from held-out rows.

The side of the split that a row falls on depends on its content alone. So a repeated row stands wholly on one side,
the order of the rows does not matter, and a row of weight two counts exactly as that row twice.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, LowRank, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, labeled

CANDIDATES = ("tied", "diagonal", "lowrank", "full")
COUNTS = (1, 2, 4)
FEW = 10  # points a class; below, only the tied family is safe
MOST = 1 << 27  # numbers in the matrices of the full family
TEMPERATURES = tuple(2.0**power for power in range(8))
HELD_OUT = 5  # one row in so many


@dataclass(frozen=True)
class Rows:
    """Rows, the number of their class, and how often each counts."""

    x: Tensor
    index: Tensor
    n_classes: int
    weight: Tensor | None = None

    def part(self, mask: Tensor) -> "Rows":
        """Some of the rows."""
        weight = None if self.weight is None else self.weight[mask]
        return Rows(self.x[mask], self.index[mask], self.n_classes, weight)

    def counts(self) -> Tensor:
        """How often each row counts."""
        return torch.ones(len(self.x), dtype=torch.float64) if self.weight is None else self.weight

    def class_weight(self) -> Tensor:
        """How much each class counts."""
        return torch.zeros(self.n_classes, dtype=torch.float64).index_add_(0, self.index, self.counts())

    def sums(self, family: str) -> Moments:
        """Sums of each class, for the families whose sums need no look at the mixture."""
        return labeled(FAMILIES[family], self.x, self.index, self.n_classes, self.weight)[0]


def digests(rows: Rows, seed: int) -> Tensor:
    """A number for each row that follows from its content."""
    return torch.tensor([zlib.crc32(row.tobytes(), seed) for row in rows.x.numpy()])


def counted(rows: Rows) -> Rows:
    """The rows that count at all."""
    return rows if rows.weight is None or bool((rows.weight > 0).all()) else rows.part(rows.weight > 0)


def ordered(rows: Rows, seed: int) -> Rows:
    """The rows in an order that their content gives: equal rows stand side by side.

    Random starts that walk along the running weight then see no difference between repeated and weighted rows.
    """
    return rows.part(digests(rows, seed).argsort(stable=True))


def split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to judge by."""
    side = digests(rows, seed) % HELD_OUT == 0
    return rows.part(~side), rows.part(side)


def resolve(plan: Plan, rows: Rows, shrinkage: float | None) -> Plan:
    """The plan with its prior filled in: the given share of the identity, or one estimated from the rows."""
    if shrinkage is not None:
        return replace(plan, prior=Prior(identity=shrinkage))
    if FAMILIES[plan.family] is LowRank:
        return replace(plan, prior=Prior(strength=float(plan.rank)))
    return replace(plan, prior=automatic_prior(rows.sums(plan.family)))


def automatic_prior(sums: Moments) -> Prior:
    """Shrinkage from the sums alone, so that it is the same for batches as for all rows at once.

    The share of the identity is the oracle-approximating estimate for the pooled covariance (full and tied);
    the strength is as many pseudo-points as a covariance has unknowns a row (D, or 1 for variances).

    Source: Chen, Wiesel, Eldar, Hero, Shrinkage Algorithms for MMSE Covariance Estimation (2010), equation 23.
    """
    if sums.second.ndim < 3:
        return Prior(strength=1.0)
    degrees = max(float(sums.weight.sum() - (sums.weight > 0).sum()), 1.0)
    pooled = sums.centered().second.sum(0) / sums.weight.sum()
    dimension = len(pooled)
    square = float(pooled.square().mean())
    mean = float(pooled.diagonal().mean())
    below = (degrees + 1) * (square - mean**2 / dimension)
    identity = 1.0 if below <= 0 else min(1.0, (square + mean**2) / below)
    return Prior(float(dimension) if len(sums.second) > 1 else 0.0, identity)


def choose_family(plan: Plan, rows: Rows, shrinkage: float | None) -> str:
    """The family whose class probabilities fit held-out rows best; tied where a class has few rows."""
    learn, judge = split(rows, plan.seed)
    if len(judge.x) == 0 or float(learn.class_weight().min()) < FEW:
        return "tied"
    dimension = rows.x.shape[1]
    known = [f for f in CANDIDATES if f != "full" or rows.n_classes * dimension**2 <= MOST]
    losses = {family: loss(fitted(replace(plan, family=family), learn, shrinkage), judge) for family in known}
    return min(losses, key=losses.__getitem__)


def loss(mixture: Mixture, judge: Rows) -> float:
    """Mean negative log-probability of the right class at the best temperature, in nats.

    Densities in many dimensions are too sure of themselves; without the temperature a few rows would decide.
    """
    scores, counts = mixture.class_joint(judge.x).double(), judge.counts()
    losses = []
    for temperature in TEMPERATURES:
        chosen = (scores / temperature).log_softmax(1).gather(1, judge.index[:, None])[:, 0]
        losses.append(-float((chosen * counts).sum() / counts.sum()))
    return min(losses)


def choose_counts(plan: Plan, rows: Rows, shrinkage: float | None) -> tuple[int, ...]:
    """For each class, how many components give its held-out rows the highest density; one where it has few rows."""
    learn, judge = split(rows, plan.seed)
    gains = torch.stack([density(fitted(replace(plan, components=k), learn, shrinkage), judge) for k in COUNTS])
    enough = learn.class_weight() >= FEW
    best = torch.where(enough, gains.nan_to_num(-torch.inf).argmax(0), 0)
    return tuple(COUNTS[int(i)] for i in best)


def density(mixture: Mixture, judge: Rows) -> Tensor:
    """Mean log-density of the rows of each class under that class, in nats; NaN for a class without rows."""
    own = mixture.class_joint(judge.x).gather(1, judge.index[:, None])[:, 0].double()
    assert mixture.owner is not None
    prior = torch.zeros(judge.n_classes, dtype=torch.float64)
    prior.index_add_(0, mixture.owner, mixture.log_weight.exp().double())
    total = torch.zeros_like(prior).index_add_(0, judge.index, own * judge.counts())
    return total / judge.class_weight() - prior.log()


def fitted(plan: Plan, rows: Rows, shrinkage: float | None) -> Mixture:
    """The mixture of a plan whose prior is still open."""
    return classes.fit(resolve(plan, rows, shrinkage), rows.x, rows.index, rows.n_classes, rows.weight)


def choose(plan: Plan, rows: Rows, shrinkage: float | None, family: bool, components: bool) -> Plan:
    """The plan with its family, then its components filled in, where these were left open."""
    if family:
        plan = replace(plan, family=choose_family(plan, rows, shrinkage))
    if components:
        counts: Sequence[int] = choose_counts(plan, rows, shrinkage)
        plan = replace(plan, components=1 if set(counts) == {1} else tuple(counts))
    return plan
