"""One full matrix a component."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.protocol import LOG_2PI, Operands, Prior, TensorRecord, lost_digits, normal
from mixtura.core.covariance.tied import scatter, with_floor
from mixtura.core.moments import Lens, Moments, present

ROWS = 2048  # rows scored at once: a tile of rows and one D x D matrix stay in cache


@final
@dataclass(frozen=True)
class Full(TensorRecord):
    r""":math:`\Sigma_k = L_k L_k^\top`.

    .. math:: \log N_k(x) = -\tfrac12 \|L_k^{-1}(x - \mu_k)\|^2 - \log|L_k| - \tfrac D2 \log 2\pi

    With one component a class this is quadratic discriminant analysis.
    """

    scale_tril: Float[Tensor, "K D D"]
    name: ClassVar[str] = "full"

    @property
    def n_parameters(self) -> int:
        """A triangle a component."""
        n_components, dimension = self.scale_tril.shape[:2]
        return n_components * dimension * (dimension + 1) // 2

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Center, constants, K inverse factors (transposed) and K whitened means."""
        center = mean.detach().mean(0)
        # one by one: K matrices in float64 at once would be the peak of memory
        inverse = torch.stack([linalg.inverse_tril(tril).T.to(tril.dtype) for tril in self.scale_tril])
        shift = ((mean - center).to(inverse.dtype)[:, None, :] @ inverse)[:, 0]
        constant = -0.5 * (linalg.log_det_tril(self.scale_tril) + mean.shape[1] * LOG_2PI)
        return center, constant, inverse, -shift

    @staticmethod
    def apply(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One product a component, in tiles of rows; no tensor is larger than a tile."""
        center, constant, inverse, shift = operands
        tiles = [_tile(rows - center, inverse, shift) for rows in torch.split(x, ROWS)]
        return torch.cat(tiles).mul_(-0.5).add_(constant)

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], lens: Lens | None) -> Float[Tensor, "K D D"]:
        """One scatter matrix a component."""
        columns = resp.T.contiguous()
        return torch.stack([scatter(shifted * r[:, None], shifted) for r in columns])

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        lens: Lens | None,
    ) -> Float[Tensor, "K D D"]:
        """One scatter matrix a label, over its own rows only."""
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
        lens: Lens | None,
    ) -> Float[Tensor, "K D D"]:
        """Scatters about points that lie ``delta`` further."""
        cross = delta[:, :, None] * (first - 0.5 * weight[:, None] * delta)[:, None, :]
        return second - (cross + cross.mT)

    @staticmethod
    def narrow(second: Float[Tensor, "K D D"], width: int) -> Float[Tensor, "K W W"]:
        """The leading block."""
        return second[:, :width, :width]

    @staticmethod
    def cancels(raw: Float[Tensor, "K D D"], recentered: Float[Tensor, "K D D"]) -> bool:
        """Judged on the variances."""
        return lost_digits(raw.diagonal(dim1=1, dim2=2), recentered.diagonal(dim1=1, dim2=2))

    @classmethod
    def estimate(cls, moments: Moments, floor: float, prior: Prior) -> "Full":
        """The scatter of each component over its weight."""
        centered = moments.centered()
        pooled = centered.second.sum(0) / centered.weight.sum()
        matrix = prior.shrink_dense(prior.blend(centered.second, centered.weight, pooled))
        return cls(linalg.cholesky(with_floor(matrix, floor)))

    def draw(self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None) -> Float[Tensor, "N D"]:
        """Noise through the factor of its component, component by component."""
        noise = normal(self.scale_tril, (len(index), dimension), generator)
        out = torch.empty_like(noise)
        for k in present(index):
            rows = index == k
            out[rows] = noise[rows] @ self.scale_tril[k].T
        return out

    def collapse(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Full":
        """The average matrix, and the scatter of the means."""
        total = (share[:, None] * deviation).double().T @ deviation.double()
        for s, tril in zip(share, self.scale_tril, strict=True):
            total += s.double() * linalg.gram_tril(tril.double())
        return type(self)(linalg.cholesky(total)[None].to(self.scale_tril.dtype))

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """The matrices themselves."""
        return linalg.gram_tril(self.scale_tril)


def _tile(
    rows: Float[Tensor, "N D"], inverse: Float[Tensor, "K D D"], shift: Float[Tensor, "K D"]
) -> Float[Tensor, "N K"]:
    """Squared Mahalanobis distances of one tile of rows."""
    return torch.stack([torch.addmm(s, rows, w).square().sum(1) for w, s in zip(inverse, shift, strict=True)], dim=1)
