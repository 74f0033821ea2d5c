"""Leave-one-out scores of the diagonal family."""

import math
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import LOG_2PI, Prior
from mixtura.core.leave_one_out.samples import MIN_LEFT, Everything, Tile
from mixtura.core.leave_one_out.scores import Scores


class DiagonalWithout:
    r"""Scores of the diagonal family without a unit, feature by feature.

    .. math:: B_k' = \frac{s_k' + n_0 s' / n'}{n_k' + n_0}, \qquad
        v_k' = (1-\gamma) B_k' + \gamma\, \overline{B_k'} + f, \qquad
        v_0' = \sum_k \frac{n_k'}{n'} v_k' + \frac{t' - s'}{n'}
    """

    max_classes: ClassVar[float] = math.inf

    def __init__(self, everything: Everything, some: Int[Tensor, " U"]) -> None:
        self.everything = everything
        self.pooled = everything.second.sum(0)
        self.overall = self.pooled + everything.weight @ everything.mean.square()

    def score(self, tile: Tile, prior: Prior, background: bool, tolerance: float) -> Scores:
        """Log-densities of a tile under each class and under the background, each without the sample's unit."""
        taken = tile.member @ tile.plain.within.square()
        pooled = (self.pooled - taken.sum(1)).clamp_min(0)
        behind = (self.overall - tile.plain.overall.square().sum(1) - pooled).clamp_min(0)
        columns = list[Tensor]()
        weight = tile.class_weight()
        for k in range(weight.shape[1]):
            variance = self._variance(tile, k, prior, (taken, pooled))
            columns.append(_log_density(self._deviation(tile, k), variance))
            if background:
                behind += weight[:, k, None] * variance
        lossy = self._lossy(tile, taken) & (prior.strength == 0)
        if not background:
            return Scores(torch.stack(columns, 2), None, lossy)
        overall = _log_density(tile.plain.overall_deviation(), behind / tile.remaining[:, None])
        return Scores(torch.stack(columns, 2), overall, lossy)

    def _lossy(self, tile: Tile, taken: Float[Tensor, "B S D"]) -> Bool[Tensor, " B"]:
        """Units that take nearly all of a class's squares in some feature."""
        squares = self.everything.second[tile.slot]
        return ((squares - taken < MIN_LEFT * squares) & (squares > 0)).any(2).any(1)

    def _variance(
        self, tile: Tile, k: int, prior: Prior, sums: tuple[Float[Tensor, "B S D"], Float[Tensor, "B D"]]
    ) -> Float[Tensor, "B D"]:
        """Variances of a class without each unit; ``sums`` are what a unit takes from its classes, and what is left."""
        taken, left = sums
        own = (self.everything.second[k] - _of_class(tile, k, taken)).clamp_min(0)
        total = (tile.class_weight()[:, k] + prior.strength)[:, None]
        pooled = left / tile.remaining[:, None]
        blended = (own + prior.strength * pooled) / torch.where(total > 0, total, 1.0)
        return replace(prior, scale=None).shrink(torch.where(total > 0, blended, pooled)) + self.everything.floor

    def _deviation(self, tile: Tile, k: int) -> Float[Tensor, "B R D"]:
        mean = self.everything.mean[k] + _of_class(tile, k, tile.plain.shift)
        factor = 1 + ((tile.slot == k) * (tile.settling() - 1)).sum(1)
        return factor[:, None, None] * (tile.x - mean.expand(len(tile.row), -1)[:, None])


def _of_class(tile: Tile, k: int, slots: Float[Tensor, "B S D"]) -> Tensor:
    """The values of the slot of class ``k``, zero for units without one."""
    hit = tile.slot == k
    if not bool(hit.any()):
        return slots.new_zeros(())
    return (hit[:, :, None] * slots).sum(1)


def _log_density(deviation: Float[Tensor, "B R D"], variance: Float[Tensor, "B D"]) -> Float[Tensor, "B R"]:
    constant = variance.log().sum(1) + variance.shape[1] * LOG_2PI
    distance = (deviation.square() @ variance.reciprocal()[:, :, None])[..., 0]
    return -0.5 * (distance + constant[:, None])
