"""Initialization of a fit, from known labels or by k-means."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.content import content_order
from mixtura.core.covariance import NO_PRIOR, Floor, Prior, family_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import class_means, hard, labeled

FACTOR_STEPS = 10  # factor-analysis steps under fixed labels; difficult data may still be 0.3 nats below the optimum
LLOYD_STEPS = 20
KMEANS_RUNS = 3  # a single k-means run may end far from the best solution
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
    """Maximum-likelihood mixture when each sample's component is known, in closed form.

    Args:
        family: a name in ``FAMILIES``.
        x: the samples.
        labels: the component of each sample.
        n_components: K; a component without samples gets the overall mean, the pooled covariance and weight zero.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances.
        weight: sample weights.
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
    """Cluster index of each sample: the best of three runs of k-means++ seeding and ``steps`` Lloyd iterations.

    The result does not depend on the sample order, and a sample of weight two equals two copies of it.

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
    """Clusters from one initialization, and the sum of squared distances to their centers (inertia)."""
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
    """Index of the nearest center for each sample, computed in tiles."""
    half = 0.5 * centers.square().sum(1)
    return torch.cat([torch.addmm(half, rows, centers.T, alpha=-1).argmin(1) for rows in torch.split(x, TILE_ROWS)])


def _seed(
    x: Float[Tensor, "N D"], n_components: int, generator: torch.Generator, weight: Float[Tensor, " N"] | None
) -> Float[Tensor, "K D"]:
    """Centers drawn one by one, with probability proportional to the squared distance from the centers so far.

    Of a few candidates per center, the one that reduces the total distance most is kept.
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
    """Draw one index by inverting the cumulative sum, because ``multinomial`` is limited to 2^24 entries."""
    running = odds.cumsum(0)
    point = torch.rand(1, dtype=odds.dtype, generator=generator, device=odds.device) * running[-1]
    return int(torch.searchsorted(running, point).clamp_max(len(odds) - 1))
