"""Clustering metrics: agreement with labels, clusters in use, silhouette, and stability across runs.

Cluster -1 is noise: items that a method assigned to no cluster.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_rand_score,
    completeness_score,
    homogeneity_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix

from mixtura.errors import DataError
from mixtura.metrics.check import require_classes, require_items

MAX_SILHOUETTE_SAMPLES = 2000  # the silhouette compares all pairs


def adjusted_rand(first: Int[np.ndarray, " N"], second: Int[np.ndarray, " N"]) -> float:
    """Adjusted Rand index of two partitions: 1 if they are equal, 0 on average by chance; noise is one cluster.

    Source: Hubert and Arabie, Comparing Partitions, 1985.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    """
    require_items("adjusted_rand", first, second)
    return float(adjusted_rand_score(first, second))


def mutual_information(first: Int[np.ndarray, " N"], second: Int[np.ndarray, " N"]) -> float:
    """Normalized mutual information in [0, 1], with the arithmetic mean of the entropies.

    It is not adjusted for chance, so many small clusters raise it.
    """
    require_items("mutual_information", first, second)
    return float(normalized_mutual_info_score(first, second))


def purity(label: Int[np.ndarray, " N"], cluster: Int[np.ndarray, " N"]) -> float:
    """Share, in [0, 1], of items whose label is the most frequent one of their cluster; noise is one cluster.

    It is 1 for clusters of one item, so compare it only at equal numbers of clusters. Some papers call the
    :func:`homogeneity` purity.

    Source: Manning, Raghavan, Schuetze, Introduction to Information Retrieval (2008), section 16.3.

    >>> purity(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    0.75
    """
    require_items("purity", label, cluster)
    return float(contingency_matrix(label, cluster).max(axis=0).sum() / len(label))


def superclass_purity(superclass: Int[np.ndarray, " N"], subclass: Int[np.ndarray, " N"]) -> float:
    """Share, in [0, 1], of items whose superclass is the most frequent one of their subclass.

    Subclasses that are found without a look at the superclasses, or with a soft one, should come near 1.
    """
    return purity(superclass, subclass)


def homogeneity(label: Int[np.ndarray, " N"], cluster: Int[np.ndarray, " N"]) -> float:
    """Homogeneity in [0, 1]: 1 if every cluster holds items of one label only; noise is one cluster.

    Source: Rosenberg and Hirschberg, V-Measure, 2007.
    """
    require_items("homogeneity", label, cluster)
    return float(homogeneity_score(label, cluster))


def completeness(label: Int[np.ndarray, " N"], cluster: Int[np.ndarray, " N"]) -> float:
    """Completeness in [0, 1]: 1 if all items of a label are in one cluster; noise is one cluster.

    Source: Rosenberg and Hirschberg, V-Measure, 2007.
    """
    require_items("completeness", label, cluster)
    return float(completeness_score(label, cluster))


def hungarian_accuracy(label: Int[np.ndarray, " N"], cluster: Int[np.ndarray, " N"]) -> float:
    """Accuracy, in [0, 1], if each cluster means one label and each label one cluster, matched as well as possible.

    Items of a cluster or label without a partner are wrong, and so is noise.

    Source: Kuhn, The Hungarian method for the assignment problem, 1955.

    >>> hungarian_accuracy(np.array([0, 0, 1, 1]), np.array([7, 7, 3, 5]))
    0.75
    """
    require_items("hungarian_accuracy", label, cluster)
    clustered = cluster >= 0
    if not clustered.any():
        return 0.0
    count = contingency_matrix(label[clustered], cluster[clustered])
    return float(count[linear_sum_assignment(count, maximize=True)].sum() / len(label))


def used_share(cluster: Int[np.ndarray, " N"], clusters: int) -> float:
    """Share, in [0, 1], of the ``clusters`` that hold an item; noise is none of them.

    Raises:
        DataError: there are no items, or one lies in a cluster that does not exist.

    >>> used_share(np.array([0, 2, 2]), 4)
    0.5
    """
    require_items("used_share", cluster)
    used = np.unique(cluster[cluster >= 0])
    require_classes("used_share", used, clusters)
    return len(used) / clusters


def silhouette(x: Float[np.ndarray, "N D"], cluster: Int[np.ndarray, " N"], seed: int = 0) -> float:
    """Mean silhouette in [-1, 1] with Euclidean distance, without noise; on 2,000 random samples if there are more.

    NaN if it is undefined: fewer than two clusters, or no cluster with two items.

    Source: Rousseeuw, Silhouettes, 1987.
    """
    require_items("silhouette", x, cluster)
    rows = np.flatnonzero(cluster >= 0)
    rows = np.random.default_rng(seed).permutation(rows)[:MAX_SILHOUETTE_SAMPLES]
    count = len(np.unique(cluster[rows]))
    if not 2 <= count < len(rows):
        return float("nan")
    return float(silhouette_score(x[rows], cluster[rows]))


def stability(runs: Sequence[Int[np.ndarray, " N"]]) -> float:
    """Mean adjusted Rand index over all pairs of runs; 1 if every run finds the same clusters.

    Raises:
        DataError: fewer than two runs.
    """
    if len(runs) < 2:
        raise DataError(f"The stability of {len(runs)} runs does not exist. Give two or more.")
    return float(np.mean([adjusted_rand(a, b) for a, b in combinations(runs, 2)]))
