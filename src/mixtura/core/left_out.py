"""Leave classes out: mixtures without some of the classes, by subtraction of their moments.

The rows of a class that a mixture does not know stand for things that were never shown, so a model can be asked what it
makes of strangers before any was seen. Floors and feature scales still use all rows, as constants of the model.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import classes, linalg
from mixtura.core.classes import Plan
from mixtura.core.content import content_order
from mixtura.core.covariance import family_of
from mixtura.core.cross_fitting import Folds
from mixtura.core.mixture import Mixture

MIN_CLASSES = 5  # classes; with fewer, a fifth of them is less than one
PARTS = 5  # parts of the classes, left out in turn
MAX_ROUNDING = 0.01  # nats that rounding may change a squared distance by, where differences of them are taken
REPEATS = 2  # random partitions into parts; each class is left out once in each


def class_draws(n_classes: int, seed: int) -> list[Bool[Tensor, " C"]]:
    """Masks of the classes that each draw leaves out: a fifth of them, and each class in two draws of ten."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.arange(n_classes) % PARTS
    shuffled = [part[torch.randperm(n_classes, generator=generator)] for _ in range(REPEATS)]
    return [mix == place for mix in shuffled for place in range(PARTS)]


def mixture_without(folds: Folds, plan: Plan, gone: Bool[Tensor, " C"], fold: int) -> Mixture:
    """The mixture of a plan without some classes and without a fold; it equals a refit to the other rows.

    Classes keep their indices; one that is left out has no component.

    Args:
        folds: the rows, with their folds.
        plan: what to fit.
        gone: the classes to leave out.
        fold: the fold to leave out.
    """
    if not plan.closed:
        return folds.fitted_to(plan, rows_without(folds, gone, fold))
    sums, stays = folds.kept(plan.family, fold), (~gone).nonzero()[:, 0]
    if family_of(plan.family).shared:  # one sum over all classes
        sums = folds.subtract(sums, gone[folds.labels] & (folds.fold != fold))
    mixture = classes.closed_form(plan, sums.select(stays), folds.feature_variance(plan.family))
    return replace(mixture, component_class=stays, n_classes=folds.n_classes)


def mixture_without_rows(folds: Folds, plan: Plan, gone: Bool[Tensor, " N"]) -> Mixture:
    """The mixture of a plan without some rows; it equals a refit to the others."""
    if not plan.closed:
        return folds.fitted_to(plan, ~gone)
    left = folds.subtract(folds.total(plan.family).centered(), gone)
    return classes.closed_form(plan, left, folds.feature_variance(plan.family))


def rows_without(folds: Folds, gone: Bool[Tensor, " C"], fold: int) -> Int[Tensor, " M"]:
    """Indices of the rows with weight that are in neither the fold nor the classes."""
    return (~gone[folds.labels] & (folds.fold != fold) & (folds.counts > 0)).nonzero()[:, 0]


def judged_rows(folds: Folds, fold: int, most: int, seed: int) -> Int[Tensor, " M"]:
    """Indices of the rows of a fold with weight, at most about ``most`` of them, chosen by their values."""
    return some_of(folds, ((folds.fold == fold) & (folds.counts > 0)).nonzero()[:, 0], most, seed)


def some_of(folds: Folds, rows: Int[Tensor, " M"], most: int, seed: int) -> Int[Tensor, " K"]:
    """At most ``most`` of the rows, chosen by their values."""
    if len(rows) <= most:
        return rows
    order, _ = content_order(folds.x[rows], seed)
    return rows[order[:most].sort().values]


def known_labels(folds: Folds, gone: Bool[Tensor, " C"], fold: int) -> Bool[Tensor, " C"]:
    """Classes that a mixture without a fold and without some classes still has rows of."""
    known = torch.zeros_like(gone)
    known[folds.labels[rows_without(folds, gone, fold)]] = True
    return known


def background_peak(mixture: Mixture) -> float:
    """Log-density of a mixture's background at its mean, in nats."""
    return scores_with_peak(mixture, mixture.mean[:0])[2]


def scores_with_peak(
    mixture: Mixture, x: Float[Tensor, "N D"]
) -> tuple[Float[Tensor, "N C"], Float[Tensor, " N"], float]:
    """What :func:`scores_with_background` returns, and the background's log-density at its mean, in nats."""
    mean = (mixture.log_weight.exp()[:, None].to(mixture.mean) * mixture.mean).sum(0, keepdim=True)
    joint, background = scores_with_background(mixture, torch.cat([x, mean.to(x)]))
    return joint[:-1], background[:-1], float(background[-1])


def scores_with_background(
    mixture: Mixture, x: Float[Tensor, "N D"]
) -> tuple[Float[Tensor, "N C"], Float[Tensor, " N"]]:
    r"""Class log-probabilities of rows, and their log-density under the mixture's background, in nats.

    A background is the components' covariance plus the scatter of K means. If the components share a covariance
    :math:`\Sigma` and K is small, it needs no matrix of its own: with :math:`\delta_k = \mu_k - \mu_0`, all in the
    metric of :math:`\Sigma^{-1}`,

    .. math:: u_k = \sqrt{\pi_k} \langle \delta_k, x - \mu_0 \rangle, \quad
        B = I + (\sqrt{\pi_k \pi_j} \langle \delta_k, \delta_j \rangle)_{kj}, \quad
        -2 \log p_0(x) = \|x - \mu_0\|^2 - u^\top B^{-1} u + \log |B| + \text{const}

    and every product follows from squared distances to the means.

    Source: the Woodbury identity and the matrix determinant lemma.
    """
    if not mixture.covariance.shared or 2 * mixture.n_components > mixture.dimension:
        return mixture.class_log_prob(x), mixture.background().log_prob(x)
    share = mixture.log_weight.exp().double()
    center = (share[:, None] * mixture.mean).sum(0, keepdim=True)
    means = torch.cat([mixture.mean, center])
    plain = Mixture(means.new_zeros(len(means)), means, mixture.covariance)
    peak = float(mixture.covariance.log_peak(mixture.dimension))
    log_prob = plain.component_log_prob(x)
    joint = mixture.over_classes(log_prob[:, :-1] + mixture.log_weight.to(log_prob))
    squared, between = (2 * (peak - part.double()) for part in (log_prob, plain.component_log_prob(means.double())))
    if max(float(squared.max()), float(between.max())) * torch.finfo(log_prob.dtype).eps > MAX_ROUNDING:
        return joint, mixture.background().log_prob(x)
    far = between[-1, :-1]  # squared distance of each mean to the center
    root = share.sqrt()
    inner = 0.5 * (far[:, None] + far - between[:-1, :-1]) * root[:, None] * root
    across = 0.5 * (far + squared[:, -1:] - squared[:, :-1]) * root
    lower = linalg.cholesky(inner + torch.eye(len(inner), dtype=inner.dtype))
    saved = linalg.solve_rows(lower, across).square().sum(1)
    return joint, peak - linalg.half_log_det(lower) - 0.5 * (squared[:, -1] - saved)
