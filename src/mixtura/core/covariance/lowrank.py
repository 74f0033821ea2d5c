"""A few directions and a diagonal for each component: a mixture of factor analyzers."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.diagonal import Diagonal, diagonal_scores
from mixtura.core.covariance.protocol import Operands, Prior, TensorRecord, lost_digits, normal
from mixtura.core.covariance.tied import Tied
from mixtura.core.moments import Lens, Moments, present

ROWS, WIDTH = 2048, 4096  # rows and directions met at once: few enough for cache, enough to keep all cores busy


@final
@dataclass(frozen=True)
class LowRank(TensorRecord):
    r""":math:`\Sigma_k = A_k A_k^\top + \operatorname{diag}(v_k)` with ``factor`` A of rank R.

    With :math:`M = I + A^\top V^{-1} A` and :math:`W = V^{-1} A M^{-1/2}`:

    .. math::
        \|x-\mu\|^2_\Sigma = \|x - \mu\|^2_V - \|W^\top (x-\mu)\|^2, \qquad \log|\Sigma| = \log|M| + \sum_d \log v_d

    The M-step needs the scatter C of a component only through its diagonal and through
    :math:`C\,\Sigma^{-1}A`, so the sums hold K D (R + 1) numbers, not K D D.

    Source: Ghahramani and Hinton, The EM Algorithm for Mixtures of Factor Analyzers, 1996.
    """

    factor: Float[Tensor, "K D R"]
    variance: Float[Tensor, "K D"]
    name: ClassVar[str] = "lowrank"

    @property
    def n_parameters(self) -> int:
        """Directions up to a rotation among themselves, and a diagonal, for each component."""
        n_components, dimension, rank = self.factor.shape
        return n_components * (dimension * (rank + 1) - rank * (rank - 1) // 2)

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Those of the diagonal part, then the D x (R K) directions and the projected means."""
        center, constant, *diagonal = Diagonal(self.variance).operands(mean)
        root = self._inner_root()
        directions = self._scaled() @ linalg.inverse_tril(root).mT  # K D R
        shift = ((mean - center).to(directions.dtype)[:, None, :] @ directions)[:, 0]
        width = directions.shape[1]
        flat = directions.permute(1, 2, 0).reshape(width, -1)  # components run fastest: sums over R are vectorized
        return center, constant - 0.5 * linalg.log_det_tril(root), *diagonal, flat, -shift.T.reshape(-1)

    @staticmethod
    def apply(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """The diagonal part, plus half the squared projections, in tiles of rows and directions."""
        center, constant, linear, quadratic, directions, shift = operands
        width = max(1, WIDTH // len(constant)) * len(constant)
        blocks = list(zip(torch.split(directions, width, dim=1), torch.split(shift, width), strict=True))
        diagonal = (constant, linear, quadratic)
        tiles = [_tile(rows - center, diagonal, blocks) for rows in torch.split(x, ROWS)]
        return torch.cat(tiles)

    def lens(self) -> Lens | None:
        r"""The basis :math:`\Sigma^{-1}A` and the latent uncertainty :math:`M^{-1}`."""
        inner = self._inner()
        eye = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
        uncertainty = linalg.solve_spd(inner, eye.expand_as(inner))
        return Lens(self._scaled() @ uncertainty, uncertainty)

    @classmethod
    def principal(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        mean: Float[Tensor, "K D"],
        rank: int,
        weight: Float[Tensor, " N"] | None = None,
    ) -> "LowRank":
        """A start: the principal directions of each label's rows about its mean, the rest as a diagonal."""
        n_components, dimension = mean.shape
        rank = max(1, min(rank, dimension - 1)) if dimension > 1 else 1
        factor = torch.zeros(n_components, dimension, rank, dtype=torch.float64, device=x.device)
        variance = torch.ones(n_components, dimension, dtype=torch.float64, device=x.device)
        counts = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
        spread = (counts @ (x.double() - mean[labels]).square().mean(1)) / counts.sum()
        spread = spread.clamp_min(torch.finfo(torch.float32).tiny)
        for k in range(n_components):
            own = labels == k
            share = counts[own] / counts[own].sum()
            rows = (x[own].double() - mean[k]) * share.sqrt()[:, None]
            squares = rows.square().sum(0)
            if float(squares.sum()) > 0:
                singular, basis = linalg.svd_right(rows, rank)
                signal = singular.square()
                noise = (squares.sum() - signal.sum()).clamp_min(0) / max(1, dimension - len(signal))
                factor[k, :, : len(signal)] = basis * (signal - noise).clamp_min(0).sqrt()
            else:  # one row, or one row again and again
                squares = spread.expand(dimension)
            rest = squares - factor[k].square().sum(1)
            variance[k] = torch.maximum(rest, 1e-2 * squares.mean().clamp_min(1e-6 * spread))
        return cls(factor, variance)

    @staticmethod
    def second(shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], lens: Lens | None) -> Float[Tensor, "K D S"]:
        """Weighted squares, and the scatter seen through the lens, in blocks of components."""
        assert lens is not None
        n_components, dimension, rank = lens.basis.shape
        basis = lens.basis.to(shifted.dtype)
        block = max(1, dimension // rank)
        sketches: list[Tensor] = []
        for start in range(0, n_components, block):
            part = basis[start : start + block]
            seen = shifted @ part.permute(1, 0, 2).reshape(dimension, -1)
            seen = seen.view(len(shifted), len(part), rank) * resp[:, start : start + block, None]
            sketch = shifted.T @ seen.view(len(shifted), -1)
            sketches.append(sketch.view(dimension, len(part), rank).permute(1, 0, 2).double())
        squares = Diagonal.second(shifted, resp, None)
        return torch.cat([squares[:, :, None], torch.cat(sketches)], dim=2)

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        lens: Lens | None,
    ) -> Float[Tensor, "K D S"]:
        """Squares, and the scatter seen through the lens, of each label over its own rows."""
        assert lens is not None
        basis = lens.basis.to(shifted.dtype)
        sketch = torch.zeros_like(lens.basis, dtype=torch.float64)
        for k in present(labels):
            rows = labels == k
            sketch[k] = (scaled[rows].T @ (shifted[rows] @ basis[k])).double()
        squares = Diagonal.second_by_label(shifted, scaled, labels, n_components, None)
        return torch.cat([squares[:, :, None], sketch], dim=2)

    @staticmethod
    def recenter(
        second: Float[Tensor, "K D S"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        lens: Lens | None,
    ) -> Float[Tensor, "K D S"]:
        """Squares and sketch about points that lie ``delta`` further."""
        assert lens is not None
        squares = Diagonal.recenter(second[:, :, 0], weight, first, delta, None)
        basis = lens.basis.double()
        first_seen = first[:, None, :] @ basis  # K 1 R
        delta_seen = delta[:, None, :] @ basis
        moved = delta[:, :, None] * (first_seen - weight[:, None, None] * delta_seen) + first[:, :, None] * delta_seen
        return torch.cat([squares[:, :, None], second[:, :, 1:] - moved], dim=2)

    @staticmethod
    def narrow(second: Float[Tensor, "K D S"], width: int) -> None:
        """The lens looks along all features."""

    @staticmethod
    def cancels(raw: Float[Tensor, "K D S"], recentered: Float[Tensor, "K D S"]) -> bool:
        """Judged on the squares."""
        return lost_digits(raw[:, :, 0], recentered[:, :, 0])

    @classmethod
    def estimate(cls, moments: Moments, floor: float, prior: Prior) -> "LowRank":
        r"""One M-step of factor analysis; the prior pulls towards the pooled diagonal.

        .. math:: A = Y (M^{-1} + B^\top Y)^{-1}, \quad v = \operatorname{diag}(C) - \operatorname{rowsum}(A \circ Y),
            \qquad B = \Sigma^{-1}A_{\text{old}},\; Y = C B
        """
        lens = moments.lens
        assert lens is not None
        centered = moments.centered()
        basis = lens.basis.double()
        pooled = centered.second[:, :, 0].sum(0) / centered.weight.sum()
        squares = prior.shrink(prior.blend(centered.second[:, :, 0], centered.weight, pooled))
        target = pooled[:, None] * basis
        total = (centered.weight + prior.strength)[:, None, None]
        sketch = (centered.second[:, :, 1:] + prior.strength * target) / torch.where(total > 0, total, 1.0)
        sketch = torch.where(total > 0, sketch, target)
        sketch = (1 - prior.identity) * sketch + prior.identity * squares.mean(1)[:, None, None] * basis
        inner = lens.uncertainty.double() + basis.mT @ sketch
        factor = linalg.solve_spd(0.5 * (inner + inner.mT), sketch.mT).mT
        variance = squares - (factor * sketch).sum(2)
        least = 1e-6 * squares.mean(1, keepdim=True)
        return cls(factor, torch.maximum(variance, least) + floor)

    def draw(self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None) -> Float[Tensor, "N D"]:
        """Noise of the diagonal part, plus a few latent numbers through the directions."""
        latent = normal(self.factor, (len(index), self.factor.shape[2]), generator)
        out = normal(self.variance, (len(index), dimension), generator) * self.variance.sqrt()[index]
        for k in present(index):
            rows = index == k
            out[rows] += latent[rows] @ self.factor[k].T
        return out

    def collapse(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> Tied:
        """The average diagonal, the directions of all components and the scatter of the means, as one full matrix."""
        scaled = torch.cat([self.factor, deviation[:, :, None]], dim=2) * share.sqrt()[:, None, None]
        columns = scaled.double().permute(1, 0, 2).reshape(deviation.shape[1], -1)
        total = columns @ columns.T + torch.diag((share[:, None] * self.variance).double().sum(0))
        return Tied(linalg.cholesky(total)[None].to(self.factor.dtype))

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """The matrices written out."""
        return self.factor @ self.factor.mT + torch.diag_embed(self.variance)

    @classmethod
    def join(cls, parts: "list[LowRank]", weight: Float[Tensor, " P"]) -> "LowRank":
        """The components of several mixtures; smaller ranks are filled with empty directions."""
        rank = max(part.factor.shape[2] for part in parts)
        factors = [torch.nn.functional.pad(part.factor, (0, rank - part.factor.shape[2])) for part in parts]
        return cls(torch.cat(factors), torch.cat([part.variance for part in parts]))

    def _scaled(self) -> Float[Tensor, "K D R"]:
        return (self.factor / self.variance[:, :, None]).double()

    def _inner(self) -> Float[Tensor, "K R R"]:
        eye = torch.eye(self.factor.shape[2], dtype=torch.float64, device=self.factor.device)
        return eye + self.factor.double().mT @ self._scaled()

    def _inner_root(self) -> Float[Tensor, "K R R"]:
        return linalg.cholesky(self._inner())


def _tile(
    shifted: Float[Tensor, "N D"], diagonal: Operands, blocks: list[tuple[Tensor, Tensor]]
) -> Float[Tensor, "N K"]:
    """Log-densities of one tile of rows; each block holds the next few directions of every component."""
    total = diagonal_scores(shifted, *diagonal)
    n, n_components = total.shape
    for directions, shift in blocks:
        seen = torch.addmm(shift, shifted, directions).square_()
        total = total.add_(seen.view(n, len(shift) // n_components, n_components).sum(1), alpha=0.5)
    return total
