"""Content hashes of samples: an order and an equality that depend on the values only."""

import math
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

TILE_ROWS = 512  # samples hashed at once; a tile fits in cache
HASH_LEVELS = 251.3  # quantization steps over the range of a feature
HASH_OFFSET = 0.3819  # keeps round fractions of the range off the step edges
HASH_BITS = 53 - 8  # bits of a float64 left for the hash factor, beside those of a step


def content_order(x: Float[Tensor, "N D"], seed: int) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Pseudo-random order of the samples that depends only on their values, and a content index for each sample.

    Equal samples have the same index and are adjacent. Neither result depends on the sample order or on repetitions,
    nor on the units of a feature, at a resolution of 1 / 250 of its range.
    """
    coarse = _hash_of_steps(x, seed)
    which = numbered(coarse)
    alike = torch.bincount(which)[which] > 1
    exact = coarse.clone()
    exact[alike] = _hash_of_bits(x[alike], seed)
    order = exact.argsort(stable=True)
    return order[coarse[order].argsort(stable=True)], numbered(exact)


def numbered(keys: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Relabel the keys as 0, 1, ... in ascending order."""
    return cast("Tensor", torch.unique(keys, return_inverse=True)[1])  # pyright: ignore[reportUnknownMemberType]


def distinct(values: Shaped[Tensor, " N"]) -> Shaped[Tensor, " U"]:
    """The values that occur, in ascending order."""
    return cast("Tensor", torch.unique(values))  # pyright: ignore[reportUnknownMemberType]


def _hash_of_steps(x: Float[Tensor, "N D"], seed: int) -> Int[Tensor, " N"]:
    """Hash of a sample's quantized values: a weighted sum, small enough to be exact in float64 in any order."""
    bits = HASH_BITS - math.ceil(math.log2(x.shape[1] + 1))
    factor = _random(x, 2**bits, x.shape[1], seed).double()
    low, high = x.aminmax(dim=0) if len(x) else (x.sum(0), x.sum(0))
    scale = HASH_LEVELS / torch.where(high > low, high - low, 1.0)
    steps = ((rows - low).mul_(scale).add_(HASH_OFFSET).floor_() for rows in torch.split(x, TILE_ROWS))
    return torch.cat([tile.double() @ factor for tile in steps]).long()


def _hash_of_bits(x: Float[Tensor, "N D"], seed: int) -> Int[Tensor, " N"]:
    """Hash of a sample's bits: a weighted sum of 32-bit words modulo 2 ** 64; +0 and -0 are equal."""
    words = (x + 0.0).reshape(-1).view(torch.int32).reshape(len(x), x.shape[1] * x.element_size() // 4)
    factor = 2 * _random(x, 2**62, words.shape[1], seed) + 1
    return torch.cat([(rows.long() * factor).sum(1) for rows in torch.split(words, TILE_ROWS)])


def _random(x: Tensor, limit: int, count: int, seed: int) -> Int[Tensor, " W"]:
    return torch.randint(limit, (count,), generator=torch.Generator().manual_seed(seed)).to(x.device)
