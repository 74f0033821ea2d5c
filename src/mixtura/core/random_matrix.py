"""Random matrices with entries of mean square one, for projections and random features."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg

DEFAULT_SPARSITY = 3.0  # one in three entries of an Achlioptas matrix is nonzero


def gaussian(dimension: int, width: int, generator: torch.Generator | None = None) -> Float[Tensor, "D W"]:
    """Independent standard normal entries."""
    return torch.randn(dimension, width, generator=generator)


def orthogonal(dimension: int, width: int, generator: torch.Generator | None = None) -> Float[Tensor, "D W"]:
    """Orthogonal columns of equal length, or rows if there are more columns than rows."""
    many, few = max(dimension, width), min(dimension, width)
    basis = linalg.orthonormal(torch.randn(many, few, generator=generator, dtype=torch.float64)) * many**0.5
    return (basis if dimension == many else basis.T).float().contiguous()


def achlioptas(dimension: int, width: int, generator: torch.Generator | None = None) -> Float[Tensor, "D W"]:
    r"""Entries :math:`\sqrt3` times +1, 0, -1 with probabilities 1/6, 2/3, 1/6.

    Source: Achlioptas, Database-friendly Random Projections, JCSS 2003.
    """
    return signs(dimension, width, generator).float() * DEFAULT_SPARSITY**0.5


def signs(
    dimension: int, width: int, generator: torch.Generator | None = None, sparsity: float = DEFAULT_SPARSITY
) -> Int[Tensor, "D W"]:
    """+1, 0 and -1 with probabilities 1 / 2s, 1 - 1 / s and 1 / 2s, where s is the ``sparsity``, 1 or more."""
    draw = torch.rand(dimension, width, generator=generator, dtype=torch.float64)
    return (draw < 0.5 / sparsity).to(torch.int8) - (draw >= 1 - 0.5 / sparsity).to(torch.int8)


RANDOM_MATRICES: dict[str, Callable[[int, int, torch.Generator | None], Tensor]] = {
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "achlioptas": achlioptas,
}
"""Random matrices by name. Divided by the square root of the width, they preserve squared lengths on average."""
