"""Data-driven shrinkage: how far to shrink covariances toward the scaled identity and toward the pooled one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import Prior
from mixtura.core.moments import Moments, class_means

TILE_ROWS = 8192


def ledoit_wolf(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
    scale: Float[Tensor, " D"] | None = None,
    scatter: Float[Tensor, "D D"] | None = None,
) -> float:
    r"""Ledoit-Wolf share of the scaled identity, in [0, 1]; minimizes the pooled covariance's expected squared error.

    With :math:`z_n = (x_n - \mu_{y_n}) / s` and :math:`S = \frac1N \sum_n z_n z_n^\top`:

    .. math:: \gamma = \min\left(1,\;
        \frac{\frac1N \left(\frac1N\sum_n \|z_n\|^4 - \|S\|_F^2\right)}{\|S\|_F^2 - \operatorname{tr}(S)^2 / D}\right)

    Args:
        x: the samples.
        labels: their classes.
        n_classes: C.
        weight: sample weights.
        scale: s, the feature units of the scaled identity; 1 if it is not given.
        scatter: :math:`\sum_n (x_n - \mu_{y_n})(x_n - \mu_{y_n})^\top`, weighted, where it is known already.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
    """
    means = class_means(x, labels, n_classes, weight).to(x.dtype)
    counts = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
    n, dimension = float(counts.sum()), x.shape[1]
    known, fourth = scatter is not None, 0.0
    products = torch.zeros(dimension, dimension, dtype=torch.float64, device=x.device) if scatter is None else scatter
    if known and scale is not None:
        products = products / (scale[:, None] * scale)
    for rows, own, count in zip(*(torch.split(t, TILE_ROWS) for t in (x, labels, counts)), strict=True):
        z = rows - means[own]
        z = z if scale is None else z / scale.to(z.dtype)
        fourth += float(count @ z.square().sum(1, dtype=torch.float64).square())
        if not known:
            z = z if weight is None else z * count.sqrt().to(z.dtype)[:, None]
            products += (z.T @ z).double()
    covariance = products / n
    squared = float(covariance.square().sum())
    spread = squared - float(covariance.trace()) ** 2 / dimension
    noise = (fourth / n - squared) / n
    return 1.0 if spread <= 0 else min(1.0, max(0.0, noise / spread))


def oas(sums: Moments, scale: Float[Tensor, " D"] | None = None) -> Prior:
    r"""Prior computed from the class moments alone, so mini-batches give the same result as all samples at once.

    The share of the identity is the oracle-approximating shrinkage (OAS) of the pooled covariance S in units of
    ``scale``, with n the number of samples minus one per class:

    .. math:: \gamma = \min\left(1,\; \frac{\operatorname{mean}(S_{ij}^2) + m^2}{(n + 1)
        (\operatorname{mean}(S_{ij}^2) - m^2 / D)}\right), \qquad m = \operatorname{tr}(S) / D

    Families with a covariance per class also shrink toward the pooled one, by as many pseudo-observations as a row
    of the covariance has parameters: D, or 1 for variances, which do not shrink toward the identity.

    Source: Chen, Wiesel, Eldar, Hero, Shrinkage Algorithms for MMSE Covariance Estimation, 2010, equation 23.
    """
    if sums.second.ndim < 3:
        return Prior(strength=1.0)
    degrees = max(float(sums.weight.sum() - (sums.weight > 0).sum()), 1.0)
    pooled = sums.centered().second.sum(0) / sums.weight.sum()
    pooled = pooled if scale is None else pooled / (scale[:, None] * scale)
    dimension = len(pooled)
    square = float(pooled.square().mean())
    mean = float(pooled.diagonal().mean())
    below = (degrees + 1) * (square - mean**2 / dimension)
    identity = 1.0 if below <= 0 else min(1.0, (square + mean**2) / below)
    return Prior(float(dimension) if len(sums.second) > 1 else 0.0, identity)
