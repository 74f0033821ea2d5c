"""Cross-fitting: every row is judged by a mixture that has not seen it, and the sums are taken only once.

Moments subtract exactly, so the mixture without a fold comes from the sums over all rows minus those of the fold.
Floors and feature scales alone are those of all rows (:meth:`Folds.feature_variance`): they are constants of the model.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.content import content_order, numbered
from mixtura.core.covariance import family_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, feature_variance, labeled

DEFAULT_FOLDS = 5
MAX_PARTS = 20  # that rows are dealt into so that some of them are a fraction
MAX_CACHE_BYTES = 1 << 28  # bytes of sums without a fold, over all folds
ENOUGH_HELD_OUT = 10_000  # held-out rows: the threshold of a 5% rule then has a standard error of 0.2 points


@dataclass(frozen=True)
class OutOfFold:
    """Rows scored by mixtures that have not seen them; densities are in nats.

    ``row`` says which rows, and ``weight`` how often each counts. ``class_log_prob`` is the log-density with each class
    (scores, for a head without a density), ``log_prob`` that under the whole mixture, ``background`` that under the
    one-Gaussian background of the mixture (zero where it was not asked for).
    """

    row: Int[Tensor, " M"]
    label: Int[Tensor, " M"]
    class_log_prob: Float[Tensor, "M C"]
    log_prob: Float[Tensor, " M"]
    background: Float[Tensor, " M"]
    weight: Float[Tensor, " M"]

    @classmethod
    def empty(cls, folds: "Folds") -> "OutOfFold":
        """No row."""
        none, scores = folds.labels[:0], folds.x[:0, :1]
        return cls(none, none, scores.expand(0, folds.n_classes), scores[:, 0], scores[:, 0], folds.counts[:0])

    @classmethod
    def join(cls, parts: Sequence["OutOfFold"]) -> "OutOfFold":
        """The rows of several folds."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    @property
    def counted(self) -> "OutOfFold":
        """The rows that count: those of a weight above zero."""
        some = self.weight > 0
        return OutOfFold(*(getattr(self, item.name)[some] for item in fields(self)))

    @property
    def predicted(self) -> Int[Tensor, " M"]:
        """The class of the highest score."""
        return self.class_log_prob.argmax(1)

    @property
    def correct(self) -> Float[Tensor, " M"]:
        """1 where the predicted class is the right one."""
        return (self.predicted == self.label).double()

    @property
    def accuracy(self) -> float:
        """The share of the weight that the right class is predicted for; 0 where nothing was held out."""
        total = self.weight.sum()
        return min(1.0, float(self.weight @ self.correct / total)) if float(total) > 0 else 0.0


