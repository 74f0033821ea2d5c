"""Leave-one-out scores of the samples of some folds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import LEAVE_ONE_OUT, classes
from mixtura.core.classes import Plan
from mixtura.core.content import distinct, numbered
from mixtura.core.covariance import family_of
from mixtura.core.covariance.diagonal import Diagonal
from mixtura.core.cross_fitting import Folds, OutOfFold
from mixtura.core.leave_one_out.samples import Everything, Tile, classes_of_units
from mixtura.core.leave_one_out.scores import Scores, squares_of
from mixtura.core.leave_one_out.settling import background_gain, class_share
from mixtura.core.leave_one_out.updates import tolerance_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import labeled
from mixtura.core.span import pays
from mixtura.names import find

MAX_UNIT_ROWS = 256  # largest group removed by an update; without a larger one, the mixture is refitted
UNEVENNESS_A_TOLERANCE = 10  # as a floor's typical deviation from its mean is averaged over many dimensions
MAX_REFITS = 100  # units for which an update loses too many digits


def has_exact_form(folds: Folds, plan: Plan) -> bool:
    """Whether :func:`cross_val_predict` scores the samples of these folds by a plan.

    It needs one component a class, a family of the table ``LEAVE_ONE_OUT``, and a projection that does not depend on
    the samples.
    """
    return folds.fixed and folds.n_folds > 1 and plan.components == 1 and plan.family in LEAVE_ONE_OUT


def cross_val_predict(
    folds: Folds, plans: Sequence[Plan], background: bool = False, exact: bool = True, settled: bool = False
) -> list[OutOfFold]:
    """Scores of the samples of the used folds, each by the mixture of all samples outside its unit.

    The same as :meth:`Folds.cross_val_predict` with each of ``folds.units`` as a fold of its own, without a refit.

    Args:
        folds: the samples; those in its used folds are scored.
        plans: what to fit without each unit; they may differ in their prior only.
        background: also score the background.
        exact: make the decompositions that each plan needs. Otherwise all plans share one, which is accurate to a
            floor's difference between features.
        settled: score deviations from a sample's own class as from a mean of all of its samples, as later items will
            deviate: a mean of four is off by more than one of five; see :mod:`mixtura.core.leave_one_out.settling`.
    """
    judged = (folds.fold < len(folds.used)) & _known(folds)
    some = distinct(folds.units[judged])
    remaining = folds.counts.sum() - torch.bincount(folds.units, folds.counts)[some]
    some, remaining = some[remaining > classes.NO_WEIGHT], remaining[remaining > classes.NO_WEIGHT]
    if not len(some):
        return [OutOfFold.empty(folds) for _ in plans]
    direct = _needs_refit(folds, find(LEAVE_ONE_OUT, plans[0].family).max_classes)[some]
    varied = not torch.equal(remaining, remaining[:1].expand_as(remaining))
    tolerance = tolerance_of(folds.x.dtype) if exact else torch.inf
    form = _form(folds, plans, some[~direct], exact and varied, tolerance)
    found = [_Collected(folds, plan, judged, [], []) for plan in plans]
    for tile in (replace(tile, settled=settled) for tile in form.everything.tiles(folds.units, some[~direct])):
        for one in found:
            one.add(tile, form.score(tile, one.plan.prior, background, tolerance))
        tile.views.clear()
    return [one.joined(some[direct], background, settled) for one in found]


def _form(folds: Folds, plans: Sequence[Plan], some: Int[Tensor, " U"], even: bool, tolerance: float) -> Any:
    """The exact form of the plans' family, with the decompositions that it has made so far."""
    plan, shares = plans[0], [plan.prior.identity for plan in plans]
    few = family_of(plan.family).shared and pays(folds.x)
    even = even and max(shares) == 0
    key = (plan.family, plan.feature_scale, plan.floor, even, min(shares) if few else None)
    if key not in folds.exact_forms:
        rough = Everything.of(folds, plan, even, Diagonal.name) if few else None
        if rough is not None and rough.unevenness(min(shares)) <= UNEVENNESS_A_TOLERANCE * tolerance:
            everything = rough.compact()
        else:
            everything = Everything.of(folds, plan, even)
        folds.exact_forms[key] = find(LEAVE_ONE_OUT, plan.family)(everything, some)
    return folds.exact_forms[key]


def _known(folds: Folds) -> Bool[Tensor, " N"]:
    """Samples whose class has weight outside their unit."""
    pair = numbered(folds.units * folds.n_classes + folds.labels)
    return folds.class_weight[folds.labels] - torch.bincount(pair, folds.counts)[pair] > classes.NO_WEIGHT


