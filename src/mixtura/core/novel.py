r"""New components from a few samples, with statistical strength borrowed from known components.

The mean of n samples of a new class has a covariance of :math:`\Sigma / n`. In D dimensions this costs the class
:math:`D / 2n` nats relative to classes with many samples. The known class means give a prior: with :math:`s` their
variance in units of :math:`\Sigma`, averaged over the dimensions, and :math:`m_0` their mean,

.. math::
    \hat\mu = m_0 + \frac{s}{s + 1/n} (\bar x - m_0), \qquad
    \operatorname{Cov}(\mu \mid x_1 \dots x_n) = p\,\Sigma, \quad p = \frac{s}{n s + 1}

and the samples lose :math:`p D / 2` nats on average, which adding ``lift`` to the class score gives back.

Source: the two-covariance model, Brümmer and de Villiers, The Speaker Partitioning Problem, Odyssey 2010, with the
between-class covariance a multiple of the within-class covariance.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core.covariance import Floor, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments

NEIGHBOR_COMPONENTS = 5  # known components that a new one borrows its covariance from
PRIOR_STRENGTH = 20.0  # pseudo-samples of the borrowed covariance
MIN_BETWEEN_RATIO = 1e-3  # lower limit of the between-class variance, in units of the covariance


@dataclass(frozen=True)
class NovelComponents:
    """New components with equal weights; ``lift`` is the log-density that each loses to its uncertain mean, in nats."""

    mixture: Mixture
    lift: Float[Tensor, " P"]


def between_class_ratio(mixture: Mixture, weight: Float[Tensor, " K"]) -> float:
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
    return max(MIN_BETWEEN_RATIO, spread - float((1 / weight[known]).mean()))


def novel_components(
    mixture: Mixture,
    moments: Moments,
    shots: list[Float[Tensor, "_ D"]],
    floor: Floor,
    prior: Prior,
) -> NovelComponents:
    """One new component for each set of few-shot samples.

    Args:
        mixture: the known components.
        moments: their moments.
        shots: the samples of each new component, one or more.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances; it shrinks toward the nearest components instead of the pooled one.
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
