r"""Classifiers that learn from a few samples of each class, for many episodes at once.

Each takes the support samples of E episodes with W classes and S shots, and M queries of each, and returns scores
``E M W``: the class of a query is that of the highest. Scores of one query may lack a constant that is the same for all
classes. Nothing is learned across episodes, and a query is classified without a look at the others (inductive).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.between import BetweenClasses
from mixtura.core.covariance import Floor, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments
from mixtura.core.novel import novel_components

MAX_STEPS = 1000
MAX_CHANGE = {torch.float32: 1e-5, torch.float64: 1e-9}  # of a score in the last step of the logistic regression
SAMPLED_CHANGE = 0.05  # the same where the samples are drawn, so that a closer minimum says nothing
NEIGHBOR_CLASSES = 2  # base classes that a calibrated shot borrows from, as in the paper
SAMPLES_PER_CLASS = 100  # drawn for a class; the paper draws 750, which changes little and takes seven times as long
DISPERSION = 0.2  # added to each variance of a calibrated shot, as a share of the base classes' average variance


def prototype(support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
    r"""Nearest class mean: :math:`-\tfrac12 \|q - \bar x_c\|^2`, up to a constant.

    Source: Snell, Swersky and Zemel, Prototypical networks for few-shot learning, NeurIPS 2017.
    """
    return _closeness(support.mean(2), query)


def nearest(support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
    """Nearest support sample: the prototype's score of the closest one of each class."""
    way, shot = support.shape[1:3]
    return _closeness(support.flatten(1, 2), query).reshape(*query.shape[:2], way, shot).amax(3)


