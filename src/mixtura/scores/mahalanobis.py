"""Distances to the nearest class mean under a covariance that all classes share."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.classes import NO_WEIGHT
from mixtura.core.cross_fitting import OutOfFold
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems
from mixtura.scores.base import DISTANCES, ROWS, Edits, KnownRows, on_unit_vectors, unit


@dataclass(frozen=True)
class Centers:
    """Class means with the whitening matrix W of their common covariance, :math:`\\Sigma^{-1} = W^\\top W`.

    ``label`` is the class of each mean, ``weight`` how many rows it is the mean of.
    """

    mean: Float[Tensor, "K D"]
    whiten: Float[Tensor, "D D"]
    weight: Float[Tensor, " K"]
    label: Int[Tensor, " K"]

    @classmethod
    def of(cls, tied: Mixture, rows: LabeledItems, n_classes: int) -> "Centers":
        """The centers of a tied mixture of rows, in the precision of the rows."""
        label, whiten = tied.component_class, tied.covariance.state()["precision_tril"]
        assert label is not None
        weight = torch.bincount(rows.labels, rows.weight.double(), minlength=n_classes)[label]
        return cls(tied.mean.to(rows.x), whiten[0].to(rows.x), weight, label)

    def squared_distance(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Squared Mahalanobis distance of each row to its nearest mean."""
        center = self.mean.mean(0)
        white, means = (x - center) @ self.whiten.T, (self.mean - center) @ self.whiten.T
        to_means = means.square().sum(1) - 2 * white @ means.T
        return white.square().sum(1) + to_means.amin(1)

    def follow(self, edits: Edits) -> "Centers":
        """The means of the rows that are there now; the covariance stays that of the fit."""
        sums, weight = self.weight[:, None] * self.mean.double(), self.weight
        for rows, sign in ((edits.added, 1.0), (edits.removed, -1.0)):
            own = (rows.labels[:, None] == self.label).double() * (sign * rows.weight.double())[:, None]
            sums, weight = sums + own.T @ rows.x.double(), weight + own.sum(0)
        here = ~edits.gone[self.label] & (weight > NO_WEIGHT)
        mean = (sums[here] / weight[here, None]).to(self.mean)
        new = [rows.mean(0, keepdim=True).to(mean) for rows in edits.newcomers]
        counts = torch.tensor([float(len(rows)) for rows in edits.newcomers], dtype=torch.float64)
        label = torch.cat([self.label[here], torch.full((len(new),), -1)])
        return Centers(torch.cat([mean, *new]), self.whiten, torch.cat([weight[here], counts]), label)

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True)
class _NearestCenter:
    """What the scores of this file share; each says whether its rows have unit length."""

    centers: Centers
    at_unit_length: ClassVar[bool] = False
    sees: ClassVar[str] = DISTANCES

    @classmethod
    def fit(cls, known: KnownRows) -> "_NearestCenter":
        """The score of known rows; the covariance has the shrinkage of the model's."""
        tied, rows = (known.unit_tied, on_unit_vectors(known.rows)) if cls.at_unit_length else (known.tied, known.rows)
        return cls(Centers.of(tied, rows, known.n_classes))

    @classmethod
    def left_out(cls, held: OutOfFold) -> Float[Tensor, " M"] | None:
        """The scores of rows that were left out one by one, if they follow from their densities; else ``None``."""
        return None

    def follow(self, edits: Edits) -> "_NearestCenter":
        """The score after the edits of a catalog: newcomers add their means, the other means follow."""
        return replace(self, centers=self.centers.follow(edits.on_unit_vectors() if self.at_unit_length else edits))

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return self.centers.state()

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "_NearestCenter":
        """The inverse of :meth:`state`."""
        return cls(Centers(**state))


@final
class Mahalanobis(_NearestCenter):
    r"""Distance to the nearest class mean.

    .. math:: s(x) = -\min_c (x - \mu_c)^\top \Sigma^{-1} (x - \mu_c)

    Source: Lee, Lee, Lee, Shin, A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018.
    """

    def __call__(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Minus the squared distance of each row."""
        return -self.centers.squared_distance(x)

    @classmethod
    def left_out(cls, held: OutOfFold) -> Float[Tensor, " M"] | None:
        """The scores of rows that were left out one by one, if their squared distances are known."""
        return None if held.squares is None else -held.squares[:, 0].double()


@final
class UnitMahalanobis(_NearestCenter):
    r"""Distance to the nearest class mean among rows of unit length: :class:`Mahalanobis` of :math:`x / \|x\|`."""

    at_unit_length: ClassVar[bool] = True
    sees: ClassVar[str] = ROWS

    def __call__(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Minus the squared distance of each row."""
        return -self.centers.squared_distance(unit(x))


@final
@dataclass(frozen=True)
class RelativeMahalanobis(_NearestCenter):
    r"""Distance to the nearest class mean, less the distance to the mean of all rows.

    .. math:: s(x) = -\min_c d_c(x) + d_0(x), \qquad d_0(x) = -2 (\log p_0(x) - \log p_0(\mu_0))

    with :math:`p_0` the background density: one Gaussian with the mixture's own mean :math:`\mu_0` and covariance. Its
    ``peak`` counts, because limits come from scores that are fitted without some of the rows, each with another one.

    Source: Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021.
    """

    peak: Float[Tensor, ""]

    @classmethod
    def fit(cls, known: KnownRows) -> "RelativeMahalanobis":
        """The score of known rows; the covariance has the shrinkage of the model's."""
        peak = known.rows.x.new_tensor(known.background_peak, dtype=torch.float64)
        return cls(_NearestCenter.fit(known).centers, peak)

    def __call__(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Minus the difference of the squared distances."""
        return -self.centers.squared_distance(x) - 2 * (background - self.peak.to(background))

    @classmethod
    def left_out(cls, held: OutOfFold) -> Float[Tensor, " M"] | None:
        """The scores of rows that were left out one by one, if their squared distances are known."""
        return None if held.squares is None else held.squares.double().diff(dim=1)[:, 0]

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return self.centers.state() | {"peak": self.peak}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "RelativeMahalanobis":
        """The inverse of :meth:`state`; a state of earlier releases has no peak, and limits that know of none."""
        peak = state.get("peak", torch.zeros((), dtype=torch.float64))
        return cls(Centers(**{item.name: state[item.name] for item in fields(Centers)}), peak)
