r"""New components from a few samples, with statistical strength borrowed from known components.

The mean of n samples of a new class has a covariance of :math:`\Sigma / n`. In D dimensions this costs the class
:math:`D / 2n` nats relative to classes with many samples. The known class means give a prior of the new one
(:mod:`mixtura.core.between`): what is left of its variance, summed over the dimensions in units of :math:`\Sigma`, is

.. math:: P = \sum_d \frac{b_d}{n b_d + 1}

and the samples lose :math:`P / 2` nats on average, which adding ``lift`` to the class score gives back.

Source: the two-covariance model, Brümmer and de Villiers, The Speaker Partitioning Problem, Odyssey 2010.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core.between import BetweenClasses
from mixtura.core.covariance import Covariance, Floor, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments

NEIGHBOR_COMPONENTS = 5  # known components that a new one borrows its covariance from
PRIOR_STRENGTH = 20.0  # pseudo-samples of the borrowed covariance


@dataclass(frozen=True)
class NovelComponents:
    """New components with equal weights; ``lift`` is the log-density that each loses to its uncertain mean, in nats."""

    mixture: Mixture
    lift: Float[Tensor, " P"]


def novel_components(
    mixture: Mixture,
    moments: Moments,
    shots: list[Float[Tensor, "_ D"]],
    floor: Floor,
    prior: Prior,
    between: BetweenClasses | None = None,
) -> NovelComponents:
    """One new component for each set of few-shot samples.

    Args:
        mixture: the known components.
        moments: their moments.
        shots: the samples of each new component, one or more.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances; it shrinks toward the nearest components instead of the pooled one.
        between: how the known means vary, where it has been measured before.
    """
    between = between or BetweenClasses.of(mixture, moments.weight)
    count = torch.tensor([float(len(rows)) for rows in shots], dtype=torch.float64)
    raw = torch.stack([rows.double().mean(0) for rows in shots])
    rest = between.rest_of(raw, count)
    even = torch.full((len(shots),), 1 / len(shots), dtype=torch.float64).log()
    covariance = novel_covariance(mixture, moments, shots, floor, prior)
    made = Mixture(even, between.shrunk(raw, count, rest), covariance, torch.arange(len(shots)), len(shots))
    return NovelComponents(made, 0.5 * between.uncertainty(count, rest))


def novel_covariance(
    mixture: Mixture,
    moments: Moments,
    shots: list[Float[Tensor, "_ D"]],
    floor: Floor,
    prior: Prior,
) -> Covariance:
    """The covariances of :func:`novel_components`, from the same arguments, where no means are asked for."""
    raw = torch.stack([rows.double().mean(0) for rows in shots])
    order = torch.cdist(raw, mixture.mean.double()).argsort(1)
    near = torch.stack([row[moments.weight[row] > 0][:NEIGHBOR_COMPONENTS] for row in order])
    labels = torch.repeat_interleave(torch.arange(len(shots)), torch.tensor([len(rows) for rows in shots]))
    own = (torch.cat(shots).double(), labels, raw)
    return mixture.covariance.borrowed(moments, near, own, floor, prior, PRIOR_STRENGTH)
