"""Classification metrics: how often is the predicted class correct?"""

import numpy as np
from jaxtyping import Float, Int

from mixtura.metrics.check import require_classes, require_items


def accuracy(true: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"]) -> float:
    """Share of items whose predicted class is the true one.

    Raises:
        DataError: there are no items.

    >>> accuracy(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    0.75
    """
    require_items("accuracy", true)
    return float(np.mean(true == predicted))


def confusion(true: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], n_classes: int) -> Int[np.ndarray, "C C"]:
    """Counts of items by true class (row) and predicted class (column).

    Raises:
        DataError: an index is outside [0, ``n_classes``).
    """
    require_classes("confusion", true, n_classes)
    require_classes("confusion", predicted, n_classes)
    flat = np.bincount(true.astype(np.int64) * n_classes + predicted, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes)


def recall(
    true: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], n_classes: int
) -> tuple[Int[np.ndarray, "C"], Int[np.ndarray, "C"]]:
    """Number of correctly predicted items and of all items, per class.

    Two counts instead of a share: a class without items has no recall, and an interval needs the count.

    Raises:
        DataError: an index is outside [0, ``n_classes``).
    """
    table = confusion(true, predicted, n_classes)
    return np.diagonal(table).copy(), table.sum(axis=1)


def balanced_accuracy(true: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], n_classes: int) -> float:
    """Balanced accuracy: mean recall over the classes that occur.

    Raises:
        DataError: there are no items, or an index is outside [0, ``n_classes``).
    """
    require_items("balanced_accuracy", true)
    right, total = recall(true, predicted, n_classes)
    seen = total > 0
    return float(np.mean(right[seen] / total[seen]))


def top_k(true: Int[np.ndarray, "N"], score: Float[np.ndarray, "N C"], k: int) -> float:
    """Top-k accuracy: share of items whose true class is among the ``k`` highest-scoring classes.

    Ties go to the lower class index, as in ``argmax``, so ``top_k(..., 1)`` is the accuracy of the argmax.

    Raises:
        DataError: there are no items, or an index is outside the columns of ``score``.
        NonFinite: a score is NaN.
    """
    require_items("top_k", score)
    require_classes("top_k", true, score.shape[1])
    own = score[np.arange(len(true)), true][:, None]
    ahead_by_tie = (score == own) & (np.arange(score.shape[1]) < true[:, None])
    rank = ((score > own) | ahead_by_tie).sum(axis=1)
    return float(np.mean(rank < k))
