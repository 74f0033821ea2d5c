"""What a covariance family must be able to do."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.moments import Lens, Moments, Sums
from mixtura.errors import UsageError

LOG_2PI = math.log(2 * math.pi)
Operands = tuple[Tensor, ...]


@dataclass(frozen=True)
class Prior:
    r"""Shrinkage of every covariance, which keeps it positive definite when points are few.

    .. math::
        \Sigma_k = (1 - \gamma) \frac{S_k + n_0 \bar\Sigma}{w_k + n_0} + \gamma \frac{\operatorname{tr}(\cdot)}{D} I

    Args:
        strength: :math:`n_0`, a number of pseudo-observations of the covariance pooled over all components.
        identity: :math:`\gamma`, the share of the scaled identity, in [0, 1].

    Raises:
        UsageError: a negative strength or a share outside [0, 1].

    Source: Friedman, Regularized Discriminant Analysis, JASA 1989, with counts in place of shares.
    """

    strength: float = 0.0
    identity: float = 0.0

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise UsageError(f"Prior strength is {self.strength}; give a number of points that is zero or more.")
        if not 0 <= self.identity <= 1:
            raise UsageError(f"Prior identity share is {self.identity}; give a share from 0 to 1.")

    def blend(
        self,
        second: Float[Tensor, "K *S"],
        weight: Float[Tensor, " K"],
        pooled: Float[Tensor, "*S"],
    ) -> Float[Tensor, "K *S"]:
        """Covariances from centered sums, pulled towards the pooled one; a component without points takes it whole."""
        shape = (-1,) + (1,) * (second.ndim - 1)
        total = (weight + self.strength).reshape(shape)
        blended = (second + self.strength * pooled) / torch.where(total > 0, total, 1.0)
        return torch.where(total > 0, blended, pooled.expand_as(second))

    def shrink(self, variance: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Pull variances towards their own average over the dimensions."""
        if self.identity == 0:
            return variance
        return (1 - self.identity) * variance + self.identity * variance.mean(-1, keepdim=True)

    def shrink_dense(self, matrix: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
        """Pull covariance matrices towards their own scaled identity."""
        if self.identity == 0:
            return matrix
        scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        shrunk = (1 - self.identity) * matrix
        shrunk.diagonal(dim1=-2, dim2=-1).add_(self.identity * scale)
        return shrunk


NO_PRIOR = Prior()


class Covariance(Sums, Protocol):
    """The spread of K components in one parametrization.

    A family is a frozen dataclass of tensors. It writes log-densities as matrix products over ``operands`` that
    depend on the parameters only, so a mixture prepares them once and scores any number of batches.
    """

    name: ClassVar[str]

    @property
    def n_parameters(self) -> int:
        """Free numbers, for BIC."""
        ...

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Center, constants (K) and matrices that :meth:`apply` multiplies with."""
        ...

    @staticmethod
    def apply(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Log-densities in nats, up to what the constants carry."""
        ...

    def lens(self) -> Lens | None:
        """What the second sums of the next step depend on, if anything."""
        ...

    @classmethod
    def estimate(cls, moments: Moments, floor: float, prior: Prior) -> "Covariance":
        """The M-step: the most likely covariance given the sums. ``floor`` is a variance, in squared units of x."""
        ...

    def draw(self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None) -> Float[Tensor, "N D"]:
        """Random deviations from the mean, one for each entry of ``index``, a component number."""
        ...

    def collapse(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Covariance":
        """One covariance of all components, each with its share and its mean's deviation from the overall mean."""
        ...

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """Covariance matrices, for tests and reports."""
        ...

    def select(self, index: Int[Tensor, " J"]) -> "Covariance":
        """The covariance of some components."""
        ...

    @classmethod
    def join(cls, parts: list[Any], weight: Float[Tensor, " P"]) -> "Covariance":
        """One covariance over the components of several mixtures; a shared matrix is averaged by ``weight``."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Parameters by name."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Covariance":
        """The inverse of :meth:`state`."""
        ...


Family = TypeVar("Family", bound="TensorRecord")


class TensorRecord:
    """Shared by the families: a dataclass whose fields are all tensors."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]

    def lens(self) -> Lens | None:
        """Nothing: the second sums do not depend on the parameters."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Parameters by name."""
        return {name: getattr(self, name) for name in self._names()}

    @classmethod
    def from_state(cls: type[Family], state: dict[str, Tensor]) -> Family:
        """The inverse of :meth:`state`."""
        return cls(**{name: state[name] for name in cls._names()})

    def select(self: Family, index: Int[Tensor, " J"]) -> Family:
        """The parameters of some components."""
        return type(self)(**{name: value[index] for name, value in self.state().items()})

    @classmethod
    def join(cls: type[Family], parts: list[Any], weight: Float[Tensor, " P"]) -> Family:
        """The parameters of several mixtures, one after another."""
        states = [part.state() for part in parts]
        return cls(**{name: torch.cat([state[name] for state in states]) for name in states[0]})


def lost_digits(raw: Tensor, recentered: Tensor) -> bool:
    """True when a difference of sums is a few thousandths of the sums: float32 would keep less than four digits."""
    return bool(((recentered < 2e-3 * raw) & (raw > 0)).any())


def normal(like: Tensor, shape: tuple[int, int], generator: torch.Generator | None) -> Float[Tensor, "N D"]:
    """Standard normal noise of the kind of ``like``."""
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
