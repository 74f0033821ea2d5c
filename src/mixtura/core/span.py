"""The same problem in fewer dimensions, where there are fewer samples than dimensions."""

from dataclasses import replace

from mixtura.core import linalg
from mixtura.core.classes import Plan
from mixtura.core.covariance import family_of
from mixtura.core.covariance.tied import Tied
from mixtura.core.cross_fitting import Folds

MAX_SPAN_SHARE = 0.8  # samples per dimension up to which the change of coordinates pays


def spanned(folds: Folds, plan: Plan) -> tuple[Folds, Plan]:
    """Samples in coordinates of the space that they span, and the plan that fits the same tied mixture there.

    No distance between samples depends on the other dimensions, in which a covariance that is shrunk toward the
    identity is a multiple of it. The identity keeps its variance, the average over all dimensions, so class
    log-probabilities are what they were, up to a constant of each fold that no temperature and no rank within it
    notices. The floor is that of the new coordinates, which is as far below any signal.

    Both are returned as they are where this saves nothing, for other families and several components, which depend on
    the axes, and for folds of which each has a space of its own.
    """
    count, dimension = folds.x.shape
    if type(folds) is not Folds or family_of(plan.family) is not Tied or plan.components != 1:
        return folds, plan
    if count > MAX_SPAN_SHARE * dimension:
        return folds, plan
    if plan.feature_scale not in folds.spans:
        folds.spans[plan.feature_scale] = _moved(folds, plan)
    moved = folds.spans[plan.feature_scale]
    prior = replace(plan.prior, scale=None, dimension=dimension)
    return moved, replace(plan, prior=prior, feature_scale="none")


def _moved(folds: Folds, plan: Plan) -> Folds:
    """The folds with their samples in coordinates of their span, in units of the feature scales, in float64.

    An axis has many times the variance of a feature. In float32, sums of products raise it by a share of that against
    rounding, which would be more than a small shrinkage.
    """
    scale = None if plan.feature_scale == "none" else plan.resolved(folds.feature_variance(plan.family))[1].scale
    return replace(folds, x=linalg.coordinates(folds.x if scale is None else folds.x / scale), unit=folds.units)
