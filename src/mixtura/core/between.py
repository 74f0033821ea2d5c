r"""How class means vary: the prior of a mean that only a few samples are known of.

In the space whitened by the within-class covariance, means vary along the directions in which the known class means
differ, and hardly across them. With :math:`b_i` the variance along direction :math:`u_i`, and :math:`b_0` that of every
other direction, the mean of n samples is drawn toward the mean :math:`m_0` of the known ones, direction by direction:

.. math::
    \hat\mu = m_0 + \Sigma^{1/2} \Big[ c_0 I + \sum_i (c_i - c_0)\, u_i u_i^\top \Big] \Sigma^{-1/2} (\bar x - m_0),
    \qquad c_i = \frac{b_i}{b_i + 1/n}, \quad c_0 = \frac{b_0}{b_0 + 1/n}

So most of the noise of a single sample, which has all D dimensions, is taken off, and what tells classes apart is kept.
With one variance for all directions, the noise stays.

Directions are found from the known means and fit these too well: along them, the means of other classes vary less. So
the variances come from classes that are left out when the directions are found.

Sources: the two-covariance model, Brümmer and de Villiers, The Speaker Partitioning Problem, Odyssey 2010; eigenvalues
by cross-validation, Bartz, Advances in high-dimensional covariance matrix estimation, 2016.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.content import distinct
from mixtura.core.covariance import Covariance
from mixtura.core.mixture import Mixture

MIN_RATIO = 1e-3  # lower limit of each variance, in units of the within-class covariance
MAX_MEANS = 300  # that directions are found from, evenly chosen; finding them takes the cube of their number
MIN_CLASSES = 5  # with fewer, all directions are alike
KIND_FACTOR = 2.0  # of what the squared distance of a new class is on average; what is beyond is of another kind
KIND_ERRORS = 3.0  # standard errors of that distance, which are added to it
CLASS_FOLDS, FOLD_SEED = 10, 0  # of the known classes


@dataclass(frozen=True)
class BetweenClasses:
    """Variance of the class means about ``center``, in units of the within-class covariance.

    ``axes`` are the directions in the units of x, :math:`\\Sigma^{1/2} u_i`, and ``dual`` gives coordinates along them;
    ``variance`` is that along each, ``rest`` that of every other direction; ``covariance`` is the within-class one.
    """

    center: Float64[Tensor, " D"]
    axes: Float64[Tensor, "R D"]
    dual: Float64[Tensor, "R D"]
    variance: Float64[Tensor, " R"]
    rest: float
    covariance: Covariance

    @classmethod
    def of(cls, mixture: Mixture, weight: Float[Tensor, " K"]) -> "BetweenClasses":
        """Measure it on the known components.

        Components that share no covariance, one feature, or fewer than five classes have one variance for all
        directions.

        Args:
            mixture: the known components.
            weight: the number of samples of each; a component without any counts for nothing.
        """
        known = (weight > 0).nonzero()[:, 0]
        mixture, weight = mixture.select(known), weight[known].double()
        center, covariance = mixture.mean.double().mean(0), mixture.covariance.to(torch.float64)
        chosen = torch.linspace(0, len(known) - 1, min(len(known), MAX_MEANS)).long()
        owner = chosen if mixture.component_class is None else mixture.component_class[chosen]
        if not mixture.covariance.shared or mixture.dimension == 1 or len(distinct(owner)) < MIN_CLASSES:
            none = center.new_zeros(0, mixture.dimension)
            return cls(center, none, none, center.new_zeros(0), ratio_of(mixture, weight), covariance)
        away = mixture.mean.double()[chosen]
        away = away - away.mean(0)
        whitened = covariance.precision_matmul(away)
        gram = away @ whitened.mT
        variance, rest = variances_of_others(gram, weight[chosen], owner, mixture.dimension)
        length, vectors = _principal(gram, len(variance))
        axes, dual = ((vectors / length).mT @ rows for rows in (away, whitened))
        return cls(center, axes, dual, variance, rest, covariance)

    def rest_of(self, raw: Float64[Tensor, "P D"], count: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
        r"""The variance in all other directions, for each new class: more for one of another kind than the known ones.

        With :math:`v = \|\bar x - m_0\|^2_\perp / (D - R)`, on average :math:`b_0 + 1/n` for one of their kind, it is
        :math:`b_0 + \max(0, v - f\,(b_0 + 1/n))`. The factor f leaves room for samples of a wide spread, and for chance
        where there are few other directions.

        Args:
            raw: the mean of the samples of each new class.
            count: their number.
        """
        across = len(self.center) - len(self.variance)
        if not len(self.variance):
            return torch.full_like(count, self.rest)
        away = raw - self.center
        squared = (away * self.covariance.precision_matmul(away)).sum(1) - (away @ self.dual.mT).square().sum(1)
        usual = (KIND_FACTOR + KIND_ERRORS * (2 / across) ** 0.5) * (self.rest + 1 / count)
        return self.rest + (squared / across - usual).clamp_min(0)

    def shrunk(
        self, raw: Float64[Tensor, "P D"], count: Float64[Tensor, " P"], rest: Float64[Tensor, " P"]
    ) -> Float64[Tensor, "P D"]:
        """The means that are most likely of classes of which ``count`` samples have the means ``raw``.

        ``rest`` is their variance in all other directions.
        """
        away, inverse, rest = raw - self.center, 1 / count[:, None], rest[:, None]
        variance, others = self.variance.maximum(rest), rest / (rest + inverse)
        along = variance / (variance + inverse) - others
        return self.center + others * away + (along * (away @ self.dual.mT)) @ self.axes

    def uncertainty(self, count: Float64[Tensor, " P"], rest: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
        """The variance that is left of each of these means, in units of the covariance, summed over the dimensions."""
        variance, across = self.variance.maximum(rest[:, None]), len(self.center) - len(self.variance)
        along = (variance / (count[:, None] * variance + 1)).sum(1)
        return along + across * rest / (count * rest + 1)


def ratio_of(mixture: Mixture, weight: Float[Tensor, " K"]) -> float:
    r"""Between-class variance of the means in units of each component's covariance, averaged over dimensions.

    .. math:: s = \frac1{K - 1} \sum_k \tfrac1D \|\mu_k - m_0\|^2_{\Sigma_k} - \frac1K \sum_k \tfrac1{w_k}

    Args:
        mixture: the known components.
        weight: the number of samples of each, above zero.
    """
    center = mixture.mean.mean(0, keepdim=True)
    own = mixture.component_log_prob(mixture.mean).diagonal().double()
    far = mixture.component_log_prob(center)[0].double()
    squared = 2 * (own - far) / mixture.dimension
    spread = float(squared.mean()) * len(own) / max(1, len(own) - 1)  # about their own mean
    return max(MIN_RATIO, spread - float((1 / weight).mean()))


def variances_of_others(
    gram: Float64[Tensor, "K K"], count: Float64[Tensor, " K"], owner: Int[Tensor, " K"], dimension: int
) -> tuple[Float64[Tensor, " R"], float]:
    r"""Variance of a new mean along each principal direction of known ones, not rising, and in all other directions.

    Classes are left out in ten parts. With :math:`u_i` the principal directions of the M means outside the part of mean
    k, and :math:`\bar\mu` their average, whose own error the factor takes off,

    .. math:: b_i = \frac1K \sum_k \Big[ \tfrac{M}{M + 1} \big( u_i^\top (\mu_k - \bar\mu) \big)^2 - \tfrac1{n_k} \Big],
        \qquad b_0 = \frac1K \sum_k \Big[ \frac{\frac{M}{M + 1} \|\mu_k - \bar\mu\|^2_\perp}{D - R}
        - \tfrac1{n_k} \Big]

    where the last distance is across all R directions. The :math:`b_i` are made to fall by isotonic regression, and no
    variance is below :math:`b_0` or ``MIN_RATIO``.

    Args:
        gram: inner products of the whitened means, about any center.
        count: the number of samples of each mean, whose own error is taken off.
        owner: the class of each mean; those of a class are left out together.
        dimension: D.
    """
    names = distinct(owner)
    order = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(FOLD_SEED))]
    parts = [torch.isin(owner, order[place::CLASS_FOLDS]) for place in range(min(CLASS_FOLDS, len(order)))]
    rank = min(len(gram) - max(int(part.sum()) for part in parts) - 1, dimension - 1)
    found = [_squares(gram, part, rank) for part in parts]
    along, whole = torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])
    error = torch.cat([1 / count[part] for part in parts])
    rest = float((whole - along.sum(1) - (dimension - rank) * error).mean()) / (dimension - rank)
    rest = max(rest, MIN_RATIO)
    return not_rising((along - error[:, None]).mean(0)).clamp_min(rest), rest


def _squares(
    gram: Float64[Tensor, "K K"], part: Bool[Tensor, " K"], rank: int
) -> tuple[Float64[Tensor, "H R"], Float64[Tensor, " H"]]:
    """Squared coordinates of the means in a part, along the directions of all others, and squared distances.

    Both are scaled by M / (M + 1), because the average of the M others has an error, too.
    """
    own = gram[~part].mean(0)
    about = gram - own - own[:, None] + own[~part].mean()
    length, vectors = _principal(about[~part][:, ~part], rank)
    known = len(vectors) / (len(vectors) + 1)
    along = (about[part][:, ~part] @ vectors / length).square()
    return known * along, known * about.diagonal()[part]


def _principal(gram: Float64[Tensor, "M M"], rank: int) -> tuple[Float64[Tensor, " R"], Float64[Tensor, "M R"]]:
    """The largest singular values of the rows whose inner products are given, and their left singular vectors."""
    squares, vectors = linalg.eigh(0.5 * (gram + gram.mT))
    squares, vectors = squares[:rank], vectors[:, :rank]
    tiny = torch.finfo(squares.dtype).eps * len(gram) * squares[:1].clamp_min(torch.finfo(squares.dtype).tiny)
    return squares.maximum(tiny).sqrt(), vectors


def not_rising(values: Float64[Tensor, " R"]) -> Float64[Tensor, " R"]:
    r"""The closest values that never rise, :math:`v_i = \max_{k \ge i} \min_{j \le i} \overline{v_{j \ldots k}}`."""
    place, total = torch.arange(len(values)), torch.cat([values.new_zeros(1), values.cumsum(0)])
    mean = (total[1:] - total[:-1, None]) / (place - place[:, None] + 1)
    before = place < place[:, None]
    least = mean.masked_fill(before, torch.inf).cummin(0).values
    return least.masked_fill(before, -torch.inf).amax(1)
