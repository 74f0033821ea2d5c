"""The same problem in fewer dimensions, where there are fewer samples than dimensions."""

from dataclasses import replace

from jaxtyping import Float, Float64
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior, family_of
from mixtura.core.covariance.tied import Tied
from mixtura.core.cross_fitting import Folds

MAX_SPAN_SHARE = 0.8  # samples per dimension up to which the change of coordinates pays


def pays(x: Float[Tensor, "N D"]) -> bool:
    """Whether samples are so few that their span is worth a change of coordinates."""
    return len(x) <= MAX_SPAN_SHARE * x.shape[1]


def coordinates(x: Float[Tensor, "N D"], prior: Prior) -> tuple[Float64[Tensor, "N R"], Prior]:
    """Samples in coordinates of their span, in units of the prior's scale, and the prior that shrinks alike there.

    An axis has many times the variance of a feature. In float32, sums of products raise it by a share of that against
    rounding, which would be more than a small shrinkage; so the coordinates are in float64.
    """
    units = x if prior.scale is None else x / prior.scale
    return linalg.coordinates(units), replace(prior, scale=None, dimension=x.shape[1])


def spanned(folds: Folds, plan: Plan) -> tuple[Folds, Plan]:
    """Samples in coordinates of the space that they span, and the plan that fits the same tied mixture there.

    No distance between samples depends on the other dimensions, in which a covariance that is shrunk toward the
    identity is a multiple of it. The identity keeps its variance, the average over all dimensions, so class
    log-probabilities are what they were, up to a constant of each fold that no temperature and no rank within it
    notices. The floor is that of the new coordinates, which is as far below any signal.

    Both are returned as they are where this saves nothing, for other families and several components, which depend on
    the axes, and for folds of which each has a space of its own.
    """
    if type(folds) is not Folds or family_of(plan.family) is not Tied or plan.components != 1 or not pays(folds.x):
        return folds, plan
    if plan.feature_scale not in folds.spans:
        scaled = plan.feature_scale != "none"
        prior = plan.resolved(folds.feature_variance(plan.family))[1] if scaled else replace(plan.prior, scale=None)
        folds.spans[plan.feature_scale] = replace(folds, x=coordinates(folds.x, prior)[0], unit=folds.units)
    prior = replace(plan.prior, scale=None, dimension=folds.x.shape[1])
    return folds.spans[plan.feature_scale], replace(plan, prior=prior, feature_scale="none")
