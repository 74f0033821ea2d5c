"""Many small mixtures with a shared covariance, fitted side by side by EM.

A *problem* is a mixture of K Gaussians with one covariance, fitted to the rows of weight one of a sample. Problems that
share a sample (folds, half-samples, initializations) share its matrix products, and samples form a batch:

    B samples of N rows in R axes, P problems a sample, K components a problem.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.em import LOG2_E

SHORT_STEPS, LONG_STEPS = 4, 8
CANDIDATES = 4  # rows that compete to be the next center; with one, k-means++ misses kinds more often
VARIANCE_FLOOR = 1e-4  # of the sample's variance along an axis
MIN_MASS = 1e-3  # rows; keeps the mean of a component without rows finite


@dataclass(frozen=True)
class TiedMixtures:
    """Mixtures of a batch of problems, with the mean log-likelihood of their own rows in nats per row."""

    log_weight: Float[Tensor, "B P K"]
    mean: Float[Tensor, "B P K R"]
    precision: Float[Tensor, "B P R R"]
    log_likelihood: Float[Tensor, "B P"]

    def joint(self, x: Float[Tensor, "B N R"]) -> Float[Tensor, "B P K N"]:
        """Joint log-density of component and row in nats, without the terms that all components share."""
        b, p, k, r = self.mean.shape
        slope = self.mean @ self.precision
        offset = self.log_weight - 0.5 * (slope * self.mean).sum(-1)
        product = torch.baddbmm(offset.reshape(b, p * k, 1), slope.reshape(b, p * k, r), x.mT)
        return product.reshape(b, p, k, x.shape[1])

    def log_prob(self, x: Float[Tensor, "B N R"]) -> Float[Tensor, "B P N"]:
        """Log-density of each row under each problem's mixture, in nats."""
        b, p, r, _ = self.precision.shape
        factor = linalg.cholesky_of_definite(self.precision)
        white = (factor.mT.reshape(b, p * r, r) @ x.mT).reshape(b, p, r, x.shape[1])
        shared = factor.diagonal(dim1=2, dim2=3).log().sum(-1) - 0.5 * r * math.log(2 * math.pi)
        return self.joint(x).logsumexp(2) - 0.5 * white.square().sum(2) + shared[..., None]

    def select(self, problem: Int[Tensor, "B Q"]) -> "TiedMixtures":
        """Some problems of each sample."""
        batch = torch.arange(len(problem), device=problem.device)[:, None]
        parts = (self.log_weight, self.mean, self.precision, self.log_likelihood)
        return TiedMixtures(*(part[batch, problem] for part in parts))


@dataclass(frozen=True)
class Problems:
    """What to fit: centered samples ``x``, the rows of each problem by ``weight`` (1 or 0), and their scatter."""

    x: Float[Tensor, "B N R"]
    weight: Float[Tensor, "P N"]
    scatter: Float[Tensor, "B P R R"]

    @classmethod
    def of(cls, x: Float[Tensor, "B N R"], weight: Float[Tensor, "P N"]) -> "Problems":
        """The problems with the sums of outer products of their rows."""
        return cls(x, weight, torch.stack([(x * own[:, None]).mT @ x for own in weight], 1))

    def repeat(self, times: int) -> "Problems":
        """Every problem ``times`` times, all of them once before any twice."""
        return Problems(self.x, self.weight.repeat(times, 1), self.scatter.repeat(1, times, 1, 1))


def fit(problems: Problems, start: Int[Tensor, "B S K"]) -> TiedMixtures:
    """The likeliest fit of each problem from several starts: a few steps from all, and more from the best.

    The covariance of the rows about their component's mean is shrunk toward its diagonal by R / (n + R).

    Args:
        problems: P problems of each sample.
        start: the rows that the components start from, for S starts, a multiple of P, in the order of ``repeat``.

    Source: Biernacki, Celeux and Govaert, Choosing starting values for the EM algorithm, 2003 ("small EM").
    """
    x, p = problems.x, len(problems.weight)
    tries = start.shape[1] // p
    distance = _distance(x, x.square().sum(2), start)
    resp = (distance == distance.amin(2, keepdim=True)).to(x.dtype)  # argmin is many times slower
    resp.div_(resp.sum(2, keepdim=True))
    if start.shape[2] == 1:
        return _run(problems, resp[:, :p], 0)
    short = _run(problems.repeat(tries), resp, SHORT_STEPS)
    best = short.log_likelihood.reshape(len(x), tries, p).argmax(1)
    kept = short.select(best * p + torch.arange(p, device=best.device))
    return _run(problems, _responsibility(kept.joint(x)), LONG_STEPS)


