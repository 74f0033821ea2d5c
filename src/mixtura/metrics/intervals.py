"""Confidence intervals of measured shares and means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import t as student

from mixtura.errors import DataError


def wilson(successes: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson confidence interval of a share; valid also for few items and for shares near 0 and 1.

    Args:
        successes: number of items with the property.
        count: number of all items; 0 gives the interval [0, 1].
        z: half-width in standard deviations; the default gives 95%.

    Raises:
        DataError: ``successes`` is outside 0..``count``.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).

    >>> tuple(round(edge, 3) for edge in wilson(9, 10))
    (0.596, 0.982)
    """
    _require_counts("wilson", successes, count)
    if count == 0:
        return 0.0, 1.0
    share, z2 = successes / count, z * z
    center = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == count else min(1.0, center + half)
    return low, high


def binomial_sigma(share: float, count: int) -> float:
    """Standard deviation of a measured share for a true share of ``share`` and ``count`` random items.

    Raises:
        DataError: ``share`` is outside [0, 1], or ``count`` is below 1.

    >>> round(binomial_sigma(0.05, 1900), 4)
    0.005
    """
    if not 0 <= share <= 1 or count < 1:
        raise DataError(f"binomial_sigma: share {share} of {count} items. Give a share in [0, 1] and 1 item or more.")
    return math.sqrt(share * (1 - share) / count)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of a few measurements and the half-width of its 95% interval, by Student's t.

    Args:
        values: one per run; a single value has a half-width of NaN.

    Raises:
        DataError: there are no values.

    >>> [round(value, 2) for value in t_interval([1.0, 2.0, 3.0])]
    [2.0, 2.48]
    """
    if not values:
        raise DataError("t_interval: there are no values. Give one or more.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, float(student.ppf(0.975, len(values) - 1)) * spread / math.sqrt(len(values))


@dataclass(frozen=True)
class Estimate:
    """A mean, the variance of its error, and the degrees of freedom of that variance; NaN where it is unknown."""

    mean: float
    variance: float
    degrees: float

    @property
    def quantile(self) -> float:
        """The 97.5% quantile of Student's t."""
        return float(student.ppf(0.975, self.degrees))


def over_runs(values: Sequence[float]) -> Estimate:
    """Mean of independent measurements, such as one per fold; a single one has a variance of NaN."""
    if len(values) < 2:
        return Estimate(float(np.mean(values)), math.nan, math.nan)
    return Estimate(float(np.mean(values)), float(np.var(values, ddof=1)) / len(values), len(values) - 1.0)


def over_runs_and_items(values: Shaped[np.ndarray, "S N"]) -> Estimate:
    r"""Mean over S runs and N test items that all runs share, with the chance of both.

    The law of total variance for :math:`y_{si} = \mu + \text{run}_s + \text{item}_i + \text{rest}_{si}`:

    .. math:: V = \frac{s_I^2}{N} + \frac{\max(0, s_R^2 - s_E^2 / N)}{S}

    where :math:`s_I^2` is the variance of the N item means, :math:`s_R^2` that of the S run means, and :math:`s_E^2`
    the mean square of the rest. More runs shrink the second term only: they see the same items. For one run of right
    and wrong answers, V is the binomial variance. The degrees of freedom are Satterthwaite's.

    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4.

    >>> round(over_runs_and_items(np.array([[1.0, 1.0, 0.0, 1.0]])).variance, 4)
    0.0625
    """
    runs, count = values.shape
    if count < 2:
        return Estimate(float(values.mean()), math.nan, math.nan)
    items = values.mean(0)
    shared = float(np.var(items, ddof=1)) / count
    if runs == 1:
        return Estimate(float(values.mean()), shared, count - 1.0)
    means, both = values.mean(1), (runs - 1) * (count - 1)
    rest = float(np.square(values - means[:, None] - items + values.mean()).sum()) / (both * runs * count)
    return _total(float(values.mean()), (shared, count - 1.0), float(np.var(means, ddof=1)) / runs, (runs, rest))


def over_runs_and_item_variance(means: Sequence[float], variance: float, count: int) -> Estimate:
    """Like :func:`over_runs_and_items`, where of each run only its mean and the items' variance are known.

    The variance is an upper bound: what an item's values differ by from run to run counts twice.

    Args:
        means: one per run.
        variance: of the values of the items, averaged over the runs.
        count: number of items, N.
    """
    between = float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0
    return _total(float(np.mean(means)), (variance / count, max(1.0, count - 1.0)), between, (len(means), 0.0))


