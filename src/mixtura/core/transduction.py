r"""Few-shot classifiers that look at all queries of an episode together (transductive).

Each begins with what an inductive classifier of :mod:`mixtura.core.few_shot` learns from the shots. The queries then
move its class means, by EM with the covariances held:

.. math:: r_{nc} \propto \exp s_c(q_n), \qquad
    \mu_c = \frac{S \mu^0_c + \lambda \sum_n r_{nc} q_n}{S + \lambda \sum_n r_{nc}}

with S shots and :math:`\lambda` the weight of a query beside a shot. Classes are equally likely beforehand, and nothing
else makes them balanced: a class may get any share of the queries. Arguments are those of the inductive classifiers.

Source: Ren et al., Meta-learning for semi-supervised few-shot classification, ICLR 2018 (soft k-means; there a single
step, with distances in the units of a network that was trained for it).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core.few_shot import Newcomers, prototype

STEPS = 10


def _moved(
    start: Float[Tensor, "E W D"], shot: int, query: Float[Tensor, "E M D"], share: Float[Tensor, "E M W"]
) -> Float[Tensor, "E W D"]:
    """The means of shots and queries together; ``share`` is the weight of a query in a class."""
    return (shot * start + share.mT @ query) / (shot + share.sum(1)[..., None])


def soft_prototype(
    support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"], weight: float = 1.0
) -> Float[Tensor, "E M W"]:
    r"""Scores of :func:`~mixtura.core.few_shot.prototype` with class means that soft k-means of the queries has moved.

    The score of an assignment is :math:`-\|q - \mu_c\|^2 / (2 v)`; v is the mean squared distance, per dimension, of a
    query of the episode to its nearest mean, so that the scale of the features does not matter.

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
    """A catalog's enrollment whose newcomers the queries move; their covariances stay those of the base classes.

    Args:
        enroll: the inductive classifier.
        weight: of a query beside a shot, 0 for the inductive scores.
    """

    enroll: Newcomers
    weight: float = 1.0

    def __call__(self, support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
        """Log-density of each query under each newcomer, up to a constant."""
        episodes, way, shot, _ = support.shape
        made = moved = self.enroll.made(support)
        start = made.mean.reshape(episodes, way, -1)
        for _ in range(STEPS):
            share = self.weight * self.enroll.scores(moved, query, (episodes, way)).softmax(2)
            mean = _moved(start, shot, query.to(start), share.to(start))
            moved = replace(made, mean=mean.flatten(0, 1))
        return self.enroll.scores(moved, query, (episodes, way))