@dataclass(frozen=True)
class Folds:
    """Labeled rows with a fold number each; the first ``n_folds`` folds are held out in turn, other rows never."""

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    n_classes: int
    fold: Int[Tensor, " N"]
    n_folds: int
    weight: Float[Tensor, " N"] | None = None

    @cached_property
    def counts(self) -> Float[Tensor, " N"]:
        """How often each row counts, in float64."""
        ones = torch.ones(len(self.labels), dtype=torch.float64, device=self.labels.device)
        return ones if self.weight is None else self.weight.double()

    @cached_property
    def class_weight(self) -> Float[Tensor, " C"]:
        """How much each class counts, in rows."""
        return torch.bincount(self.labels, self.counts, minlength=self.n_classes)

    @property
    def used(self) -> list[int]:
        """As many folds as it takes to hold out ``ENOUGH_HELD_OUT`` rows."""
        sizes = torch.bincount(self.fold, self.counts, minlength=self.n_folds)[: self.n_folds]
        needed = int((sizes.cumsum(0) < ENOUGH_HELD_OUT).sum()) + 1
        return list(range(min(needed, self.n_folds)))

    @property
    def held_out(self) -> Float[Tensor, " M"]:
        """How often each row counts that is held out of the used folds and has its class in another fold as well."""
        present = torch.zeros(self.n_classes, self.n_folds + 1, dtype=torch.bool, device=self.labels.device)
        present[self.labels[self.counts > 0], self.fold[self.counts > 0].clamp_max(self.n_folds)] = True
        known = (present.sum(1) > 1)[self.labels]
        return self.counts[known & (self.fold < len(self.used))]

    @cached_property
    def _sums(self) -> dict[str, list[Moments]]:
        return {}

    @cached_property
    def _totals(self) -> dict[str, Moments]:
        return {}

    @cached_property
    def _kept(self) -> dict[tuple[str, int], Moments]:
        return {}

    @cached_property
    def _variances(self) -> dict[str, Float[Tensor, " D"]]:
        return {}

    def sums(self, family: str) -> list[Moments]:
        """The moments of each used fold, then those of all other rows; one pass over the rows."""
        if family not in self._sums:
            masks = [self.fold == i for i in self.used]
            masks.append(self.fold >= len(self.used))
            self._sums[family] = labeled(family_of(family), self.x, self.labels, self.n_classes, self.weight, masks)
        return self._sums[family]

    def total(self, family: str) -> Moments:
        """The moments of all rows."""
        if family not in self._totals:
            self._totals[family] = functools.reduce(Moments.__add__, self.sums(family))
        return self._totals[family]

    def kept(self, family: str, without: int) -> Moments:
        """The moments of all rows but those of a fold, about their means; remembered where they are small."""
        key = (family, without)
        if key in self._kept:
            return self._kept[key]
        sums = (self.total(family) - self.sums(family)[without]).centered()
        if sums.second.nbytes * len(self.used) <= MAX_CACHE_BYTES:
            self._kept[key] = sums
        return sums

    def feature_variance(self, family: str) -> Float[Tensor, " D"]:
        """What floors and feature scales are made of: the same for every fold, as constants of the model are."""
        family = "diagonal" if family_of(family).sums_depend_on_parameters else family
        if family not in self._variances:
            self._variances[family] = feature_variance(self.total(family))
        return self._variances[family]

    def precompute(self, family: str) -> None:
        """Take the sums that :meth:`truncate` cuts, where the family has sums that do not depend on its parameters."""
        if not family_of(family).sums_depend_on_parameters:
            self.sums(family)

    def truncate(self, width: int) -> "Folds":
        """The same rows with their first ``width`` features; sums taken so far are cut, not taken again."""
        folds = replace(self, x=self.x[:, :width])
        for family, parts in self._sums.items():
            cut = [narrow for part in parts if (narrow := part.truncate(width)) is not None]
            if cut:
                folds._sums[family] = cut
        return folds

    def with_weight(self, weight: Float[Tensor, " N"]) -> "Folds":
        """The same rows and folds, with other weights; no sums."""
        return replace(self, weight=weight)

    def clear_cache(self) -> None:
        """Free the sums."""
        self._sums.clear()
        self._totals.clear()
        self._kept.clear()

    def mixture(self, plan: Plan, without: int | None = None) -> Mixture:
        """The mixture of a plan over all rows, or over all but one fold."""
        variance = self.feature_variance(plan.family)
        if plan.components != 1 or family_of(plan.family).sums_depend_on_parameters:
            kept = slice(None) if without is None else self.fold != without
            weight = None if self.weight is None else self.weight[kept]
            return classes.fit(plan, self.x[kept], self.labels[kept], self.n_classes, weight, variance)
        sums = self.total(plan.family) if without is None else self.kept(plan.family, without)
        return classes.closed_form(plan, sums, variance)

    def cross_val_predict(self, plan: Plan, background: bool = False) -> OutOfFold:
        """Every row of the used folds, judged without its fold; rows that are alone in their class are left out.

        Rows of weight zero teach nothing, but are judged.

        Args:
            plan: what to fit without each fold.
            background: also score the background, which costs as much again.
        """
        return OutOfFold.join([OutOfFold.empty(self), *(self._scored(plan, i, background) for i in self.used)])

    def _scored(self, plan: Plan, fold: int, background: bool) -> OutOfFold:
        known = torch.zeros(self.n_classes, dtype=torch.bool, device=self.x.device)
        known[self.labels[(self.fold != fold) & (self.counts > 0)]] = True
        row = ((self.fold == fold) & known[self.labels]).nonzero()[:, 0]
        if not len(row):
            return OutOfFold.empty(self)
        mixture = self.mixture(plan, fold)
        x = self.x[row]
        behind = mixture.background().log_prob(x) if background else x.new_zeros(len(x))
        joint = mixture.class_log_prob(x)
        return OutOfFold(row, self.labels[row], joint, joint.logsumexp(1), behind, self.counts[row])