def _total(mean: float, shared: tuple[float, float], between: float, rest: tuple[int, float]) -> Estimate:
    """Sum of both chances: ``shared`` with its degrees, and ``between`` the runs beyond the ``rest``."""
    item, degrees = shared
    runs, noise = rest
    variance = item + max(0.0, between - noise)
    if between <= noise or runs < 2 or variance == 0:
        return Estimate(mean, item, degrees)
    parts = item**2 / degrees + between**2 / (runs - 1) + noise**2 / ((runs - 1) * degrees)
    return Estimate(mean, variance, variance**2 / parts)


def mean_interval(estimate: Estimate) -> tuple[float, float]:
    """95% interval of a mean by Student's t; NaN if the variance is unknown."""
    half = estimate.quantile * math.sqrt(estimate.variance) if math.isfinite(estimate.variance) else math.nan
    return estimate.mean - half, estimate.mean + half


def share_interval(estimate: Estimate, count: int) -> tuple[float, float]:
    """95% interval of a mean share: Wilson's, for the number of items that would give the same variance.

    Unlike mean plus and minus, it stays in [0, 1] and does not shrink to nothing when all ``count`` items are right.

    Source: Franco et al., Comparative study of confidence intervals for proportions in complex surveys (2019).

    >>> [round(edge, 3) for edge in share_interval(over_runs_and_items(np.ones((3, 100))), 100)]
    [0.962, 1.0]
    """
    if not math.isfinite(estimate.variance):
        return math.nan, math.nan
    share = min(1.0, max(0.0, estimate.mean))
    certain = estimate.variance == 0 or share in (0.0, 1.0)
    size = count if certain else share * (1 - share) / estimate.variance
    z2 = estimate.quantile**2
    center = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2) / (1 + z2 / size) * math.sqrt(share * (1 - share) / size + z2 / (4 * size * size))
    low, high = max(0.0, center - half), min(1.0, center + half)
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def share_over_classes(
    hits: Float[np.ndarray, " C"], weight: Float[np.ndarray, " C"], future: float, level: float = 0.9
) -> tuple[float, float, float]:
    r"""Share of hits, and the interval that holds the share among ``future`` other classes with probability ``level``.

    What varies is the class, not the item: items of one class are found or missed together. With s the standard
    deviation of :math:`w_c (p_c - \tilde p) / \bar w` over the n classes,

    .. math:: \tilde p \pm t_{n - 1}\, s \sqrt{1 / m + 1 / n}

    Two further classes of average weight, one all hits and one none, count in n, :math:`\tilde p` and s, so a few
    classes that all agree do not promise certainty.

    Args:
        hits: weight of the hits of each class.
        weight: weight of the items of each class; classes without any are left out.
        future: m, the number of other classes.
        level: probability, in (0, 1).

    Raises:
        DataError: no class has items.

    Source: a prediction interval for a ratio of class totals (Cochran, Sampling Techniques, 1977, section 6.3); the two
    classes after Agresti and Coull, Approximate is better than "exact" for interval estimation, 1998.

    >>> [round(value, 2) for value in share_over_classes(np.full(5, 9.0), np.full(5, 9.0), 1.0)]
    [1.0, 0.07, 1.0]
    """
    hits, weight = hits[weight > 0], weight[weight > 0]
    if not len(hits):
        raise DataError("share_over_classes: no class has items. Give one or more.")
    share, average = float(hits.sum() / weight.sum()), float(weight.mean())
    hits, weight = np.append(hits, [average, 0.0]), np.append(weight, [average, average])
    center = float(hits.sum() / weight.sum())
    spread = float(np.std((hits - center * weight) / average, ddof=1))
    half = float(student.ppf((1 + level) / 2, len(hits) - 1)) * spread * math.sqrt(1 / future + 1 / len(hits))
    return share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half))


def _require_counts(what: str, successes: int, count: int) -> None:
    if not 0 <= successes <= count:
        raise DataError(f"{what}: {successes} of {count} items is impossible. Give 0 <= successes <= count.")
