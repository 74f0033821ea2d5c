"""Benjamini-Hochberg: a limit for a whole batch, so that few of the rows called unknown are genuine."""

import numpy as np
from jaxtyping import Float


def adjusted(typicality: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    r"""The smallest false-discovery rate at which each row would be called unknown; N p-values in [0, 1].

    .. math:: q_{(i)} = \min_{j \ge i} \frac{N}{j}\, p_{(j)}

    It equals ``scipy.stats.false_discovery_control(p, method="bh")``.

    Source: Benjamini and Hochberg, Controlling the False Discovery Rate, JRSS B 57 (1995).
    """
    order = typicality.argsort(kind="stable")
    steps = typicality[order] * (len(typicality) / np.arange(1, len(typicality) + 1))
    found = np.empty_like(steps)
    found[order] = np.minimum.accumulate(steps[::-1])[::-1].clip(0, 1)
    return found


def limit(typicality: Float[np.ndarray, " N"], rate: float) -> float:
    r"""Typicality below which a row of this batch is unknown; of those, a share ``rate`` or less is expected genuine.

    The rows below it are those whose :func:`adjusted` p-value is at most ``rate``. It is :math:`k \cdot rate / N` for
    :math:`k` of them; without any, what a single row would have to reach, :math:`rate / N`. A batch of one row has the
    limit ``rate``, as if it were the false-reject rate.

    P-values ranked among the same calibration items depend on one another, but positively (PRDS), where the procedure
    keeps its promise: the expected share of genuine rows among the unknown ones is at most ``rate`` times the share of
    genuine rows in the batch.

    Args:
        typicality: N p-values in [0, 1].
        rate: stated false-discovery rate, above 0 and below 1.

    Source: Benjamini and Yekutieli, Annals of Statistics 29 (2001); Bates, Candès, Lei, Romano, Sesia, Testing for
    Outliers with Conformal p-Values, Annals of Statistics 51 (2023), Theorem 2.
    """
    if not len(typicality):
        return rate
    found = typicality[adjusted(typicality) <= rate]
    least = max(1, len(found)) * rate / len(typicality)
    # The p-value at the limit is among the unknown ones, and a verdict is unknown below its limit.
    return float(np.nextafter(max(least, *found.tolist()), 1.0)) if len(found) else least
