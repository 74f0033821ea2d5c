"""Near-duplicates among stored items: the same photo twice, re-saved, or one of a burst."""

import numpy as np
import torch
from jaxtyping import Float

from mixtura.errors import NoInput
from mixtura.features.neighbors import groups_of_pairs, others, pairs_above
from mixtura.features.records import Features
from mixtura.records.decision import Neighbor
from mixtura.records.inspection import DuplicateSearch, NearDuplicates

OUTLIER_SPREADS = (
    3.5  # robust standard deviations from the median at which Iglewicz and Hoaglin call a value an outlier
)
MAD_TO_DEVIATION = 1.4826  # median absolute deviations in a standard deviation of a normal distribution
EQUAL_COSINE = 1 - 1e-5  # above this cosine, two vectors may differ by rounding alone
MIN_ITEMS = 20  # items; with fewer, a distribution is not informative


def run(items: Features, limit: float | None = None) -> DuplicateSearch:
    """Find near-duplicates: pairs whose cosine reaches the limit, joined into groups; compares every pair.

    Args:
        items: to compare.
        limit: a cosine in (-1, 1]; ``None`` derives it from the items, see :func:`limit_of`.

    Raises:
        NoInput: there are fewer than two items.
        UsageError: the limit is no cosine, or so low that millions of pairs reach it.
    """
    if len(items) < 2:
        raise NoInput(f"There are {len(items)} items. Near-duplicates need two.")
    x = torch.from_numpy(items.embedding)
    why = f"{limit} was given."
    if limit is None:
        limit, why = limit_of(others(x, 1)[0][:, 0].double().numpy())
    pairs, cosine = pairs_above(x, limit)
    groups = groups_of_pairs(pairs, len(items))
    member = {row: number for number, rows in enumerate(groups) for row in rows}
    joined: list[list[float]] = [[] for _ in groups]
    for first, value in zip(pairs[:, 0].tolist(), cosine.tolist(), strict=True):
        joined[member[first]].append(value)
    found = tuple(_twins(items, rows, values) for rows, values in zip(groups, joined, strict=True))
    return DuplicateSearch(len(items), limit, why, len(pairs), found)


def limit_of(similarity: Float[np.ndarray, " N"]) -> tuple[float, str]:
    r"""A cosine limit for near-duplicates from each item's similarity to its nearest other item, and a sentence on why.

    With :math:`u = \log(1 - c)` of each item, the limit is where u falls more than 3.5 robust standard deviations
    below its median: much closer to another item than is usual in this collection. The deviation is computed on the
    lower half only, about the median, so that a few distant items do not widen it.

    Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993 (the modified z-score).
    """
    if len(similarity) < MIN_ITEMS:
        return EQUAL_COSINE, f"{len(similarity)} items are too few to see what is usual, so only equal features count."
    distance = np.log(np.maximum(1 - similarity, 1 - EQUAL_COSINE))
    middle = float(np.median(distance))
    below = middle - distance[distance <= middle]
    spread = MAD_TO_DEVIATION * float(np.median(below))
    limit = min(float(1 - np.exp(middle - OUTLIER_SPREADS * spread)), EQUAL_COSINE)
    usual = 1 - float(np.exp(middle))
    why = (
        f"Half of the items have their nearest other item at a cosine of {usual:.3f} or more; "
        f"{limit:.4f} is so much closer ({OUTLIER_SPREADS} robust standard deviations of the log-distance) that it is "
        "no longer what is usual here."
    )
    return limit, why


def _twins(items: Features, rows: list[int], cosine: list[float]) -> NearDuplicates:
    """A group of near-duplicates; each item's similarity is its highest to another item of the group."""
    part = torch.from_numpy(items.embedding[rows])
    nearest = others(part, 1)[0][:, 0].tolist()
    return NearDuplicates(
        tuple(
            Neighbor(items.id[row], items.label[row] or "", items.source[row], s)
            for row, s in zip(rows, nearest, strict=True)
        ),
        min(cosine),
        max(cosine),
        tuple(sorted({items.label[row] or "" for row in rows} - {""})),
        tuple(sorted({items.split[row] or "" for row in rows} - {""})),
    )
