"""Stability of kinds: whether half of the rows find them again."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core.subclasses.tied_mixtures import Problems, fit, seeds

N_STARTS = 16  # so that halves differ by their rows and not by their starts


def half_samples(unit: Int[Tensor, " N"], count: int, generator: torch.Generator) -> Float[Tensor, "P N"]:
    """1 for the rows of a random half of the units, else 0."""
    n_units = int(unit.max()) + 1
    half = torch.zeros(count, n_units)
    for one in half:
        one[torch.randperm(n_units, generator=generator)[: (n_units + 1) // 2]] = 1
    return half.to(unit.device)[:, unit]


def kinds_of_halves(
    x: Float[Tensor, "N R"], weight: Float[Tensor, "P N"], count: int, generator: torch.Generator
) -> Int[Tensor, "P N"]:
    """The kind of each row by the mixture of each half-sample."""
    start = seeds(x[None], weight.repeat(N_STARTS, 1), count, generator)
    return fit(Problems.of(x[None], weight), start).joint(x[None])[0].argmax(1)


def jaccard(
    kind: Int[Tensor, " N"], halves: Int[Tensor, "P N"], weight: Float[Tensor, "P N"], count: int
) -> Float[Tensor, " K"]:
    """The median over half-samples of each kind's Jaccard index with its best match among the kinds of the half.

    Kind -1 is none: such rows belong to no kind.

    Source: Hennig, Cluster-wise assessment of cluster stability, 2007.
    """
    whole = _indicator(kind, count).to(weight.dtype).T
    half = _indicator(halves, int(halves.max()) + 1).to(weight.dtype) * weight[..., None]
    both = whole @ half
    either = (weight @ whole.T)[..., None] + half.sum(1)[:, None] - both
    return torch.where(either > 0, both / either.clamp_min(1), 0.0).amax(2).median(0).values


def _indicator(kind: Int[Tensor, "*N"], count: int) -> Bool[Tensor, "*N K"]:
    return kind[..., None] == torch.arange(max(count, 1), device=kind.device)
