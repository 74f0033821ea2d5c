"""Diagonal covariance: one variance per component and dimension."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import LOG_2PI, Floor, Operands, Prior, TensorRecord, normal, with_spread
from mixtura.core.moments import FactorPosterior, Moments, by_label


@final
@dataclass(frozen=True)
class Diagonal(TensorRecord):
    r""":math:`\Sigma_k = \operatorname{diag}(v_k)`; two matrix products of width D score all components.

    .. math::
        \log N_k(x) = x^\top \frac{\mu_k}{v_k} - \tfrac12 (x^2)^\top \frac{1}{v_k}
            - \tfrac12 \sum_d \left[ \frac{\mu_{kd}^2}{v_{kd}} + \log(2\pi v_{kd}) \right]
    """

    variance: Float[Tensor, "K D"]
    log_variance: Float[Tensor, "K D"] | None = field(default=None, repr=False)
    name: ClassVar[str] = "diagonal"

    @property
    def n_parameters(self) -> int:
        """One variance per component and dimension."""
        return self.variance.numel()

    def log_peak(self, dimension: int) -> Float[Tensor, " K"]:
        """Peak log-densities, from the sum of the log-variances."""
        return _log_peak(self.variance.log() if self.log_variance is None else self.log_variance)

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Constants and two D x K matrices, for the samples and for their squares."""
        return _operands(mean, self.variance.reciprocal(), self.log_peak(mean.shape[1]))

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One matrix product with the samples and one with their squares."""
        return diagonal_scores(x, *operands)

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Same as :meth:`score`, with the second product added in place."""
        return diagonal_scores_(x, *operands)

    @staticmethod
    def second(
        shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None
    ) -> Float[Tensor, "K D"]:
        """Weighted sums of squares about the reference points."""
        return (resp.T @ shifted.square()).double()

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "K D"]:
        """The same for samples that each belong to one component."""
        return by_label(shifted * scaled, labels, n_components)

    @staticmethod
    def recenter(
        second: Float[Tensor, "K D"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "K D"]:
        """Squares after shifting the reference points by ``delta``."""
        return (second - 2 * delta * first + weight[:, None] * delta.square()).clamp_min(0)

    @staticmethod
    def truncate(second: Float[Tensor, "K D"], width: int) -> Float[Tensor, "K W"]:
        """The sums of the first features."""
        return second[:, :width]

    @staticmethod
    def variances(second: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Sums of squares by feature, which here are the sums themselves."""
        return second

    @classmethod
    def estimate(cls, moments: Moments, floor: Floor, prior: Prior) -> "Diagonal":
        """Average squared deviation in each dimension."""
        centered = moments.centered()
        pooled = centered.second.sum(0) / centered.weight.sum()
        return cls(with_spread(prior.shrink(prior.blend(centered.second, centered.weight, pooled)) + floor))

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "Diagonal":
        """Unit variances."""
        return cls(torch.ones(n_components, dimension))

    def unconstrained(self) -> dict[str, Tensor]:
        """Log-variances."""
        return {"log_variance": self.variance.log()}

    @classmethod
    def constrained(cls, free: Any) -> "Diagonal":
        """Exponentials of the log-variances."""
        return cls(free["log_variance"].exp(), free["log_variance"])

    @classmethod
    def free_operands(cls, free: Any, mean: Float[Tensor, "K D"]) -> Operands:
        """Operands without the variances, which scores do not need; saves K x D numbers per training step."""
        log_variance = free["log_variance"]
        return _operands(mean, (-log_variance).exp(), _log_peak(log_variance))

    def scaled(self, factor: Float[Tensor, "*D"]) -> "Diagonal":
        """Variances times the squared factor."""
        return type(self)(self.variance * factor.square())

    def shrunk(self, prior: Prior) -> "Diagonal":
        """Variances shrunk toward their average."""
        return type(self)(prior.shrink(self.variance))

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Divide by the variances."""
        return mean / self.variance

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Noise times the standard deviations of its component."""
        return normal(self.variance, (len(index), dimension), generator) * self.variance.sqrt()[index]

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Diagonal":
        """Variances within and between components."""
        return type(self)((share[:, None] * (self.variance + deviation.square())).sum(0, keepdim=True))

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """Diagonal matrices."""
        return torch.diag_embed(self.variance)


def _log_peak(log_variance: Float[Tensor, "K D"]) -> Float[Tensor, " K"]:
    return -0.5 * (log_variance.sum(1) + log_variance.shape[1] * LOG_2PI)


def _operands(
    mean: Float[Tensor, "K D"], precision: Float[Tensor, "K D"], log_peak: Float[Tensor, " K"]
) -> tuple[Float[Tensor, " K"], Float[Tensor, "D K"], Float[Tensor, "D K"]]:
    scaled = mean * precision
    return torch.sub(log_peak, (mean * scaled).sum(1), alpha=0.5), scaled.T, precision.T


def diagonal_scores(
    x: Float[Tensor, "N D"],
    constant: Float[Tensor, " K"],
    linear: Float[Tensor, "D K"],
    precision: Float[Tensor, "D K"],
) -> Float[Tensor, "N K"]:
    """Constants plus ``x @ linear`` minus half of ``x**2 @ precision``."""
    return torch.addmm(torch.addmm(constant, x, linear), -0.5 * x.square(), precision)


def diagonal_scores_(
    x: Float[Tensor, "N D"],
    constant: Float[Tensor, " K"],
    linear: Float[Tensor, "D K"],
    precision: Float[Tensor, "D K"],
    out: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """Same as :func:`diagonal_scores`, in place and without a gradient; writes to ``out`` if given."""
    return torch.addmm(constant, x, linear, out=out).addmm_(x.square(), precision, alpha=-0.5)
