"""Exact nearest neighbors by cosine, in chunks: memory stays bounded whatever the number of vectors."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from mixtura.errors import UsageError, WrongDimension

_QUERIES, _BASES = 1024, 16_384  # one block of similarities: 64 MB in float32


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
    if k < 1:
        raise UsageError(f"{k} neighbors cannot be sought. Ask for at least 1.")
    if query.shape[1] != base.shape[1]:
        raise WrongDimension(
            f"The query has {query.shape[1]} dimensions and the base {base.shape[1]}. Make them equal."
        )
    query, base = _unit(query), _unit(base)
    blocks = [_nearest(rows, base, k) for rows in query.split(_QUERIES)]
    similarity, index = zip(*blocks, strict=True)
    return torch.cat(similarity).clamp_(-1, 1), torch.cat(index)


def _unit(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
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
