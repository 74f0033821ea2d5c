"""All samples of a fit in the units of its shrinkage, and the tiles of samples that are taken out of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.classes import NO_WEIGHT, Plan
from mixtura.core.content import distinct
from mixtura.core.covariance import family_of
from mixtura.core.cross_fitting import Folds
from mixtura.core.leave_one_out.settling import class_share

TILE_NUMBERS = 1 << 19  # numbers in the samples of one tile
MAX_TILE_ROWS = 1024
MIN_LEFT = 1e-5  # share of a class's squares; less has lost too many digits, where nothing else adds to a variance


@dataclass(frozen=True)
class Everything:
    """All samples of a fit about their overall mean, in units in which the shrinkage target is the identity.

    ``second`` are the sums about the class means, in the family's shape; ``floor`` is in squared units. Where there are
    fewer samples than dimensions, ``row`` may hold them in coordinates of the space that they span: the ``hidden``
    dimensions outside of it, in which all samples agree, keep the mean of the floor.
    """

    folds: Folds
    unit: Float[Tensor, " F"]
    center: Float[Tensor, " F"]
    weight: Float[Tensor, " C"]
    mean: Float[Tensor, "C D"]
    second: Float[Tensor, "J *S"]
    floor: Float[Tensor, " D"]
    row: Float[Tensor, "N D"] | None = None
    hidden: int = 0

    @classmethod
    def of(cls, folds: Folds, plan: Plan, even: bool, family: str | None = None) -> "Everything":
        """The samples of ``folds``, in the units of a plan; ``even`` makes the floor the identity instead.

        ``second`` has the shape of another ``family``, where one is given.
        """
        sums = folds.total(family or plan.family).centered()
        weight = torch.where(sums.weight < NO_WEIGHT, 0.0, sums.weight)
        center = (weight[:, None] * sums.mean()).sum(0) / weight.sum()
        floor, prior = plan.resolved(folds.feature_variance(plan.family))
        unit = torch.ones_like(center)
        if family_of(plan.family).round:
            floor = floor.mean().expand_as(floor)
        elif even and bool((floor > 0).all()):
            unit = floor.sqrt()
        elif prior.scale is not None:
            unit = prior.scale.double()
        shape = {1: 1.0, 2: unit.square(), 3: unit[:, None] * unit}[sums.second.ndim]
        mean = torch.where(weight[:, None] > 0, (sums.mean() - center) / unit, 0.0)
        own = replace(folds)  # without its caches: they keep this object, and two that keep each other are freed late
        return cls(own, unit, center, weight, mean, sums.second / shape, floor.double() / unit.square())

    @property
    def dimension(self) -> int:
        """Number of dimensions of the samples, hidden ones included."""
        return self.mean.shape[1] + self.hidden

    def unevenness(self, share: float) -> float:
        """Typical difference of the floor from its mean, as a part of the least variance, at a share of the identity.

        It is about the error of distances, relative to themselves, if the floor is taken to be even. ``second`` must be
        that of the diagonal family.
        """
        within = self.second.sum() / (self.total * self.dimension)
        return float(self.uneven.square().mean().sqrt() / (share * within + self.floor.mean()).clamp_min(1e-300))

    def compact(self) -> "Everything":
        """The samples in coordinates of their span, with the scatter matrix of a tied family and an even floor.

        Only coordinates are multiplied, so no matrix of all features is needed.
        """
        row = linalg.coordinates((self.folds.x.double() - self.center) / self.unit)
        total = row.new_zeros(len(self.weight), row.shape[1])
        total = total.index_add(0, self.folds.labels, self.folds.counts[:, None] * row)
        mean = torch.where(self.weight[:, None] > 0, total / self.weight[:, None], 0.0)
        deviation = row - mean[self.folds.labels]
        second = deviation.T @ (self.folds.counts[:, None] * deviation)
        floor, hidden = self.floor.mean().expand(row.shape[1]), self.dimension - row.shape[1]
        return replace(self, mean=mean, second=second[None], floor=floor, row=row, hidden=hidden)

    def samples(self, row: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Some samples."""
        return (self.folds.x[row].double() - self.center) / self.unit if self.row is None else self.row[row]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Total weight of the samples."""
        return self.weight.sum()

    @cached_property
    def log_unit(self) -> float:
        """What log-densities in these units are too large by, in nats."""
        return float(self.unit.log().sum())

    @cached_property
    def uneven(self) -> Float[Tensor, " D"]:
        """The floor less its mean."""
        return self.floor - self.floor.mean()

    def between(self) -> Float[Tensor, "D D"]:
        """Scatter of the class means."""
        return self.mean.T @ (self.weight[:, None] * self.mean)

    def tiles(self, unit: Int[Tensor, " N"], some: Int[Tensor, " U"]) -> Iterator["Tile"]:
        """Tiles of the units in ``some``, each of units with equally many samples and classes."""
        row, size = _sorted(unit, self.folds.labels)
        classes = classes_of_units(self.folds)
        start = size.cumsum(0) - size
        shape = size[some] * (self.folds.n_classes + 1) + classes[some]
        for each in distinct(shape):
            same = some[shape == each]
            r, s = int(size[same[0]]), int(classes[same[0]])
            per_tile = max(1, min(MAX_TILE_ROWS, TILE_NUMBERS // self.mean.shape[1]) // r)
            for part in torch.split(same, per_tile):
                yield Tile.of(self, row[start[part, None] + torch.arange(r, device=row.device)], part, s)


def _sorted(unit: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " U"]]:
    """Samples in order of unit and class, and each unit's number of samples."""
    row = labels.argsort(stable=True)
    return row[unit[row].argsort(stable=True)], torch.bincount(unit)


