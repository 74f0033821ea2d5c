"""Weighted sums about a reference point; adding and subtracting them is the whole algebra of fitting."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Lens:
    """The directions in which a low-rank family watches each component, and its latent uncertainty there."""

    basis: Float[Tensor, "K D R"]
    uncertainty: Float[Tensor, "K R R"]


@runtime_checkable
class Sums(Protocol):
    """What second sums of a covariance family are made of, and how they move to another reference."""

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], lens: Lens | None) -> Tensor:
        """Weighted second sums of rows about one common point."""
        ...

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        lens: Lens | None,
    ) -> Tensor:
        """Second sums of rows that are already about their own component's point; ``scaled`` carries the weights."""
        ...

    @staticmethod
    def recenter(
        second: Tensor,
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        lens: Lens | None,
    ) -> Tensor:
        """Second sums about points that lie ``delta`` further."""
        ...

    @staticmethod
    def narrow(second: Tensor, width: int) -> Tensor | None:
        """The second sums of the first ``width`` features alone; ``None`` where they cannot be told apart."""
        ...

    @staticmethod
    def cancels(raw: Tensor, recentered: Tensor) -> bool:
        """Whether moving the reference point lost so many digits that float32 products do not do."""
        ...


@dataclass(frozen=True)
class Moments:
    r"""What a fit needs to know of the data, in float64.

    .. math::
        w_k = \sum_n r_{nk}, \quad
        f_k = \sum_n r_{nk} (x_n - c_k), \quad
        S_k = \sum_n r_{nk} (x_n - c_k)(x_n - c_k)^\top

    ``ref`` holds the reference points :math:`c_k`; ``second`` holds :math:`S_k` in the shape that ``family``
    needs (a number, a diagonal, a full matrix, one matrix for all, or a diagonal and a sketch).
    ``lens`` holds the directions through which the low-rank family looks at the data, ``None`` elsewhere.

    Sums over parts of the data add up to the sums over all of it, whatever the parts: batches, files, machines.
    """

    family: type[Sums]
    ref: Float[Tensor, "K D"]
    weight: Float[Tensor, " K"]
    first: Float[Tensor, "K D"]
    second: Float[Tensor, "J *S"]
    lens: Lens | None = None

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
        second = self.family.recenter(self.second, self.weight, self.first, delta, self.lens)
        return replace(self, ref=ref.double(), first=self.first - self.weight[:, None] * delta, second=second)

    def select(self, index: Int[Tensor, " J"]) -> "Moments":
        """The sums of some components; a second sum over all components at once stays as it is."""
        shared = len(self.second) == 1 < len(self.ref)
        lens = None if self.lens is None else Lens(self.lens.basis[index], self.lens.uncertainty[index])
        second = self.second if shared else self.second[index]
        return Moments(self.family, self.ref[index], self.weight[index], self.first[index], second, lens)

    def narrow(self, width: int) -> "Moments | None":
        """The sums of the first ``width`` features alone, if the family keeps what tells them apart."""
        second = self.family.narrow(self.second, width)
        return (
            None
            if second is None
            else replace(self, ref=self.ref[:, :width], first=self.first[:, :width], second=second)
        )

    def mean(self) -> Float[Tensor, "K D"]:
        """Weighted means; a component without weight keeps its reference."""
        weight = self.weight[:, None]
        return self.ref + torch.where(weight > 0, self.first / weight.clamp_min(_TINY), 0.0)

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
    lens: Lens | None = None,
) -> Moments:
    """Moments under soft responsibilities, by matrix products; ``resp`` includes any sample weight."""
    ref = ref.double()
    center = ref.mean(0)
    shifted = x - center.to(x.dtype)
    weight = resp.sum(0, dtype=torch.float64)
    first = (resp.T @ shifted).double()
    raw = Moments(family, center.expand_as(ref), weight, first, family.second(shifted, resp, lens), lens)
    moments = raw.about(ref)
    if x.dtype != torch.float64 and family.cancels(raw.second, moments.second):
        return soft(family, x.double(), resp.double(), ref, lens)
    return moments


def hard(
    family: type[Sums],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    ref: Float[Tensor, "K D"],
    weight: Float[Tensor, " N"] | None = None,
    lens: Lens | None = None,
) -> Moments:
    """Moments when each row belongs to exactly one component: no N x K tensor, no cancellation."""
    ref = ref.double()
    n_components = ref.shape[0]
    counts = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight.to(x.dtype)
    shifted = x - ref.to(x.dtype)[labels]
    scaled = shifted if weight is None else shifted * counts[:, None]
    total = torch.zeros(n_components, dtype=torch.float64, device=x.device).index_add_(0, labels, counts.double())
    first = by_label(scaled, labels, n_components)
    second = family.second_by_label(shifted, scaled, labels, n_components, lens)
    return Moments(family, ref, total, first, second, lens)


def by_label(rows: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int) -> Float[Tensor, "K D"]:
    """Sum of the rows of each label, as float64."""
    out = torch.zeros(n_components, rows.shape[1], dtype=rows.dtype, device=rows.device)
    return out.index_add_(0, labels, rows).double()


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
