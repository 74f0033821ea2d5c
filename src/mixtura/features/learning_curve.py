"""Out-of-fold scores as a model of all samples would give them, where none can be computed exactly.

A model without a fold judges more harshly than one of all samples. How much its score of a sample rises with more
samples is measured: by models without another fold, too.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.classes import Plan
from mixtura.core.cross_fitting import Folds, OutOfFold
from mixtura.features.projected_folds import CrossFittedFolds, Steps, without_fold


def extrapolated(steps: Steps, x: Float[Tensor, "N D"], folds: Folds, space: Folds, plan: Plan) -> OutOfFold:
    r"""Out-of-fold scores, with densities extrapolated to models of all samples.

    With n samples, :math:`n_1` outside the fold of a sample and :math:`n_2` outside another fold, too, a density that
    approaches its limit like 1/n follows from the two that are known:

    .. math:: s(n) = s(n_1) + \frac{1/n_1 - 1/n}{1/n_2 - 1/n_1}\, (s(n_1) - s(n_2))

    Class scores stay as they are. Samples whose class has no others outside two folds move by the mean of the others.

    Args:
        steps: of the projection.
        x: the samples as they are.
        folds: the samples as they are, with their folds.
        space: the same folds after the projection.
        plan: what to fit.
    """
    held = space.cross_val_predict(plan, background=True)
    parts = [_rise(steps, x, folds, space, plan, (held, k)) for k in space.used]
    row = torch.cat([part[0] for part in parts])
    if not len(row):
        return held
    rise = torch.cat([part[1] for part in parts])
    added = rise.mean(0).repeat(len(folds.labels), 1).index_copy(0, row, rise)[held.row]
    return replace(held, log_prob=held.log_prob + added[:, 0], background=held.background + added[:, 1])


def _rise(
    steps: Steps, x: Float[Tensor, "N D"], folds: Folds, space: Folds, plan: Plan, scored: tuple[OutOfFold, int]
) -> tuple[Int[Tensor, " M"], Float[Tensor, "M 2"]]:
    """Samples of a fold, and by how much log-density and background rise from its model to one of all samples."""
    held, k = scored
    own = held.select(folds.fold[held.row] == k)
    size = torch.bincount(folds.fold, folds.counts, minlength=folds.n_folds)[: folds.n_folds]
    others = [i % folds.n_folds for i in range(k + 1, k + folds.n_folds) if float(size[i % folds.n_folds]) > 0]
    total = float(folds.counts.sum())
    first = total - float(size[k])
    second = first - float(size[others[0]]) if others else 0.0
    if not second > 0:
        return own.row[:0], torch.stack([own.log_prob, own.background], 1)[:0]
    less = _without_two(steps, x, folds, space, k, others[0]).cross_val_predict(plan, background=True)
    both = own.select(torch.isin(own.row, less.row))
    less = less.select(torch.isin(less.row, both.row))
    both, less = both.select(both.row.argsort()), less.select(less.row.argsort())
    rise = torch.stack([both.log_prob - less.log_prob, both.background - less.background], 1)
    return both.row, rise * ((1 / first - 1 / total) / (1 / second - 1 / first))


def _without_two(steps: Steps, x: Float[Tensor, "N D"], folds: Folds, space: Folds, k: int, other: int) -> Folds:
    """Fold ``k`` to be held out, as number 0, with nothing learned from fold ``other``."""
    weight = torch.where(folds.fold == other, 0.0, folds.counts)
    if isinstance(space, CrossFittedFolds):
        return without_fold(steps, x, folds.with_weight(weight), k)
    return replace(space, fold=(folds.fold != k).long(), n_folds=1, weight=weight)