def _run(problems: Problems, resp: Float[Tensor, "B P K N"], steps: int) -> TiedMixtures:
    """EM from responsibilities, which are overwritten."""
    x, weight, scatter = problems.x, problems.weight, problems.scatter
    own, count = weight[:, None], weight.sum(1)
    found = _maximized(problems, resp.mul_(own))
    for _ in range(steps):
        found = _maximized(problems, _responsibility(found.joint(x)).mul_(own))
    mixed = (found.joint(x).logsumexp(2) * weight).sum(2) / count
    spread = (found.precision * scatter).sum((2, 3)) / count
    return replace(found, log_likelihood=mixed - 0.5 * spread + 0.5 * torch.logdet(found.precision))


def _responsibility(joint: Float[Tensor, "B P K N"]) -> Float[Tensor, "B P K N"]:
    """Softmax over the components, in place; exp2 stays fast where exp would underflow."""
    share = joint.sub_(joint.amax(2, keepdim=True)).mul_(LOG2_E).exp2_()
    return share.div_(share.sum(2, keepdim=True))


def _maximized(problems: Problems, resp: Float[Tensor, "B P K N"]) -> TiedMixtures:
    """M-step: the mixtures of given responsibilities."""
    x, scatter = problems.x, problems.scatter
    mass = resp.sum(3).clamp_min(MIN_MASS)
    mean = (resp.flatten(1, 2) @ x).reshape(*mass.shape, x.shape[2]) / mass[..., None]
    between = (mean * mass[..., None]).mT @ mean
    rows = problems.weight.sum(1)[:, None, None]
    within = (scatter - between) / rows
    floor = VARIANCE_FLOOR * scatter.diagonal(dim1=2, dim2=3) / rows[..., 0]
    matrix = within * (rows / (rows + x.shape[2]))
    matrix.diagonal(dim1=2, dim2=3).copy_(within.diagonal(dim1=2, dim2=3).clamp_min(0) + floor)
    precision = torch.cholesky_inverse(linalg.cholesky_of_definite(matrix))
    return TiedMixtures((mass / mass.sum(2, keepdim=True)).log(), mean, precision, mass[..., 0])


def seeds(
    x: Float[Tensor, "B N R"], weight: Float[Tensor, "P N"], count: int, generator: torch.Generator
) -> Int[Tensor, "B P C"]:
    """Rows to start from, by greedy k-means++; the first K of them are a start for K components.

    Source: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007, the greedy variant.
    """
    odds = weight.expand(len(x), -1, -1)
    chosen = [_drawn(odds, 1, generator)[..., 0]]
    squares = x.square().sum(2)
    distance = _distance(x, squares, chosen[0][..., None])[..., 0, :]
    for _ in range(1, count):
        left = distance * odds
        drawn = _drawn(torch.where(left.sum(2, keepdim=True) > 0, left, odds), CANDIDATES, generator)
        nearer = torch.minimum(distance[:, :, None], _distance(x, squares, drawn))
        best = (nearer * odds[:, :, None]).sum(3).argmin(2, keepdim=True)
        chosen.append(drawn.gather(2, best)[..., 0])
        distance = nearer.gather(2, best[..., None].expand(-1, -1, -1, x.shape[1]))[:, :, 0]
    return torch.stack(chosen, 2)


def _drawn(odds: Float[Tensor, "B P N"], count: int, generator: torch.Generator) -> Int[Tensor, "B P J"]:
    """Row indices drawn in proportion to ``odds``, by inverting the cumulative sum."""
    running = odds.double().cumsum(2)
    point = torch.rand(*odds.shape[:2], count, generator=generator, dtype=torch.float64).to(odds.device)
    return torch.searchsorted(running, point * running[..., -1:]).clamp_max(odds.shape[2] - 1)


def _distance(
    x: Float[Tensor, "B N R"], squares: Float[Tensor, "B N"], row: Int[Tensor, "B P J"]
) -> Float[Tensor, "B P J N"]:
    """Squared distance of every row to some rows."""
    b, p, j = row.shape
    batch = torch.arange(b, device=row.device)[:, None]
    index = row.reshape(b, p * j)
    product = x[batch, index] @ x.mT
    distance = (squares[batch, index][..., None] - 2 * product + squares[:, None]).clamp_min(0)
    return distance.reshape(b, p, j, x.shape[1])