def classes_of_units(folds: Folds) -> Int[Tensor, " U"]:
    """Number of classes that each unit has samples of."""
    pairs = distinct(folds.units * folds.n_classes + folds.labels)
    return torch.bincount(pairs // folds.n_classes)


@dataclass(frozen=True)
class Tile:
    """B units of R samples, of S classes each, that are taken out of everything, one unit at a time.

    ``slot`` are the classes of a unit, ``place`` the slot of each sample, and ``left`` the weight that remains in
    each slot's class. ``views`` hold the tile in turn, so they stay in memory until they are cleared.
    """

    everything: Everything
    unit: Int[Tensor, " B"]
    row: Int[Tensor, "B R"]
    label: Int[Tensor, "B R"]
    weight: Float[Tensor, "B R"]
    x: Float[Tensor, "B R D"]
    slot: Int[Tensor, "B S"]
    place: Int[Tensor, "B R"]
    left: Float[Tensor, "B S"]
    settled: bool = False
    views: dict[int, "View"] = field(default_factory=dict[int, "View"], repr=False)

    @classmethod
    def of(cls, everything: Everything, row: Int[Tensor, "B R"], unit: Int[Tensor, " B"], n_slots: int) -> "Tile":
        """The tile of the samples in ``row``, each unit's in order of class."""
        folds = everything.folds
        label, weight = folds.labels[row], folds.counts[row]
        place = torch.nn.functional.pad((label.diff(dim=1) != 0).long().cumsum(1), (1, 0))
        slot = label.new_zeros(len(row), n_slots).scatter_(1, place, label)
        lost = weight.new_zeros(len(row), n_slots).scatter_add_(1, place, weight)
        left = everything.weight[slot] - lost
        left = torch.where(left < NO_WEIGHT, 0.0, left)
        return cls(everything, unit, row, label, weight, everything.samples(row), slot, place, left)

    @property
    def lost(self) -> Float[Tensor, " B"]:
        """The weight of each unit."""
        return self.weight.sum(1)

    @property
    def remaining(self) -> Float[Tensor, " B"]:
        """The weight of everything without each unit."""
        return self.everything.total - self.lost

    @cached_property
    def member(self) -> Float[Tensor, "B S R"]:
        """1 where a sample is of a slot's class."""
        return torch.nn.functional.one_hot(self.place, self.slot.shape[1]).to(self.weight).mT

    def select(self, index: Bool[Tensor, " B"]) -> "Tile":
        """The units at ``index``."""
        unit, row, label, weight = (part[index] for part in (self.unit, self.row, self.label, self.weight))
        x, slot, place, left = (part[index] for part in (self.x, self.slot, self.place, self.left))
        return Tile(self.everything, unit, row, label, weight, x, slot, place, left, self.settled)

    def class_weight(self) -> Float[Tensor, "B C"]:
        """The weight of each class without each unit."""
        whole = self.everything.weight.expand(len(self.row), -1)
        return whole.scatter(1, self.slot, self.left)

    def settling(self) -> Float[Tensor, "B S"]:
        """Factors of deviations from the means of each unit's classes: 1, unless they are settled."""
        if not self.settled:
            return torch.ones_like(self.left)
        return class_share(self.everything.weight[self.slot], self.left).sqrt()

    @cached_property
    def class_root(self) -> Float[Tensor, "B R R"]:
        r"""L with :math:`L L^\top = I + \sqrt{w w^\top} / n'` within each class."""
        share = torch.where(self.left > 0, self.left.reciprocal(), 0.0)
        return self._root(self.member.mT @ (share[:, :, None] * self.member))

    @cached_property
    def overall_root(self) -> Float[Tensor, "B R R"]:
        """The same over all classes."""
        return self._root(self.remaining.reciprocal()[:, None, None])

    def _root(self, share: Float[Tensor, "B r r"]) -> Float[Tensor, "B R R"]:
        root = self.weight.sqrt()
        matrix = share * root[:, :, None] * root[:, None]
        matrix.diagonal(dim1=1, dim2=2).add_(1.0)
        return linalg.cholesky(matrix)

    @property
    def plain(self) -> "View":
        """The tile in the units of everything."""
        if 0 not in self.views:
            self.views[0] = View(self, self.x, self.everything.mean)
        return self.views[0]

    def turned(self, basis: "Basis") -> "View":
        """The tile on the axes of a basis."""
        if id(basis) not in self.views:
            self.views[id(basis)] = View(self, self.x @ basis.axes, basis.mean)
        return self.views[id(basis)]


@dataclass(frozen=True)
class Basis:
    """Eigenvalues and axes of a matrix, and the class means on these axes."""

    values: Float[Tensor, " D"]
    axes: Float[Tensor, "D D"]
    mean: Float[Tensor, "C D"]

    @classmethod
    def of(cls, matrix: Float[Tensor, "D D"], everything: Everything) -> "Basis":
        """The basis of a symmetric matrix."""
        values, axes = linalg.eigh(matrix)
        return cls(values, axes, everything.mean @ axes)


@dataclass(frozen=True)
class View:
    r"""A tile in some orthonormal basis.

    With weights w and :math:`n'` what remains of a class, its scatter without the unit is

    .. math:: S' = S - U^\top U, \qquad U = L^\top \sqrt{w}\, (x - \mu), \quad L L^\top = I + \sqrt{w w^\top} / n'
    """

    tile: Tile
    x: Float[Tensor, "B R D"]
    mean: Float[Tensor, "C D"]

    @cached_property
    def weighted(self) -> Float[Tensor, "B R D"]:
        """Weighted deviations from the class means."""
        return self.tile.weight[:, :, None] * (self.x - self.mean[self.tile.label])

    @cached_property
    def within(self) -> Float[Tensor, "B R D"]:
        """U: factors of what a unit takes out of the scatter within classes."""
        root = self.tile.weight.sqrt()[:, :, None]
        return self.tile.class_root.mT @ (root * (self.x - self.mean[self.tile.label]))

    @cached_property
    def overall(self) -> Float[Tensor, "B R D"]:
        """The same for the scatter about the overall mean."""
        return self.tile.overall_root.mT @ (self.tile.weight.sqrt()[:, :, None] * self.x)

    @cached_property
    def shift(self) -> Float[Tensor, "B S D"]:
        """By how much the means of the slots' classes move."""
        share = torch.where(self.tile.left > 0, self.tile.left.reciprocal(), 0.0)
        return -share[:, :, None] * (self.tile.member @ self.weighted)

    def deviation(self) -> Float[Tensor, "B RS D"]:
        """Samples from the moved means of their unit's classes, all slots of a sample in turn."""
        moved = self.mean[self.tile.slot] + self.shift
        return (self.tile.settling()[:, None, :, None] * (self.x[:, :, None] - moved[:, None])).flatten(1, 2)

    def overall_deviation(self) -> Float[Tensor, "B R D"]:
        """Samples from the moved overall mean."""
        return self.x - self.overall_mean[:, None]

    @cached_property
    def overall_mean(self) -> Float[Tensor, "B D"]:
        """The moved overall mean."""
        return -(self.tile.weight[:, :, None] * self.x).sum(1) / self.tile.remaining[:, None]

    @cached_property
    def own_mean(self) -> Float[Tensor, "B R D"]:
        """The moved mean of each sample's class."""
        return self.mean[self.tile.label] + torch.take_along_dim(self.shift, self.tile.place[:, :, None], 1)


def with_slots(scores: Float[Tensor, "B R C"], tile: Tile, own: Float[Tensor, "B RS"]) -> Float[Tensor, "B R C"]:
    """The scores, with those of each unit's own classes replaced."""
    b, r, _ = scores.shape
    return scores.scatter(2, tile.slot[:, None].expand(-1, r, -1), own.reshape(b, r, -1))