def _needs_refit(folds: Folds, max_classes: float) -> Bool[Tensor, " U"]:
    """Units with too many samples or classes for an update."""
    size = torch.bincount(folds.units)
    return (classes_of_units(folds) > max_classes) | (size > min(MAX_UNIT_ROWS, max(1, folds.x.shape[1] // 2)))


@dataclass(frozen=True)
class _Collected:
    """The scores of one plan so far, and the units that lost too many digits."""

    folds: Folds
    plan: Plan
    judged: Bool[Tensor, " N"]
    parts: list[OutOfFold]
    lossy: list[Int[Tensor, " L"]]

    def add(self, tile: Tile, scores: Scores) -> None:
        """Add the judged samples of a tile."""
        weight = tile.class_weight() / tile.remaining[:, None]
        joint = scores.log_density - tile.everything.log_unit + weight.log()[:, None]
        behind = torch.zeros_like(joint[..., 0])
        if scores.background is not None:
            behind = scores.background - tile.everything.log_unit
        some, squares = self.judged[tile.row], scores.squares()
        values = tile.row, tile.label, joint, joint.logsumexp(2), behind, tile.weight
        held = OutOfFold(*(value[some] for value in values))
        self.parts.append(self._kept(replace(held, squares=None if squares is None else squares[some])))
        self.lossy.append(tile.unit[scores.lossy])

    def joined(self, direct: Int[Tensor, " U"], background: bool, settled: bool) -> OutOfFold:
        """All scores in order of the samples, after refits for the units that no update serves."""
        again = torch.cat([direct, *self.lossy])[: len(direct) + MAX_REFITS]
        held = OutOfFold.join([OutOfFold.empty(self.folds), *self.parts])
        held = held.select(held.log_prob.isfinite() & ~torch.isin(self.folds.units[held.row], again))
        held = OutOfFold.join([held, *(self._refitted(int(unit), background, settled) for unit in again)])
        return held.select(held.row.argsort())

    def _refitted(self, unit: int, background: bool, settled: bool) -> OutOfFold:
        """Scores of one unit by a mixture that is fitted without it."""
        folds, family = self.folds, self.plan.family
        own = folds.units == unit
        x, labels, weight = folds.x[own].double(), folds.labels[own], folds.counts[own]
        (sums,) = labeled(family_of(family), x, labels, folds.n_classes, weight)
        kept = (folds.total(family) - sums).centered()
        mixture = classes.closed_form(self.plan, kept, folds.feature_variance(family))
        known = self.judged[own]
        x, joint = x[known], mixture.class_log_prob(x[known])
        slot, left = labels[known], kept.weight
        gain = self._gain(mixture, x, slot, left) if settled and background else 0.0
        if settled:
            joint = self._settled(mixture, joint, distinct(labels), left)
        row, behind, squares = own.nonzero()[known, 0], x.new_zeros(len(x)), None
        if background:
            behind = mixture.background().log_prob(x) + gain
            squares = _squares(mixture, joint, behind)
        return self._kept(OutOfFold(row, labels[known], joint, joint.logsumexp(1), behind, weight[known], squares))

    def _settled(
        self, mixture: Mixture, joint: Float[Tensor, "M C"], slot: Int[Tensor, " S"], left: Float[Tensor, " C"]
    ) -> Float[Tensor, "M C"]:
        """Class log-probabilities with settled deviations from the unit's own classes: see :meth:`Tile.settling`."""
        factor = class_share(self.folds.class_weight, left)[slot]
        peak = (mixture.covariance.log_peak(mixture.dimension) + mixture.log_weight)[slot]
        own = joint[:, slot]
        return joint.index_copy(1, slot, torch.where(own.isfinite(), peak + factor * (own - peak), own))

    def _gain(
        self, mixture: Mixture, x: Float[Tensor, "M D"], label: Int[Tensor, " M"], left: Float[Tensor, " C"]
    ) -> Float[Tensor, " M"]:
        """What settled samples gain under the background: see :func:`background_gain`."""
        if not mixture.covariance.shared:
            return x.new_zeros(len(x))
        behind = mixture.background()
        mean, offset = mixture.mean[label], mixture.mean[label] - behind.mean
        squares = [
            2 * (one.covariance.log_peak(one.dimension) - (one.component_log_prob(at) - one.log_weight))
            for one, at in ((mixture, x), (mixture, mean + offset), (behind, behind.mean + x - mean))
        ]
        own = [square.gather(1, label[:, None])[:, 0] for square in squares[:2]]
        whole = self.folds.class_weight
        return background_gain(whole[label], left[label], (own[0], own[1], squares[2][:, 0]))

    def _kept(self, held: OutOfFold) -> OutOfFold:
        """The scores in the dtype of the samples."""
        dtype = torch.promote_types(self.folds.x.dtype, torch.float32)
        joint, log_prob, behind = (t.to(dtype) for t in (held.class_log_prob, held.log_prob, held.background))
        return OutOfFold(held.row, held.label, joint, log_prob, behind, held.weight, held.squares)


def _squares(mixture: Mixture, joint: Float[Tensor, "M C"], behind: Float[Tensor, " M"]) -> Float[Tensor, "M 2"] | None:
    """Squared distances to the nearest class mean and to the background's; ``None`` without a common covariance."""
    if not mixture.covariance.shared:
        return None
    density = joint - mixture.over_classes(mixture.log_weight.expand(len(joint), -1))
    peak = torch.cat([one.covariance.log_peak(one.dimension)[:1] for one in (mixture, mixture.background())])
    return squares_of(peak.to(joint)[None], torch.where(density.isnan(), -torch.inf, density), behind)
