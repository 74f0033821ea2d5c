"""Cross-fitting: out-of-fold scores for every sample, with moments computed only once.

Moments subtract exactly, so a mixture without a fold uses the moments of all samples minus those of the fold.
Only floors and feature scales use all samples (:meth:`Folds.feature_variance`), as constants of the model.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.content import content_order, numbered
from mixtura.core.covariance import family_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, feature_variance, hard, labeled
from mixtura.core.ownership import ClassLogSumExp

DEFAULT_FOLDS = 5
MAX_PARTS = 20  # most folds used to approximate a fraction of the samples
MAX_CACHE_BYTES = 1 << 28  # bytes of cached leave-one-fold-out moments, over all folds
ENOUGH_HELD_OUT = 7_500  # samples; the limit of a 5% rule then has a standard error of 0.25 points


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold scores of samples; log-densities are in nats.

    ``row`` holds the sample indices and ``weight`` the sample weights. ``class_log_prob`` is the joint log-density of
    sample and class (scores, for a head without a density), ``log_prob`` the log-density under the mixture, and
    ``background`` that under its single-Gaussian background (zero if not requested). ``squares`` are squared distances
    to the nearest class mean and to the mean of the background, where samples were left out one by one and all classes
    share a covariance.
    """

    row: Int[Tensor, " M"]
    label: Int[Tensor, " M"]
    class_log_prob: Float[Tensor, "M C"]
    log_prob: Float[Tensor, " M"]
    background: Float[Tensor, " M"]
    weight: Float[Tensor, " M"]
    squares: Float[Tensor, "M 2"] | None = None

    @classmethod
    def empty(cls, folds: "Folds") -> "OutOfFold":
        """Scores of zero samples."""
        none, scores = folds.labels[:0], folds.x[:0, :1]
        return cls(none, none, scores.expand(0, folds.n_classes), scores[:, 0], scores[:, 0], folds.counts[:0])

    @classmethod
    def join(cls, parts: Sequence["OutOfFold"]) -> "OutOfFold":
        """Concatenated scores of several folds."""
        squares = [part.squares for part in parts if part.squares is not None]
        whole = sum(len(part) for part in squares) == sum(len(part.row) for part in parts)
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in cls._columns()}
        return cls(**columns, squares=torch.cat(squares) if squares and whole else None)

    @classmethod
    def _columns(cls) -> list[str]:
        """The names of what is always there."""
        return [item.name for item in fields(cls) if item.name != "squares"]

    @property
    def counted(self) -> "OutOfFold":
        """Scores of the samples with positive weight."""
        return self.select(self.weight > 0)

    def select(self, index: Bool[Tensor, " M"] | Int[Tensor, " J"]) -> "OutOfFold":
        """Scores of the samples at ``index``."""
        if index.dtype == torch.bool and bool(index.all()):
            return self  # without a copy of all scores
        columns = {name: getattr(self, name)[index] for name in self._columns()}
        return OutOfFold(**columns, squares=None if self.squares is None else self.squares[index])

    def of_parents(self, class_parent: Int[Tensor, " C"]) -> "OutOfFold":
        """Scores of the superclasses that the classes belong to; densities are what they were."""
        joint = ClassLogSumExp.of(class_parent, int(class_parent.max()) + 1)(self.class_log_prob)
        return replace(self, class_log_prob=joint, label=class_parent[self.label])

    @property
    def predicted(self) -> Int[Tensor, " M"]:
        """Class with the highest score."""
        return self.class_log_prob.argmax(1)

    @property
    def correct(self) -> Float[Tensor, " M"]:
        """1 where the predicted class is correct, else 0."""
        return (self.predicted == self.label).double()

    @property
    def accuracy(self) -> float:
        """Weighted accuracy, 0 to 1; 0 if there are no out-of-fold samples."""
        total = self.weight.sum()
        return min(1.0, float(self.weight @ self.correct / total)) if float(total) > 0 else 0.0


