"""Spherical covariance: one variance per component."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.protocol import LOG_2PI, Floor, Operands, Prior, TensorRecord, normal, with_spread
from mixtura.core.moments import FactorPosterior, Moments


@final
@dataclass(frozen=True)
class Spherical(TensorRecord):
    r""":math:`\Sigma_k = v_k I`; one matrix product of width D scores all components.

    .. math::
        \log N_k(x) = x^\top \frac{\mu_k}{v_k} - \frac{\|x\|^2}{2 v_k}
            - \frac12 \left[ \frac{\|\mu_k\|^2}{v_k} + D \log(2\pi v_k) \right]
    """

    variance: Float[Tensor, " K"]
    log_variance: Float[Tensor, " K"] | None = field(default=None, repr=False)
    name: ClassVar[str] = "spherical"
    round: ClassVar[bool] = True

    @property
    def n_parameters(self) -> int:
        """One variance per component."""
        return self.variance.numel()

    def log_peak(self, dimension: int) -> Float[Tensor, " K"]:
        """Peak log-densities; all D log-variances are equal."""
        log_variance = self.variance.log() if self.log_variance is None else self.log_variance
        return -0.5 * dimension * (LOG_2PI + log_variance)

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Constants, the D x K matrix and the factors of the squared norms."""
        precision = self.variance.reciprocal()
        outer = -0.5 * precision
        constant = torch.addcmul(self.log_peak(mean.shape[1]), mean.square().sum(1), outer)
        return constant, (mean * precision[:, None]).T, outer

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One matrix product with the samples and one outer product with their squared norms."""
        constant, matrix, outer = operands
        return torch.addcmul(torch.addmm(constant, x, matrix), linalg.squared_norms(x)[:, None], outer)

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Same as :meth:`score`, with the outer product added in place."""
        constant, matrix, outer = operands
        return torch.addmm(constant, x, matrix).addr_(linalg.squared_norms(x), outer)

    @staticmethod
    def second(
        shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None
    ) -> Float[Tensor, " K"]:
        """Weighted squared norms."""
        return (resp.T @ shifted.square().sum(1)).double()

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Float[Tensor, " K"]:
        """Weighted squared norms of each label."""
        norms = (shifted * scaled).sum(1, dtype=torch.float64)
        return torch.zeros(n_components, dtype=torch.float64, device=norms.device).index_add_(0, labels, norms)

    @staticmethod
    def recenter(
        second: Float[Tensor, " K"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Float[Tensor, " K"]:
        """Squared norms after shifting the reference points by ``delta``."""
        return (second - 2 * (delta * first).sum(1) + weight * delta.square().sum(1)).clamp_min(0)

    @staticmethod
    def truncate(second: Float[Tensor, " K"], width: int) -> None:
        """``None``: one number covers all features."""

    @staticmethod
    def variances(second: Float[Tensor, " K"]) -> Float[Tensor, "K 1"]:
        """Sum of squares over all features."""
        return second[:, None]

    @classmethod
    def estimate(cls, moments: Moments, floor: Floor, prior: Prior) -> "Spherical":
        """Average squared deviation over samples and dimensions."""
        centered = moments.centered()
        dimension = moments.ref.shape[1]
        pooled = centered.second.sum() / centered.weight.sum()
        added = floor.mean() if isinstance(floor, Tensor) else floor
        return cls(with_spread(prior.blend(centered.second, centered.weight, pooled) / dimension + added))

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "Spherical":
        """Unit variances."""
        return cls(torch.ones(n_components))

    def unconstrained(self) -> dict[str, Tensor]:
        """Log-variances."""
        return {"log_variance": self.variance.log()}

    @classmethod
    def constrained(cls, free: Any) -> "Spherical":
        """Exponentials of the log-variances."""
        return cls(free["log_variance"].exp(), free["log_variance"])

    def scaled(self, factor: Float[Tensor, "*D"]) -> "Spherical":
        """Variances times the squared factor."""
        return type(self)(self.variance * factor.square())

    def shrunk(self, prior: Prior) -> "Spherical":
        """The same: it is a multiple of the identity."""
        return self

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Divide by the variances."""
        return mean / self.variance[:, None]

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Noise times the standard deviation of its component."""
        return normal(self.variance, (len(index), dimension), generator) * self.variance.sqrt()[index, None]

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Spherical":
        """The average variance within and between components."""
        return type(self)((share * (self.variance + deviation.square().mean(1))).sum()[None])

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """Scaled identities."""
        return torch.diag_embed(self.variance[:, None].expand(n_components, dimension))
