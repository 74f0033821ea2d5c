"""Class-conditional mixtures fitted without gradients: separate components per class, in closed form or by EM."""

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

SCALE_STRENGTH = 10.0  # samples that the variance of the median feature counts for in the unit of every feature
FLOOR_SHARE = 1e-6  # of a feature's variance: far below any signal, far above float64 rounding
NO_WEIGHT = 1e-9  # samples; rounding error that subtraction leaves of an empty class

FEATURE_SCALES = {"none": 0.0, "half": 0.5, "unit": 1.0}
"""Power of the within-class standard deviation that is the unit of each feature in shrinkage, up to ``scale_share``.
"none" is usually best for deep features, "unit" for tabular data.
"""


@dataclass(frozen=True)
class Plan:
    """Options to fit a class-conditional mixture.

    Args:
        family: a name in ``FAMILIES``.
        components: components per class; one number for all, or one per class.
        prior: shrinkage of the covariances.
        floor: variance added to every dimension, as a share of that feature's variance within classes.
        rank: directions per component, for the low-rank family.
        steps: maximum number of EM steps, for more than one component.
        seed: random seed of the initializations.
        feature_scale: the units in which covariances are shrunk, a name in ``FEATURE_SCALES``.
        scale_share: share of the median variance of all features that is added to each feature's own in these units.
    """

    family: str
    components: int | tuple[int, ...] = 1
    prior: Prior = NO_PRIOR
    floor: float = FLOOR_SHARE
    rank: int = 16
    steps: int = 30
    seed: int = 0
    feature_scale: str = "none"
    scale_share: float = 0.0

    def __post_init__(self) -> None:
        scale, known = self.feature_scale, FEATURE_SCALES
        if self.family != "auto":  # which is settled before anything is fitted
            family_of(self.family)
        if scale not in known and scale != "auto":
            raise UsageError(f"There is no feature scale {scale!r}. {nearest(scale, known)}")

    @property
    def closed(self) -> bool:
        """Whether the mixture is a function of the class moments, so that samples can be subtracted."""
        return self.components == 1 and not family_of(self.family).sums_depend_on_parameters

    def resolved(self, variance: Float[Tensor, " D"]) -> tuple[Float[Tensor, " D"], Prior]:
        r"""Floor and prior in units of the data, given the within-class variance :math:`v_d` of each feature.

        The units are :math:`(v_d + a \operatorname{median} v)^{p/2}`, with a the ``scale_share`` and p the power of the
        feature scale.
        """
        power = FEATURE_SCALES[self.feature_scale]
        scale = None if power == 0 else (variance + self.scale_share * variance.median()).pow(0.5 * power)
        return self.floor * variance, replace(self.prior, scale=scale)


def fit(
    plan: Plan,
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
    variance: Float[Tensor, " D"] | None = None,
) -> Mixture:
    """Fit the class-conditional mixture of a plan; class priors are the weighted class frequencies.

    ``variance`` overrides the within-class feature variance that sets floors and feature scales. Samples of weight
    zero are ignored.
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
    """Mixture with one component per class, from the class moments; a class without samples gets weight zero."""
    n_classes = len(sums.weight)
    sums = replace(sums, weight=torch.where(sums.weight < NO_WEIGHT, 0.0, sums.weight))
    component_class = torch.arange(n_classes, device=sums.weight.device)
    return Mixture.from_moments(sums, *plan.resolved(variance), component_class, n_classes)


def scale_share_of(count: int, weight: Float[Tensor, " N"] | None) -> float:
    """The ``scale_share`` of a plan for so many samples, so that the median feature counts for ten of them.

    A sample of weight two counts as two, one of weight zero as none; normalized weights count as one each.
    """
    if weight is not None:
        count = max(int((weight > 0).sum()), 1)
        return SCALE_STRENGTH / max(float(count), float(weight.sum()))
    return SCALE_STRENGTH / count


def average_variance(x: Float[Tensor, "N D"], weight: Float[Tensor, " N"] | None = None) -> float:
    """Variance of the samples averaged over dimensions, in squared units of x; 1 for constant samples."""
    zeros = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    mean = init.class_means(x, zeros, 1, weight)[0].to(x.dtype)
    squares = (x - mean).square().mean(1, dtype=torch.float64)
    share = torch.ones_like(squares) if weight is None else weight.double()
    variance = float((squares * share).sum() / share.sum())
    return variance if variance > 0 else 1.0


def _counts(plan: Plan, labels: Int[Tensor, " N"], n_classes: int, weight: Float[Tensor, " N"] | None) -> list[int]:
    """Number of components of each class: at most half its samples, and none for a class without samples.

    A sample of weight two counts as two; weights below one count as one, so normalized weights impose no limit.
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
    """Component of each sample, numbered across all classes, and the class of each component."""
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