def assign_folds(labels: Int[Tensor, " N"], groups: Int[Tensor, " N"], n_folds: int, seed: int) -> Int[Tensor, " N"]:
    """A fold for each row, drawn at random: classes spread evenly, rows of one group (near-duplicates) together."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    return _deal(order, numbered(groups), labels, n_folds, generator)


def content_folds(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_folds: int,
    seed: int,
    groups: Int[Tensor, " N"] | None = None,
) -> Int[Tensor, " N"]:
    """A fold for each row that follows from the rows themselves: classes spread evenly, equal rows together.

    So a row of weight two is held out as that row twice would be, and neither the order of the rows nor the unit of a
    feature matters. Rows of one of the ``groups`` (near-duplicates) stay together, too.
    """
    order, content = content_order(x, seed)
    unit = content if groups is None else _joined(content, numbered(groups))
    return _deal(order, unit, labels, n_folds, torch.Generator().manual_seed(seed))


def _joined(first: Int[Tensor, " N"], second: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Numbers 0, 1, ... of sets of rows: rows that share a number of either kind are in one set."""
    unit = first
    while True:
        wider = unit
        for key in (second, first):
            wider = torch.full_like(key, len(key)).scatter_reduce_(0, key, wider, "amin")[key]
        if torch.equal(wider, unit):
            return numbered(unit)
        unit = wider


def validation_rows(
    labels: Int[Tensor, " N"], groups: Int[Tensor, " N"], fraction: float, seed: int
) -> Bool[Tensor, " N"]:
    """About a fraction of the rows, drawn at random: classes spread evenly, rows of one group together.

    With two groups or more, some rows are taken and some are left, whatever the fraction.
    """
    most = max(MAX_PARTS, math.ceil(1 / fraction), math.ceil(1 / (1 - fraction)))
    fold = assign_folds(labels, groups, Fraction(fraction).limit_denominator(most).denominator, seed)
    filled = torch.bincount(fold).nonzero()[:, 0]  # of few groups, some folds have none
    count = min(max(1, round(fraction * len(filled))), max(1, len(filled) - 1))
    return torch.isin(fold, filled[:count])


def _deal(
    order: Int[Tensor, " N"],
    unit: Int[Tensor, " N"],
    labels: Int[Tensor, " N"],
    n_folds: int,
    generator: torch.Generator,
) -> Int[Tensor, " N"]:
    """Deal units of rows into folds, class by class as the units come in ``order``; a unit has its lowest label."""
    n_units = int(unit.max()) + 1 if len(unit) else 0
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    place = rank.new_full((n_units,), len(rank)).scatter_reduce_(0, unit, rank, "amin")
    label = labels.new_full((n_units,), int(labels.max()) if len(labels) else 0)
    label = label.scatter_reduce_(0, unit, labels, "amin")
    turn = place.argsort()
    turn = turn[label[turn].argsort(stable=True)]  # by class, and by place within a class
    count = torch.bincount(label)
    offset = torch.randint(n_folds, (len(count),), generator=generator).to(label.device)
    within = torch.arange(n_units, device=label.device) - (count.cumsum(0) - count)[label[turn]]
    fold = torch.empty_like(label).scatter_(0, turn, (within + offset[label[turn]]) % n_folds)
    return fold[unit]
