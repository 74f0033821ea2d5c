"""Clustering metrics: agreement with labels, silhouette, and stability across runs.

Cluster -1 is noise: items that a method assigned to no cluster.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from mixtura.errors import DataError
from mixtura.metrics.check import require_items

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
