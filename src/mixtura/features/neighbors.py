"""Exact nearest neighbors by cosine, in chunks: memory stays bounded whatever the number of vectors."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from mixtura.errors import UsageError, WrongDimension

_QUERIES, _BASES = 1024, 16_384  # one block of similarities: 64 MB in float32
MAX_PAIRS = 5_000_000  # 120 MB


@runtime_checkable
class Index(Protocol):
    """What answers who is near whom; rows are named by their place in what it was built from."""

    @classmethod
    def build(cls, base: Float[Tensor, "M D"], seed: int = 0) -> "Index":
        """An index of some rows."""
        ...

    def search(self, query: Float[Tensor, "N D"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
        """Cosines and row numbers of the ``k`` nearest, nearest first; -1 where fewer were found."""
        ...


class Exact:
    """Every row is compared: nothing is missed. ``unit`` are the rows, scaled to length one once for all queries."""

    def __init__(self, unit: Float[Tensor, "M D"]) -> None:
        self.unit = unit

    @classmethod
    def build(cls, base: Float[Tensor, "M D"], seed: int = 0) -> "Exact":
        """Scale the rows; there is nothing else to prepare, and nothing is drawn."""
        return cls(unit_rows(base))

    def search(self, query: Float[Tensor, "N D"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
        """Cosines and row numbers of the ``k`` nearest rows; see :func:`knn`."""
        if k < 1:
            raise UsageError(f"{k} neighbors cannot be sought. Ask for at least 1.")
        if query.shape[1] != self.unit.shape[1]:
            raise WrongDimension(
                f"The query has {query.shape[1]} dimensions and the base {self.unit.shape[1]}. Make them equal."
            )
        blocks = [_nearest(rows, self.unit, k) for rows in unit_rows(query).split(_QUERIES)]
        similarity, index = zip(*blocks, strict=True)
        return torch.cat(similarity).clamp_(-1, 1), torch.cat(index)


def knn(
    query: Float[Tensor, "N D"], base: Float[Tensor, "M E"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The ``k`` rows of ``base`` with the greatest cosine to each row of ``query``, nearest first.

    A zero vector has cosine 0 to everything. Half precision is computed in float32.

    Returns:
        The cosines in [-1, 1] and the row numbers; K is ``min(k, M)``.

    Raises:
        WrongDimension: query and base differ in width.
        UsageError: ``k`` is below 1.
    """
    return Exact.build(base).search(query, k)


def others(x: Float[Tensor, "N D"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The ``k`` nearest of the other rows for each row of ``x``; K is ``min(k, N - 1)``.

    A row is left out by its number, not by its place: of several equal rows, each finds the others.
    """
    return without_self(*knn(x, x, k + 1), torch.arange(len(x), device=x.device), k)


def without_self(
    similarity: Float[Tensor, "N K"], index: Int[Tensor, "N K"], own: Int[Tensor, " N"], k: int
) -> tuple[Float[Tensor, "N J"], Int[Tensor, "N J"]]:
    """The first ``k`` of some neighbors that are not the row ``own`` of each query."""
    order = (index == own[:, None]).int().argsort(dim=1, stable=True)  # the row itself to the end
    keep = order[:, : min(k, max(0, index.shape[1] - 1))]
    return similarity.gather(1, keep), index.gather(1, keep)


def pairs_above(x: Float[Tensor, "N D"], limit: float) -> tuple[Int[Tensor, "P 2"], Float[Tensor, " P"]]:
    """All pairs of rows, the lower number first, whose cosine is at least ``limit``, and their cosines.

    Args:
        x: the rows.
        limit: a cosine in (-1, 1].

    Raises:
        UsageError: the limit lies outside, or more than ``MAX_PAIRS`` pairs reach it.
    """
    if not -1 < limit <= 1:
        raise UsageError(f"The limit {limit} is no cosine above -1. Give a number such as 0.98.")
    unit, pairs, cosines, count = unit_rows(x), [], [], 0
    for row in range(0, len(x), _QUERIES):
        for column in range(row, len(x), _BASES):
            cosine = unit[row : row + _QUERIES] @ unit[column : column + _BASES].T
            left, right = (cosine >= limit).nonzero(as_tuple=True)
            ahead = left + row < right + column
            left, right = left[ahead], right[ahead]
            count += len(left)
            if count > MAX_PAIRS:
                raise UsageError(f"More than {MAX_PAIRS:,} pairs are this similar ({limit:.4f}). Raise the limit.")
            pairs.append(torch.stack([left + row, right + column], dim=1))
            cosines.append(cosine[left, right])
    if not pairs:
        return torch.empty(0, 2, dtype=torch.int64), unit.new_empty(0)
    return torch.cat(pairs), torch.cat(cosines).clamp_(-1, 1)


def groups_of_pairs(pairs: Int[Tensor, "P 2"], count: int) -> list[list[int]]:
    """Rows that pairs join, directly or by others between, the largest group first; rows in no pair are left out."""
    left, right = pairs.numpy().T
    links = coo_array((np.ones(len(pairs), np.int8), (left, right)), shape=(count, count))
    number = connected_components(links, directed=False)[1]
    members: dict[int, list[int]] = {}
    for row in np.unique(pairs.numpy()).tolist():
        members.setdefault(int(number[row]), []).append(row)
    return sorted(members.values(), key=lambda rows: (-len(rows), rows))


def unit_rows(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Rows of length one; a zero row stays zero, half precision becomes float32."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    # First to a largest entry of 1, so that the squares of very small or large numbers stay in range.
    largest = x.abs().amax(dim=1, keepdim=True) if x.shape[1] else x.sum(dim=1, keepdim=True)
    return normalize(x / torch.where(largest > 0, largest, 1), dim=1)


def _nearest(
    query: Float[Tensor, "N D"], base: Float[Tensor, "M D"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The neighbors of a few queries: the best of each block of the base, merged as we go."""
    best = query.new_empty(len(query), 0)
    index = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    for start in range(0, len(base), _BASES):
        cosine = query @ base[start : start + _BASES].T
        found, place = cosine.topk(min(k, cosine.shape[1]))
        joined, joined_index = torch.cat([best, found], 1), torch.cat([index, place + start], 1)
        best, order = joined.topk(min(k, joined.shape[1]))
        index = joined_index.gather(1, order)
    return best, index
