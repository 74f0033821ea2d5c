"""How far to pull a pooled covariance towards the round one, from the data alone."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.moments import class_means

ROWS = 8192


def ledoit_wolf(x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_classes: int) -> float:
    r"""The share of the scaled identity that minimizes the expected squared error of the pooled covariance, in [0, 1].

    With :math:`z_n = x_n - \mu_{y_n}` and :math:`S = \frac1N \sum_n z_n z_n^\top`:

    .. math:: \gamma = \min\left(1,\;
        \frac{\frac1N \left(\frac1N\sum_n \|z_n\|^4 - \|S\|_F^2\right)}{\|S\|_F^2 - \operatorname{tr}(S)^2 / D}\right)

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
    """
    means = class_means(x, labels, n_classes).to(x.dtype)
    n, dimension = x.shape
    scatter = torch.zeros(dimension, dimension, dtype=torch.float64, device=x.device)
    fourth = 0.0
    for rows, own in zip(torch.split(x, ROWS), torch.split(labels, ROWS), strict=True):
        z = rows - means[own]
        scatter += (z.T @ z).double()
        fourth += float(z.square().sum(1, dtype=torch.float64).square().sum())
    scatter /= n
    squared = float(scatter.square().sum())
    spread = squared - float(scatter.trace()) ** 2 / dimension
    noise = (fourth / n - squared) / n
    return 1.0 if spread <= 0 else min(1.0, max(0.0, noise / spread))
