"""What if the model answers only where it is sure?"""

import numpy as np
from jaxtyping import Bool, Float

from mixtura.metrics.check import require_items


def risk_coverage(
    score: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """The risk-coverage curve: coverage i/N, and the share of errors among the i items of highest score.

    Items with equal scores share their errors evenly, so the order of the items does not matter.

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
    """Area under the risk-coverage curve: the mean risk over all coverages i/N; 0 when nothing is wrong.

    Raises:
        DataError: there are no items.
        NonFinite: a score is NaN.
    """
    return float(risk_coverage(score, correct)[1].mean())