@dataclass(frozen=True)
class Folds:
    """Labeled samples with fold indices; folds 0 to ``n_folds`` - 1 are held out in turn, others never.

    ``unit`` numbers the samples that stay together, and ``fixed`` says that where the samples lie does not depend on
    which of them are held out. ``class_parent`` is the superclass of each class, where there are two levels: mixtures
    have components for the classes, and are selected by how well they tell the superclasses apart.
    """

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    n_classes: int
    fold: Int[Tensor, " N"]
    n_folds: int
    weight: Float[Tensor, " N"] | None = None
    unit: Int[Tensor, " N"] | None = None
    fixed: bool = True
    class_parent: Int[Tensor, " C"] | None = None

    @cached_property
    def parents(self) -> Int[Tensor, " C"]:
        """The superclass of each class; with one level, the class itself."""
        everyone = torch.arange(self.n_classes, device=self.labels.device)
        return everyone if self.class_parent is None else self.class_parent

    @property
    def n_parents(self) -> int:
        """Number of superclasses; with one level, of classes."""
        return self.n_classes if self.class_parent is None else int(self.class_parent.max()) + 1

    def judged(self, held: OutOfFold) -> OutOfFold:
        """Out-of-fold scores as a choice is made by them: those of the superclasses, where there are two levels."""
        return held if self.class_parent is None else held.of_parents(self.class_parent)

    @cached_property
    def units(self) -> Int[Tensor, " N"]:
        """Samples with one number leave together; equal samples do if no ``unit`` is given."""
        return content_order(self.x, 0)[1] if self.unit is None else numbered(self.unit)

    @cached_property
    def counts(self) -> Float[Tensor, " N"]:
        """Sample weights, in float64."""
        ones = torch.ones(len(self.labels), dtype=torch.float64, device=self.labels.device)
        return ones if self.weight is None else self.weight.double()

    @cached_property
    def class_weight(self) -> Float[Tensor, " C"]:
        """Total sample weight of each class."""
        return torch.bincount(self.labels, self.counts, minlength=self.n_classes)

    @property
    def used(self) -> list[int]:
        """Indices of the folds to use: enough to hold out ``ENOUGH_HELD_OUT`` samples."""
        sizes = torch.bincount(self.fold, self.counts, minlength=self.n_folds)[: self.n_folds]
        needed = int((sizes.cumsum(0) < ENOUGH_HELD_OUT).sum()) + 1
        return list(range(min(needed, self.n_folds)))

    @property
    def held_out(self) -> Float[Tensor, " M"]:
        """Weights of the samples held out in the used folds whose class also occurs in another fold."""
        present = torch.zeros(self.n_classes, self.n_folds + 1, dtype=torch.bool, device=self.labels.device)
        present[self.labels[self.counts > 0], self.fold[self.counts > 0].clamp_max(self.n_folds)] = True
        known = (present.sum(1) > 1)[self.labels]
        return self.counts[known & (self.fold < len(self.used))]

    @cached_property
    def exact_forms(self) -> dict[tuple[object, ...], Any]:
        """Decompositions of :mod:`mixtura.core.leave_one_out`, kept between calls."""
        return {}

    @cached_property
    def spans(self) -> dict[str, "Folds"]:
        """The samples in coordinates of :mod:`mixtura.core.span`, by feature scale, kept between calls."""
        return {}

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
        """Moments of each used fold, then of all other samples; one pass over the data."""
        if family not in self._sums:
            masks = [self.fold == i for i in self.used]
            masks.append(self.fold >= len(self.used))
            self._sums[family] = labeled(family_of(family), self.x, self.labels, self.n_classes, self.weight, masks)
        return self._sums[family]

    def total(self, family: str) -> Moments:
        """Moments of all samples."""
        if family not in self._totals:
            if self._few and family not in self._sums:  # in one part, since a matrix is large beside the samples
                parts = labeled(family_of(family), self.x, self.labels, self.n_classes, self.weight)
            else:
                parts = self.sums(family)
            self._totals[family] = functools.reduce(Moments.__add__, parts)
        return self._totals[family]

    @property
    def _few(self) -> bool:
        """Whether there are fewer samples than features."""
        return len(self.x) < self.x.shape[1]

    def kept(self, family: str, without: int) -> Moments:
        """Moments of all samples outside a fold, about their means; cached if they are small."""
        key = (family, without)
        if key in self._kept:
            return self._kept[key]
        sums = (self.total(family) - self.sums(family)[without]).centered()
        if sums.second.nbytes * len(self.used) <= MAX_CACHE_BYTES:
            self._kept[key] = sums
        return sums

    def feature_variance(self, family: str) -> Float[Tensor, " D"]:
        """Within-class feature variance for floors and feature scales; the same for every fold."""
        kind = family_of(family)
        if kind.sums_depend_on_parameters or (self._few and not kind.round):
            family = "diagonal"
        if family not in self._variances:
            self._variances[family] = feature_variance(self.total(family))
        return self._variances[family]

    def held_out_spaces(self) -> list[tuple["Folds", int]]:
        """The samples for each used fold, in a space that may not learn from the fold, and the index of the fold."""
        return [(self, i) for i in self.used]

    def at_once(self) -> "Folds":
        """The same samples with all folds held out together, where that takes no more than one fold in turn would."""
        held = self.fold < self.n_folds
        if self.n_folds < 2 or int(held.sum()) * self.n_folds > len(held):
            return self
        return replace(self, fold=(~held).long(), n_folds=1)

    def precompute(self, family: str) -> None:
        """Compute the moments that :meth:`truncate` reuses, unless the family's moments depend on its parameters."""
        if not family_of(family).sums_depend_on_parameters:
            self.sums(family)

    def truncate(self, width: int) -> "Folds":
        """The same samples with their first ``width`` features; moments computed so far are truncated and reused."""
        folds = replace(self, x=self.x[:, :width])
        for family, parts in self._sums.items():
            cut = [narrow for part in parts if (narrow := part.truncate(width)) is not None]
            if cut:
                folds._sums[family] = cut
        return folds

    def with_weight(self, weight: Float[Tensor, " N"]) -> "Folds":
        """The same samples and folds with other weights and no cached moments."""
        return replace(self, weight=weight)

    def clear_cache(self) -> None:
        """Free the cached moments."""
        self._sums.clear()
        self._totals.clear()
        self._kept.clear()
        self.exact_forms.clear()
        self.spans.clear()

    def mixture(self, plan: Plan, without: int | None = None) -> Mixture:
        """Fit the mixture of a plan to all samples, or to all but one fold."""
        if not plan.closed:
            return self.fitted_to(plan, slice(None) if without is None else self.fold != without)
        sums = self.total(plan.family) if without is None else self.kept(plan.family, without)
        return classes.closed_form(plan, sums, self.feature_variance(plan.family))

    def fitted_to(self, plan: Plan, kept: Bool[Tensor, " N"] | Int[Tensor, " M"] | slice) -> Mixture:
        """Fit the mixture of a plan to some samples, with the floors and feature scales of all."""
        weight = None if self.weight is None else self.weight[kept]
        variance = self.feature_variance(plan.family)
        return classes.fit(plan, self.x[kept], self.labels[kept], self.n_classes, weight, variance)

    def subtract(self, sums: Moments, gone: Bool[Tensor, " N"] | Int[Tensor, " M"]) -> Moments:
        """Moments without some of the samples, which are summed about the same reference points."""
        weight = None if self.weight is None else self.weight[gone]
        return sums - hard(sums.family, self.x[gone], self.labels[gone], sums.ref, weight)

    def cross_val_predict(self, plan: Plan, background: bool = False) -> OutOfFold:
        """Out-of-fold scores of the used folds; samples whose class occurs in no other fold are left out.

        Samples of weight zero are scored but not learned from.

        Args:
            plan: what to fit without each fold.
            background: also score the background, at twice the cost.
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
    """Random fold of each sample, stratified by class; samples of one group (near-duplicates) stay together."""
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
    """Fold of each sample, derived from its values and stratified by class; equal samples stay together.

    So a sample of weight two is held out like two copies of it, and neither the sample order nor the unit of a
    feature matters. Samples of one of the ``groups`` (near-duplicates) stay together, too.
    """
    order, content = content_order(x, seed)
    unit = content if groups is None else _joined(content, numbered(groups))
    return _deal(order, unit, labels, n_folds, torch.Generator().manual_seed(seed))


def content_units(x: Float[Tensor, "N D"], groups: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Number of the samples that stay together: equal ones, and those of one group."""
    return _joined(content_order(x, 0)[1], numbered(groups))


