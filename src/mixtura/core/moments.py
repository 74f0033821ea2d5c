"""Weighted sums about a reference point; adding and subtracting them is the whole algebra of fitting."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_WITHIN_SHARE = 1e-12  # of a feature's variance: what is left within components is rounding
MIN_CENTERED_SHARE = (
    0.05  # of sums about one point, after they are centered: what rounds them up then stays below 0.4% of them
)
TILE, TILE_PER_LABEL = 8192, 8  # rows that one float32 sum may run over: few digits are lost, and little time
CONSTANT_TOLERANCE = 1e-18  # of a feature's square: float32 sums of one number vary by that much


@dataclass(frozen=True)
class FactorPosterior:
    r"""What latent factors are expected to be, given a row: :math:`E[z \mid x] = B^\top (x - \mu)`.

    ``basis`` is :math:`B = \Sigma^{-1} A`, ``uncertainty`` the posterior covariance of the factors.

    Source: Ghahramani and Hinton, The EM Algorithm for Mixtures of Factor Analyzers, 1996.
    """

    basis: Float[Tensor, "K D R"]
    uncertainty: Float[Tensor, "K R R"]


@runtime_checkable
class Sums(Protocol):
    """What second sums of a covariance family are made of, and how they move to another reference."""

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None) -> Tensor:
        """Weighted second sums of rows about one common point."""
        ...

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Tensor:
        """Second sums of rows that are already about their own component's point; ``scaled`` carries the weights."""
        ...

    @staticmethod
    def recenter(
        second: Tensor,
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Tensor:
        """Second sums about points that lie ``delta`` further."""
        ...

    @staticmethod
    def truncate(second: Tensor, width: int) -> Tensor | None:
        """The second sums of the first ``width`` features alone; ``None`` where they cannot be told apart."""
        ...

    @staticmethod
    def variances(second: Tensor) -> Float[Tensor, "J W"]:
        """The sums of squares by feature; a single column where the family keeps only their total."""
        ...

    @staticmethod
    def reference(
        x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int, weight: Float[Tensor, " N"] | None
    ) -> Float[Tensor, "K D"]:
        """The points about which rows of known components are summed fastest without losing digits on most data."""
        ...

    @staticmethod
    def labeled(
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        ref: Float[Tensor, "K D"],
        weight: Float[Tensor, " N"] | None,
        row: Int[Tensor, " M"] | None,
    ) -> "Moments":
        """Sums of rows of known components about :meth:`reference`: of all of them, or of those that ``row`` lists."""
        ...

    @classmethod
    def estimate(cls, moments: "Moments", floor: Any, prior: Any) -> Any:
        """The M-step: the most likely covariance given the sums. ``floor`` is a variance, in squared units of x."""
        ...


@dataclass(frozen=True)
class Moments:
    r"""What a fit needs to know of the data, in float64.

    .. math::
        w_k = \sum_n r_{nk}, \quad
        f_k = \sum_n r_{nk} (x_n - c_k), \quad
        S_k = \sum_n r_{nk} (x_n - c_k)(x_n - c_k)^\top

    ``ref`` holds the reference points :math:`c_k`; ``second`` holds :math:`S_k` in the shape that ``family``
    needs (a number, a diagonal, a full matrix, one matrix for all, or a diagonal and a projected scatter). ``factors``
    holds the directions through which the low-rank family looks at the data, ``None`` elsewhere.

    Sums over parts of the data add up to the sums over all of it, whatever the parts: batches, files, machines.
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
        """Sums over both parts of the data, about the reference of the left."""
        other = other.about(self.ref)
        return replace(
            self,
            weight=self.weight + other.weight,
            first=self.first + other.first,
            second=self.second + other.second,
        )

    def __sub__(self, other: "Moments") -> "Moments":
        """Sums without the part that ``other`` was made of: exact forgetting."""
        other = other.about(self.ref)
        return replace(
            self,
            weight=self.weight - other.weight,
            first=self.first - other.first,
            second=self.second - other.second,
        )

    def about(self, ref: Float[Tensor, "K D"]) -> "Moments":
        r"""The same sums about another reference.

        .. math:: f' = f - w\delta, \qquad S' = S - \delta f^\top - f\delta^\top + w\delta\delta^\top
        """
        if ref is self.ref or torch.equal(ref, self.ref):
            return self
        delta = ref.double() - self.ref
        second = self.family.recenter(self.second, self.weight, self.first, delta, self.factors)
        return replace(self, ref=ref.double(), first=self.first - self.weight[:, None] * delta, second=second)

    def select(self, index: Int[Tensor, " J"]) -> "Moments":
        """The sums of some components; a second sum over all components at once stays as it is."""
        shared = len(self.second) == 1 < len(self.ref)
        factors = (
            None
            if self.factors is None
            else FactorPosterior(self.factors.basis[index], self.factors.uncertainty[index])
        )
        second = self.second if shared else self.second[index]
        return Moments(self.family, self.ref[index], self.weight[index], self.first[index], second, factors)

    def truncate(self, width: int) -> "Moments | None":
        """The sums of the first ``width`` features alone, if the family keeps what tells them apart."""
        second = self.family.truncate(self.second, width)
        if second is None:
            return None
        return replace(self, ref=self.ref[:, :width], first=self.first[:, :width], second=second)

    def mean(self) -> Float[Tensor, "K D"]:
        """Weighted means; a component without weight keeps its reference."""
        weight = self.weight[:, None]
        return self.ref + torch.where(weight > 0, self.first / weight.clamp_min(_TINY), 0.0)

    def centered_variances(self) -> Float[Tensor, "J W"]:
        r"""The sums of squares by feature about the means, :math:`S_{dd} - 2\delta_d f_d + w\delta_d^2`, as the family
        keeps them: without moving what is off the diagonal.
        """
        delta = self.mean() - self.ref
        shift = delta * (2 * self.first - self.weight[:, None] * delta)
        squares = self.family.variances(self.second)
        shift = shift.sum(0, keepdim=True) if len(squares) == 1 else shift
        shift = shift.sum(1, keepdim=True) if squares.shape[1] == 1 else shift
        return squares - shift

    def centered(self) -> "Moments":
        """The sums about the means, where the first ones vanish."""
        return self.about(self.mean())

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a sum over machines must add: weight, first, second."""
        return self.weight, self.first, self.second

    def with_tensors(self, weight: Tensor, first: Tensor, second: Tensor) -> "Moments":
        """The same kind of sums with other values, as they come back from a sum over machines."""
        return replace(self, weight=weight, first=first, second=second)


_TINY = torch.finfo(torch.float64).tiny


def soft(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    resp: Float[Tensor, "N K"],
    ref: Float[Tensor, "K D"],
    factors: FactorPosterior | None = None,
) -> Moments:
    """Moments under soft responsibilities, by matrix products; ``resp`` includes any sample weight."""
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
    """True when less than a share of sums of squares is left after a move; at 2e-3, float32 keeps below four digits."""
    return bool(((after < least * before) & (before > 0)).any())


def hard(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    ref: Float[Tensor, "K D"],
    weight: Float[Tensor, " N"] | None = None,
    factors: FactorPosterior | None = None,
) -> Moments:
    """Moments when each row belongs to exactly one component: no N x K tensor, no cancellation."""
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
    """Sums of rows of known components: one for each of ``parts``, masks that share the rows out.

    Raw sums about a common point are taken where the family can; where that would cost a float32 sum too many digits
    (classes far apart, tight within), the rows are summed again about the means of their components.
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
    """:func:`hard` of some of the rows."""
    if row is None:
        return hard(family, x, labels, ref, weight)
    return hard(family, x[row], labels[row], ref, None if weight is None else weight[row])


def feature_variance(moments: Moments) -> Float[Tensor, " D"]:
    r"""The variance of each feature within components, in squared units of x: floors and feature scales come from it.

    A feature that does not vary within components takes its variance over all rows, and a constant one the average of
    the others, 1 if there are none. So the result is positive, and scales with the square of each feature's unit.
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
    """Sum of the rows of each label, as float64: of millions of rows one by one, float32 would lose whole percents."""
    tile = max(TILE, TILE_PER_LABEL * n_components)
    out = torch.zeros(n_components, rows.shape[1], dtype=torch.float64, device=rows.device)
    for part, own in zip(torch.split(rows, tile), torch.split(labels, tile), strict=True):
        out += torch.zeros(out.shape, dtype=rows.dtype, device=rows.device).index_add_(0, own, part)
    return out


def present(labels: Int[Tensor, " N"]) -> list[int]:
    """The numbers that occur, in order."""
    return [int(k) for k in torch.bincount(labels).nonzero()[:, 0]]


def class_means(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "C D"]:
    """Weighted mean of each label, in float64; the mean of all rows where a label has no weight.

    The rows are summed about their first, so a common offset costs no digits.
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
