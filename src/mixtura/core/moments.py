"""Weighted sums of samples about reference points; fitting only adds and subtracts them."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_WITHIN_SHARE = 1e-12  # of a feature's variance; a smaller within-component variance is rounding error
MIN_CENTERED_SHARE = 0.05  # of sums about one point that remains after centering; rounding up then costs less than 0.4%
TILE, TILE_PER_LABEL = 8192, 8  # samples per float32 sum, which loses few digits and little time
CONSTANT_TOLERANCE = 1e-18  # of a feature's square; float32 sums of a constant vary by this much


@dataclass(frozen=True)
class LabeledItems:
    """Rows in the space of a mixture, their class numbers in the model, and weights.

    ``component`` is the component that each row was learned by, where that is known; -1 for other rows.
    """

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    weight: Float[Tensor, " N"]
    component: Int[Tensor, " N"] | None = None

    def select(self, index: Bool[Tensor, " N"] | Int[Tensor, " J"]) -> "LabeledItems":
        """The items at ``index``."""
        component = None if self.component is None else self.component[index]
        return LabeledItems(self.x[index], self.labels[index], self.weight[index], component)


@dataclass(frozen=True)
class FactorPosterior:
    r"""Posterior of the latent factors given a sample, :math:`E[z \mid x] = B^\top (x - \mu)`.

    ``basis`` is :math:`B = \Sigma^{-1} A`; ``uncertainty`` is the posterior covariance of the factors.

    Source: Ghahramani and Hinton, The EM Algorithm for Mixtures of Factor Analyzers, 1996.
    """

    basis: Float[Tensor, "K D R"]
    uncertainty: Float[Tensor, "K R R"]


@runtime_checkable
class Sums(Protocol):
    """Second-moment sums of a covariance family: how to compute, recenter and truncate them."""

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None) -> Tensor:
        """Weighted second sums of samples about one common point."""
        ...

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Tensor:
        """Second sums of samples already shifted to their component's point; ``scaled`` includes the weights."""
        ...

    @staticmethod
    def recenter(
        second: Tensor,
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Tensor:
        """Second sums after shifting the reference points by ``delta``."""
        ...

    @staticmethod
    def truncate(second: Tensor, width: int) -> Tensor | None:
        """Second sums of the first ``width`` features; ``None`` if the family keeps no sums per feature."""
        ...

    @staticmethod
    def variances(second: Tensor) -> Float[Tensor, "J W"]:
        """Sums of squares per feature; a single column if the family keeps only their total."""
        ...

    @staticmethod
    def reference(
        x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int, weight: Float[Tensor, " N"] | None
    ) -> Float[Tensor, "K D"]:
        """Reference points for labeled samples: the fastest ones that lose no digits on most data."""
        ...

    @staticmethod
    def labeled(
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        ref: Float[Tensor, "K D"],
        weight: Float[Tensor, " N"] | None,
        row: Int[Tensor, " M"] | None,
    ) -> "Moments":
        """Moments of labeled samples about :meth:`reference`, over all samples or over those at the indices ``row``."""
        ...

    @classmethod
    def estimate(cls, moments: "Moments", floor: Any, prior: Any) -> Any:
        """M-step: maximum-likelihood covariance for the moments. ``floor`` is a variance in squared units of x."""
        ...


@dataclass(frozen=True)
class Moments:
    r"""Sufficient statistics of the data for fitting a mixture, in float64.

    .. math::
        w_k = \sum_n r_{nk}, \quad
        f_k = \sum_n r_{nk} (x_n - c_k), \quad
        S_k = \sum_n r_{nk} (x_n - c_k)(x_n - c_k)^\top

    ``ref`` holds the reference points :math:`c_k`; ``second`` holds :math:`S_k` in the shape of the ``family``:
    a number, a diagonal, a full matrix, one matrix for all, or a diagonal and a projected scatter. ``factors``
    holds the factor posterior of the low-rank family and is ``None`` for the others.

    Moments of disjoint parts of the data (batches, files, machines) add up to the moments of all of it.
    """

    family: type[Sums]
    ref: Float[Tensor, "K D"]
    weight: Float[Tensor, " K"]
    first: Float[Tensor, "K D"]
    second: Float[Tensor, "J *S"]
    factors: FactorPosterior | None = None

    def __repr__(self) -> str:
        components, dimension = self.ref.shape
        return (
            f"Moments({self.family.__name__.lower()}, {components} components, {dimension} dimensions, "
            f"weight {float(self.weight.sum()):g})"
        )

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both parts of the data, about the reference points of the left operand."""
        other = other.about(self.ref)
        return replace(
            self,
            weight=self.weight + other.weight,
            first=self.first + other.first,
            second=self.second + other.second,
        )

    def __sub__(self, other: "Moments") -> "Moments":
        """Moments without the samples in ``other``; use it to forget samples exactly."""
        other = other.about(self.ref)
        return replace(
            self,
            weight=self.weight - other.weight,
            first=self.first - other.first,
            second=self.second - other.second,
        )

    def about(self, ref: Float[Tensor, "K D"]) -> "Moments":
        r"""The same moments about other reference points.

        .. math:: f' = f - w\delta, \qquad S' = S - \delta f^\top - f\delta^\top + w\delta\delta^\top
        """
        if ref is self.ref or torch.equal(ref, self.ref):
            return self
        delta = ref.double() - self.ref
        second = self.family.recenter(self.second, self.weight, self.first, delta, self.factors)
        return replace(self, ref=ref.double(), first=self.first - self.weight[:, None] * delta, second=second)

    def select(self, index: Int[Tensor, " J"]) -> "Moments":
        """Moments of the components at ``index``; a second sum shared by all components is unchanged."""
        shared = len(self.second) == 1 < len(self.ref)
        factors = (
            None
            if self.factors is None
            else FactorPosterior(self.factors.basis[index], self.factors.uncertainty[index])
        )
        second = self.second if shared else self.second[index]
        return Moments(self.family, self.ref[index], self.weight[index], self.first[index], second, factors)

    def truncate(self, width: int) -> "Moments | None":
        """Moments of the first ``width`` features; ``None`` if the family keeps no sums per feature."""
        second = self.family.truncate(self.second, width)
        if second is None:
            return None
        return replace(self, ref=self.ref[:, :width], first=self.first[:, :width], second=second)

    def mean(self) -> Float[Tensor, "K D"]:
        """Weighted mean of each component; a component without weight keeps its reference point."""
        weight = self.weight[:, None]
        return self.ref + torch.where(weight > 0, self.first / weight.clamp_min(_TINY), 0.0)

    def centered_variances(self) -> Float[Tensor, "J W"]:
        r"""Sums of squares per feature about the means, :math:`S_{dd} - 2\delta_d f_d + w\delta_d^2`, in the family's
        shape; cheaper than :meth:`centered`, which also moves the off-diagonal entries.
        """
        delta = self.mean() - self.ref
        shift = delta * (2 * self.first - self.weight[:, None] * delta)
        squares = self.family.variances(self.second)
        shift = shift.sum(0, keepdim=True) if len(squares) == 1 else shift
        shift = shift.sum(1, keepdim=True) if squares.shape[1] == 1 else shift
        return squares - shift

    def centered(self) -> "Moments":
        """The same moments about the means, where the first moments are zero."""
        return self.about(self.mean())

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors to all-reduce across machines: weight, first, second."""
        return self.weight, self.first, self.second

    def with_tensors(self, weight: Tensor, first: Tensor, second: Tensor) -> "Moments":
        """Copy with new values, such as the all-reduced :meth:`tensors`."""
        return replace(self, weight=weight, first=first, second=second)


_TINY = torch.finfo(torch.float64).tiny


def side_by_side(first: Moments, other: Moments, shared: bool) -> Moments:
    """Moments of the components of both, of one family, over different samples.

    Args:
        first, other: moments of either.
        shared: whether the family has one second sum for all components.
    """
    factors = None
    if first.factors is not None and other.factors is not None:
        pairs = zip(vars(first.factors).values(), vars(other.factors).values(), strict=True)
        factors = FactorPosterior(*(torch.cat(pair) for pair in pairs))
    second = first.second + other.second if shared else torch.cat([first.second, other.second])
    ref, weight = torch.cat([first.ref, other.ref]), torch.cat([first.weight, other.weight])
    return Moments(first.family, ref, weight, torch.cat([first.first, other.first]), second, factors)


def soft(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    resp: Float[Tensor, "N K"],
    ref: Float[Tensor, "K D"],
    factors: FactorPosterior | None = None,
) -> Moments:
    """Moments under soft responsibilities, from matrix products; ``resp`` includes any sample weight."""
    ref = ref.double()
    center = ref.mean(0)
    shifted = x - center.to(x.dtype)
    weight = resp.sum(0, dtype=torch.float64)
    first = (resp.T @ shifted).double()
    raw = Moments(family, center.expand_as(ref), weight, first, family.second(shifted, resp, factors), factors)
    moments = raw.about(ref)
    if x.dtype != torch.float64 and loses_precision(family.variances(raw.second), family.variances(moments.second)):
        return soft(family, x.double(), resp.double(), ref, factors)
    return moments


def loses_precision(before: Float[Tensor, "J W"], after: Float[Tensor, "J W"], least: float = 2e-3) -> bool:
    """Whether recentering leaves less than a share ``least`` of the squares; at 2e-3, float32 keeps under 4 digits."""
    return bool(((after < least * before) & (before > 0)).any())


def hard(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    ref: Float[Tensor, "K D"],
    weight: Float[Tensor, " N"] | None = None,
    factors: FactorPosterior | None = None,
) -> Moments:
    """Moments when each sample belongs to exactly one component: no N x K tensor, no cancellation."""
    ref = ref.double()
    n_components = ref.shape[0]
    counts = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight.to(x.dtype)
    shifted = x - ref.to(x.dtype)[labels]
    scaled = shifted if weight is None else shifted * counts[:, None]
    total = torch.zeros(n_components, dtype=torch.float64, device=x.device).index_add_(0, labels, counts.double())
    first = by_label(scaled, labels, n_components)
    second = family.second_by_label(shifted, scaled, labels, n_components, factors)
    return Moments(family, ref, total, first, second, factors)


def labeled(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_components: int,
    weight: Float[Tensor, " N"] | None = None,
    parts: Sequence[Bool[Tensor, " N"]] = (),
) -> list[Moments]:
    """Moments of labeled samples, one for each mask in ``parts``; the masks partition the samples.

    Families that can sum about one common point first. If float32 would lose too many digits (classes that are tight
    and far apart), the samples are summed again about the means of their components.
    """
    masks = list(parts) or [torch.ones_like(labels, dtype=torch.bool)]
    ref = family.reference(x, labels, n_components, weight)
    sums = [_labeled(family.labeled, x, labels, ref, weight, mask) for mask in masks]
    total = functools.reduce(Moments.__add__, sums)
    if x.dtype != torch.float64 and loses_precision(
        family.variances(total.second), total.centered_variances(), MIN_CENTERED_SHARE
    ):
        means = class_means(x, labels, n_components, weight)
        return [_labeled(functools.partial(hard_some, family), x, labels, means, weight, mask) for mask in masks]
    return sums


def _labeled(
    sums_of: Callable[..., Moments],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    ref: Float[Tensor, "K D"],
    weight: Float[Tensor, " N"] | None,
    mask: Bool[Tensor, " N"],
) -> Moments:
    return sums_of(x, labels, ref, weight, None if bool(mask.all()) else mask.nonzero()[:, 0])


def hard_some(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    ref: Float[Tensor, "K D"],
    weight: Float[Tensor, " N"] | None,
    row: Int[Tensor, " M"] | None,
) -> Moments:
    """:func:`hard` over the samples at the indices ``row``; ``None`` for all samples."""
    if row is None:
        return hard(family, x, labels, ref, weight)
    return hard(family, x[row], labels[row], ref, None if weight is None else weight[row])


def feature_variance(moments: Moments) -> Float[Tensor, " D"]:
    r"""Within-component variance of each feature, in squared units of x; the basis of floors and feature scales.

    A feature without variance within components gets its variance over all samples; a constant feature gets the
    average of the others, or 1. So the result is positive and scales with the square of each feature's unit.
    """
    mean, total = moments.mean(), moments.weight.sum().clamp_min(_TINY)
    dimension = mean.shape[1]
    squares = moments.centered_variances().sum(0).clamp_min(0) / total
    within = squares if len(squares) == dimension else (squares / dimension).expand(dimension)
    share = (moments.weight / total)[:, None]
    apart = mean - mean[:1]
    between = (share * (apart - (share * apart).sum(0)).square()).sum(0)
    overall = within + between
    variance = torch.where(within > MIN_WITHIN_SHARE * overall, within, overall)
    varies = variance > CONSTANT_TOLERANCE * mean[0].square()
    average = variance[varies].mean() if bool(varies.any()) else torch.ones_like(variance[:1])[0]
    return torch.where(varies, variance, average)


def by_label(rows: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int) -> Float[Tensor, "K D"]:
    """Sum of ``rows`` per label, in float64; a float32 sum over millions of rows would be off by whole percents."""
    tile = max(TILE, TILE_PER_LABEL * n_components)
    out = torch.zeros(n_components, rows.shape[1], dtype=torch.float64, device=rows.device)
    for part, own in zip(torch.split(rows, tile), torch.split(labels, tile), strict=True):
        out += torch.zeros(out.shape, dtype=rows.dtype, device=rows.device).index_add_(0, own, part)
    return out


def present(labels: Int[Tensor, " N"]) -> list[int]:
    """The labels that occur, in ascending order."""
    return [int(k) for k in torch.bincount(labels).nonzero()[:, 0]]


def class_means(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "C D"]:
    """Weighted mean of each label, in float64; a label without weight gets the mean of all samples.

    Samples are summed relative to the first one, so a common offset costs no digits.
    """
    anchor = x[:1]
    shifted = x - anchor
    counts = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
    total = torch.zeros(n_classes, dtype=torch.float64, device=x.device).index_add_(0, labels, counts)
    if weight is not None:
        shifted = shifted * weight.to(x.dtype)[:, None]
    sums = by_label(shifted, labels, n_classes)
    overall = sums.sum(0) / total.sum().clamp_min(_TINY)
    means = torch.where(total[:, None] > 0, sums / total.clamp_min(_TINY)[:, None], overall)
    return means + anchor.double()
