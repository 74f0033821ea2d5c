"""Initialization of EM as in scikit-learn, and incremental EM over mini-batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from torch import Tensor

from mixtura.core import em, init
from mixtura.core.covariance import Full, LowRank, family_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, soft
from mixtura.sklearn.layouts import Array


@dataclass(frozen=True)
class Initialization:
    """Input of every initialization: the model's options, the samples and their weights."""

    family: str
    n_components: int
    floor: float
    rank: int
    x: Tensor
    weight: Tensor | None

    def from_labels(self, x: Tensor, labels: Tensor, weight: Tensor | None) -> Mixture:
        """Mixture from samples with known components."""
        return init.from_labels(self.family, x, labels, self.n_components, self.floor, weight=weight, rank=self.rank)

    def from_rows(self, index: Array) -> Mixture:
        """One component per indexed sample; low-rank needs directions, so it assigns all samples to the nearest."""
        seeds = self.x[torch.from_numpy(np.asarray(index, dtype=np.int64))]
        if family_of(self.family).sums_depend_on_parameters:
            return self.from_labels(self.x, init.nearest(self.x, seeds), self.weight)
        return self.from_labels(seeds, torch.arange(self.n_components), None)


def by_kmeans(begin: Initialization, random_state: np.random.RandomState) -> Mixture:
    """Initialize from k-means clusters."""
    options: dict[str, Any] = {"n_clusters": begin.n_components, "n_init": 1, "random_state": random_state}
    labels = KMeans(**options).fit_predict(begin.x.numpy(), sample_weight=_array(begin.weight))
    return begin.from_labels(begin.x, torch.from_numpy(np.asarray(labels, dtype=np.int64)), begin.weight)


def by_seeds(begin: Initialization, random_state: np.random.RandomState) -> Mixture:
    """Initialize from k-means++ seeds."""
    mass = _array(begin.weight)
    _, index = kmeans_plusplus(begin.x.numpy(), begin.n_components, sample_weight=mass, random_state=random_state)
    return begin.from_rows(index)


def by_rows(begin: Initialization, random_state: np.random.RandomState) -> Mixture:
    """Initialize from random samples."""
    odds = None if begin.weight is None else (begin.weight / begin.weight.sum()).numpy()
    return begin.from_rows(random_state.choice(len(begin.x), size=begin.n_components, replace=False, p=odds))


def by_chance(begin: Initialization, random_state: np.random.RandomState) -> Mixture:
    """Initialize from random responsibilities."""
    x, weight, family = begin.x, begin.weight, family_of(begin.family)
    resp = torch.from_numpy(random_state.uniform(size=(len(x), begin.n_components))).to(x.dtype)
    resp /= resp.sum(1, keepdim=True)
    if family.sums_depend_on_parameters:
        return begin.from_labels(x, resp.argmax(1), weight)
    resp = resp if weight is None else resp * weight.to(x.dtype)[:, None]
    sums = soft(family, x, resp, x.double().mean(0).expand(begin.n_components, -1))
    return Mixture.from_moments(sums, begin.floor)


def _array(weight: Tensor | None) -> Array | None:
    return None if weight is None else weight.numpy()


INIT_PARAMS: dict[str, Callable[[Initialization, np.random.RandomState], Mixture]] = {
    "kmeans": by_kmeans,
    "k-means++": by_seeds,
    "random_from_data": by_rows,
    "random": by_chance,
}
"""scikit-learn's ``init_params``, with its own random draws, so the same seed gives the same initialization."""


def incremental_sums(mixture: Mixture, x: Tensor, weight: Tensor | None) -> Moments:
    """Moments of samples in a form that can be added to moments under other mixtures.

    Low-rank moments depend on their mixture, so full scatter matrices replace them.
    """
    family = Full if mixture.covariance.sums_depend_on_parameters else type(mixture.covariance)
    parts = []
    for batch in em.Chunks(x, None, weight):
        resp = mixture.responsibility(batch.x)
        resp = resp if batch.weight is None else resp * batch.weight.to(resp.dtype)[:, None]
        parts.append(soft(family, batch.x, resp, mixture.mean))
    return sum(parts[1:], parts[0])


def full_sums(sums: Moments, mixture: Mixture) -> Moments:
    """Moments of ``fit`` in additive form; low-rank moments become full ones, reconstructed from the mixture."""
    if sums.factors is None:
        return sums
    dense = mixture.covariance.dense(mixture.n_components, mixture.dimension)
    return Moments(Full, mixture.mean, sums.weight, torch.zeros_like(mixture.mean), sums.weight[:, None, None] * dense)


def maximize(mixture: Mixture, sums: Moments, floor: float) -> Mixture:
    """M-step of incremental EM; runs a few factor-analysis steps if the mixture is low-rank."""
    if not mixture.covariance.sums_depend_on_parameters:
        return mixture.update(sums, floor)
    centered = sums.centered()
    for _ in range(init.FACTOR_STEPS):
        factors = mixture.covariance.factor_posterior()
        assert factors is not None
        mixture = mixture.update(LowRank.projected(centered, factors), floor)
    return mixture
