"""What a covariance family must be able to do."""

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.moments import FactorPosterior, Moments, Sums, class_means, hard, hard_some
from mixtura.errors import UsageError

LOG_2PI = math.log(2 * math.pi)
Operands = tuple[Tensor, ...]


@dataclass(frozen=True)
class Prior:
    r"""Shrinkage of every covariance, which keeps it positive definite when points are few.

    .. math::
        \Sigma_k = (1 - \gamma) B_k + \gamma \frac1D \sum_d \frac{(B_k)_{dd}}{s_d^2} \operatorname{diag}(s^2),
        \qquad B_k = \frac{S_k + n_0 \bar\Sigma}{w_k + n_0}

    Args:
        strength: :math:`n_0`, a number of pseudo-observations of the covariance pooled over all components.
        identity: :math:`\gamma`, the share of the scaled identity, in [0, 1].
        scale: s, the length of each feature in units of which the identity is meant; ``None`` for features as they
            are. A spherical covariance has one unit for all features and ignores it.

    Raises:
        UsageError: a negative strength or a share outside [0, 1].

    Source: Friedman, Regularized Discriminant Analysis, JASA 1989, with counts in place of shares.
    """

    strength: float = 0.0
    identity: float = 0.0
    scale: Float[Tensor, " D"] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
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

    def target(self, variance: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """The diagonal of the scaled identity that variances are pulled towards: equal in units of ``scale``."""
        if self.scale is None:
            return variance.mean(-1, keepdim=True).expand_as(variance)
        squares = self.scale.to(variance).square()
        return (variance / squares).mean(-1, keepdim=True) * squares

    def shrink(self, variance: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Pull variances towards the scaled identity."""
        if self.identity == 0:
            return variance
        return (1 - self.identity) * variance + self.identity * self.target(variance)

    def shrink_dense(self, matrix: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
        """Pull covariance matrices towards their own scaled identity."""
        if self.identity == 0:
            return matrix
        target = self.target(matrix.diagonal(dim1=-2, dim2=-1))
        shrunk = (1 - self.identity) * matrix
        shrunk.diagonal(dim1=-2, dim2=-1).add_(self.identity * target)
        return shrunk


NO_PRIOR = Prior()

Floor = float | Float[Tensor, " D"]
"""A variance that is added to every dimension, in squared units of x: one for all, or one for each."""


class Covariance(Sums, Protocol):
    """The covariances of K components in one parametrization.

    A family is a frozen dataclass of tensors. It writes log-densities as matrix products over ``operands`` that
    depend on the parameters only, so a mixture prepares them once and scores any number of batches.

    ``shared`` says that all components have one covariance; ``round``, that it is its own scaled identity;
    ``sums_depend_on_parameters``, that second sums are taken through the covariance of the step before.
    """

    name: ClassVar[str]
    shared: ClassVar[bool]
    round: ClassVar[bool]
    sums_depend_on_parameters: ClassVar[bool]

    @property
    def n_parameters(self) -> int:
        """Free numbers, for BIC."""
        ...

    def log_peak(self, dimension: int) -> Float[Tensor, " J"]:
        r"""Log-density at a component's own mean, :math:`-\tfrac12(\log|\Sigma_k| + D \log 2\pi)`, in nats."""
        ...

    @property
    def taken_off(self) -> Float[Tensor, "*J"]:
        """Squared distance that :meth:`score` adds for the outer rows of a component and takes off again."""
        ...

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Constants (K) and matrices that :meth:`score` multiplies with; no inverse of a D x D matrix.

        Squares are expanded about zero, so means and rows are to be taken about a point near them all first.
        """
        ...

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Log-densities in nats, up to what the constants carry; can be differentiated, mapped, exported, compiled."""
        ...

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """The same without a gradient, in tiles that stay in cache where that pays."""
        ...

    def factor_posterior(self) -> FactorPosterior | None:
        """What the second sums of the next step depend on, if anything."""
        ...

    @classmethod
    def principal(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        mean: Float[Tensor, "K D"],
        rank: int,
        weight: Float[Tensor, " N"] | None = None,
    ) -> "Covariance":
        """Where a family whose sums depend on its parameters starts; no other family has a use for it."""
        ...

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "Covariance":
        """Unit variances, where the training of a head without rows begins; every parameter has a gradient."""
        ...

    def unconstrained(self) -> dict[str, Tensor]:
        """Free parameters: any values of theirs make a covariance."""
        ...

    @classmethod
    def constrained(cls, free: Any) -> "Covariance":
        """The inverse of :meth:`unconstrained`, with a gradient; takes a dict or an ``nn.ParameterDict``."""
        ...

    @classmethod
    def free_operands(cls, free: Any, mean: Float[Tensor, "K D"]) -> Operands:
        """The operands of ``constrained(free)``, with a gradient, and with no more work than they need."""
        ...

    def scaled(self, factor: Float[Tensor, "*D"]) -> "Covariance":
        """The covariance of x times a factor: one for all features, or one for each unless the family is round."""
        ...

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """The precision of each component times a vector: the gradient of its log-density at zero for its mean."""
        ...

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Random deviations from the mean, one for each entry of ``index``, a component number."""
        ...

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Covariance":
        """One covariance of all components, each with its share and its mean's deviation from the overall mean."""
        ...

    def borrowed(
        self,
        moments: Moments,
        near: Int[Tensor, "P M"],
        own: tuple[Float[Tensor, "N D"], Int[Tensor, " N"], Float[Tensor, "P D"]],
        floor: Floor,
        prior: Prior,
        strength: float,
    ) -> "Covariance":
        """Covariances of P new components from those of the M nearest ones and a few rows of their own."""
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

    def to(self, target: torch.dtype | torch.device | str) -> "Covariance":
        """The same covariance in another precision or on another device."""
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
    """Shared by the families: a dataclass whose fields are all tensors, and what most of them do alike.

    A field with a default is no parameter: it holds what free parameters say of one already, such as a logarithm, so
    that a step of training need not take it of an exponential.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    shared: ClassVar[bool] = False
    round: ClassVar[bool] = False
    sums_depend_on_parameters: ClassVar[bool] = False

    @classmethod
    def _names(cls) -> list[str]:
        return [item.name for item in fields(cls) if item.default is MISSING]

    @property
    def taken_off(self) -> Float[Tensor, ""]:
        """Nothing."""
        return torch.zeros(())  # goes with tensors of any device

    @classmethod
    def free_operands(cls, free: Any, mean: Float[Tensor, "K D"]) -> Operands:
        """By way of the covariance."""
        own: Any = cls
        return own.constrained(free).operands(mean)

    def factor_posterior(self) -> FactorPosterior | None:
        """Nothing: the second sums do not depend on the parameters."""
        return None

    @classmethod
    def principal(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        mean: Float[Tensor, "K D"],
        rank: int,
        weight: Float[Tensor, " N"] | None = None,
    ) -> Any:
        """Refused: the closed form needs no start."""
        raise TypeError(f"{cls.__name__} is fitted in closed form and needs no start.")

    @staticmethod
    def reference(
        x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int, weight: Float[Tensor, " N"] | None
    ) -> Float[Tensor, "K D"]:
        """The means of the components."""
        return class_means(x, labels, n_components, weight)

    @classmethod
    def labeled(
        cls: Any,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        ref: Float[Tensor, "K D"],
        weight: Float[Tensor, " N"] | None,
        row: Int[Tensor, " M"] | None,
    ) -> Moments:
        """Sums of rows about the means of their components."""
        return hard_some(cls, x, labels, ref, weight, row)

    def borrowed(
        self: Any,
        moments: Moments,
        near: Int[Tensor, "P M"],
        own: tuple[Float[Tensor, "N D"], Int[Tensor, " N"], Float[Tensor, "P D"]],
        floor: Floor,
        prior: Prior,
        strength: float,
    ) -> Any:
        """The nearest components' average scatter counts for ``strength`` rows beside the scatter of the own rows."""
        kind = cast("type[Covariance]", type(self))  # pyright: ignore[reportUnknownArgumentType]
        rows, labels, mean = own
        centered = moments.centered()
        shape = (-1,) + (1,) * (centered.second.ndim - 1)
        scatter = centered.second / centered.weight.clamp_min(1e-12).reshape(shape)
        sums = hard(kind, rows, labels, mean)
        second = sums.second + strength * scatter[near].mean(1)
        return kind.estimate(
            Moments(kind, mean, sums.weight + strength, sums.first, second), floor, replace(prior, strength=0.0)
        )

    def state(self) -> dict[str, Tensor]:
        """Parameters by name."""
        return {name: getattr(self, name) for name in self._names()}

    @classmethod
    def from_state(cls: type[Family], state: dict[str, Tensor]) -> Family:
        """The inverse of :meth:`state`."""
        return cls(**{name: state[name] for name in cls._names()})

    def to(self: Family, target: torch.dtype | torch.device | str) -> Family:
        """The same parameters in another precision or on another device."""
        return type(self)(**{name: value.to(target) for name, value in self.state().items()})

    def select(self: Family, index: Int[Tensor, " J"]) -> Family:
        """The parameters of some components."""
        return type(self)(**{name: value[index] for name, value in self.state().items()})

    @classmethod
    def join(cls: type[Family], parts: list[Any], weight: Float[Tensor, " P"]) -> Family:
        """The parameters of several mixtures, one after another."""
        states = [part.state() for part in parts]
        return cls(**{name: torch.cat([state[name] for state in states]) for name in states[0]})


def normal(like: Tensor, shape: tuple[int, int], generator: torch.Generator | None) -> Float[Tensor, "N D"]:
    """Standard normal noise of the kind of ``like``."""
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
