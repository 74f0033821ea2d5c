"""The protocol of covariance families, the shrinkage prior, and the base class that families share."""

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.moments import FactorPosterior, Moments, Sums, class_means, hard, hard_some
from mixtura.errors import CollapsedComponent, UsageError

LOG_2PI = math.log(2 * math.pi)
Operands = tuple[Tensor, ...]


@dataclass(frozen=True)
class Prior:
    r"""Shrinkage of every covariance; keeps it positive definite with few samples.

    .. math::
        \Sigma_k = (1 - \gamma) B_k + \gamma \frac1D \sum_d \frac{(B_k)_{dd}}{s_d^2} \operatorname{diag}(s^2),
        \qquad B_k = \frac{S_k + n_0 \bar\Sigma}{w_k + n_0}

    Args:
        strength: :math:`n_0`, the number of pseudo-observations of the covariance pooled over all components.
        identity: :math:`\gamma`, the share of the scaled identity, in [0, 1].
        scale: s, the feature units of the scaled identity; ``None`` for unscaled features. A spherical covariance
            has one unit for all features and ignores it.
        dimension: D, the number of dimensions to average over; ``None`` for that of the samples. It is larger where
            samples are shown in coordinates of the space that they span.

    Raises:
        UsageError: a negative strength or a share outside [0, 1].

    Source: Friedman, Regularized Discriminant Analysis, JASA 1989, with counts in place of shares.
    """

    strength: float = 0.0
    identity: float = 0.0
    scale: Float[Tensor, " D"] | None = field(default=None, compare=False)
    dimension: int | None = None

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
        """Covariances from centered sums, shrunk toward ``pooled``; a component without samples equals ``pooled``."""
        shape = (-1,) + (1,) * (second.ndim - 1)
        total = (weight + self.strength).reshape(shape)
        blended = (second + self.strength * pooled) / torch.where(total > 0, total, 1.0)
        return torch.where(total > 0, blended, pooled.expand_as(second))

    def target(self, variance: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Diagonal of the scaled identity, the shrinkage target: equal variances in units of ``scale``."""
        squares = torch.ones_like(variance) if self.scale is None else self.scale.to(variance).square()
        return (variance / squares).sum(-1, keepdim=True) / self.averaged_over(variance.shape[-1]) * squares

    def averaged_over(self, width: int) -> int:
        """The number of dimensions that the identity's variance is averaged over, for samples of ``width`` features."""
        return self.dimension or width

    def shrink(self, variance: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Shrink variances toward the scaled identity."""
        if self.identity == 0:
            return variance
        return (1 - self.identity) * variance + self.identity * self.target(variance)

    def shrink_dense(self, matrix: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
        """Shrink covariance matrices, each toward its own scaled identity."""
        if self.identity == 0:
            return matrix
        target = self.target(matrix.diagonal(dim1=-2, dim2=-1))
        shrunk = (1 - self.identity) * matrix
        shrunk.diagonal(dim1=-2, dim2=-1).add_(self.identity * target)
        return shrunk


NO_PRIOR = Prior()

Floor = float | Float[Tensor, " D"]
"""A variance added to every dimension, in squared units of x: one number, or one per dimension."""


class Covariance(Sums, Protocol):
    """The covariances of K components in one parametrization.

    A family is a frozen dataclass of tensors. It writes log-densities as matrix products with ``operands`` that
    depend only on the parameters, so a mixture prepares them once and scores any number of mini-batches.

    ``shared``: all components have one covariance. ``round``: each covariance is a multiple of the identity.
    ``sums_depend_on_parameters``: the second sums of an EM step depend on the previous covariance.
    """

    name: ClassVar[str]
    shared: ClassVar[bool]
    round: ClassVar[bool]
    sums_depend_on_parameters: ClassVar[bool]

    @property
    def n_parameters(self) -> int:
        """Number of free parameters, for BIC."""
        ...

    def log_peak(self, dimension: int) -> Float[Tensor, " J"]:
        r"""Log-density at a component's own mean, :math:`-\tfrac12(\log|\Sigma_k| + D \log 2\pi)`, in nats."""
        ...

    @property
    def taken_off(self) -> Float[Tensor, "*J"]:
        """Squared distance that cancels within :meth:`score` for a component's outer samples."""
        ...

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Constants (K) and matrices for :meth:`score`; needs no inverse of a D x D matrix.

        Scores expand squares about zero, so subtract a common center from means and samples first.
        """
        ...

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Log-densities in nats plus any added constants; supports autograd, vmap, export and compile."""
        ...

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Same as :meth:`score` without a gradient, in cache-sized tiles where that is faster."""
        ...

    def factor_posterior(self) -> FactorPosterior | None:
        """The factor posterior for the next step's second sums; ``None`` if they do not depend on parameters."""
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
        """Initial covariance for EM, from principal directions; only for families with parameter-dependent sums."""
        ...

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "Covariance":
        """Unit variances, to initialize a head without samples; every parameter has a nonzero gradient."""
        ...

    def unconstrained(self) -> dict[str, Tensor]:
        """Unconstrained parameters; any real values give a valid covariance."""
        ...

    @classmethod
    def constrained(cls, free: Any) -> "Covariance":
        """Covariance from a dict or ``nn.ParameterDict`` of :meth:`unconstrained` parameters; differentiable."""
        ...

    @classmethod
    def free_operands(cls, free: Any, mean: Float[Tensor, "K D"]) -> Operands:
        """Operands of ``constrained(free)``, without computing what scores do not need; differentiable."""
        ...

    def scaled(self, factor: Float[Tensor, "*D"]) -> "Covariance":
        """Covariance of ``factor * x``; one factor, or one per feature unless the family is round."""
        ...

    def shrunk(self, prior: Prior) -> "Covariance":
        """Covariance shrunk toward the scaled identity of the prior; its strength is not used."""
        ...

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Precision of each component times its vector; for means, the gradient of the log-density at zero."""
        ...

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Random deviations from the mean, one per component index in ``index``."""
        ...

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Covariance":
        """Overall covariance, from each component's share and its mean's deviation from the overall mean."""
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
        """Covariances of P new components, from their M nearest components and a few samples of their own."""
        ...

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """Dense covariance matrices, for tests and reports."""
        ...

    def select(self, index: Int[Tensor, " J"]) -> "Covariance":
        """Covariance of the components at ``index``."""
        ...

    @classmethod
    def join(cls, parts: list[Any], weight: Float[Tensor, " P"]) -> "Covariance":
        """Concatenated covariance of several mixtures; a shared matrix is averaged with ``weight``."""
        ...

    def to(self, target: torch.dtype | torch.device | str) -> "Covariance":
        """The same covariance with another dtype or on another device."""
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
    """Base of the families: a dataclass of tensors with the methods that most families share.

    A field with a default is not a parameter. It caches a value known from the unconstrained parameters, such as a
    logarithm, so training does not compute the logarithm of an exponential.
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
        """Zero: nothing cancels."""
        return torch.zeros(())  # a scalar combines with tensors on any device

    @classmethod
    def free_operands(cls, free: Any, mean: Float[Tensor, "K D"]) -> Operands:
        """Operands of the constrained covariance."""
        own: Any = cls
        return own.constrained(free).operands(mean)

    def factor_posterior(self) -> FactorPosterior | None:
        """``None``: the second sums do not depend on the parameters."""
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
        """Always raises ``TypeError``: a family with a closed form needs no initialization."""
        raise TypeError(f"{cls.__name__} is fitted in closed form and needs no start.")

    @staticmethod
    def reference(
        x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int, weight: Float[Tensor, " N"] | None
    ) -> Float[Tensor, "K D"]:
        """The component means."""
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
        """Moments of labeled samples about ``ref``."""
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
        """Estimate from each new component's own samples plus its neighbors' average as ``strength`` pseudo-samples."""
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
        """The same parameters with another dtype or on another device."""
        return type(self)(**{name: value.to(target) for name, value in self.state().items()})

    def select(self: Family, index: Int[Tensor, " J"]) -> Family:
        """Parameters of the components at ``index``."""
        return type(self)(**{name: value[index] for name, value in self.state().items()})

    @classmethod
    def join(cls: type[Family], parts: list[Any], weight: Float[Tensor, " P"]) -> Family:
        """Concatenated parameters of several mixtures."""
        states = [part.state() for part in parts]
        return cls(**{name: torch.cat([state[name] for state in states]) for name in states[0]})


def with_spread(variance: Float[Tensor, "K *S"]) -> Float[Tensor, "K *S"]:
    """The variances of K components, if all are positive.

    Raises:
        CollapsedComponent: a component has no spread; the message names it and the feature.
    """
    flat = ~(variance.detach() > 0)
    if bool(flat.any()):
        component, *feature = (int(place) for place in flat.nonzero()[0])
        place = f" in feature {feature[0]}" if feature else ""
        raise CollapsedComponent(
            f"Component {component} has no spread{place}: its points are equal there.",
            "Use a larger floor, a prior with more strength, or fewer components.",
        )
    return variance


def normal(like: Tensor, shape: tuple[int, int], generator: torch.Generator | None) -> Float[Tensor, "N D"]:
    """Standard normal noise with the dtype and device of ``like``."""
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
