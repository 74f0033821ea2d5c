"""Expectation maximization (EM) over mini-batches; each step maps a mixture and the data to a new mixture."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import ownership
from mixtura.core.covariance import NO_PRIOR, Floor, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments

TILE_ROWS = 4096
LOG2_E = math.log2(math.e)  # exp2 stays fast on underflow, where exp is 30 times slower
Reduce = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """A mini-batch; ``labels`` restrict each sample to the components of its class, ``weight`` is a sample weight."""

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"] | None = None
    weight: Float[Tensor, " N"] | None = None


@dataclass(frozen=True)
class Chunks:
    """In-memory samples as mini-batches of at most ``size`` samples; can be iterated repeatedly."""

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"] | None = None
    weight: Float[Tensor, " N"] | None = None
    size: int = TILE_ROWS

    def __iter__(self) -> Iterator[Batch]:
        """Yield the mini-batches in order."""
        for start in range(0, len(self.x), self.size):
            part = slice(start, start + self.size)
            yield Batch(
                self.x[part],
                None if self.labels is None else self.labels[part],
                None if self.weight is None else self.weight[part],
            )


@dataclass(frozen=True)
class Fit:
    """A fitted mixture with its trace: the mean log-likelihood *before* each step, in nats per sample."""

    mixture: Mixture
    trace: tuple[float, ...]
    converged: bool


def expect(mixture: Mixture, batch: Batch) -> tuple[Moments, Float[Tensor, " 2"]]:
    """E-step: moments of one mini-batch, with its total log-likelihood (nats) and total weight."""
    joint = mixture.component_log_prob(batch.x)
    if batch.labels is not None:
        assert mixture.component_class is not None
        joint = ownership.mask_others(joint, mixture.component_class, batch.labels)
    top = joint.amax(1, keepdim=True)
    resp = joint.sub_(top).mul_(LOG2_E).exp2_()
    norm = resp.sum(1, keepdim=True)
    log_likelihood = (top + norm.log()).double()[:, 0]
    scale = norm.reciprocal() if batch.weight is None else batch.weight.to(norm.dtype)[:, None] / norm
    moments = mixture.moments(batch.x, resp.mul_(scale))
    weight = torch.ones_like(log_likelihood) if batch.weight is None else batch.weight.double()
    return moments, torch.stack([(weight * log_likelihood).sum(), weight.sum()])


def collect(mixture: Mixture, batches: Iterable[Batch], reduce: Reduce | None = None) -> tuple[Moments, float]:
    """Moments over all batches (and machines, if ``reduce`` is given) and mean log-likelihood in nats per sample."""
    total: Moments | None = None
    likelihood = torch.zeros(2, dtype=torch.float64, device=mixture.mean.device)
    for batch in batches:
        moments, part = expect(mixture, batch)
        total = moments if total is None else total + moments
        likelihood = likelihood + part
    assert total is not None, "EM needs at least one batch"
    if reduce is not None:
        total = total.with_tensors(*(reduce(tensor) for tensor in total.tensors()))
        likelihood = reduce(likelihood)
    return total, float(likelihood[0] / likelihood[1])


class Step(NamedTuple):
    """One EM step: the new mixture, its moments, and the previous mean log-likelihood in nats per sample."""

    mixture: Mixture
    moments: Moments
    log_likelihood: float


@torch.no_grad()
def iterate(
    mixture: Mixture,
    batches: Iterable[Batch],
    floor: Floor = 0.0,
    prior: Prior = NO_PRIOR,
    reduce: Reduce | None = None,
) -> Iterator[Step]:
    """Yield EM steps forever, for callers with their own stopping rule; :func:`fit` has the usual one.

    ``batches`` must be re-iterable, as :class:`Chunks` is. The other arguments are those of :func:`step`.
    """
    while True:
        moments, likelihood = collect(mixture, batches, reduce)
        mixture = mixture.update(moments, floor, prior)
        yield Step(mixture, moments, likelihood)


def step(
    mixture: Mixture,
    batches: Iterable[Batch],
    floor: Floor = 0.0,
    prior: Prior = NO_PRIOR,
    reduce: Reduce | None = None,
) -> tuple[Mixture, float]:
    """Run one EM step; returns the new mixture and the mean log-likelihood of the old one, in nats per sample.

    Args:
        mixture: the current mixture.
        batches: all of the data; nothing of size N x K is kept.
        floor: variance added to every dimension, in squared units of x.
        prior: shrinkage of the covariances.
        reduce: all-reduce (sum) of a tensor across machines; ``None`` for a single machine.
    """
    done = next(iterate(mixture, batches, floor, prior, reduce))
    return done.mixture, done.log_likelihood


def fit(
    mixture: Mixture,
    batches: Iterable[Batch],
    floor: Floor = 0.0,
    prior: Prior = NO_PRIOR,
    reduce: Reduce | None = None,
    steps: int = 100,
    tolerance: float = 1e-3,
) -> Fit:
    """Run EM until the mean log-likelihood changes by less than ``tolerance`` nats per sample, or for ``steps`` steps.

    ``batches`` must be re-iterable, as :class:`Chunks` is.
    """
    trace: list[float] = []
    for done in itertools.islice(iterate(mixture, batches, floor, prior, reduce), steps):
        mixture = done.mixture
        trace.append(done.log_likelihood)
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) < tolerance:
            return Fit(mixture, tuple(trace), True)
    return Fit(mixture, tuple(trace), False)
