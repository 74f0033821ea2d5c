r"""Few-shot classifiers that look at all queries of an episode together (transductive).

Each begins with the class means that an inductive classifier of :mod:`mixtura.core.few_shot` learns from the shots. In
each of a few steps, the queries move them; a catalog's newcomers are then drawn toward the base classes as before:

.. math:: r_{nc} \propto \exp s_c(q_n), \qquad
    \mu_c = \frac{S \bar x_c + \lambda \sum_n r_{nc} q_n}{S + \lambda \sum_n r_{nc}}

where :math:`\bar x_c` is the mean of the S shots and :math:`\lambda` the weight of a query beside a shot. Classes are
equally likely beforehand, and nothing else makes them balanced: a class may get any share of the queries. Arguments are
those of the inductive classifiers.

:class:`TransductiveNewcomers` is EM for the most probable means, with the covariances held. :func:`soft_prototype` is
soft k-means: in each step it measures its scale again, at the nearest means, which is no step of EM.

Source: Ren et al., Meta-learning for semi-supervised few-shot classification, ICLR 2018 (soft k-means; there a single
step, with distances in the units of a network that was trained for it).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core.few_shot import Newcomers, prototype
from mixtura.core.mixture import Mixture

STEPS = 10


def _moved(
    start: Float[Tensor, "E W D"], shot: int, query: Float[Tensor, "E M D"], share: Float[Tensor, "E M W"]
) -> Float[Tensor, "E W D"]:
    """The means of shots and queries together.

    Args:
        start: the means of the shots.
        shot: how many there are in a class.
        query: samples to classify.
        share: the weight of a query in a class.
    """
    return (shot * start + share.mT @ query) / (shot + share.sum(1)[..., None])


def soft_prototype(
    support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"], weight: float = 1.0
) -> Float[Tensor, "E M W"]:
    r"""Scores of :func:`~mixtura.core.few_shot.prototype` with class means that soft k-means of the queries has moved.

    The score of an assignment is :math:`-\|q - \mu_c\|^2 / (2 v)`; v is the mean squared distance, per dimension, of a
    query of the episode to its nearest mean in this step, so that the scale of the features does not matter.

    Args:
        support: samples to learn from.
        query: samples to classify, all at once.
        weight: of a query beside a shot, 0 for the inductive scores.
    """
    start = mean = support.mean(2)
    for _ in range(STEPS):
        distance = torch.cdist(query, mean).square()
        variance = distance.amin(2).mean(1) / query.shape[2]
        wide = 2 * variance.clamp_min(torch.finfo(query.dtype).tiny)[:, None, None]
        share = weight * (-distance / wide).softmax(2)
        mean = _moved(start, support.shape[2], query, share)
    return prototype(mean[:, :, None], query)


@dataclass(frozen=True)
class TransductiveNewcomers:
    r"""A catalog's enrollment whose newcomers the queries move; their covariances stay those of the base classes.

    The mean of shots and queries is drawn toward that of the base classes, as :mod:`mixtura.core.between` has it for as
    many samples. With its between-class covariance :math:`B_c`, in the units of :math:`\Sigma_c`, no step lowers

    .. math:: \sum_c \Big[ \log N(\mu_c; m_0, B_c) + \sum_{i=1}^S \log N(x_{ci}; \mu_c, \Sigma_c) \Big]
        + \lambda \sum_n \log \sum_c N(q_n; \mu_c, \Sigma_c)

    Args:
        enroll: the inductive classifier.
        weight: of a query beside a shot, 0 for the inductive scores.
    """

    enroll: Newcomers
    weight: float = 1.0

    def __call__(self, support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
        """Log-density of each query under each newcomer, up to a constant."""
        return self.enroll.scores(self.moved(support, query), query, (support.shape[0], support.shape[1]))

    def moved(self, support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Mixture:
        """The newcomers of all episodes, one after another, where the queries have moved them."""
        episodes, way, shot, _ = support.shape
        made = moved = self.enroll.made(support)
        between = self.enroll.between
        start, asked = support.double().mean(2), query.double()
        rest = between.rest_of(start.flatten(0, 1), torch.full((episodes * way,), float(shot), dtype=torch.float64))
        for _ in range(STEPS):
            share = self.weight * self.enroll.scores(moved, query, (episodes, way)).double().softmax(2)
            raw = _moved(start, shot, asked, share).flatten(0, 1)
            moved = replace(made, mean=between.shrunk(raw, shot + share.sum(1).flatten(), rest))
        return moved
