"""Full covariance: one matrix per component."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.protocol import LOG_2PI, Floor, Operands, Prior, TensorRecord, normal
from mixtura.core.covariance.tied import scatter, with_floor
from mixtura.core.moments import FactorPosterior, Moments, present

TILE_ROWS = 2048  # samples scored per tile; a tile and one D x D matrix fit in cache


@final
@dataclass(frozen=True)
class Full(TensorRecord):
    r""":math:`\Sigma_k^{-1} = W_k^\top W_k`, W lower triangular.

    .. math:: \log N_k(x) = -\tfrac12 \|W_k(x - \mu_k)\|^2 + \log|W_k| - \tfrac D2 \log 2\pi

    With one component per class, this is quadratic discriminant analysis.
    """

    precision_tril: Float[Tensor, "K D D"]
    log_diagonal: Float[Tensor, "K D"] | None = field(default=None, repr=False)
    name: ClassVar[str] = "full"

    @property
    def n_parameters(self) -> int:
        """One triangle per component."""
        n_components, dimension = self.precision_tril.shape[:2]
        return n_components * dimension * (dimension + 1) // 2

    def log_peak(self, dimension: int) -> Float[Tensor, " K"]:
        """Peak log-densities, from the diagonals of the factors."""
        log_diagonal = linalg.log_diagonal(self.precision_tril) if self.log_diagonal is None else self.log_diagonal
        return log_diagonal.sum(1) - 0.5 * dimension * LOG_2PI

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Constants, K whitening matrices and K negated whitened means."""
        whiten = self.precision_tril.mT
        return self.log_peak(mean.shape[1]), whiten, -(mean[:, None, :] @ whiten)

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Whiten all samples with every component at once; allocates N K D numbers."""
        constant, whiten, shift = operands
        white = torch.baddbmm(shift, x.expand(len(whiten), -1, -1), whiten)
        return torch.sub(constant, (white * white).sum(2).T, alpha=0.5)

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One product per component and tile of samples; no temporary is larger than a tile."""
        constant, whiten, shift = operands
        tiles = [_tile(rows, whiten, shift) for rows in torch.split(x, TILE_ROWS)]
        return torch.cat(tiles).mul_(-0.5).add_(constant)

    @staticmethod
    def second(
        shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None
    ) -> Float[Tensor, "K D D"]:
        """One scatter matrix per component."""
        columns = resp.T.contiguous()
        return torch.stack([scatter(shifted * r[:, None], shifted) for r in columns])

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "K D D"]:
        """One scatter matrix per label, over its own samples only."""
        dimension = shifted.shape[1]
        out = torch.zeros(n_components, dimension, dimension, dtype=torch.float64, device=shifted.device)
        for k in present(labels):
            rows = labels == k
            out[k] = scatter(scaled[rows], shifted[rows])
        return out

    @staticmethod
    def recenter(
        second: Float[Tensor, "K D D"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "K D D"]:
        """Scatter matrices after shifting the reference points by ``delta``."""
        cross = delta[:, :, None] * (first - 0.5 * weight[:, None] * delta)[:, None, :]
        return second - (cross + cross.mT)

    @staticmethod
    def truncate(second: Float[Tensor, "K D D"], width: int) -> Float[Tensor, "K W W"]:
        """The leading block."""
        return second[:, :width, :width]

    @staticmethod
    def variances(second: Float[Tensor, "K D D"]) -> Float[Tensor, "K D"]:
        """The diagonals."""
        return second.diagonal(dim1=1, dim2=2)

    @classmethod
    def estimate(cls, moments: Moments, floor: Floor, prior: Prior) -> "Full":
        """Scatter of each component divided by its weight, then shrunk."""
        centered = moments.centered()
        pooled = centered.second.sum(0) / centered.weight.sum()
        matrix = prior.shrink_dense(prior.blend(centered.second, centered.weight, pooled))
        return cls(linalg.precision_tril(with_floor(matrix, floor)))

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "Full":
        """Identity matrices."""
        return cls(torch.eye(dimension).repeat(n_components, 1, 1))

    def unconstrained(self) -> dict[str, Tensor]:
        """Log-diagonals and strictly lower triangles of the factors."""
        return linalg.free_tril(self.precision_tril)

    @classmethod
    def constrained(cls, free: Any) -> "Full":
        """Factors with exponentiated diagonals."""
        return cls(linalg.tril_of(free["log_diagonal"], free["lower"]), free["log_diagonal"])

    def scaled(self, factor: Float[Tensor, "*D"]) -> "Full":
        """Precision factors divided by ``factor``."""
        return type(self)(self.precision_tril / factor)

    def shrunk(self, prior: Prior) -> "Full":
        """Factor of the shrunk matrix."""
        matrix = prior.shrink_dense(linalg.covariance_of(self.precision_tril))
        return type(self)(linalg.precision_tril(matrix).to(self.precision_tril.dtype))

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Multiply by each factor and its transpose."""
        return (mean[:, None, :] @ self.precision_tril.mT @ self.precision_tril)[:, 0]

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Noise times the inverse factor of its component, one component at a time."""
        noise = normal(self.precision_tril, (len(index), dimension), generator)
        out = torch.empty_like(noise)
        for k in present(index):
            rows = index == k
            out[rows] = linalg.solve_rows(self.precision_tril[k], noise[rows])
        return out

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Full":
        """Average matrix plus the scatter of the means."""
        total = (share[:, None] * deviation).double().T @ deviation.double()
        for s, tril in zip(share, self.precision_tril, strict=True):
            total += s.double() * linalg.covariance_of(tril)
        return type(self)(linalg.precision_tril(total)[None].to(self.precision_tril.dtype))

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """The covariance matrices."""
        return linalg.covariance_of(self.precision_tril).to(self.precision_tril.dtype)


def _tile(
    rows: Float[Tensor, "N D"], whiten: Float[Tensor, "K D D"], shift: Float[Tensor, "K 1 D"]
) -> Float[Tensor, "N K"]:
    """Squared Mahalanobis distances for one tile of samples."""
    whitened = (torch.addmm(s, rows, w) for w, s in zip(whiten, shift, strict=True))
    return torch.stack([white.square_().sum(1) for white in whitened], dim=1)
