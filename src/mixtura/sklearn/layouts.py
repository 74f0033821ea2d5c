"""scikit-learn's covariance layouts, and conversions from and to mixtura's families."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """A covariance type of scikit-learn.

    ``covariances`` and ``precisions_cholesky`` convert from a family; ``square`` turns Cholesky factors and ``invert``
    covariances into precisions; ``read`` builds the family from precisions (``None`` if unsupported); ``axes`` names
    the axes of all of these arrays.
    """

    family: str
    axes: str
    covariances: Callable[[Any, int], Tensor]
    precisions_cholesky: Callable[[Any, int], Tensor]
    square: Callable[[Tensor], Tensor]
    invert: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Covariance] | None

    def shape(self, n_components: int, dimension: int) -> tuple[int, ...]:
        """Expected shape of user-supplied precisions."""
        return tuple({"K": n_components, "D": dimension}[axis] for axis in self.axes)


def upper_root(precision: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
    """Upper triangular U with ``U U' = precision``, from the Cholesky factor of the flipped matrix."""
    return linalg.cholesky(precision.flip(-1, -2)).flip(-1, -2)


def tril_of(precision: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
    """Lower triangular W with ``W' W = precision``: the transpose of :func:`upper_root`."""
    return upper_root(precision).mT.contiguous()


def positive(precision: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    """Variances from precisions, or precisions from variances.

    Raises:
        CollapsedComponent: one is not positive and finite.
    """
    bad = ~((precision > 0) & precision.isfinite())
    if bool(bad.any()):
        raise CollapsedComponent(f"A value is {float(precision[bad][0])}, where only positive ones have an inverse.")
    return 1 / precision


def inverse(covariance: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
    """Precisions from covariances.

    Raises:
        CollapsedComponent: a covariance is not positive definite.
    """
    root = linalg.precision_tril(covariance)
    return root.mT @ root


def _gram(root: Tensor) -> Tensor:
    return root @ root.mT


def _variance(covariance: Any, n_components: int) -> Tensor:
    return covariance.variance


def _root_precision(covariance: Any, n_components: int) -> Tensor:
    return covariance.variance.rsqrt()


def _of_variances(family: str, axes: str, kind: Callable[[Tensor], Covariance]) -> Layout:
    return Layout(family, axes, _variance, _root_precision, torch.square, positive, lambda p: kind(positive(p)))


LAYOUTS: dict[str, Layout] = {
    "full": Layout(
        "full",
        "KDD",
        lambda c, k: linalg.covariance_of(c.precision_tril),
        lambda c, k: c.precision_tril.mT,
        _gram,
        inverse,
        lambda p: Full(tril_of(p)),
    ),
    "tied": Layout(
        "tied",
        "DD",
        lambda c, k: linalg.covariance_of(c.precision_tril[0]),
        lambda c, k: c.precision_tril[0].mT,
        _gram,
        inverse,
        lambda p: Tied(tril_of(p[None])),
    ),
    "diag": _of_variances("diagonal", "KD", Diagonal),
    "spherical": _of_variances("spherical", "K", Spherical),
    "lowrank": Layout(
        "lowrank",
        "KDD",
        lambda c, k: c.dense(k, c.variance.shape[1]),
        lambda c, k: linalg.precision_tril(c.dense(k, c.variance.shape[1])).mT,
        _gram,
        inverse,
        None,
    ),
}
"""scikit-learn's ``covariance_type`` values, plus low-rank, whose arrays are dense."""


def check_spread(mixture: Mixture) -> None:
    """Reject a component that has collapsed onto a point or a plane.

    Raises:
        CollapsedComponent: a variance is zero or not finite.
    """
    if not bool(mixture.covariance.log_peak(mixture.dimension).isfinite().all()):
        raise CollapsedComponent("A component has no spread in some direction (singleton or repeated points).")


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Context manager that gives a collapsed component the advice of an estimator, in its own parameters' names.

    Raises:
        CollapsedComponent: as raised within, with this advice.
    """
    try:
        yield
    except CollapsedComponent as error:
        raise CollapsedComponent(error.problem, advice) from error


def to_tensor(array: Array) -> Tensor:
    """Tensor that shares the array's memory if possible; read-only or reversed arrays are copied."""
    usable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if usable else array.copy())
