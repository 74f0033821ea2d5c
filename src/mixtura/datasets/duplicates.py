"""Find near-duplicate pictures, so that no copy of a training photo is in the test set.

Two pictures are near-duplicates if their difference hashes (64 bits: is each cell of a 9 x 8 gray thumbnail brighter
than its left neighbor) differ in at most 6 bits *and* their 16 x 16 gray thumbnails correlate to at least 0.995. The
hash alone is not enough: it joins nearly all of MNIST into one group; with the correlation, the largest group is 7 of
70,000. For shop photos at 128 px, 99.5 to 100% of copies are found if they are saved at JPEG quality 50, halved or
doubled in size, or 10% brighter. Crops are not found, and hardly any resized copies of 28 px pictures
(benchmarks/near_duplicates.py).

Source: the difference hash is N. Krawetz's, "Kind of Like That" (2013).
"""

import os
from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, UInt64
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixtura.datasets.items import Dataset
from mixtura.errors import BadImage, BadItem

MAX_BITS = 6
MIN_CORRELATION = 0.995
_HASH_SIDE = 16
_BLOCK_ROWS = 32  # rows compared at once; their 32 x N hashes roughly fit the cache
_DRAFT_SIDE = 64  # pixels; enough for the thumbnails, and large JPEGs decode several times faster

Pairs = Int[np.ndarray, "P 2"]


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a picture's bytes, its difference hash, and its centered unit-length thumbnail."""

    digest: str
    bits: int
    thumbnail: Float32[np.ndarray, " T"]


def fingerprint(image: Image.Image, digest: str) -> Fingerprint:
    """Return the fingerprint of a picture. A picture of one color has a zero thumbnail and no near-duplicates."""
    gray = image.convert("L")
    cells = np.asarray(gray.resize((9, 8), Image.Resampling.BOX))
    bits = int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")
    small = np.asarray(gray.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX), np.float32).ravel()
    centered = small - small.mean()
    length = float(np.linalg.norm(centered))
    return Fingerprint(digest, bits, centered / length if length > 0 else centered)


def near_pairs(bits: UInt64[np.ndarray, " N"], thumbnail: Float32[np.ndarray, "N T"]) -> Pairs:
    """Return all near-duplicate pairs as rows of two positions. Time is quadratic in N: 70,000 take 15 to 50 s."""
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(bits), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        left, right = np.nonzero(np.bitwise_count(bits[block, None] ^ bits[None, start:]) <= MAX_BITS)
        left, right = left[left < right] + start, right[left < right] + start
        close = np.einsum("pt,pt->p", thumbnail[left], thumbnail[right]) >= MIN_CORRELATION
        pairs.append(np.stack([left[close], right[close]], axis=1))
    return np.concatenate(pairs)


def find_groups(dataset: Dataset, *, workers: int | None = None) -> Int[np.ndarray, " N"]:
    """Return a group number per item; equal ``group``, equal bytes and near-duplicate pictures chain into one group.

    Undecodable pictures are compared by ``group`` only; sounds by ``group`` and bytes.
    """
    if dataset.modality != "image":
        return _equal_sounds(dataset)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        prints = list(pool.map(lambda index: _try_fingerprint(dataset, index), range(len(dataset))))
    known = np.array([i for i, found in enumerate(prints) if found is not None], np.int64)
    pairs = [
        _equal_pairs(item.group for item in dataset.items),
        _equal_pairs(found and found.digest for found in prints),
    ]
    if len(known):
        seen = [found for found in prints if found is not None]
        bits = np.array([found.bits for found in seen], np.uint64)
        pairs.append(known[near_pairs(bits, np.stack([found.thumbnail for found in seen]))])
    return _components(len(dataset), np.concatenate(pairs))


def given_groups(dataset: Dataset) -> Int[np.ndarray, " N"]:
    """Return a group number per item by ``group`` only, without reading pictures."""
    return _components(len(dataset), _equal_pairs(item.group for item in dataset.items))


def _try_fingerprint(dataset: Dataset, index: int) -> Fingerprint | None:
    try:
        return fingerprint(dataset.image(index, draft=_DRAFT_SIDE), dataset.digest(index))
    except BadImage:
        return None


def _equal_sounds(dataset: Dataset) -> Int[np.ndarray, " N"]:
    digests = [_try_digest(dataset, index) for index in range(len(dataset))]
    pairs = [_equal_pairs(item.group for item in dataset.items), _equal_pairs(digests)]
    return _components(len(dataset), np.concatenate(pairs))


def _try_digest(dataset: Dataset, index: int) -> str | None:
    try:
        return dataset.digest(index)
    except BadItem:
        return None


def _equal_pairs(values: Iterable[Hashable | None]) -> Pairs:
    """Pair each position with the first that has the same value; ``None`` equals nothing."""
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(value, i), i) for i, value in enumerate(values) if value is not None]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _components(count: int, pairs: Pairs) -> Int[np.ndarray, " N"]:
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)
