"""Find photos that a catalog has already learned from; they look too typical to set its limits or to test it.

Three signs, from certain to likely: the file has the bytes of an item; the features equal those of an item, up to
the rounding of stored features; or the photo is far closer to an item than items of that product are to each other,
as a resized or re-saved copy is. Of 300 photos of Grocery (128 px; 1,600 items; encoder lite0 at 96 px), 90% are
found when re-saved at JPEG quality 50, all at double size or 10% brighter, 28% at half size; of 600 new photos,
0.3% are taken for copies.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.features.neighbors import unit_rows
from mixtura.features.records import Features
from mixtura.tasks.duplicates import MAD_TO_DEVIATION, MIN_ITEMS, OUTLIER_SPREADS

BATCH_NOISE = 5e-5  # relative difference of one photo's features between batches: 1.2e-5 with lite0
FLOAT16_ROUNDING = 2.0**-11  # relative difference from rounding to float16
MAX_SAMPLED_ITEMS = 2000  # evenly chosen items that show how far apart items of a product are
MIN_LOG_FACTOR = float(np.log(1.5))  # every other item is farther away than a copy, by at least this factor
N_CANDIDATES = 4  # neighbors from a float32 product; the nearest is found by differences
MIN_DISTANCE = 1e-6  # least distance of unit-length rows that float32 can tell from zero
BLOCK_ROWS = 256  # rows compared with all items at once


def learned(known: Features, embedding: Float[np.ndarray, "N D"], sha256: Sequence[str] = ()) -> Bool[np.ndarray, " N"]:
    """Whether a catalog has learned from each photo.

    Args:
        known: the items that it is learned from.
        embedding: features of the photos, from the same encoder.
        sha256: hashes (hex) of their bytes where known, else "".
    """
    same = np.zeros(len(embedding), dtype=bool)
    if not len(known) or not len(embedding):
        return same
    if sha256:
        digests = set(known.sha256) - {""}
        same |= np.array([digest in digests for digest in sha256], dtype=bool)
    query, base = torch.from_numpy(embedding), torch.from_numpy(known.embedding)
    center = base.mean(0)
    same |= equal(embedding, known.embedding[_nearest(query - center, base - center)[1]])
    query, base = unit_rows(query), unit_rows(base)  # a copy may be brighter
    distance, nearest = _nearest(query, base)
    usual = _nearest(base[torch.from_numpy(nearest)], base, own=torch.from_numpy(nearest))[0]
    return same | (distance < np.minimum(_limits(base, known)[nearest], usual - MIN_LOG_FACTOR))


def equal(first: Float[np.ndarray, "N D"], second: Float[np.ndarray, "N D"]) -> Bool[np.ndarray, " N"]:
    """Whether rows are the same features in every number, each rounded to float16 or not.

    Rows that float16 represents exactly are assumed to be rounded to it, as in stores and the journal.
    """
    size = np.maximum(np.abs(first), np.abs(second))
    length = np.sqrt(np.square(size).mean(1, keepdims=True))
    rounding = _rounding(first) + _rounding(second)
    return (np.abs(first - second) <= rounding[:, None] * size + BATCH_NOISE * length).all(1)


def _rounding(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """The relative error of each row: that of float16 if float16 represents it exactly, else 0."""
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float16).astype(np.float32)
    return np.where((narrow == x).all(1), FLOAT16_ROUNDING, 0.0)


def _limits(base: Float[Tensor, "M D"], known: Features) -> Float[np.ndarray, " M"]:
    """The log-distance to each item below which a photo is a copy of it.

    From the log-distances of items to their nearest other item, it is the median of the item's product (of all items
    if the product has few) minus 3.5 robust standard deviations within products, similar to
    :func:`mixtura.tasks.duplicates.limit_of` for a whole collection. With too few items, nothing is a copy.
    """
    if len(known) < MIN_ITEMS:
        return np.full(len(known), -np.inf)
    rows = np.unique(np.linspace(0, len(known) - 1, MAX_SAMPLED_ITEMS).round().astype(np.int64))
    distance = _nearest(base[torch.from_numpy(rows)], base, own=torch.from_numpy(rows))[0]
    product = known.label_index(known.classes)
    middle = np.full(len(known.classes), np.median(distance))
    for c in np.flatnonzero(np.bincount(product[rows], minlength=len(middle)) >= MIN_ITEMS):
        middle[c] = np.median(distance[product[rows] == c])
    off = middle[product[rows]] - distance
    spread = MAD_TO_DEVIATION * float(np.median(off[off >= 0]))
    return (middle - OUTLIER_SPREADS * spread)[product]


def _nearest(
    query: Float[Tensor, "N D"], base: Float[Tensor, "M D"], own: Int[Tensor, " N"] | None = None
) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The log-distance of each row to its nearest item, and the item's index; ``own`` items are excluded."""
    half = base.square().sum(1) / 2
    distances, places = [], []
    for start in range(0, len(query), BLOCK_ROWS):
        rows = query[start : start + BLOCK_ROWS]
        off = torch.addmm(half, rows, base.T, alpha=-1)  # half the squared distance, less a constant per row
        if own is not None:
            off[torch.arange(len(rows)), own[start : start + BLOCK_ROWS]] = torch.inf
        found = off.topk(min(N_CANDIDATES, len(base)), largest=False).indices
        apart = (rows[:, None] - base[found]).double().norm(dim=2)
        if own is not None:
            apart[found == own[start : start + BLOCK_ROWS, None]] = torch.inf
        least = apart.min(1)
        distances.append(least.values.clamp_min(MIN_DISTANCE).log())
        places.append(found.gather(1, least.indices[:, None])[:, 0])
    return torch.cat(distances).numpy(), torch.cat(places).numpy()
