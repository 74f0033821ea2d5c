"""Leave-one-out scores of the full family."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import Prior
from mixtura.core.leave_one_out.samples import Basis, Everything, Tile
from mixtura.core.leave_one_out.scores import Scores
from mixtura.core.leave_one_out.updates import Updated, anchors, interpolation


class FullWithout:
    r"""Scores of the full family without a unit of one class c, from a decomposition a class and part.

    With W the unit's weight, n the weight of all and U its factors, every class shrinks toward the pooled scatter S:

    .. math:: \Sigma_k' = (1-\gamma)\,\frac{S_k - [k = c]\, U^\top U + \frac{n_0}{n - W}(S - U^\top U)}
        {n_k - [k = c] W + n_0} + \gamma t_k' I + F

    The background is their weighted mean plus the scatter between classes. The weight of the pooled scatter depends on
    W, so matrices are decomposed at ``anchors``, between which scores of units of other weights are interpolated.
    """

    max_classes: ClassVar[float] = 1.0

    def __init__(self, everything: Everything, some: Int[Tensor, " U"]) -> None:
        self.everything = everything
        folds = everything.folds
        self.lost = torch.bincount(folds.units, folds.counts)[some]
        of_unit = folds.labels.new_zeros(int(folds.units.max()) + 1).scatter_(0, folds.units, folds.labels)
        self.label = of_unit[some]
        self.pooled = everything.second.sum(0)
        self.bases: dict[tuple[object, ...], Basis] = {}

    def score(self, tile: Tile, prior: Prior, background: bool, tolerance: float) -> Scores:
        """Log-densities of a tile under each class and under the background, each without the sample's unit."""
        slot, n_classes = tile.slot[:, 0], len(self.everything.weight)
        log_density = tile.x.new_full((*tile.row.shape, n_classes), -torch.inf)
        behind = torch.zeros_like(tile.x[..., 0])
        lossy = torch.zeros(len(slot), dtype=torch.bool, device=slot.device)
        for k in range(n_classes):
            if not float(self.everything.weight[k]) > 0:
                continue
            for mask, own in ((slot != k, False), (slot == k, True)):
                if bool(mask.any()):
                    part, points = tile.select(mask), self._points(k if own else None, prior, tolerance)
                    update = self._each(part, points, lambda p, at, k=k, own=own: self._class(p, k, own, prior, at))
                    log_density[mask, :, k] = update[0]
                    lossy[mask] |= update[1]
                    if own and background:
                        update = self._each(part, points, lambda p, at, k=k: self._background(p, k, prior, at))
                        behind[mask] = update[0]
                        lossy[mask] |= update[1]
                    part.views.clear()
        return Scores(log_density, behind if background else None, lossy)

    def _points(self, k: int | None, prior: Prior, tolerance: float) -> list[float]:
        """Unit weights at which to decompose what units of class ``k``, or of any, are taken out of."""
        lost = self.lost if k is None else self.lost[self.label == k]
        room = float(self.everything.total - lost.max())
        if k is not None:
            room = min(room, float(self.everything.weight[k] - lost.max()) + prior.strength)
        return anchors(lost, float(lost.max() - lost.min()) / max(4 * room, 1e-300), tolerance)

    def _each(
        self, tile: Tile, points: list[float], of: Callable[[Tile, float], tuple[Tensor, Tensor]]
    ) -> tuple[Float[Tensor, "B R"], Tensor]:
        """The values at the weight of each unit, interpolated, and whether any of them is lossy."""
        share = interpolation(points, tile.lost)
        found = [of(tile, point) for point in points]
        values = sum(part[0] * weight[:, None] for part, weight in zip(found, share.T, strict=True))
        assert isinstance(values, Tensor)
        return values, torch.stack([part[1] for part in found]).any(0)

    def _class(self, tile: Tile, k: int, own: bool, prior: Prior, point: float) -> tuple[Tensor, Tensor]:
        """Log-densities under class ``k``, which is the units' ``own`` or not, with the counts of weight ``point``."""
        total = float(self.everything.weight[k]) + prior.strength - (point if own else 0.0)
        pooled = prior.strength / (float(self.everything.total) - point)
        scatter = (self.everything.second[k] + pooled * self.pooled) / total
        basis = self._basis((k, own, prior, point), (1 - prior.identity) * scatter)
        view, removed = tile.turned(basis), (float(own) + pooled) / total
        average = scatter.trace() - removed * view.within.square().sum((1, 2))
        coefficient = (prior.identity - 1) * removed * torch.ones_like(tile.weight)
        update = self._updated(basis, prior, average, (view.within, coefficient))
        deviation = view.deviation() if own else view.x - view.mean[k]
        return update.log_density(update.distance(deviation)), update.lossy

    def _background(self, tile: Tile, c: int, prior: Prior, point: float) -> tuple[Tensor, Tensor]:
        """Log-densities of units of class ``c`` under the background, with the counts of weight ``point``."""
        weight, second, total = self.everything.weight.clone(), self.everything.second, self.everything.total - point
        weight[c] -= point
        share = torch.where(weight > 0, weight / total / (weight + prior.strength).clamp_min(1e-300), 0.0)
        pooled = share.sum() * prior.strength / total
        scatter = torch.einsum("k,kij->ij", share, second) + pooled * self.pooled
        between = self.everything.between() / total
        basis = self._basis(("background", c, prior, point), (1 - prior.identity) * scatter + between)
        view, removed, ones = tile.turned(basis), share[c] + pooled, torch.ones_like(tile.weight)
        average = scatter.trace() - removed * view.within.square().sum((1, 2))
        coefficient = torch.cat([-ones / total, (1 / total - (1 - prior.identity) * removed) * ones], 1)
        update = self._updated(basis, prior, average, (torch.cat([view.overall, view.within], 1), coefficient))
        return update.log_density(update.distance(view.overall_deviation())), update.lossy

    def _updated(
        self, basis: Basis, prior: Prior, trace: Float[Tensor, " B"], change: tuple[Tensor, Tensor]
    ) -> Updated:
        """Gaussians on the axes of a basis, with the identity of a ``trace`` and the floor, after a ``change``."""
        added = prior.identity * trace / len(basis.values) + self.everything.floor.mean()
        return Updated.of(basis.values + added[:, None], *change)

    def _basis(self, key: tuple[object, ...], matrix: Float[Tensor, "D D"]) -> Basis:
        if key not in self.bases:
            self.bases[key] = Basis.of(matrix + self.everything.uneven.diag(), self.everything)
        return self.bases[key]
