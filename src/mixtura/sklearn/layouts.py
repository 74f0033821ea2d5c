"""How scikit-learn lays out covariances, and the way there and back from mixtura's families."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance import Covariance, Diagonal, Full, Spherical, Tied
from mixtura.core.mixture import Mixture
from mixtura.errors import CollapsedComponent

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Layout:
    """One covariance type of scikit-learn.

    ``covariances`` and ``precisions_cholesky`` read a family; ``square`` turns the latter into precisions;
    ``read`` makes the family from given precisions (``None`` where there is no such layout);
    ``axes`` names the axes of all of these arrays.
    """

    family: str
    axes: str
    covariances: Callable[[Any, int], Tensor]
    precisions_cholesky: Callable[[Any, int], Tensor]
    square: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Covariance] | None

    def shape(self, n_components: int, dimension: int) -> tuple[int, ...]:
        """The expected shape of given precisions."""
        return tuple({"K": n_components, "D": dimension}[axis] for axis in self.axes)


def upper_root(precision: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
    """Upper triangular U with ``U U' = precision``: the lower factor of the matrix turned upside down."""
    return linalg.cholesky(precision.flip(-1, -2)).flip(-1, -2)


def tril_of(precision: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
    """The lower factor W of a precision, ``W' W``: the upper factor of ``precision = U U'``, turned."""
    return upper_root(precision).mT.contiguous()


def positive(precision: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    """Variances from precisions.

    Raises:
        CollapsedComponent: a precision is not positive.
    """
    if bool((precision <= 0).any()):
        raise CollapsedComponent(f"A precision is {float(precision.min())}. Give positive precisions.")
    return 1 / precision


def _gram(root: Tensor) -> Tensor:
    return root @ root.mT


def _variance(covariance: Any, n_components: int) -> Tensor:
    return covariance.variance


def _root_precision(covariance: Any, n_components: int) -> Tensor:
    return covariance.variance.rsqrt()


LAYOUTS: dict[str, Layout] = {
    "full": Layout(
        "full",
        "KDD",
        lambda c, k: linalg.covariance_of(c.precision_tril),
        lambda c, k: c.precision_tril.mT,
        _gram,
        lambda p: Full(tril_of(p)),
    ),
    "tied": Layout(
        "tied",
        "DD",
        lambda c, k: linalg.covariance_of(c.precision_tril[0]),
        lambda c, k: c.precision_tril[0].mT,
        _gram,
        lambda p: Tied(tril_of(p[None])),
    ),
    "diag": Layout("diagonal", "KD", _variance, _root_precision, torch.square, lambda p: Diagonal(positive(p))),
    "spherical": Layout("spherical", "K", _variance, _root_precision, torch.square, lambda p: Spherical(positive(p))),
    "lowrank": Layout(
        "lowrank",
        "KDD",
        lambda c, k: c.dense(k, c.variance.shape[1]),
        lambda c, k: linalg.precision_tril(c.dense(k, c.variance.shape[1])).mT,
        _gram,
        None,
    ),
}
"""scikit-learn's ``covariance_type``, and low-rank, which it lacks; low-rank arrays are written out in full."""


def check_spread(mixture: Mixture) -> None:
    """Refuse a component that has collapsed onto a point or a plane.

    Raises:
        CollapsedComponent: a variance is zero or not finite.
    """
    if not bool(mixture.covariance.log_peak(mixture.dimension).isfinite().all()):
        raise CollapsedComponent(
            "A component has no spread in some direction (singleton or repeated points). "
            "Use fewer components, a larger reg_covar or variance_floor, or rescale the data."
        )


def to_tensor(array: Array) -> Tensor:
    """A tensor over the array's own memory where that is possible; a copy of read-only or reversed arrays."""
    usable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if usable else array.copy())
