"""One variance a component and dimension."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance.protocol import LOG_2PI, Operands, Prior, TensorRecord, lost_digits, normal
from mixtura.core.moments import Lens, Moments, by_label


@final
@dataclass(frozen=True)
class Diagonal(TensorRecord):
    r""":math:`\Sigma_k = \operatorname{diag}(v_k)`; two matrix products of width D score all components.

    .. math::
        \log N_k(x) = x^\top \frac{\mu_k}{v_k} - \tfrac12 (x^2)^\top \frac{1}{v_k}
            - \tfrac12 \sum_d \left[ \frac{\mu_{kd}^2}{v_{kd}} + \log(2\pi v_{kd}) \right]
    """

    variance: Float[Tensor, "K D"]
    name: ClassVar[str] = "diagonal"

    @property
    def n_parameters(self) -> int:
        """One number a component and dimension."""
        return self.variance.numel()

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Center, constants and two D x K matrices, for the rows and for their squares."""
        center = mean.detach().mean(0)
        shifted = mean - center
        precision = self.variance.reciprocal()
        scaled = shifted * precision
        constant = -0.5 * ((shifted * scaled).sum(1) + self.variance.log().sum(1) + mean.shape[1] * LOG_2PI)
        return center, constant, scaled.T, (-0.5 * precision).T

    @staticmethod
    def apply(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One product of the rows, and one of their squares."""
        center, constant, linear, quadratic = operands
        return diagonal_scores(x - center, constant, linear, quadratic)

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], lens: Lens | None) -> Float[Tensor, "K D"]:
        """Weighted squares."""
        return (resp.T @ shifted.square()).double()

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        lens: Lens | None,
    ) -> Float[Tensor, "K D"]:
        """Weighted squares of each label."""
        return by_label(shifted * scaled, labels, n_components)

    @staticmethod
    def recenter(
        second: Float[Tensor, "K D"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        lens: Lens | None,
    ) -> Float[Tensor, "K D"]:
        """Squares about points that lie ``delta`` further."""
        return (second - 2 * delta * first + weight[:, None] * delta.square()).clamp_min(0)

    @staticmethod
    def narrow(second: Float[Tensor, "K D"], width: int) -> Float[Tensor, "K W"]:
        """The first columns."""
        return second[:, :width]

    cancels = staticmethod(lost_digits)

    @classmethod
    def estimate(cls, moments: Moments, floor: float, prior: Prior) -> "Diagonal":
        """Average squared deviation in each dimension."""
        centered = moments.centered()
        pooled = centered.second.sum(0) / centered.weight.sum()
        return cls(prior.shrink(prior.blend(centered.second, centered.weight, pooled)) + floor)

    def draw(self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None) -> Float[Tensor, "N D"]:
        """Noise times the deviations of its component."""
        return normal(self.variance, (len(index), dimension), generator) * self.variance.sqrt()[index]

    def collapse(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Diagonal":
        """Variances within and between components."""
        return type(self)((share[:, None] * (self.variance + deviation.square())).sum(0, keepdim=True))

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """Diagonal matrices."""
        return torch.diag_embed(self.variance)


def diagonal_scores(
    shifted: Float[Tensor, "N D"],
    constant: Float[Tensor, " K"],
    linear: Float[Tensor, "D K"],
    quadratic: Float[Tensor, "D K"],
) -> Float[Tensor, "N K"]:
    """Constants, plus the rows times one matrix, plus their squares times another."""
    return torch.addmm(constant, shifted, linear).addmm_(shifted.square(), quadratic)
