"""The same problem in fewer dimensions, where there are fewer samples than dimensions."""

from dataclasses import replace

from mixtura.core import linalg
from mixtura.core.classes import Plan
from mixtura.core.covariance import family_of
from mixtura.core.covariance.tied import Tied
from mixtura.core.cross_fitting import Folds

MAX_SPAN_SHARE = 0.8  # samples per dimension up to which the change of coordinates pays


def spanned(folds: Folds, plan: Plan) -> tuple[Folds, Plan]:
    r"""Samples in coordinates of the space that they span, and the plan that fits the same tied mixture there.

    No distance between samples depends on the other :math:`D - R` dimensions: there, a covariance that is shrunk toward
    the identity is a multiple of it. With R dimensions, the share :math:`\gamma` of the identity becomes

    .. math:: \gamma' = \frac{\gamma R / D}{t}, \qquad t = 1 - \gamma + \gamma \frac RD

    and class log-probabilities are :math:`t` times what they were, up to a constant, which no temperature and no rank
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
    share = plan.prior.identity * moved.x.shape[1] / dimension
    identity = share / (1 - plan.prior.identity + share)
    prior = replace(plan.prior, identity=identity, scale=None)
    return moved, replace(plan, prior=prior, feature_scale="none")


def _moved(folds: Folds, plan: Plan) -> Folds:
    """The folds with their samples in coordinates of their span, in units of the feature scales."""
    scale = None if plan.feature_scale == "none" else plan.resolved(folds.feature_variance(plan.family))[1].scale
    x = linalg.coordinates(folds.x if scale is None else folds.x / scale)
    return replace(folds, x=x.to(folds.x.dtype), unit=folds.units)
