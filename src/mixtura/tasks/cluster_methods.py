"""Clustering methods: our own mixture and scikit-learn's; each takes points and returns a partition."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import HDBSCAN, Birch, KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import assign_folds
from mixtura.core.mixture import Mixture
from mixtura.errors import UsageError
from mixtura.features.projection import PCA
from mixtura.metrics.clustering import silhouette

MAX_AXES = 16
SAMPLES_AN_AXIS = 10
N_FOLDS = 5
MAX_CLUSTERS = 200  # clusters to try, at most
COUNT_GROWTH = 1.4  # ratio between successive counts from 5 on
COUNT_PATIENCE = 2  # counts without a better score before the search ends
COUNT_SAMPLES = 3000  # rows used to choose the count
N_INIT = 4
N_INIT_OPTION: dict[str, Any] = {"n_init": 5}  # scikit-learn's type hints allow only its defaults
COPY_OPTION: dict[str, Any] = {"copy": True}
CLUSTER_PLAN = Plan("full", prior=Prior(10.0, 0.01), steps=30)
"""Full covariance per cluster, with a prior of ten rows' worth of the pooled one. Validation rows prefer it to a shared
covariance, which needs several clusters for one that is not round: on 3,000 digits it chose 113 clusters, not 30."""


@dataclass(frozen=True)
class Points:
    """Rows to cluster: ``x`` in the space of the distances, ``unit`` before dimensionality reduction.

    Rows with equal ``group``, such as copies of one photo, are never split between training and validation.
    """

    x: Float[Tensor, "N R"]
    unit: Float[Tensor, "N D"]
    group: Int[Tensor, " N"]

    def select(self, rows: Int[Tensor, " M"]) -> "Points":
        """Some of the rows, in the same space."""
        return Points(self.x[rows], self.unit[rows], self.group[rows])


@dataclass(frozen=True)
class ScoredCount:
    """A number of clusters with its ``score`` (higher is better) and the standard ``error`` of its gap to the best."""

    count: int
    score: float
    error: float


@dataclass(frozen=True)
class Partition:
    """A cluster number for each row, -1 for noise, and its probability; NaN if the method gives none.

    ``how`` explains in a sentence where the number of clusters comes from.
    """

    label: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]
    how: str
    tried: tuple[ScoredCount, ...] = ()


Method = Callable[[Points, int | None, int], Partition]
"""Called with points, the number of clusters or ``None``, and a seed."""


def points_of(unit: Float[Tensor, "N D"], group: Int[Tensor, " N"]) -> tuple[Points, float]:
    """Rows on as many principal axes as their number supports, and the share of the variance on these.

    In 1,280 dimensions all distances are alike and a covariance has more entries than there are photos; most of it is
    noise. The number of axes is a tenth of the rows, at least 2 and at most 16.
    """
    axes = PCA.fit(unit, explained_variance=1.0)
    width = axes_for(len(unit))
    share = float(axes.variance[:width].sum() / axes.variance.sum().clamp_min(torch.finfo(torch.float32).tiny))
    return Points(axes(unit)[:, :width].contiguous(), unit, group), share


def axes_for(rows: int) -> int:
    """The number of axes for a number of rows."""
    return min(MAX_AXES, max(2, rows // SAMPLES_AN_AXIS))


def mixture(points: Points, clusters: int | None, seed: int) -> Partition:
    """A Gaussian mixture with full covariances; the number of clusters is chosen on validation rows."""
    tried, how = (), "as asked for"
    if clusters is None:
        tried = held_out(points, seed)
        best = max(tried, key=lambda one: one.score)
        clusters = smallest_as_good(tried)
        how = (
            f"{clusters} is the smallest count whose held-out log-likelihood lies within one standard error of the "
            f"best ({best.count}), by {N_FOLDS}-fold cross-validation"
        )
    chosen = best_of(points.x, clusters, seed)
    resp = chosen.responsibility(points.x)
    top = resp.max(1)
    return Partition(top.indices.numpy(), top.values.double().clamp(max=1).numpy(), how, tried)


def best_of(x: Float[Tensor, "N R"], clusters: int, seed: int) -> Mixture:
    """The fit with the highest likelihood from a few initializations."""
    fits = [_fit(x, clusters, seed * N_INIT + start) for start in range(N_INIT if clusters > 1 else 1)]
    return max(fits, key=lambda one: float(one.log_prob(x).double().mean()))


def _fit(x: Float[Tensor, "N R"], clusters: int, seed: int) -> Mixture:
    plan = Plan(
        CLUSTER_PLAN.family,
        clusters,
        CLUSTER_PLAN.prior,
        CLUSTER_PLAN.floor,
        CLUSTER_PLAN.rank,
        CLUSTER_PLAN.steps,
        seed,
    )
    return classes.fit(plan, x, torch.zeros(len(x), dtype=torch.int64), 1)


def held_out(points: Points, seed: int) -> tuple[ScoredCount, ...]:
    """The mean log-density (nats) of validation rows for growing counts, until two in a row bring no gain.

    Axes and mixture are fitted on the other folds; groups stay together. Of more rows, 3,000 are sampled.

    Raises:
        UsageError: all rows are of one group.
    """
    order = torch.randperm(len(points.x), generator=torch.Generator().manual_seed(seed))[:COUNT_SAMPLES]
    points = points.select(order)
    if (points.group == points.group[0]).all():
        raise UsageError(
            "All items are of one group (or copies of one photo), so none can be held out to choose the number of "
            "clusters. Say how many, as in --clusters 3."
        )
    folds = min(N_FOLDS, len(order))
    fold = assign_folds(torch.zeros(len(order), dtype=torch.int64), points.group, folds, seed)
    spaces = [_space(points.unit, fold, i) for i in fold.unique().tolist()]
    scores: dict[int, Float[np.ndarray, " N"]] = {}
    for count in counts_for(min(len(learn) for learn, _ in spaces)):
        parts = [_fit(learn, count, seed).log_prob(judge) for learn, judge in spaces]
        scores[count] = torch.cat(parts).double().numpy()
        best = max(scores, key=lambda one: scores[one].mean())
        if sum(one > best for one in scores) >= COUNT_PATIENCE:
            break
    best = max(scores, key=lambda one: scores[one].mean())
    gaps = {count: scores[best] - score for count, score in scores.items()}
    return tuple(
        ScoredCount(count, float(score.mean()), float(gaps[count].std() / len(score) ** 0.5))
        for count, score in scores.items()
    )


def _space(unit: Float[Tensor, "N D"], fold: Int[Tensor, " N"], held: int) -> tuple[Tensor, Tensor]:
    """The training and the validation rows, on the principal axes of the training rows."""
    learn, judge = unit[fold != held], unit[fold == held]
    axes = PCA.fit(learn, explained_variance=1.0)
    width = axes_for(len(unit))
    return axes(learn)[:, :width].contiguous(), axes(judge)[:, :width].contiguous()


def smallest_as_good(tried: Sequence[ScoredCount]) -> int:
    """The smallest count whose gap to the best is at most the standard error of that gap.

    Source: the one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984.
    """
    best = max(one.score for one in tried)
    return min(one.count for one in tried if best - one.score <= one.error)


def counts_for(rows: int, first: int = 1) -> list[int]:
    """Counts to try for a number of rows: each up to 5, then growing by two fifths; at least two rows per cluster."""
    most, counts = min(MAX_CLUSTERS, rows // 2), []
    count = first
    while count <= most:
        counts.append(count)
        count = max(count + 1, int(count * COUNT_GROWTH))
    return counts or [1]


def kmeans(points: Points, clusters: int | None, seed: int) -> Partition:
    """scikit-learn's KMeans, the best of five starts."""
    return _hard(points, clusters, lambda k: KMeans(k, random_state=seed, **N_INIT_OPTION))