def _joined(first: Int[Tensor, " N"], second: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Connected components 0, 1, ... of samples that share a number in ``first`` or ``second``."""
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
    """Mask of a random fraction of the samples, stratified by class; samples of one group stay together.

    With two or more groups, neither side of the split is empty, whatever the fraction.
    """
    most = max(MAX_PARTS, math.ceil(1 / fraction), math.ceil(1 / (1 - fraction)))
    fold = assign_folds(labels, groups, Fraction(fraction).limit_denominator(most).denominator, seed)
    filled = torch.bincount(fold).nonzero()[:, 0]  # with few groups, some folds are empty
    count = min(max(1, round(fraction * len(filled))), max(1, len(filled) - 1))
    return torch.isin(fold, filled[:count])


def _deal(
    order: Int[Tensor, " N"],
    unit: Int[Tensor, " N"],
    labels: Int[Tensor, " N"],
    n_folds: int,
    generator: torch.Generator,
) -> Int[Tensor, " N"]:
    """Assign units of samples to folds in turn, class by class in ``order``; a unit has its lowest label."""
    n_units = int(unit.max()) + 1 if len(unit) else 0
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    place = rank.new_full((n_units,), len(rank)).scatter_reduce_(0, unit, rank, "amin")
    label = labels.new_full((n_units,), int(labels.max()) if len(labels) else 0)
    label = label.scatter_reduce_(0, unit, labels, "amin")
    turn = place.argsort()
    turn = turn[label[turn].argsort(stable=True)]  # by class, then by position within the class
    count = torch.bincount(label)
    offset = torch.randint(n_folds, (len(count),), generator=generator).to(label.device)
    within = torch.arange(n_units, device=label.device) - (count.cumsum(0) - count)[label[turn]]
    fold = torch.empty_like(label).scatter_(0, turn, (within + offset[label[turn]]) % n_folds)
    return fold[unit]
