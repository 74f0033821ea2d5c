"""Scores of all samples as those of later items will be: what sets limits and temperatures."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core.classes import Plan
from mixtura.core.content import distinct, numbered
from mixtura.core.cross_fitting import Folds, OutOfFold
from mixtura.core.leave_one_out.judge import cross_val_predict
from mixtura.core.span import pays, spanned

LEAST_SPREAD = 0.5  # of scores, relative to their spread as they are


def calibration_scores(folds: Folds, plan: Plan) -> OutOfFold:
    r"""Leave-one-out scores of all samples, with the background, as a model of all samples gives them to later items.

    Deviations from class means are settled. With fewer samples than features, more than class means depend on the size
    of a class: a sample may have its like among five others, and none among four. What is left of this trend follows
    from the scores of samples that are left out in pairs of their class. With n samples of a class, :math:`n_1` and
    :math:`n_2` without one and without two, a median moves by c times the difference between the two, and a spread by
    the ratio of the two to the power of c:

    .. math:: c = \frac{1/n_1 - 1/n}{1/n_2 - 1/n_1}

    Densities and their ratios to the background move as a whole, so no sample changes places with another. Then no
    ratio may exceed that of the same sample under the mixture that has learned it. This matters where all ratios are
    nearly the same, as with features that are constant within each class: terms of 1/n exceed their whole spread there.

    Class probabilities stay as they are.

    Args:
        folds: the samples, with their units.
        plan: what to fit; :func:`has_exact_form` must hold.
    """
    (held,) = cross_val_predict(folds, [plan], background=True, settled=True)
    if not len(held.row):
        return held
    scores = _extrapolated(folds, plan, held) if pays(folds.x) else _scores(held)
    log_prob, relative = scores.to(held.log_prob.dtype)
    space, same = spanned(folds, plan)
    mixture, x = space.mixture(same), space.x[held.row]
    relative = relative.minimum((mixture.log_prob(x) - mixture.background().log_prob(x)).to(relative))
    joint = held.class_log_prob + (log_prob - held.log_prob)[:, None]
    return replace(held, class_log_prob=joint, log_prob=log_prob, background=log_prob - relative)


def _extrapolated(folds: Folds, plan: Plan, held: OutOfFold) -> Float[Tensor, "2 M"]:
    """The scores, extrapolated from those of samples that are left out in pairs."""
    unit, paired = _pairs(folds)
    (less,) = cross_val_predict(replace(folds, unit=unit), [plan], background=True, settled=True)
    scores, both = _scores(held), torch.isin(held.row, less.row) & paired[held.row] & (held.weight > 0)
    row, weight = held.row[both], held.weight[both]
    if not len(row):
        return scores
    before, after = _scores(less.select(torch.searchsorted(less.row, row))), scores[:, both]
    share = _share(folds, unit)[row]
    return torch.stack([_continued(*each, share, weight) for each in zip(scores, before, after, strict=True)])


def _scores(held: OutOfFold) -> Float[Tensor, "2 M"]:
    """The log-density of each sample, and its difference to the background."""
    return torch.stack([held.log_prob, held.log_prob - held.background]).double()


def _pairs(folds: Folds) -> tuple[Int[Tensor, " N"], Bool[Tensor, " N"]]:
    """Units of two units of one class each, in the order of their numbers, and the samples that are in such a pair.

    A unit of several classes, and the last one of a class with an odd number of them, stay alone.
    """
    unit, label = numbered(folds.units), folds.labels
    first = torch.full_like(distinct(unit), folds.n_classes).scatter_reduce_(0, unit, label, "amin")
    single = first == torch.full_like(first, -1).scatter_reduce_(0, unit, label, "amax")
    joined, paired = torch.arange(len(first)), torch.zeros(len(first), dtype=torch.bool)
    for c in distinct(first[single]):
        own = (single & (first == c)).nonzero()[:, 0]
        left, right = own[0 : len(own) - 1 : 2], own[1::2]
        joined[right] = left
        paired[left] = paired[right] = True
    return joined[unit], paired[unit]


def _share(folds: Folds, pair: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The factor c of each sample; 0 where nothing is left of a class."""
    whole = folds.class_weight[folds.labels]
    one, two = (whole - _weight_in(folds, unit) for unit in (folds.units, pair))
    share = (1 / one - 1 / whole) / (1 / two - 1 / one)
    return torch.where((two > 0) & (one > two), share, 0.0)


def _weight_in(folds: Folds, unit: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The weight of the samples of each sample's class in its unit."""
    key = unit * folds.n_classes + folds.labels
    return torch.zeros(int(key.max()) + 1, dtype=torch.float64).index_add_(0, key, folds.counts)[key]


def _continued(
    scores: Float[Tensor, " M"],
    less: Float[Tensor, " P"],
    more: Float[Tensor, " P"],
    share: Float[Tensor, " P"],
    weight: Float[Tensor, " P"],
) -> Float[Tensor, " M"]:
    """Scores whose median and spread go on as they do from ``less`` to ``more``, which are of the same samples."""
    middle = _median(more, weight)
    spreads = [_median((part - _median(part, weight)).abs(), weight) for part in (less, more)]
    power = float(share @ weight / weight.sum())
    ratio = float((spreads[1] / spreads[0]) ** power) if min(spreads) > 0 else 1.0
    shift = _median(share * (more - less), weight)
    return middle + shift + max(LEAST_SPREAD, min(1.0, ratio)) * (scores - middle)


def _median(values: Float[Tensor, " P"], weight: Float[Tensor, " P"]) -> Float[Tensor, ""]:
    """The lower median of values that count by their weights."""
    order = values.argsort()
    reached = weight[order].cumsum(0)
    return values[order][torch.searchsorted(reached, 0.5 * reached[-1])]
