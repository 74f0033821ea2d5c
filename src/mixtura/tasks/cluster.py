"""Cluster unlabeled photos: returns the groups, their certainty, and the evidence for them."""

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from mixtura.errors import NoInput, UsageError
from mixtura.features.projection import L2
from mixtura.features.records import Features
from mixtura.metrics.clustering import adjusted_rand, mutual_information, silhouette, stability
from mixtura.names import find
from mixtura.pipeline.training_set import groups_of
from mixtura.tasks.cluster_methods import Method, Partition, Points, ScoredCount, points_of

METHODS = {
    "mixture": "mixtura.tasks.cluster_methods:mixture",
    "kmeans": "mixtura.tasks.cluster_methods:kmeans",
    "minibatch-kmeans": "mixtura.tasks.cluster_methods:minibatch_kmeans",
    "birch": "mixtura.tasks.cluster_methods:birch",
    "hdbscan": "mixtura.tasks.cluster_methods:hdbscan",
}
"""Clustering methods; also accepted is ``package.module:function``, a ``Method`` of ``partition``."""

MIN_ITEMS = 4
STABILITY_RUNS = 4
RERUN_ROWS = 3000
NOISE_CLUSTER = 0
"""Number for items in no cluster; clusters are numbered from 1, largest first."""


@dataclass(frozen=True)
class Cluster:
    """One cluster: its rows, most typical first (nearest to the center), and its most frequent label, if any.

    ``share`` is that label's share of the cluster's labeled rows; ``borderline`` holds the rows of least margin.
    """

    number: int
    size: int
    label: str | None
    share: float
    typical: tuple[int, ...]
    borderline: tuple[int, ...]


@dataclass(frozen=True)
class Clusters:
    """A clustering of N items with its quality measures.

    ``number`` N (0 for noise), ``probability`` N in [0, 1] (NaN if the method gives none), ``margin`` N in
    [-1, 1]: how much nearer an item is to the center of its own cluster than to the next, as a share. ``silhouette``
    and ``stability`` (mean adjusted Rand index between re-runs) are at most 1; ``rand`` and ``information`` compare
    with the labels of ``labeled`` items and are ``None`` if these have fewer than two labels.
    ``variance`` is the share of the variance in ``axes``.
    """

    features: Features
    method: str
    how: str
    tried: tuple[ScoredCount, ...]
    clusters: tuple[Cluster, ...]
    number: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]
    margin: Float[np.ndarray, " N"]
    silhouette: float
    stability: float
    rand: float | None
    information: float | None
    labeled: int
    axes: int
    variance: float
    seconds: float

    @property
    def noise(self) -> int:
        """Number of items in no cluster."""
        return int((self.number == NOISE_CLUSTER).sum())


def run(features: Features, method: str = "mixture", clusters: int | None = None, seed: int = 0) -> Clusters:
    """Cluster items by their features, scaled to unit length.

    Args:
        features: of the items; their labels are only used for comparison.
        method: a name in ``METHODS``, or ``package.module:function``.
        clusters: number of clusters; ``None`` lets the method choose.
        seed: for all initializations.

    Raises:
        NoInput: there are fewer than four items, or no two that differ.
        UsageError: so many clusters cannot be made.
        UnknownName: there is no such method.
    """
    began = time.perf_counter()
    make: Method = find(METHODS, method)
    if len(features) < MIN_ITEMS:
        raise NoInput(f"There are {len(features)} items to cluster. Give {MIN_ITEMS} or more.")
    if clusters is not None and not 1 <= clusters <= len(features) // 2:
        raise UsageError(
            f"{clusters} clusters cannot be made of {len(features)} items. Ask for 1 to {len(features) // 2}, or auto."
        )
    if (features.embedding == features.embedding[0]).all():
        raise NoInput(
            f"All {len(features)} items have the same features, so there is nothing to tell apart. Are they copies of "
            "one photo, or blank? Give photos that differ."
        )
    unit = L2()(torch.from_numpy(features.embedding))
    points, variance = points_of(unit, torch.from_numpy(groups_of(features)))
    found = make(points, clusters, seed)
    x, label = points.x.numpy(), by_size(found.label)
    distance, margin = margins(x, label)
    known = np.array([own is not None for own in features.label], dtype=bool)
    true = np.unique([own or "" for own in features.label], return_inverse=True)[1].astype(np.int64)
    told = len(features.classes) > 1  # a single label carries no information
    return Clusters(
        features,
        method,
        found.how,
        found.tried,
        _clusters(features, label, distance, margin),
        label + 1,
        found.probability,
        margin,
        silhouette(x, label, seed),
        _stability(make, points, found, clusters, seed),
        adjusted_rand(true[known], label[known]) if told else None,
        mutual_information(true[known], label[known]) if told else None,
        int(known.sum()),
        points.x.shape[1],
        variance,
        time.perf_counter() - began,
    )


