"""Retrieval metrics: do the results of a search have the query's class?

Conventions: a query counts only if another item of its class exists. Precision divides by k even if the class has
fewer than k other items, so it may have a ceiling below 1. Items of equal similarity share one rank, as in
scikit-learn, so the order in the store does not matter.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

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


def _average(
    ordered: Float[np.ndarray, " M"], similarity: Float[np.ndarray, " M"], relevant: Bool[np.ndarray, " M"]
) -> float:
    """Average precision of one query; ``ordered`` holds its similarities in ascending order."""
    own = np.sort(similarity[relevant])
    returned = len(ordered) - np.searchsorted(ordered, own, "left")
    right = len(own) - np.searchsorted(own, own, "left")
    return float(np.mean(right / returned))
