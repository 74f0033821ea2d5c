"""Approximate nearest neighbors by cosine: faiss's inverted lists, for stores that are too large to compare row by row.

The index is built from the features and holds nothing that they do not: throw it away and build it again. Only the
lists nearest to a query are looked into, so some true neighbors are missed; :func:`recall` says how many.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.errors import MissingExtra, UsageError, WrongDimension
from mixtura.features.neighbors import Index, knn, unit_rows, without_self

PER_LIST = 39  # rows a list that faiss's k-means asks for
PROBED_SHARE = 16  # one list in so many is looked into
RECALL_QUERIES = 200
_PART = 16_384  # rows handed to faiss at once: a copy of them is made


class Inverted:
    """IVF-Flat with an id for each row: the rows in lists about k-means centers; rows can be added and removed."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, base: Float[Tensor, "M D"], seed: int = 0) -> "Inverted":
        """An index of some rows, row i under the id i; about 4 times the square root of M lists.

        Raises:
            MissingExtra: faiss is not installed.
            UsageError: there are no rows.
        """
        faiss = _faiss()
        if not len(base):
            raise UsageError("An index of 0 rows cannot be built. Give at least one.")
        lists = max(1, min(int(4 * len(base) ** 0.5), len(base) // PER_LIST))
        index = faiss.index_factory(base.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed
        index.nprobe = -(-lists // PROBED_SHARE)
        order = torch.randperm(len(base), generator=torch.Generator().manual_seed(seed))
        index.train(_unit(base[order[: lists * 4 * PER_LIST]]))
        made = cls(index)
        made.add(base, torch.arange(len(base)))
        return made

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, rows: Float[Tensor, "N D"], ids: Int[Tensor, " N"]) -> None:
        """Put rows into the lists that they are nearest to; the lists themselves stay."""
        self._check(rows)
        for part, own in zip(rows.split(_PART), ids.split(_PART), strict=True):
            self._index.add_with_ids(_unit(part), own.numpy())

    def remove(self, ids: Int[Tensor, " N"]) -> int:
        """Take rows out by their ids, and say how many were there."""
        return int(self._index.remove_ids(ids.numpy()))

    def search(self, query: Float[Tensor, "N D"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
        """Cosines and ids of the ``k`` nearest rows that were met; id -1 and minus infinity where there were fewer.

        Raises:
            WrongDimension: queries of another width than the rows.
            UsageError: ``k`` is below 1.
        """
        if k < 1:
            raise UsageError(f"{k} neighbors cannot be sought. Ask for at least 1.")
        self._check(query)
        similarity, ids = self._index.search(_unit(query), min(k, len(self)))
        similarity[ids < 0] = -np.inf
        return torch.from_numpy(similarity).clamp_(max=1), torch.from_numpy(ids)

    def _check(self, rows: Float[Tensor, "N D"]) -> None:
        if rows.shape[1] != self._index.d:
            raise WrongDimension(
                f"The index holds {self._index.d} dimensions and was given {rows.shape[1]}. Make them equal."
            )


def recall(index: Index, base: Float[Tensor, "M D"], k: int, seed: int = 0) -> float:
    """Share, in [0, 1], of the ``k`` true neighbors that an index finds, over 200 rows of ``base`` drawn at random.

    The row itself, which every index finds, does not count.
    """
    order = torch.randperm(len(base), generator=torch.Generator().manual_seed(seed))[:RECALL_QUERIES]
    rows = base[order]
    found = without_self(*index.search(rows, k + 1), order, k)[1]
    true = without_self(*knn(rows, base, k + 1), order, k)[1]
    if not true.numel():
        return 1.0
    return float((true[:, :, None] == found[:, None, :]).any(2).double().mean())


def _unit(rows: Float[Tensor, "N D"]) -> Float[np.ndarray, "N D"]:
    return np.ascontiguousarray(unit_rows(rows).float().numpy())


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(
            "An approximate index needs faiss, which is not installed. Run: pip install 'mixtura[ann]', "
            "or search exactly, which needs nothing."
        ) from error
    return faiss