def minibatch_kmeans(points: Points, clusters: int | None, seed: int) -> Partition:
    """scikit-learn's MiniBatchKMeans, for very many rows."""
    return _hard(points, clusters, lambda k: MiniBatchKMeans(k, random_state=seed, **N_INIT_OPTION))


def birch(points: Points, clusters: int | None, seed: int) -> Partition:
    """scikit-learn's Birch on the rows themselves; its threshold is half the median distance to the center."""
    radius = float((points.x - points.x.mean(0)).norm(dim=1).median()) / 2
    return _hard(points, clusters, lambda k: Birch(threshold=max(radius, 1e-6), n_clusters=k))


def hdbscan(points: Points, clusters: int | None, seed: int) -> Partition:
    """scikit-learn's HDBSCAN, which finds the number of clusters itself and labels items between them as noise.

    Raises:
        UsageError: a number of clusters was asked for.
    """
    if clusters is not None:
        raise UsageError(f"hdbscan finds the number of clusters itself. Leave out --clusters {clusters}.")
    least = max(5, round(len(points.x) ** 0.5 / 4))
    found = HDBSCAN(min_cluster_size=least, **COPY_OPTION).fit(points.x.numpy())
    how = f"found by density: a cluster is at least {least} items, what lies between clusters is noise"
    return Partition(found.labels_.astype(np.int64), found.probabilities_.astype(np.float64), how)


def _hard(points: Points, clusters: int | None, make: Callable[[int], Any]) -> Partition:
    """A partition by a method without probabilities; if no count is given, the one with the highest silhouette."""
    x, tried, how = points.x.numpy(), (), "as asked for"
    if not np.ptp(x, axis=0).any():  # Birch fails on identical rows
        return Partition(np.zeros(len(x), np.int64), np.full(len(x), np.nan), "1, since all items are the same")
    if clusters is None:
        tried = _by_silhouette(x, make)
        clusters = max(tried, key=lambda one: one.score).count
        how = f"{clusters} has the highest silhouette of the counts that were tried"
    label = _predicted(make(clusters), x)
    return Partition(label, np.full(len(x), np.nan), how, tried)


def _predicted(method: Any, x: Float[np.ndarray, "N R"]) -> Int[np.ndarray, " N"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a result with too few clusters says so itself
        return method.fit_predict(x).astype(np.int64)


def _by_silhouette(x: Float[np.ndarray, "N R"], make: Callable[[int], Any]) -> tuple[ScoredCount, ...]:
    """The silhouette of each count from 2 on."""
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:COUNT_SAMPLES])
    scores = {k: silhouette(x[rows], _predicted(make(k), x[rows])) for k in counts_for(len(rows), first=2)}
    return tuple(ScoredCount(count, score, 0.0) for count, score in scores.items() if score == score) or (
        ScoredCount(1, 0.0, 0.0),
    )
