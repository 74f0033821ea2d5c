"""Are known items told from unknown ones? Scores are higher for more known items; known is the positive class."""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score, roc_auc_score

from mixtura.errors import DataError
from mixtura.metrics.check import require_items


def auroc(score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"]) -> float:
    """Chance that a known item scores above an unknown one, a tie counting half; 0.5 is guessing.

    Raises:
        DataError: there is no known or no unknown item.
        NonFinite: a score is NaN.
    """
    return float(roc_auc_score(known, _ranks("auroc", score, known)))


def aupr(score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"]) -> float:
    """Average precision of finding the known items; ``aupr(-score, ~known)`` is that of finding the unknown ones.

    Depends on the share of known items, unlike :func:`auroc`.

    Raises:
        DataError: there is no known or no unknown item.
        NonFinite: a score is NaN.
    """
    return float(average_precision_score(known, _ranks("aupr", score, known)))


def fpr_at_tpr(score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"], tpr: float = 0.95) -> float:
    """Share of unknown items let in at the highest threshold that keeps at least ``tpr`` of the known ones.

    Args:
        score: higher for more known items.
        known: whether an item is in the catalog.
        tpr: share of known items to keep, in (0, 1].

    Raises:
        DataError: there is no known or no unknown item, or ``tpr`` lies outside (0, 1].
        NonFinite: a score is NaN.
    """
    if not 0 < tpr <= 1:
        raise DataError(f"fpr_at_tpr: tpr {tpr} lies outside (0, 1]. Give the share of known items to keep.")
    rank = _ranks("fpr_at_tpr", score, known)
    inside = np.sort(rank[known])[::-1]
    keep = int(np.ceil(tpr * len(inside) - 1e-9))
    return float(np.mean(rank[~known] >= inside[keep - 1]))


def _ranks(what: str, score: Float[np.ndarray, "N"], known: Bool[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Dense ranks of the scores: all that these metrics use, and finite where a score is infinite."""
    require_items(what, score)
    if known.all() or not known.any():
        missing = "unknown" if known.all() else "known"
        raise DataError(f"{what} compares known with unknown items, and there is no {missing} item. Add some.")
    return np.unique(score, return_inverse=True)[1]
