r"""Components from a few rows: what is not known of them is borrowed from components that are.

The mean of n rows of a new class is uncertain by a covariance of :math:`\Sigma / n`, which in D dimensions costs
its rows :math:`D / 2n` nats against classes of many rows, and puts it at a disadvantage. Known classes say how far
class means lie apart: with :math:`s` their variance in units of :math:`\Sigma`, averaged over the dimensions, and
:math:`m_0` their mean,

.. math::
    \hat\mu = m_0 + \frac{s}{s + 1/n} (\bar x - m_0), \qquad
    \operatorname{Cov}(\mu \mid x_1 \dots x_n) = p\,\Sigma, \quad p = \frac{s}{n s + 1}

and the rows lose :math:`p D / 2` nats on average, which can be given back as a lift of the class.

Source: the two-covariance model, Brümmer and de Villiers, The Speaker Partitioning Problem, Odyssey 2010, with the
covariance between classes taken as a multiple of the one within.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core.covariance import Floor, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments

NEIGHBOR_COMPONENTS = 5  # components whose covariances a new one borrows
PRIOR_STRENGTH = 20.0  # rows that the borrowed covariance counts for
MIN_BETWEEN_RATIO = 1e-3  # of the variance between means, in units of the covariance: classes that all lie together


@dataclass(frozen=True)
class NovelComponents:
    """New components with equal weights; ``lift`` is what their uncertain means cost each of them, in nats."""

    mixture: Mixture
    lift: Float[Tensor, " P"]


def between_class_ratio(mixture: Mixture, weight: Float[Tensor, " K"]) -> float:
    r"""How far the means lie apart: their variance in units of each component's covariance, a mean over dimensions.

    .. math:: s = \frac1{K - 1} \sum_k \tfrac1D \|\mu_k - m_0\|^2_{\Sigma_k} - \frac1K \sum_k \tfrac1{w_k}

    Args:
        mixture: components that are known well.
        weight: how many rows each was made of.
    """
    center = mixture.mean.mean(0, keepdim=True)
    own, far = (
        mixture.component_log_prob(mixture.mean).diagonal().double(),
        mixture.component_log_prob(center)[0].double(),
    )
    known = weight > 0
    squared = 2 * (own - far) / mixture.dimension
    spread = float(squared[known].mean()) * len(own) / max(1, len(own) - 1)  # about their own mean
    return max(MIN_BETWEEN_RATIO, spread - float((1 / weight[known]).mean()))


def novel_components(
    mixture: Mixture,
    moments: Moments,
    shots: list[Float[Tensor, "_ D"]],
    floor: Floor,
    prior: Prior,
) -> NovelComponents:
    """A component for each handful of rows.

    Args:
        mixture: components that are known well.
        moments: the sums that they were made of.
        shots: the rows of each new component, one or more.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances; its pull towards the pooled one is replaced by that towards the nearest.
    """
    ratio = between_class_ratio(mixture, moments.weight)
    center = mixture.mean.double().mean(0)
    count = torch.tensor([float(len(rows)) for rows in shots], dtype=torch.float64)
    raw = torch.stack([rows.double().mean(0) for rows in shots])
    mean = center + (ratio / (ratio + 1 / count))[:, None] * (raw - center)
    order = torch.cdist(raw, mixture.mean.double()).argsort(1)
    near = torch.stack([row[moments.weight[row] > 0][:NEIGHBOR_COMPONENTS] for row in order])
    labels = torch.repeat_interleave(torch.arange(len(shots)), count.long())
    own = (torch.cat(shots).double(), labels, raw)
    covariance = mixture.covariance.borrowed(moments, near, own, floor, prior, PRIOR_STRENGTH)
    even = torch.full((len(shots),), 1 / len(shots), dtype=torch.float64).log()
    uncertain = ratio / (count * ratio + 1)
    made = Mixture(even, mean, covariance, torch.arange(len(shots)), len(shots))
    return NovelComponents(made, 0.5 * mixture.dimension * uncertain)
