"""Retrieval metrics: do the results of a search have the query's class?

Conventions: a query counts only if another item of its class exists. Precision divides by k even if the class has
fewer than k other items, so it may have a ceiling below 1. Items of equal similarity share one rank, as in
scikit-learn, so the order in the store does not matter.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.neighbors import NearestNeighbors

from mixtura.errors import DataError, UsageError
from mixtura.metrics.check import require_items


def precision_at(relevant: Bool[np.ndarray, "N K"], k: int) -> float:
    """Precision at k: mean share, in [0, 1], of relevant results in the first ``k``; missing ones count as irrelevant.

    Args:
        relevant: whether each result has the query's class, nearest first; one row per query.
        k: number of results to consider.

    Raises:
        UsageError: ``k`` is below 1.
        DataError: there are no queries.

    >>> precision_at(np.array([[True, False, True], [True, True, False]]), 2)
    0.75
    """
    if k < 1:
        raise UsageError(f"The precision at {k} does not exist. Look at 1 result or more.")
    require_items("precision_at", relevant)
    return float(relevant[:, :k].sum(axis=1).mean() / k)


def precision_ceiling(others: Int[np.ndarray, " N"], k: int) -> float:
    """Precision at ``k`` of a perfect search, given the number of other items in each query's class.

    >>> precision_ceiling(np.array([4, 20]), 10)
    0.7
    """
    require_items("precision_ceiling", others)
    return float(np.minimum(others, k).mean() / k)


def average_precision(
    similarity: Float[np.ndarray, "N M"], relevant: Bool[np.ndarray, "N M"]
) -> Float[np.ndarray, " N"]:
    r"""Average precision of each query over the whole ranking.

    .. math:: \mathrm{AP} = \frac{1}{|R|} \sum_{r \in R} \frac{|\{s \in R: c_s \ge c_r\}|}{|\{s: c_s \ge c_r\}|}

    Items of similarity minus infinity (the query itself) are never returned.

    Args:
        similarity: similarity of each query to each item; higher is nearer.
        relevant: whether the item has the query's class.

    Raises:
        DataError: there are no queries, or a query has no relevant item.
        NonFinite: a similarity is NaN.

    Source: Manning, Raghavan, Schuetze, Introduction to Information Retrieval (2008), section 8.4.

    >>> average_precision(np.array([[0.9, 0.8, 0.7]]), np.array([[True, False, True]]))
    array([0.83333333])
    """
    require_items("average_precision", similarity)
    if not relevant.any(axis=1).all():
        alone = int(np.argmin(relevant.any(axis=1)))
        raise DataError(f"Query {alone} has no item of its class to find. Leave such queries out.")
    ordered = np.sort(similarity, axis=1)
    return np.array([_average(*row) for row in zip(ordered, similarity, relevant, strict=True)])


def recall_at(relevant: Bool[np.ndarray, "N K"], k: int) -> float:
    """Recall at k, as in metric learning: share, in [0, 1], of queries with a relevant result in the first ``k``.

    Args:
        relevant: whether each result has the query's class, nearest first; one row per query.
        k: number of results to consider.

    Raises:
        UsageError: ``k`` is below 1, or there are fewer results.
        DataError: there are no queries.

    Source: Jegou et al., Product quantization for nearest neighbor search, 2011.

    >>> recall_at(np.array([[False, True], [False, False]]), 2)
    0.5
    """
    if not 1 <= k <= relevant.shape[1]:
        raise UsageError(
            f"The recall at {k} does not exist for {relevant.shape[1]} results. Look at 1 or more of them."
        )
    require_items("recall_at", relevant)
    return float(relevant[:, :k].any(axis=1).mean())


def knn_accuracy(found: Int[np.ndarray, "N K"], label: Int[np.ndarray, " N"]) -> float:
    """Share, in [0, 1], of queries whose label most of their nearest neighbors have.

    Of equally many, the label of the nearest one counts.

    Args:
        found: labels of the neighbors of each query, nearest first.
        label: label of each query.

    Raises:
        DataError: there are no queries.

    >>> knn_accuracy(np.array([[1, 0, 0], [2, 1, 0]]), np.array([0, 1]))
    0.5
    """
    require_items("knn_accuracy", found, label)
    votes = np.stack([(found == one[:, None]).sum(axis=1) for one in found.T], axis=1)
    elected = found[np.arange(len(found)), votes.argmax(axis=1)]
    return float((elected == label).mean())


def nearest(
    query: Float[np.ndarray, "N D"],
    bank: Float[np.ndarray, "M D"] | None,
    k: int,
    distance: str = "cosine",
) -> Int[np.ndarray, "N K"]:
    """Row numbers of the ``k`` nearest of the bank for each query, nearest first, for the functions above.

    The distances are computed by chunk. On a device, and for cosines alone, :mod:`mixtura.features.neighbors` does it.

    Args:
        query: embeddings to find neighbors of.
        bank: embeddings to look in; if none are given, the queries, each without its own row.
        k: number of neighbors.
        distance: ``cosine`` or ``euclidean``.

    Raises:
        UsageError: another distance, or ``k`` is below 1 or above the number of rows to look in.
        NonFinite: an embedding is NaN.
    """
    if distance not in ("cosine", "euclidean"):
        raise UsageError(f"The distance {distance!r} is not known. Give 'cosine' or 'euclidean'.")
    count = len(query) - 1 if bank is None else len(bank)
    if not 1 <= k <= count:
        raise UsageError(f"{k} neighbors cannot be sought among {count} rows. Ask for 1 or more, up to as many.")
    places = [query] if bank is None else [query, bank]
    for rows in places:
        require_items("nearest", rows)
    places = (
        [_unit(rows) for rows in places] if distance == "cosine" else places
    )  # the nearest of unit rows are the same
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(places[-1])
    return index.kneighbors(None if bank is None else places[0], return_distance=False)


def _average(
    ordered: Float[np.ndarray, " M"], similarity: Float[np.ndarray, " M"], relevant: Bool[np.ndarray, " M"]
) -> float:
    """Average precision of one query; ``ordered`` holds its similarities in ascending order."""
    own = np.sort(similarity[relevant])
    returned = len(ordered) - np.searchsorted(ordered, own, "left")
    right = len(own) - np.searchsorted(own, own, "left")
    return float(np.mean(right / returned))


def _unit(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows of length one; a zero row stays zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)
