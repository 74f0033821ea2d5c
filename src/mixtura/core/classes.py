"""Class-conditional mixtures without gradients: components of its own for each class, in closed form or by EM."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import em, init
from mixtura.core.covariance import NO_PRIOR, Diagonal, Prior, family_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, feature_variance, labeled
from mixtura.errors import UsageError
from mixtura.names import nearest

FLOOR_SHARE = 1e-6  # of the variance of a feature: far below any signal, far above float64 rounding
NO_WEIGHT = 1e-9  # rows; what a subtraction of sums leaves of a class that has none

FEATURE_SCALES = {"none": 0.0, "half": 0.5, "unit": 1.0}
"""Features may be shrunk in units of a power of their standard deviations within classes: what is common to them then
is their unit. On deep features the raw ones usually serve best, on tables the standard deviations.
"""


@dataclass(frozen=True)
class Plan:
    """How to fit: family, components a class, shrinkage.

    Args:
        family: a name in ``FAMILIES``.
        components: how many a class; one number for all, or one a class.
        prior: shrinkage of the covariances.
        floor: variance added to every dimension, as a share of the variance of that feature within classes.
        rank: directions a component, for the low-rank family.
        steps: most steps of EM, for more than one component.
        seed: of the starts.
        feature_scale: the units in which covariances are shrunk, a name in ``FEATURE_SCALES``.
    """

    family: str
    components: int | tuple[int, ...] = 1
    prior: Prior = NO_PRIOR
    floor: float = FLOOR_SHARE
    rank: int = 16
    steps: int = 30
    seed: int = 0
    feature_scale: str = "none"

    def __post_init__(self) -> None:
        scale, known = self.feature_scale, FEATURE_SCALES
        if self.family != "auto":  # which is settled before anything is fitted
            family_of(self.family)
        if scale not in known and scale != "auto":
            raise UsageError(f"There is no feature scale {scale!r}. {nearest(scale, known)}")

    def resolved(self, variance: Float[Tensor, " D"]) -> tuple[Float[Tensor, " D"], Prior]:
        """Floor and prior in units of the data, whose variance within classes is given by feature."""
        power = FEATURE_SCALES[self.feature_scale]
        scale = None if power == 0 else variance.pow(0.5 * power)
        return self.floor * variance, replace(self.prior, scale=scale)


def fit(
    plan: Plan,
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
    variance: Float[Tensor, " D"] | None = None,
) -> Mixture:
    """The class-conditional mixture of a plan; class priors are the classes' shares of the (weighted) rows.

    ``variance`` is what floors and feature scales are made of, where it is not that of these rows. A row of weight
    zero is as good as absent.
    """
    if weight is not None and bool((weight == 0).any()):
        some = weight > 0
        x, labels, weight = x[some], labels[some], weight[some]
    kind, counts = family_of(plan.family), _counts(plan, labels, n_classes, weight)
    closed = max(counts) == 1 and not kind.sums_depend_on_parameters
    if closed or variance is None:
        (sums,) = labeled(kind if closed else Diagonal, x, labels, n_classes, weight)
        variance = feature_variance(sums) if variance is None else variance
        if closed:
            mixture = closed_form(plan, sums, variance)
            return mixture if min(counts) else mixture.select(sums.weight.nonzero()[:, 0])
    floor, prior = plan.resolved(variance)
    units = x if prior.scale is None else x / prior.scale.to(x.dtype)
    parts, component_class = _split(units, labels, counts, plan.seed, weight)
    mixture = init.from_labels(plan.family, x, parts, len(component_class), floor, prior, weight, plan.rank)
    mixture = replace(mixture, component_class=component_class.to(x.device), n_classes=n_classes)
    if max(counts) == 1:
        return mixture
    return em.fit(mixture, em.Chunks(x, labels, weight), floor, prior, steps=plan.steps).mixture


def closed_form(plan: Plan, sums: Moments, variance: Float[Tensor, " D"]) -> Mixture:
    """One component a class, straight from the sums of the classes; a class without rows has weight zero."""
    n_classes = len(sums.weight)
    sums = replace(sums, weight=torch.where(sums.weight < NO_WEIGHT, 0.0, sums.weight))
    component_class = torch.arange(n_classes, device=sums.weight.device)
    return Mixture.from_moments(sums, *plan.resolved(variance), component_class, n_classes)


def average_variance(x: Float[Tensor, "N D"], weight: Float[Tensor, " N"] | None = None) -> float:
    """Variance of the rows about their mean, averaged over dimensions, in squared units of x; 1 for constant rows."""
    zeros = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    mean = init.class_means(x, zeros, 1, weight)[0].to(x.dtype)
    squares = (x - mean).square().mean(1, dtype=torch.float64)
    share = torch.ones_like(squares) if weight is None else weight.double()
    variance = float((squares * share).sum() / share.sum())
    return variance if variance > 0 else 1.0


def _counts(plan: Plan, labels: Int[Tensor, " N"], n_classes: int, weight: Float[Tensor, " N"] | None) -> list[int]:
    """Components of each class: never more than half its rows, none for a class without rows.

    A row of weight two counts as two; light rows count as one, so that weights that sum to one limit nothing.
    """
    found = torch.bincount(labels, minlength=n_classes).double()
    if weight is not None:
        found = found.maximum(torch.bincount(labels, weight.double(), minlength=n_classes))
    rows = [int(n) for n in found]
    asked: Sequence[int] = (plan.components,) * n_classes if isinstance(plan.components, int) else plan.components
    return [min(a, max(1, n // 2)) if n else 0 for a, n in zip(asked, rows, strict=True)]


def _split(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    counts: list[int],
    seed: int,
    weight: Float[Tensor, " N"] | None,
) -> tuple[Int[Tensor, " N"], Int[Tensor, " K"]]:
    """A component for each row, numbered through all classes, and the class that owns each component."""
    first = [sum(counts[:c]) for c in range(len(counts))]
    parts = torch.tensor(first, device=x.device)[labels]
    generator = torch.Generator(x.device).manual_seed(seed)
    for c, count in enumerate(counts):
        if count > 1:
            rows = labels == c
            part = None if weight is None else weight[rows]
            parts[rows] += init.kmeans_plus_plus(x[rows], count, generator, part)
    component_class = torch.tensor([c for c, count in enumerate(counts) for _ in range(count)])
    return parts, component_class
