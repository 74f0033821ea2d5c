"""Cross-fitting: every row is judged by a mixture that has not seen it, and the sums are taken only once.

Moments subtract exactly, so the mixture without a fold comes from the sums over all rows minus those of the fold.
"""

import functools
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, LowRank
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, class_means, hard

ENOUGH = 10_000  # held-out rows: the threshold of a 5 % rule then has a standard error of 0.2 points


@dataclass(frozen=True)
class Held:
    """Rows judged by mixtures that have not seen them.

    ``row`` says which rows; ``joint`` is their class joint and ``background`` their log-density under the
    one-Gaussian background of the mixture (zero where it was not asked for). Both in nats.
    """

    row: Int[Tensor, " M"]
    label: Int[Tensor, " M"]
    joint: Float[Tensor, "M C"]
    background: Float[Tensor, " M"]

    @property
    def evidence(self) -> Float[Tensor, " M"]:
        """Log-density under the whole mixture, in nats."""
        return self.joint.logsumexp(1)

    @property
    def predicted(self) -> Int[Tensor, " M"]:
        """The class of the highest joint."""
        return self.joint.argmax(1)

    @property
    def correct(self) -> Float[Tensor, " M"]:
        """1 where the predicted class is the right one."""
        return (self.predicted == self.label).double()


@dataclass(frozen=True)
class Folds:
    """Labeled rows with a fold number each; the first ``n_folds`` folds are held out in turn, other rows never."""

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    n_classes: int
    fold: Int[Tensor, " N"]
    n_folds: int
    weight: Float[Tensor, " N"] | None = None

    @property
    def used(self) -> list[int]:
        """As many folds as it takes to hold out ``ENOUGH`` rows."""
        sizes = torch.bincount(self.fold, minlength=self.n_folds)[: self.n_folds]
        needed = int((sizes.cumsum(0) < ENOUGH).sum()) + 1
        return list(range(min(needed, self.n_folds)))

    @cached_property
    def _sums(self) -> dict[str, list[Moments]]:
        return {}

    @cached_property
    def _totals(self) -> dict[str, Moments]:
        return {}

    def sums(self, family: str) -> list[Moments]:
        """The moments of each used fold, then those of all other rows; one pass over the rows."""
        if family not in self._sums:
            mean = class_means(self.x, self.labels, self.n_classes, self.weight)
            masks = [self.fold == i for i in self.used]
            masks.append(self.fold >= len(self.used))
            self._sums[family] = [self._hard(family, mean, mask) for mask in masks]
        return self._sums[family]

    def prepare(self, family: str) -> None:
        """Take the sums that :meth:`narrow` cuts, where the family has sums that do not depend on its parameters."""
        if FAMILIES[family] is not LowRank:
            self.sums(family)

    def narrow(self, width: int) -> "Folds":
        """The same rows with their first ``width`` features; sums taken so far are cut, not taken again."""
        folds = replace(self, x=self.x[:, :width])
        for family, parts in self._sums.items():
            cut = [narrow for part in parts if (narrow := part.narrow(width)) is not None]
            if cut:
                folds._sums[family] = cut
        return folds

    def forget(self) -> None:
        """Free the sums."""
        self._sums.clear()
        self._totals.clear()

    def _hard(self, family: str, mean: Float[Tensor, "C D"], mask: Tensor) -> Moments:
        weight = None if self.weight is None else self.weight[mask]
        return hard(FAMILIES[family], self.x[mask], self.labels[mask], mean, weight)

    def mixture(self, plan: Plan, without: int | None = None) -> Mixture:
        """The mixture of a plan over all rows, or over all but one fold."""
        if plan.components != 1 or FAMILIES[plan.family] is LowRank:
            kept = slice(None) if without is None else self.fold != without
            weight = None if self.weight is None else self.weight[kept]
            return classes.fit(plan, self.x[kept], self.labels[kept], self.n_classes, weight)
        if plan.family not in self._totals:
            self._totals[plan.family] = functools.reduce(Moments.__add__, self.sums(plan.family))
        total = self._totals[plan.family]
        return self._close(plan, total if without is None else total - self.sums(plan.family)[without])

    def _close(self, plan: Plan, moments: Moments) -> Mixture:
        kind = FAMILIES[plan.family]
        moments = replace(moments, weight=torch.where(moments.weight < 1e-9, 0.0, moments.weight))
        covariance = kind.estimate(moments, plan.floor * self._variance, plan.prior)
        log_weight = (moments.weight / moments.weight.sum()).log()
        owner = torch.arange(self.n_classes, device=self.x.device)
        return Mixture(log_weight, moments.mean(), covariance, owner, self.n_classes)

    @cached_property
    def _variance(self) -> float:
        return classes.average_variance(self.x, self.weight)

    def hold_out(self, plan: Plan, background: bool = False) -> Held:
        """Every row of the used folds, judged without its fold; rows that are alone in their class are left out.

        Args:
            plan: what to fit without each fold.
            background: also score the background, which costs as much again.
        """
        parts = [self._held(plan, i, background) for i in self.used]
        names = [field.name for field in fields(Held)]
        return Held(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def _held(self, plan: Plan, fold: int, background: bool) -> Held:
        mixture = self.mixture(plan, fold)
        known = torch.zeros(self.n_classes, dtype=torch.bool, device=self.x.device)
        known[self.labels[self.fold != fold]] = True
        row = ((self.fold == fold) & known[self.labels]).nonzero()[:, 0]
        x = self.x[row]
        behind = mixture.background().evidence(x) if background else x.new_zeros(len(x))
        return Held(row, self.labels[row], mixture.class_joint(x), behind)


def assign_folds(labels: Int[Tensor, " N"], groups: Int[Tensor, " N"], n_folds: int, seed: int) -> Int[Tensor, " N"]:
    """A fold for each row: classes spread evenly, rows of one group (near-duplicates) together."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    fold = torch.empty(len(labels), dtype=torch.int64)
    of_group: dict[int, int] = {}
    count = torch.zeros(int(labels.max()) + 1, dtype=torch.int64)
    offset = torch.randint(n_folds, (len(count),), generator=generator)
    for row in [int(i) for i in order]:
        group, label = int(groups[row]), int(labels[row])
        if group not in of_group:
            of_group[group] = int((count[label] + offset[label]) % n_folds)
            count[label] += 1
        fold[row] = of_group[group]
    return fold