def by_size(label: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The clusters renumbered from 0, largest first, ties by first occurrence; noise stays."""
    first = {int(c): int(row) for c, row in zip(*np.unique(label, return_index=True), strict=True) if c >= 0}
    size = Counter(label.tolist())
    order = sorted(first, key=lambda c: (-size[c], first[c]))
    number = {c: place for place, c in enumerate(order)} | {-1: -1}
    return np.array([number[c] for c in label.tolist()], dtype=np.int64)


def margins(
    x: Float[np.ndarray, "N R"], label: Int[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    r"""Distance of each row to its cluster's center, and :math:`(b - a) / \max(a, b)` with b that to the next one.

    Noise has distance and margin 0, and the rows of a single cluster have margin 1.
    """
    inside = np.flatnonzero(label >= 0)
    count = int(label.max()) + 1
    distance, margin = np.zeros(len(x)), np.zeros(len(x))
    if not count:
        return distance, margin
    points = x.astype(np.float64)
    middle = np.stack([points[label == c].mean(axis=0) for c in range(count)])
    apart = np.stack([np.linalg.norm(points[inside] - one, axis=1) for one in middle], axis=1)
    rows = np.arange(len(inside)), label[inside]
    own = apart[rows]
    apart[rows] = np.inf
    after = apart.min(axis=1)
    distance[inside] = own
    larger = np.maximum(own, after)
    finite = np.where(np.isfinite(larger) & (larger > 0), larger, 1.0)
    margin[inside] = np.where(np.isinf(after), 1.0, (np.where(np.isinf(after), 0.0, after) - own) / finite)
    return distance, margin


def _clusters(
    features: Features, label: Int[np.ndarray, " N"], distance: Float[np.ndarray, " N"], margin: Float[np.ndarray, " N"]
) -> tuple[Cluster, ...]:
    """The clusters by size, followed by the noise, if any."""
    found = []
    for c in [*range(int(label.max()) + 1), *([-1] if (label < 0).any() else [])]:
        rows = np.flatnonzero(label == c)
        typical = rows[np.argsort(distance[rows], kind="stable")]
        borderline = rows[np.argsort(margin[rows], kind="stable")] if c >= 0 else rows[:0]
        names = Counter(own for row in rows.tolist() if (own := features.label[row]) is not None)
        name, count = names.most_common(1)[0] if names else (None, 0)
        share = count / names.total() if names else 0.0
        found.append(Cluster(c + 1, len(rows), name, share, tuple(typical.tolist()), tuple(borderline.tolist())))
    return tuple(found)


def _stability(make: Method, points: Points, found: Partition, clusters: int | None, seed: int) -> float:
    """Agreement of re-runs with other seeds and row orders but the same cluster count, on at most 3,000 rows."""
    count = len(np.unique(found.label[found.label >= 0])) if found.tried else clusters
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(points.x), generator=generator)[:RERUN_ROWS]
    runs = []
    for again in range(1, STABILITY_RUNS + 1):
        order = torch.randperm(len(rows), generator=generator)
        label = make(points.select(rows[order]), count, seed + again).label
        runs.append(label[order.argsort().numpy()])
    return stability(runs)
