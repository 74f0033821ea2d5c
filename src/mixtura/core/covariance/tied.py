"""One full matrix for all components."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.protocol import LOG_2PI, Operands, Prior, TensorRecord, lost_digits, normal
from mixtura.core.moments import Lens, Moments

ROWS = 512  # summed in the precision of the rows, before float64 takes over
ROUNDING = 32  # times eps (8 + sqrt D): above what such sums lose on rows along one line, at D = 4 to 1280


@final
@dataclass(frozen=True)
class Tied(TensorRecord):
    r""":math:`\Sigma_k = L L^\top` for every k: whiten once, then every component is a unit sphere.

    .. math:: \log N_k(x) = z^\top m_k - \tfrac12\|z\|^2 - \tfrac12\|m_k\|^2 - \log|L| - \tfrac D2 \log 2\pi,
        \qquad z = L^{-1} x, \; m_k = L^{-1}\mu_k

    With one component a class this is linear discriminant analysis.
    """

    scale_tril: Float[Tensor, "1 D D"]
    name: ClassVar[str] = "tied"

    @property
    def n_parameters(self) -> int:
        """A triangle, once."""
        dimension = self.scale_tril.shape[-1]
        return dimension * (dimension + 1) // 2

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Center, constants, the whitening matrix and the whitened means."""
        center = mean.detach().mean(0)
        whiten = linalg.inverse_tril(self.scale_tril[0]).to(mean.dtype).T
        means = (mean - center) @ whiten
        log_det = linalg.log_det_tril(self.scale_tril[0])
        constant = -0.5 * (means.square().sum(1) + log_det + mean.shape[1] * LOG_2PI)
        return center, constant, whiten, means.T

    @staticmethod
    def apply(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Two products: whiten the rows, then meet the means."""
        center, constant, whiten, means = operands
        white = (x - center) @ whiten
        return torch.addmm(constant, white, means).sub_(0.5 * linalg.squared_norms(white)[:, None])

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], lens: Lens | None) -> Float[Tensor, "1 D D"]:
        """One scatter matrix over all components."""
        return scatter(shifted * resp.sum(1, keepdim=True), shifted)[None]

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        lens: Lens | None,
    ) -> Float[Tensor, "1 D D"]:
        """One scatter matrix of the deviations from each row's own point."""
        return scatter(scaled, shifted)[None]

    @staticmethod
    def recenter(
        second: Float[Tensor, "1 D D"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        lens: Lens | None,
    ) -> Float[Tensor, "1 D D"]:
        """The scatter about points that lie ``delta`` further."""
        cross = delta.T @ (first - 0.5 * weight[:, None] * delta)
        return second - (cross + cross.T)

    @staticmethod
    def narrow(second: Float[Tensor, "1 D D"], width: int) -> Float[Tensor, "1 W W"]:
        """The leading block."""
        return second[:, :width, :width]

    @staticmethod
    def cancels(raw: Float[Tensor, "1 D D"], recentered: Float[Tensor, "1 D D"]) -> bool:
        """Judged on the variances."""
        return lost_digits(raw.diagonal(dim1=1, dim2=2), recentered.diagonal(dim1=1, dim2=2))

    @classmethod
    def estimate(cls, moments: Moments, floor: float, prior: Prior) -> "Tied":
        """The pooled scatter over the total weight."""
        centered = moments.centered()
        pooled = prior.shrink_dense(centered.second / centered.weight.sum())
        return cls(linalg.cholesky(with_floor(pooled, floor)))

    def draw(self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None) -> Float[Tensor, "N D"]:
        """Noise through the shared factor."""
        return normal(self.scale_tril, (len(index), dimension), generator) @ self.scale_tril[0].T

    def collapse(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Tied":
        """The shared matrix, and the scatter of the means."""
        within = linalg.gram_tril(self.scale_tril[0].double())
        between = (share[:, None] * deviation).double().T @ deviation.double()
        return type(self)(linalg.cholesky(within + between)[None].to(self.scale_tril.dtype))

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """The shared matrix, once a component."""
        return linalg.gram_tril(self.scale_tril).expand(n_components, -1, -1)

    def select(self, index: Int[Tensor, " J"]) -> "Tied":
        """The shared matrix belongs to any choice of components."""
        return self

    @classmethod
    def join(cls, parts: "list[Tied]", weight: Float[Tensor, " P"]) -> "Tied":
        """The average of the shared matrices by ``weight``."""
        if all(part is parts[0] for part in parts):
            return parts[0]
        share = (weight / weight.sum()).double()
        dense = torch.stack([linalg.gram_tril(p.scale_tril)[0].double() for p in parts])
        return cls(linalg.cholesky((share[:, None, None] * dense).sum(0, keepdim=True)))


def scatter(scaled: Float[Tensor, "N D"], shifted: Float[Tensor, "N D"]) -> Float[Tensor, "D D"]:
    """``scaled.T @ shifted``: products in the precision of the rows, summed in float64 over tiles."""
    total = torch.zeros(shifted.shape[1], shifted.shape[1], dtype=torch.float64, device=shifted.device)
    for left, right in zip(torch.split(scaled, ROWS), torch.split(shifted, ROWS), strict=True):
        total += (left.T @ right).double()
    return rounded_up(total, shifted.dtype)


def rounded_up(scatter: Float[Tensor, "D D"], dtype: torch.dtype) -> Float[Tensor, "D D"]:
    """The scatter with its diagonal raised, in place, by what products in ``dtype`` may have lost.

    Rows that span fewer than D dimensions then keep a scatter without negative eigenvalues; in float32 it costs
    variances a share of 4e-5 (D = 8) to 1.7e-4 (D = 1280).
    """
    if dtype != torch.float64:
        scatter.diagonal().mul_(1 + ROUNDING * torch.finfo(dtype).eps * (8 + len(scatter) ** 0.5))
    return scatter


def with_floor(matrix: Float[Tensor, "*K D D"], floor: float) -> Float[Tensor, "*K D D"]:
    """Covariance matrices with ``floor``, in squared units of x, added to every variance."""
    raised = matrix.clone()
    raised.diagonal(dim1=-2, dim2=-1).add_(floor)
    return raised
