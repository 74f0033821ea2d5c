r"""How class means vary: the prior of a mean that only a few samples are known of.

In the space whitened by the within-class covariance, means vary along the directions in which the known class means
differ, and hardly across them. With :math:`b_i` the variance along direction :math:`u_i`, and :math:`s_0` that of all
others, the mean of n samples is drawn toward the mean :math:`m_0` of the known ones, direction by direction:

.. math::
    \hat\mu = m_0 + \Sigma^{1/2} \Big[ c_0 I + \sum_i (c_i - c_0)\, u_i u_i^\top \Big] \Sigma^{-1/2} (\bar x - m_0),
    \qquad c = \frac{b}{b + 1/n}

So most of the noise of a single sample, which has all D dimensions, is taken off, and what tells classes apart is kept.
A between-class covariance that is a multiple of the within-class one, :math:`b_i = s_0`, keeps both.

Directions found from K means in more than K dimensions fit these means too well: along them, the means of other classes
vary by half as much or less. So the variances come from classes that are left out when the directions are found.

Sources: the two-covariance model, Brümmer and de Villiers, The Speaker Partitioning Problem, Odyssey 2010; eigenvalues
by cross-validation, Bartz, Advances in high-dimensional covariance matrix estimation, 2016.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.mixture import Mixture

MIN_RATIO = 1e-3  # lower limit of each variance, in units of the within-class covariance
MAX_MEANS = 300  # that directions are found from, evenly chosen; finding them takes the cube of their number
MIN_MEANS = 5  # with fewer, all directions are alike
FOLDS, FOLD_SEED = 10, 0  # of the known classes


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
        known = (weight > 0).nonzero()[:, 0]
        known = known[:: -(-len(known) // MAX_MEANS)]
        center, mean = mixture.mean.double().mean(0), mixture.mean.double()[known]
        if not mixture.covariance.shared or len(mean) < MIN_MEANS:
            none = mean.new_zeros(0, mixture.dimension)
            return cls(center, none, none, mean.new_zeros(0), ratio_of(mixture, weight))
        away = mean - mean.mean(0)
        whitened = mixture.covariance.to(torch.float64).precision_matmul(away)
        gram = away @ whitened.mT
        variance, rest = held_out_variances(gram, weight[known].double(), mixture.dimension)
        length, vectors = _principal(gram, len(variance))
        axes, dual = ((vectors / length).mT @ rows for rows in (away, whitened))
        return cls(center, axes, dual, variance, rest)

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


def held_out_variances(
    gram: Float64[Tensor, "K K"], count: Float64[Tensor, " K"], dimension: int
) -> tuple[Float64[Tensor, " R"], float]:
    r"""Variance of a new mean along each principal direction of known ones, in falling order, and across all of them.

    Each class in turn is new to the directions :math:`u_i` of the classes outside its fold, M in number, and

    .. math:: b_i = \frac1K \sum_k \Big[ \tfrac{M}{M + 1} \langle u_i, \mu_k - \bar\mu \rangle^2 - \tfrac1{n_k} \Big]

    Args:
        gram: inner products of the whitened means, about any center.
        count: the number of samples of each mean, whose own error is taken off.
        dimension: D; at least the rank of ``gram``.
    """
    order = torch.randperm(len(gram), generator=torch.Generator().manual_seed(FOLD_SEED))
    parts = [order[place::FOLDS] for place in range(min(FOLDS, len(order)))]
    rank = min(len(gram) - len(parts[0]) - 1, dimension - 1)
    squares = [_held_out_squares(gram, order[~torch.isin(order, part)], part, rank) for part in parts]
    error = 1 / count[torch.cat(parts)]
    along, whole = (torch.cat(values) for values in zip(*squares, strict=True))
    rest = float((whole - along.sum(1) - (dimension - rank) * error).mean()) / (dimension - rank)
    variance = falling((along - error[:, None]).mean(0))
    return variance.clamp_min(max(rest, MIN_RATIO)), max(rest, MIN_RATIO)


def _held_out_squares(
    gram: Float64[Tensor, "K K"], kept: Int[Tensor, " M"], held: Int[Tensor, " H"], rank: int
) -> tuple[Float64[Tensor, "H R"], Float64[Tensor, " H"]]:
    """Squared coordinates of held-out means along the directions of the kept ones, and squared distances to their mean.

    Both are those of a known mean; that of the kept ones errs as well.
    """
    own = gram[kept].mean(0)
    about = gram - own - own[:, None] + own[kept].mean()
    length, vectors = _principal(about[kept][:, kept], rank)
    known = len(kept) / (len(kept) + 1)
    along = (about[held][:, kept] @ vectors / length).square()
    return known * along, known * about.diagonal()[held]


def _principal(gram: Float64[Tensor, "M M"], rank: int) -> tuple[Float64[Tensor, " R"], Float64[Tensor, "M R"]]:
    """The largest singular values of the rows whose inner products are given, and their left singular vectors."""
    squares, vectors = linalg.eigh(0.5 * (gram + gram.mT))
    squares, vectors = squares[:rank], vectors[:, :rank]
    tiny = torch.finfo(squares.dtype).eps * len(gram) * squares[:1].clamp_min(torch.finfo(squares.dtype).tiny)
    return squares.maximum(tiny).sqrt(), vectors


def falling(values: Float64[Tensor, " R"]) -> Float64[Tensor, " R"]:
    r"""The closest values that never rise, :math:`v_i = \max_{k \ge i} \min_{j \le i} \overline{v_{j \ldots k}}`."""
    place, total = torch.arange(len(values)), torch.cat([values.new_zeros(1), values.cumsum(0)])
    mean = (total[1:] - total[:-1, None]) / (place - place[:, None] + 1)
    before = place < place[:, None]
    least = mean.masked_fill(before, torch.inf).cummin(0).values
    return least.masked_fill(before, -torch.inf).amax(1)
