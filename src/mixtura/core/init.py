"""Where a fit begins: from labels, from k-means++, or from random rows."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.content import content_order
from mixtura.core.covariance import NO_PRIOR, Floor, Prior, family_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import class_means, hard, labeled

FACTOR_STEPS = 10  # rounds of factor analysis under fixed labels; hard data may lie 0.3 nats below the optimum still
LLOYD_STEPS = 20
KMEANS_RUNS = 3  # of k-means; one alone may end far from the best
TILE_ROWS = 4096


def from_labels(
    family: str,
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_components: int,
    floor: Floor = 0.0,
    prior: Prior = NO_PRIOR,
    weight: Float[Tensor, " N"] | None = None,
    rank: int = 16,
) -> Mixture:
    """The most likely mixture when each row's component is known: the closed form.

    Args:
        family: a name in ``FAMILIES``.
        x: the rows.
        labels: the component of each row.
        n_components: K; a component without rows takes the overall mean, the pooled covariance and weight zero.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances.
        weight: how often each row counts.
        rank: number of directions, for the low-rank family only.
    """
    kind = family_of(family)
    if not kind.sums_depend_on_parameters:
        (moments,) = labeled(kind, x, labels, n_components, weight)
        return Mixture.from_moments(moments, floor, prior)
    mean = class_means(x, labels, n_components, weight)
    scale = torch.ones_like(mean[0]) if prior.scale is None else prior.scale.to(mean)
    covariance = kind.principal(x / scale.to(x.dtype), labels, mean / scale, rank, weight).scaled(scale)
    moments = hard(kind, x, labels, mean, weight, covariance.factor_posterior())
    for _ in range(FACTOR_STEPS - 1):
        covariance = kind.estimate(moments, floor, prior)
        moments = hard(kind, x, labels, mean, weight, covariance.factor_posterior())
    return Mixture.from_moments(moments, floor, prior)


def kmeans_plus_plus(
    x: Float[Tensor, "N D"],
    n_components: int,
    generator: torch.Generator,
    weight: Float[Tensor, " N"] | None = None,
    steps: int = LLOYD_STEPS,
) -> Int[Tensor, " N"]:
    """A cluster for each row: the best of three runs of k-means++ seeding and ``steps`` rounds of Lloyd's algorithm.

    The order of the rows does not matter, and a row of weight two is as good as that row twice.

    Source: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007, the greedy variant.
    """
    order, _ = content_order(x, 0)
    shifted = (x - x.mean(0))[order]
    weight = None if weight is None else weight[order]
    runs = [
        _lloyd(shifted, n_components, generator, weight, steps) for _ in range(KMEANS_RUNS if n_components > 1 else 1)
    ]
    labels, _ = min(runs, key=lambda run: run[1])
    return torch.empty_like(labels).scatter_(0, order, labels)


def _lloyd(
    x: Float[Tensor, "N D"],
    n_components: int,
    generator: torch.Generator,
    weight: Float[Tensor, " N"] | None,
    steps: int,
) -> tuple[Int[Tensor, " N"], float]:
    """Clusters from one start, and the sum of squared distances of rows from their centers."""
    centers = _seed(x, n_components, generator, weight)
    labels = nearest(x, centers)
    for _ in range(steps):
        centers = class_means(x, labels, n_components, weight).to(x.dtype)
        previous, labels = labels, nearest(x, centers)
        if torch.equal(previous, labels):
            break
    squares = (x - centers[labels]).square().sum(1, dtype=torch.float64)
    return labels, float(squares.sum() if weight is None else squares @ weight.double())


def nearest(x: Float[Tensor, "N D"], centers: Float[Tensor, "K D"]) -> Int[Tensor, " N"]:
    """Number of the closest center for each row, in chunks."""
    half = 0.5 * centers.square().sum(1)
    return torch.cat([torch.addmm(half, rows, centers.T, alpha=-1).argmin(1) for rows in torch.split(x, TILE_ROWS)])


def _seed(
    x: Float[Tensor, "N D"], n_components: int, generator: torch.Generator, weight: Float[Tensor, " N"] | None
) -> Float[Tensor, "K D"]:
    """Rows drawn one by one with probability proportional to their squared distance from those drawn before.

    Of a few drawn for each center the one is kept that leaves the least distance to all rows.
    """
    mass = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
    chosen = [_draw(mass, generator)]
    distance = (x - x[chosen[0]]).square().sum(1)
    for _ in range(1, n_components):
        odds = distance.double() * mass
        odds = odds if float(odds.sum()) > 0 else mass
        drawn = {_draw(odds, generator) for _ in range(2 + int(math.log(n_components)))}
        left = {row: torch.minimum(distance, (x - x[row]).square().sum(1)) for row in sorted(drawn)}
        chosen.append(min(left, key=lambda row: float(left[row].double() @ mass)))
        distance = left[chosen[-1]]
    return x[chosen]


def _draw(odds: Float[Tensor, " N"], generator: torch.Generator) -> int:
    """One index, by inversion of the running sum: ``multinomial`` stops at 2^24 rows."""
    running = odds.cumsum(0)
    point = torch.rand(1, dtype=odds.dtype, generator=generator, device=odds.device) * running[-1]
    return int(torch.searchsorted(running, point).clamp_max(len(odds) - 1))
