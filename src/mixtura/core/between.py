r"""How class means vary: the prior of a mean that only a few samples are known of.

In the space whitened by the within-class covariance, means vary along the directions in which the known class means
differ, and hardly across them. With :math:`b_i` the variance along direction :math:`u_i`, and :math:`s_0` that of all
others, the mean of n samples is drawn toward the mean :math:`m_0` of the known ones, direction by direction:

.. math::
    \hat\mu = m_0 + \Sigma^{1/2} \Big[ c_0 I + \sum_i (c_i - c_0)\, u_i u_i^\top \Big] \Sigma^{-1/2} (\bar x - m_0), \qquad
    c = \frac{b}{b + 1/n}

So most of the noise of a single sample, which has all D dimensions, is taken off, and what tells classes apart is kept.
A between-class covariance that is a multiple of the within-class one, :math:`b_i = s_0`, keeps both.

Source: the two-covariance model, Brümmer and de Villiers, The Speaker Partitioning Problem, Odyssey 2010.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mixtura.core.mixture import Mixture

MIN_RATIO = 1e-3  # lower limit of the variance across the directions, in units of the within-class covariance
MAX_MEANS = 500  # that directions are found from, evenly chosen; finding them takes the cube of their number
MIN_MEANS = 3  # with fewer, all directions are alike
JITTER = 1e-10  # of a Gram matrix, relative to its mean diagonal


@dataclass(frozen=True)
class BetweenClasses:
    """Variance of the class means about ``center``, in units of the within-class covariance.

    ``axes`` are the directions in the units of x, :math:`\\Sigma^{1/2} u_i`, and ``dual`` gives coordinates along them;
    ``variance`` is that along each, ``rest`` that of every other direction.
    """

    center: Float64[Tensor, " D"]
    axes: Float64[Tensor, "R D"]
    dual: Float64[Tensor, "R D"]
    variance: Float64[Tensor, " R"]
    rest: float

    @classmethod
    def of(cls, mixture: Mixture, weight: Float[Tensor, " K"]) -> "BetweenClasses":
        """Measure it on the known components.

        Covariances of their own give one variance for all directions.

        Args:
            mixture: the known components.
            weight: the number of samples of each.
        """
        center, mean = mixture.mean.double().mean(0), mixture.mean.double()[weight > 0]
        if not mixture.covariance.shared or len(mean) < MIN_MEANS:
            none = mean.new_zeros(0, mixture.dimension)
            return cls(center, none, none, mean.new_zeros(0), ratio_of(mixture, weight))
        step = -(-len(mean) // MAX_MEANS)
        noise = float((1 / weight[weight > 0].double()[::step]).mean())
        return _measured(mixture, mean[::step], noise)

    def shrunk(self, raw: Float64[Tensor, "P D"], count: Float64[Tensor, " P"]) -> Float64[Tensor, "P D"]:
        """The means that are most likely of classes of which ``count`` samples have the means ``raw``."""
        away, inverse = raw - self.center, 1 / count[:, None]
        others = self.rest / (self.rest + inverse)
        along = self.variance / (self.variance + inverse) - others
        return self.center + others * away + (along * (away @ self.dual.mT)) @ self.axes

    def uncertainty(self, count: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
        """The variance that is left of each mean, in units of the covariance, summed over the dimensions."""
        n, across = count[:, None], len(self.center) - len(self.variance)
        along = (self.variance / (n * self.variance + 1)).sum(1)
        return along + across * self.rest / (count * self.rest + 1)


def ratio_of(mixture: Mixture, weight: Float[Tensor, " K"]) -> float:
    r"""Between-class variance of the means in units of each component's covariance, averaged over dimensions.

    .. math:: s = \frac1{K - 1} \sum_k \tfrac1D \|\mu_k - m_0\|^2_{\Sigma_k} - \frac1K \sum_k \tfrac1{w_k}

    Args:
        mixture: the known components.
        weight: the number of samples of each.
    """
    center = mixture.mean.mean(0, keepdim=True)
    own, far = (
        mixture.component_log_prob(mixture.mean).diagonal().double(),
        mixture.component_log_prob(center)[0].double(),
    )
    known = weight > 0
    squared = 2 * (own - far) / mixture.dimension
    spread = float(squared[known].mean()) * len(own) / max(1, len(own) - 1)  # about their own mean
    return max(MIN_RATIO, spread - float((1 / weight[known]).mean()))


def _measured(mixture: Mixture, mean: Float64[Tensor, "K D"], noise: float) -> BetweenClasses:
    """Directions and variances from K known means, whose own error has the variance ``noise`` in each dimension."""
    count, dimension = mean.shape
    center = mixture.mean.double().mean(0)
    away = mean - mean.mean(0)
    whitened = mixture.covariance.to(torch.float64).precision_matmul(away)
    gram = away @ whitened.mT
    scatter, vectors = torch.linalg.eigh(0.5 * (gram + gram.mT) / (count - 1))
    rank = min(count - 1, dimension)
    scatter, vectors = scatter[-rank:], vectors[:, -rank:]
    length = ((count - 1) * scatter.clamp_min(JITTER * float(scatter[-1].clamp_min(JITTER)))).sqrt()
    rest = _outside(gram, noise, dimension)
    variance = (scatter - noise * dimension / rank).clamp_min(0) + rest
    axes, dual = ((vectors / length).mT @ rows for rows in (away, whitened))
    return BetweenClasses(center, axes, dual, variance, rest)


def _outside(gram: Float64[Tensor, "K K"], noise: float, dimension: int) -> float:
    """The variance of a new mean across the directions of the others: each known mean in turn is the new one."""
    count = len(gram)
    across = dimension - (count - 2)
    if across <= 0:
        return MIN_RATIO
    bordered = torch.ones(count + 1, count + 1, dtype=torch.float64)
    bordered[-1, -1] = 0
    jitter = JITTER * gram.diagonal().mean() * torch.eye(count, dtype=torch.float64)
    bordered[:-1, :-1] = 0.5 * (gram + gram.mT) + jitter
    squared = 1 / torch.linalg.inv(bordered).diagonal()[:-1]  # distances to the flats through all others
    return max(MIN_RATIO, float(squared.mean()) / across - noise)
