"""Detection metrics for known items versus strangers; known is the positive class and scores higher."""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score, roc_auc_score

from mixtura.errors import DataError
from mixtura.metrics.check import require_items


def auroc(
    score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"], weight: Float[np.ndarray, "N"] | None = None
) -> float:
    """Area under the ROC curve: probability that a known item scores above a stranger, ties half; chance is 0.5.

    An item of weight two counts as two.

    Raises:
        DataError: there is no known item or no stranger.
        NonFinite: a score is NaN.
    """
    return float(roc_auc_score(known, _ranks("auroc", score, known), sample_weight=weight))


def aupr(score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"]) -> float:
    """Average precision of detecting known items; use ``aupr(-score, ~known)`` for strangers.

    Unlike :func:`auroc`, it depends on the share of known items.

    Raises:
        DataError: there is no known item or no stranger.
        NonFinite: a score is NaN.
    """
    return float(average_precision_score(known, _ranks("aupr", score, known)))


def fpr_at_tpr(score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"], tpr: float = 0.95) -> float:
    """False positive rate: share of strangers accepted at the highest threshold that keeps ``tpr`` of known items.

    Args:
        score: higher for more known items.
        known: whether an item is in the catalog.
        tpr: minimum share of known items to keep, in (0, 1].

    Raises:
        DataError: there is no known item or no stranger, or ``tpr`` is outside (0, 1].
        NonFinite: a score is NaN.
    """
    if not 0 < tpr <= 1:
        raise DataError(f"fpr_at_tpr: tpr {tpr} lies outside (0, 1]. Give the share of known items to keep.")
    rank = _ranks("fpr_at_tpr", score, known)
    inside = np.sort(rank[known])[::-1]
    keep = int(np.ceil(tpr * len(inside) - 1e-9))
    return float(np.mean(rank[~known] >= inside[keep - 1]))


def _ranks(what: str, score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Dense ranks of the scores, which are all that these metrics use and finite even for infinite scores."""
    require_items(what, score)
    if known.all() or not known.any():
        missing = "stranger (an item that is not known)" if known.all() else "known item"
        raise DataError(f"{what} compares known items with strangers, and there is no {missing}. Add some.")
    return np.unique(score, return_inverse=True)[1]
