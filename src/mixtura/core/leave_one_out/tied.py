"""Leave-one-out scores of the tied family."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import LOG_2PI, Prior
from mixtura.core.leave_one_out.samples import Basis, Everything, Tile, View, with_slots
from mixtura.core.leave_one_out.scores import Scores, mixed
from mixtura.core.leave_one_out.settling import background_gain
from mixtura.core.leave_one_out.updates import Updated, anchors, interpolation


class TiedWithout:
    r"""Scores of the tied family without a unit, from one eigen-decomposition of the scatter within classes.

    With W the unit's weight, n the weight of all and U its factors:

    .. math:: \Sigma' = (1-\gamma) \frac{S - U^\top U}{n - W} + \gamma t' I + F, \qquad
        t' = \frac{\operatorname{tr} S - |U|^2}{D (n - W)}

    The background, with T the scatter about the overall mean and V the unit's factors there:

    .. math:: \Sigma_0' = \frac{T - V^\top V - \gamma (S - U^\top U)}{n - W} + \gamma t' I + F

    The mean of the floor F is part of the identity. Its rest is part of the decomposed matrix, scaled as for one of
    the ``anchors``, between which scores of units of other weights are interpolated.
    """

    max_classes: ClassVar[float] = math.inf

    def __init__(self, everything: Everything, some: Int[Tensor, " U"]) -> None:
        self.everything = everything
        lost = torch.bincount(everything.folds.units, everything.folds.counts)
        self.remaining = everything.total - lost[some]
        self.scatter = everything.second[0]
        self.trace = float(self.scatter.trace())
        self._bases: list[tuple[float, float, Basis]] = []
        self._backgrounds: dict[tuple[float, float], Basis] = {}

    def score(self, tile: Tile, prior: Prior, background: bool, tolerance: float) -> Scores:
        """Log-densities of a tile under each class and under the background, each without the sample's unit."""
        points = anchors(self.remaining, self._unevenness(prior) * self._range(), tolerance)
        share = interpolation(points, tile.remaining)
        parts = [self._at(tile, prior, self._basis(prior, point, tolerance), background) for point in points]
        return mixed(parts, share)

    def _range(self) -> float:
        low, high = float(self.remaining.min()), float(self.remaining.max())
        return (high - low) / (2 * low)

    def _unevenness(self, prior: Prior) -> float:
        """The largest part of the floor beyond its mean, as a share of the smallest variance there may be."""
        least = 0.5 * prior.identity * self.trace / prior.averaged_over(self.everything.dimension)
        least = least / float(self.everything.total) + float(self.everything.floor.min())
        return float(self.everything.uneven.abs().max()) / max(least, 1e-300)

    def _at(self, tile: Tile, prior: Prior, at: tuple[float, float, Basis], background: bool) -> Scores:
        identity, point, basis = at
        left = tile.remaining[:, None]
        ratio = (1 - prior.identity) / (1 - identity) * point / left if identity < 1 else torch.ones_like(left)
        view = tile.turned(basis)
        base = self._round(tile, prior)
        removed = ((prior.identity - 1) / left).expand(view.within.shape[:2])
        update = Updated.of((ratio * basis.values + base).contiguous(), view.within, removed)
        hidden = -0.5 * self.everything.hidden * (LOG_2PI + base.log())
        log_density = update.log_density(_distances(view, update)) + hidden[..., None]
        if not background:
            return Scores(log_density, None, update.lossy)
        behind, beside = self._background(tile, prior, point, base)
        overall = behind.log_density(behind.distance(beside.overall_deviation())) + hidden
        if tile.settled:
            overall = overall + _gain((update, view), (behind, beside))
        peak = torch.stack([update.peak, behind.peak], 1) + hidden
        return Scores(log_density, overall, update.lossy | behind.lossy, peak)

    def _round(self, tile: Tile, prior: Prior) -> Float[Tensor, "B 1"]:
        """The multiple of the identity in a unit's covariance."""
        lost = tile.plain.within.square().sum((1, 2))
        average = (self.trace - lost) / (prior.averaged_over(self.everything.dimension) * tile.remaining)
        return (prior.identity * average + self.everything.floor.mean())[:, None]

    def _basis(self, prior: Prior, point: float, tolerance: float) -> tuple[float, float, Basis]:
        """A basis for a share of the identity; one of another share or point serves where it is accurate enough."""
        for identity, at, basis in self._bases:
            same = identity == prior.identity and at == point
            change = abs((1 - prior.identity) * at / ((1 - identity) * point) - 1) if identity < 1 else torch.inf
            if same or change * self._unevenness(prior) <= tolerance:
                return identity, at, basis
        raised = (1 - prior.identity) / point * self.scatter + self.everything.uneven.diag()
        self._bases.append((prior.identity, point, Basis.of(raised, self.everything)))
        return self._bases[-1]

    def _background(self, tile: Tile, prior: Prior, point: float, base: Float[Tensor, "B 1"]) -> tuple[Updated, View]:
        """The background without each unit, and the tile in its basis."""
        key = (prior.identity, point)
        if key not in self._backgrounds:
            overall = (1 - prior.identity) * self.scatter + self.everything.between()
            self._backgrounds[key] = Basis.of(overall / point + self.everything.uneven.diag(), self.everything)
        basis, left = self._backgrounds[key], tile.remaining[:, None]
        view = tile.turned(basis)
        factors = torch.cat([view.overall, view.within], 1)
        sign = torch.tensor([-1.0, prior.identity], dtype=left.dtype, device=left.device)
        removed = sign.repeat_interleave(tile.row.shape[1]) / left
        return Updated.of(point / left * basis.values + base, factors, removed), view


def _distances(view: View, update: Updated) -> Float[Tensor, "B R C"]:
    """Squared distances from every class's mean, which moves for the unit's own classes."""
    weighed, mean = view.x * update.precision[:, None], view.mean
    squares = (weighed * view.x).sum(-1, keepdim=True) - 2 * weighed @ mean.T
    squares = squares + (update.precision @ mean.square().T)[:, None]
    along = (view.x @ update.scaled.mT)[:, :, None] - (mean @ update.scaled.mT)[:, None]
    taken = update.gained(along.flatten(1, 2)).reshape(squares.shape)
    return with_slots(squares - taken, view.tile, update.distance(view.deviation()))


def _gain(own: tuple[Updated, View], behind: tuple[Updated, View]) -> Float[Tensor, "B R"]:
    """What settled samples gain under the background: see :func:`background_gain`.

    Args:
        own: the Gaussian of each unit's own class, and the tile in its basis.
        behind: the same of the background.
    """
    (update, view), (below, beside) = own, behind
    deviation, offset = view.x - view.own_mean, view.own_mean - view.overall_mean[:, None]
    squares = update.distance(deviation), update.distance(offset), below.distance(beside.x - beside.own_mean)
    whole, left = view.tile.everything.weight[view.tile.label], view.tile.left.gather(1, view.tile.place)
    return background_gain(whole, left, squares)
