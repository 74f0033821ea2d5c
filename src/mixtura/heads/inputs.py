"""What a head may do to its input first: a fixed matrix, drawn or computed once, and saved with the head."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core import linalg
from mixtura.errors import UsageError

SPARSITY = 3  # one in three entries of an Achlioptas matrix is not zero


def pca(x: Float[Tensor, "N D"], width: int, seed: int) -> Float[Tensor, "D W"]:
    """The leading principal axes of the rows, orthonormal columns; axes beyond the rows' own rank are empty."""
    shifted = x.double() - x.double().mean(0)
    _, axes = linalg.svd_right(shifted, width)
    return torch.nn.functional.pad(axes, (0, width - axes.shape[1]))


def orthogonal(x: Float[Tensor, "N D"], width: int, seed: int) -> Float[Tensor, "D W"]:
    """Random orthonormal columns times the square root of D / W, so that squared lengths are kept on average."""
    dimension = x.shape[1]
    gaussian = torch.randn(dimension, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return linalg.orthonormal(gaussian) * (dimension / width) ** 0.5


def achlioptas(x: Float[Tensor, "N D"], width: int, seed: int) -> Float[Tensor, "D W"]:
    r"""Entries :math:`\sqrt{3/W}` times +1, 0, -1 with probabilities 1/6, 2/3, 1/6: squared lengths kept on average.

    Source: Achlioptas, Database-friendly Random Projections, JCSS 2003.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(x.shape[1], width, generator=generator, dtype=torch.float64) * 2 * SPARSITY
    return ((draw < 1).double() - (draw > 2 * SPARSITY - 1).double()) * (SPARSITY / width) ** 0.5


INPUTS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "pca": pca,
    "orthogonal": orthogonal,
    "achlioptas": achlioptas,
}
"""Ways to make the input narrower. Without one, and where the width is the input's own, the rows stay as they are."""


def matrix(name: str, x: Float[Tensor, "N D"], width: int, seed: int) -> Float[Tensor, "D W"]:
    """The matrix of a projection, as float64 on the rows' device.

    Args:
        name: a key of :data:`INPUTS`.
        x: rows that the projection may learn from.
        width: W, the number of columns.
        seed: of the draw.

    Raises:
        UsageError: no such projection, or more columns than the input has.
    """
    if name not in INPUTS:
        raise UsageError(f"Input projection {name!r} is not known. Known: identity, {', '.join(INPUTS)}.")
    if not 1 <= width <= x.shape[1]:
        raise UsageError(f"The head was asked to project {x.shape[1]} features to {width}. Give 1 to {x.shape[1]}.")
    return INPUTS[name](x, width, seed).to(x.device)
