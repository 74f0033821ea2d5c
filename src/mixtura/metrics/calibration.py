"""Is a stated probability as often right as it says?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mixtura.errors import DataError
from mixtura.metrics.check import require_classes, require_items


@dataclass(frozen=True)
class Bins:
    """The table behind a reliability diagram: one row per bin of equal width, empty bins included.

    ``low`` and ``high`` are the edges of the stated probability; ``count`` the items that fall between;
    ``right`` how many of them are right; ``stated`` the mean stated probability, ``measured`` the share that is
    right (both NaN in an empty bin). All but the counts are shares in [0, 1].
    """

    low: Float[np.ndarray, "B"]
    high: Float[np.ndarray, "B"]
    count: Int[np.ndarray, "B"]
    right: Int[np.ndarray, "B"]
    stated: Float[np.ndarray, "B"]
    measured: Float[np.ndarray, "B"]


def reliability(probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15) -> Bins:
    """Sort items by the stated probability of their predicted class into ``bins`` bins of equal width.

    A bin holds its upper edge, and the first bin holds 0 as well.

    Raises:
        DataError: there are no items, or a probability lies outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 2.
    """
    require_items("reliability", probability)
    p = _as_shares("reliability", probability)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    right = np.bincount(index[correct], minlength=bins)
    with np.errstate(invalid="ignore"):
        stated = np.bincount(index, weights=p, minlength=bins) / count
        measured = right / count
    return Bins(edges[:-1], edges[1:], count, right, stated, measured)


def gaps(probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15) -> Float[np.ndarray, "B"]:
    """Stated less right, summed over the items of each bin: gaps of several parts of a set add up to those of the set.

    Raises:
        DataError: there are no items, or a probability lies outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.
    """
    table = reliability(probability, correct, bins)
    return np.nan_to_num(table.stated * table.count) - table.right


def ece(probability: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = 15) -> float:
    """Expected calibration error: the mean gap, weighted by items, between stated and measured share over the bins.

    Raises:
        DataError: there are no items, or a probability lies outside [0, 1] by more than rounding.
        NonFinite: a probability is NaN.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), equation 3.
    """
    return float(np.abs(gaps(probability, correct, bins)).sum() / len(probability))


def nll(true: Int[np.ndarray, "N"], log_probability: Float[np.ndarray, "N C"]) -> float:
    """Mean negative log-probability of the true class, in nats; infinite when a true class was given probability 0.

    Raises:
        DataError: there are no items, or an index lies outside the columns.
        NonFinite: a log-probability is NaN.
    """
    require_items("nll", log_probability)
    require_classes("nll", true, log_probability.shape[1])
    own = log_probability[np.arange(len(true)), true].astype(np.float64)
    return float(0.0 - own.mean())


def brier(true: Int[np.ndarray, "N"], probability: Float[np.ndarray, "N C"]) -> float:
    """Mean squared distance between the probabilities and the truth as 0 and 1, summed over classes: in [0, 2].

    Raises:
        DataError: there are no items, or an index lies outside the columns.
        NonFinite: a probability is NaN.

    Source: Brier, Verification of forecasts expressed in terms of probability (1950).
    """
    require_items("brier", probability)
    require_classes("brier", true, probability.shape[1])
    p = probability.astype(np.float64)
    own = p[np.arange(len(true)), true]
    return float(np.mean((p**2).sum(axis=1) - 2 * own + 1))


def _as_shares(what: str, probability: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """The probabilities in float64, with rounding beyond 0 and 1 (at most 1e-6) taken off."""
    p = probability.astype(np.float64)
    outside = (p < -1e-6) | (p > 1 + 1e-6)
    if outside.any():
        raise DataError(
            f"{what}: probability {p[outside.argmax()]:.6g} of item {int(outside.argmax())} lies outside [0, 1]. "
            "Give probabilities, not scores or percent."
        )
    return np.clip(p, 0.0, 1.0)
