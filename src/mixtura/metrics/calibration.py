"""Calibration metrics: do predicted probabilities match observed frequencies?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mixtura.errors import DataError
from mixtura.metrics.check import require_classes, require_items


@dataclass(frozen=True)
class Bins:
    """Table of a reliability diagram: one row per equal-width bin, empty bins included.

    ``low`` and ``high`` are the bin edges; ``count`` is the number of items in the bin and ``right`` the number of
    correct ones; ``stated`` is the mean predicted probability and ``measured`` the accuracy (both NaN in an empty
    bin). All but the counts are shares in [0, 1].
    """

    low: Float[np.ndarray, "B"]
    high: Float[np.ndarray, "B"]
    count: Int[np.ndarray, "B"]
    right: Int[np.ndarray, "B"]
    stated: Float[np.ndarray, "B"]
    measured: Float[np.ndarray, "B"]


def reliability(probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15) -> Bins:
    """Bin items by the probability of their predicted class into ``bins`` equal-width bins.

    A bin includes its upper edge; the first bin also includes 0.

    Raises:
        DataError: there are no items, or a probability is outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 2.
    """
    require_items("reliability", probability)
    p = _as_shares("reliability", probability)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = _bin_of(p, bins)
    count = np.bincount(index, minlength=bins)
    right = np.bincount(index[correct], minlength=bins)
    with np.errstate(invalid="ignore"):
        stated = np.bincount(index, weights=p, minlength=bins) / count
        measured = right / count
    return Bins(edges[:-1], edges[1:], count, right, stated, measured)


def gaps(probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15) -> Float[np.ndarray, "B"]:
    """Predicted probability minus correctness, summed per bin; the gaps of parts of a data set add up.

    Raises:
        DataError: there are no items, or a probability is outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.
    """
    table = reliability(probability, correct, bins)
    return np.nan_to_num(table.stated * table.count) - table.right


def ece(probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15) -> float:
    """Expected calibration error: item-weighted mean gap between predicted probability and accuracy over the bins.

    Raises:
        DataError: there are no items, or a probability is outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), equation 3.
    """
    return float(np.abs(gaps(probability, correct, bins)).sum() / len(probability))


def ece_terms(
    probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15
) -> Float[np.ndarray, "N"]:
    """Terms of the expected calibration error, one per item, whose mean it is: the item's gap, with its bin's sign.

    Raises:
        DataError: there are no items, or a probability is outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.
    """
    sign = np.sign(gaps(probability, correct, bins))
    p = _as_shares("ece_terms", probability)
    return sign[_bin_of(p, bins)] * (p - correct)


def _bin_of(p: Float[np.ndarray, "N"], bins: int) -> Int[np.ndarray, "N"]:
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)


def nll(true: Int[np.ndarray, "N"], log_probability: Float[np.ndarray, "N C"]) -> float:
    """Mean negative log-probability of the true class, in nats; infinite if a true class has probability 0.

    Raises:
        DataError: there are no items, or an index is outside the columns.
        NonFinite: a log-probability is NaN.
    """
    require_items("nll", log_probability)
    require_classes("nll", true, log_probability.shape[1])
    own = log_probability[np.arange(len(true)), true].astype(np.float64)
    return float(0.0 - own.mean())


def brier(true: Int[np.ndarray, "N"], probability: Float[np.ndarray, "N C"]) -> float:
    """Brier score: mean squared distance between probabilities and one-hot labels, summed over classes, in [0, 2].

    Raises:
        DataError: there are no items, or an index is outside the columns.
        NonFinite: a probability is NaN.

    Source: Brier, Verification of forecasts expressed in terms of probability (1950).
    """
    require_items("brier", probability)
    require_classes("brier", true, probability.shape[1])
    return float(np.mean(brier_terms(true, probability)))


def brier_terms(true: Int[np.ndarray, "N"], probability: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N"]:
    """The Brier score of each item."""
    p = probability.astype(np.float64)
    return (p**2).sum(axis=1) - 2 * p[np.arange(len(true)), true] + 1


def _as_shares(what: str, probability: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Probabilities in float64, with rounding errors beyond 0 and 1 (at most 1e-6) clipped."""
    p = probability.astype(np.float64)
    outside = (p < -1e-6) | (p > 1 + 1e-6)
    if outside.any():
        raise DataError(
            f"{what}: probability {p[outside.argmax()]:.6g} of item {int(outside.argmax())} lies outside [0, 1]. "
            "Give probabilities, not scores or percent."
        )
    return np.clip(p, 0.0, 1.0)