def knn(support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"], k: int = 5) -> Float[Tensor, "E M W"]:
    """Votes of the nearest support samples, each with the inverse of its distance; the nearest one for one shot.

    Args:
        support: samples to learn from.
        query: samples to classify.
        k: how many samples vote; all, where there are fewer. If some are at distance 0, only these vote.
    """
    way, shot = support.shape[1:3]
    distance = torch.cdist(query, support.flatten(1, 2), compute_mode="donot_use_mm_for_euclid_dist")  # exact at 0
    near = distance.topk(min(k, way * shot), largest=False)
    exact = near.values == 0
    weight = torch.where(exact.any(2, keepdim=True), exact.to(query), near.values.reciprocal())
    return query.new_zeros(*query.shape[:2], way).scatter_add_(2, near.indices // shot, weight)


def cosine(support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
    """Cosine of the angle between the query and the class mean, times the length of the query."""
    mean = support.mean(2)
    length = linalg.squared_norms(mean).sqrt().clamp_min(torch.finfo(mean.dtype).tiny)
    return query @ (mean / length[..., None]).mT


def _closeness(point: Float[Tensor, "E P D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M P"]:
    """Minus half the squared distance, without the query's own square."""
    return query @ point.mT - 0.5 * linalg.squared_norms(point)[:, None]


def logistic(
    support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"], inverse_l2: float = 1.0
) -> Float[Tensor, "E M W"]:
    r"""Multinomial logistic regression on the support samples: logits of the queries.

    .. math:: \min_{W, b} \tfrac12 \|W\|^2 + C \sum_n -\log \operatorname{softmax}(W x_n + b)_{y_n}

    Args:
        support: samples to learn from.
        query: samples to classify.
        inverse_l2: C, as in scikit-learn.
    """
    way, shot = support.shape[1:3]
    labels = torch.arange(way, device=support.device).repeat_interleave(shot)
    return _regression(support.flatten(1, 2), labels, query, (inverse_l2, MAX_CHANGE[support.dtype]))


def _regression(
    x: Float[Tensor, "E N D"], labels: Int[Tensor, " N"], query: Float[Tensor, "E M D"], fit: tuple[float, float]
) -> Float[Tensor, "E M W"]:
    """Logits of the queries; the weights are sought among combinations of the samples where these are fewer than D."""
    center = x.mean(1, keepdim=True)  # an unpenalized intercept makes up for it
    x, query = x - center, query - center
    if x.shape[1] > x.shape[2]:
        weight, bias = _minimized(x, x.mT, x.mT @ x, labels, fit)
        return query @ weight + bias
    gram = x @ x.mT
    combination, bias = _minimized(gram, None, gram, labels, fit)
    return (query @ x.mT) @ combination + bias


def _minimized(
    outward: Float[Tensor, "E N R"],
    inward: Float[Tensor, "E R N"] | None,
    gram: Float[Tensor, "E R R"],
    labels: Int[Tensor, " N"],
    fit: tuple[float, float],
) -> tuple[Float[Tensor, "E R W"], Float[Tensor, "E 1 W"]]:
    r"""Parameters whose scores are ``outward @ parameters + bias``, by accelerated steps of a fixed quadratic bound.

    The Hessian of the loss is at most :math:`\tfrac12 X^\top X` for each class, so a step with
    :math:`(\tfrac12 X^\top X + I / C)^{-1}` never overshoots. Nesterov's momentum restarts where it points uphill.

    Args:
        outward: from parameters to scores: the samples, or their Gram matrix.
        inward: from residuals to parameters; ``None`` for the identity.
        gram: its half bounds the Hessian.
        labels: class of each sample.
        fit: C, and the change of a score below which it ends.

    Source: Böhning, Multinomial logistic regression algorithm, 1992; O'Donoghue and Candès, Adaptive restart, 2015.
    """
    episodes, _, size = outward.shape
    inverse_l2, max_change = fit
    target = torch.nn.functional.one_hot(labels).to(outward)
    ridge = torch.eye(size, dtype=outward.dtype, device=outward.device) / inverse_l2
    step = torch.cholesky_inverse(linalg.cholesky_of_definite(0.5 * gram + ridge))
    now = ahead = outward.new_zeros(episodes, size, target.shape[1])
    bias = bias_ahead = outward.new_zeros(episodes, 1, target.shape[1])
    momentum, before = 1.0, outward.new_full((), torch.inf)
    for _ in range(MAX_STEPS):
        scores = outward @ ahead + bias_ahead
        rest = scores.softmax(2) - target
        slope = rest if inward is None else inward @ rest
        following = ahead - step @ (slope + ahead / inverse_l2)
        bias_following = bias_ahead - 2 * rest.mean(1, keepdim=True)
        uphill = ((ahead - following) * (following - now)).sum() > 0
        momentum = 1.0 if uphill else momentum
        grown = 0.5 + (0.25 + momentum**2) ** 0.5
        share = (momentum - 1) / grown
        ahead, now = following + share * (following - now), following
        bias_ahead, bias = bias_following + share * (bias_following - bias), bias_following
        momentum = grown
        if float((scores - before).abs().max()) <= max_change:
            break
        before = scores
    return now, bias


@dataclass(frozen=True)
class Newcomers:
    """A catalog's enrollment: each class becomes a new component beside the mixture of the base classes.

    Its covariance is that of the base classes around it, and its mean is pulled toward theirs, as
    :func:`mixtura.core.novel.novel_components` has it. Only the newcomers of the episode compete, with equal weights.
    All have as many shots, so the ``lift`` that a catalog gives each of them is left out: it is the same for all, but
    for classes of another kind than the base classes.

    Args:
        mixture: of the base classes.
        moments: their sums.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances.
    """

    mixture: Mixture
    moments: Moments
    floor: Floor
    prior: Prior

    def __call__(self, support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
        """Log-density of each query under each newcomer, up to a constant."""
        return self.scores(self.made(support), query, (support.shape[0], support.shape[1]))

    def made(self, support: Float[Tensor, "E W S D"]) -> Mixture:
        """The newcomers of all episodes, one after another."""
        shots = list(support.flatten(0, 1).unbind(0))
        return novel_components(self.mixture, self.moments, shots, self.floor, self.prior, self.between).mixture

    @cached_property
    def between(self) -> BetweenClasses:
        """How the means of the base classes vary."""
        return BetweenClasses.of(self.mixture, self.moments.weight)

    def scores(self, made: Mixture, query: Float[Tensor, "E M D"], shape: tuple[int, int]) -> Float[Tensor, "E M W"]:
        """Log-density of each query under each newcomer of its episode, up to a constant; ``shape`` is E and W."""
        if made.covariance.shared:
            return self._linear(made, query, shape)
        places = torch.arange(len(made.mean), device=query.device).reshape(shape)
        pairs = zip(places, query, strict=True)
        return torch.stack([made.select(place).component_log_prob(rows) for place, rows in pairs])

    def _linear(self, made: Mixture, query: Float[Tensor, "E M D"], shape: tuple[int, int]) -> Float[Tensor, "E M W"]:
        """The same for one covariance that all share: the squares of the queries cancel, and what is left is linear."""
        center = self.mixture.mean.mean(0)
        mean = (made.mean - center).to(query.dtype)
        weight = made.covariance.to(query.dtype).precision_matmul(mean)
        bias = -0.5 * (weight * mean).sum(1)
        rows = query - center.to(query.dtype)
        return rows @ weight.reshape(*shape, -1).mT + bias.reshape(*shape)[:, None]


@dataclass(frozen=True)
class Calibration:
    """Distribution calibration: logistic regression on samples drawn around each shot.

    A shot gets the average of itself and the means of the nearest base classes as its mean, and the average of their
    covariances, widened, as its covariance.

    Args:
        mean: of each base class.
        covariance: of each base class.
        seed: of the noise, which is the same for all episodes.

    Source: Yang, Liu and Xu, Free lunch for few-shot learning: distribution calibration, ICLR 2021.
    """

    mean: Float[Tensor, "B D"]
    covariance: Float[Tensor, "B D D"]
    seed: int = 0

    def __call__(self, support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
        """Logits of the queries."""
        way, shot, dimension = support.shape[1:]
        near = torch.cdist(support.flatten(0, 2), self.mean).topk(min(NEIGHBOR_CLASSES, len(self.mean)), largest=False)
        index = near.indices.reshape(*support.shape[:3], -1)
        mean = torch.cat([self.mean[index], support[..., None, :]], 3).mean(3)
        wider = DISPERSION * self.covariance.diagonal(dim1=1, dim2=2).mean()
        widened = torch.eye(dimension).to(support) * wider.clamp_min(torch.finfo(support.dtype).eps)
        factor = linalg.cholesky_of_definite(self.covariance[index].mean(3) + widened)
        count = max(1, SAMPLES_PER_CLASS // shot)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(way, shot, count, dimension, generator=generator).to(support)
        drawn = mean[..., None, :] + noise @ factor.mT
        samples = torch.cat([support[..., None, :], drawn], 3).flatten(1, 3)
        labels = torch.arange(way, device=support.device).repeat_interleave(shot * (count + 1))
        return _regression(samples, labels, query, (1.0, SAMPLED_CHANGE))
