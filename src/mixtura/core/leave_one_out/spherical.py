"""Leave-one-out scores of the spherical family."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import LOG_2PI, Prior
from mixtura.core.leave_one_out.samples import MIN_LEFT, Everything, Tile, with_slots
from mixtura.core.leave_one_out.scores import Scores


class SphericalWithout:
    r"""Scores of the spherical family without a unit: only squared norms change.

    .. math:: v_k' = \frac{s_k' + n_0 s' / n'}{D (n_k' + n_0)} + f, \qquad
        v_0' = \sum_k \frac{n_k'}{n'} v_k' + \frac{t' - s'}{D n'}

    with :math:`s_k'` the class's sum of squared deviations, :math:`s'` that of all classes and :math:`t'` that about
    the overall mean.
    """

    max_classes: ClassVar[float] = math.inf

    def __init__(self, everything: Everything, some: Int[Tensor, " U"]) -> None:
        self.everything = everything
        self.squares = everything.second
        self.between = (everything.weight @ everything.mean.square()).sum()

    def score(self, tile: Tile, prior: Prior, background: bool, tolerance: float) -> Scores:
        """Log-densities of a tile under each class and under the background, each without the sample's unit."""
        view, dimension = tile.plain, len(self.everything.center)
        taken = tile.member @ view.within.square().sum(2, keepdim=True)
        squares = self.squares.expand(len(tile.row), -1)
        squares = squares.scatter_add(1, tile.slot, -taken[..., 0]).clamp_min(0)
        variance = self._variances(tile, prior, squares) / dimension + self.everything.floor.mean()
        distances = _distances(tile) / variance[:, None]
        log_density = -0.5 * (distances + dimension * (LOG_2PI + variance.log())[:, None])
        lossy = (squares < MIN_LEFT * self.squares).any(1) & (prior.strength == 0)
        return Scores(log_density, self._background(tile, variance, squares) if background else None, lossy)

    def _variances(self, tile: Tile, prior: Prior, squares: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Sums over dimensions of each class's variances, shrunk toward the pooled ones."""
        pooled = squares.sum(1, keepdim=True) / tile.remaining[:, None]
        total = tile.class_weight() + prior.strength
        blended = (squares + prior.strength * pooled) / torch.where(total > 0, total, 1.0)
        return torch.where(total > 0, blended, pooled)

    def _background(
        self, tile: Tile, variance: Float[Tensor, "B C"], squares: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B R"]:
        dimension = len(self.everything.center)
        overall = self.squares.sum() + self.between - tile.plain.overall.square().sum((1, 2))
        within = (tile.class_weight() * variance).sum(1)
        total = (within + (overall - squares.sum(1)).clamp_min(0) / dimension) / tile.remaining
        distance = tile.plain.overall_deviation().square().sum(2) / total[:, None]
        return -0.5 * (distance + dimension * (LOG_2PI + total.log())[:, None])


def _distances(tile: Tile) -> Float[Tensor, "B R C"]:
    """Squared distances from every class's mean."""
    x, mean = tile.plain.x, tile.plain.mean
    squares = x.square().sum(-1, keepdim=True) - 2 * x @ mean.T + mean.square().sum(1)
    return with_slots(squares, tile, tile.plain.deviation().square().sum(2))
