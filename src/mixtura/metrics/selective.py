"""Selective classification metrics, for a model that rejects uncertain items."""

import numpy as np
from jaxtyping import Bool, Float

from mixtura.metrics.check import require_items


def risk_coverage(
    score: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Risk-coverage curve: coverage i/N, and the error rate among the i highest-scoring items.

    Items with equal scores share their errors evenly, so the item order does not matter.

    Raises:
        DataError: there are no items.
        NonFinite: a score is NaN.

    Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks (2017).
    """
    require_items("risk_coverage", score)
    group = np.unique(score, return_inverse=True)[1]
    size = np.bincount(group)
    share_wrong = np.bincount(group, weights=~correct) / size
    wrong = np.cumsum(np.repeat(share_wrong[::-1], size[::-1]))
    answered = np.arange(1, len(score) + 1)
    return answered / len(score), wrong / answered


def aurc(score: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"]) -> float:
    """Area under the risk-coverage curve: mean risk over all coverages i/N; 0 without errors.

    Raises:
        DataError: there are no items.
        NonFinite: a score is NaN.
    """
    return float(risk_coverage(score, correct)[1].mean())
