"""Low-rank covariance: R directions plus a diagonal per component, a mixture of factor analyzers."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.diagonal import Diagonal, diagonal_scores, diagonal_scores_
from mixtura.core.covariance.protocol import Floor, Operands, Prior, TensorRecord, normal, with_spread
from mixtura.core.covariance.tied import Tied
from mixtura.core.moments import FactorPosterior, Moments, present

TILE_ROWS, TILE_DIRECTIONS = (
    2048,
    4096,
)  # samples and directions per tile: small enough for cache, large enough to keep all cores busy


@final
@dataclass(frozen=True)
class LowRank(TensorRecord):
    r""":math:`\Sigma_k = A_k A_k^\top + \operatorname{diag}(v_k)` with ``factor`` A of rank R.

    With :math:`M = I + A^\top V^{-1} A` and :math:`W = V^{-1} A M^{-1/2}`:

    .. math::
        \|x-\mu\|^2_\Sigma = \|x - \mu\|^2_V - \|W^\top (x-\mu)\|^2, \qquad \log|\Sigma| = \log|M| + \sum_d \log v_d

    The M-step uses only the diagonal of a component's scatter C and the product :math:`C\,\Sigma^{-1}A`,
    so the sums hold K D (R + 1) numbers instead of K D D.

    Source: Ghahramani and Hinton, The EM Algorithm for Mixtures of Factor Analyzers, 1996.
    """

    factor: Float[Tensor, "K D R"]
    variance: Float[Tensor, "K D"]
    log_variance: Float[Tensor, "K D"] | None = field(default=None, repr=False)
    name: ClassVar[str] = "lowrank"
    sums_depend_on_parameters: ClassVar[bool] = True

    @property
    def n_parameters(self) -> int:
        """Directions up to a rotation, plus a diagonal, per component."""
        n_components, dimension, rank = self.factor.shape
        return n_components * (dimension * (rank + 1) - rank * (rank - 1) // 2)

    def log_peak(self, dimension: int) -> Float[Tensor, " K"]:
        """Peak log-density of the diagonal part minus the log-determinant of the Cholesky factor of M."""
        return Diagonal(self.variance, self.log_variance).log_peak(dimension) - linalg.half_log_det(self._factors()[1])

    @property
    def taken_off(self) -> Float[Tensor, " K"]:
        """Twice the trace of M - I: the average squared distance that a component's directions remove, doubled."""
        return 2 * (self.factor.square() / self.variance[:, :, None]).sum((1, 2))

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Operands of the diagonal part, the D x (K R) directions and the negated projected means."""
        constant, *diagonal = Diagonal(self.variance, self.log_variance).operands(mean)
        scaled, root = self._factors()
        directions = linalg.right_divide_tril(scaled, root)  # K D R
        shift = -(directions.mT @ mean[:, :, None])
        flat = directions.mT.reshape(-1, mean.shape[1]).T  # a view, because solvers write columns
        return constant - linalg.half_log_det(root), *diagonal, flat, shift.reshape(-1)

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Score of the diagonal part plus half the squared projections; allocates N K R numbers."""
        constant, linear, precision, directions, shift = operands
        along = torch.unflatten(torch.addmm(shift, x, directions), 1, (len(constant), -1))
        return torch.add(diagonal_scores(x, constant, linear, precision), linalg.squared_norms(along), alpha=0.5)

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Same as :meth:`score`, in tiles of samples and components."""
        constant, linear, precision, directions, shift = operands
        rank = len(shift) // len(constant)
        count = max(1, TILE_DIRECTIONS // rank)
        blocks = list(zip(torch.split(directions, count * rank, dim=1), torch.split(shift, count * rank), strict=True))
        out = x.new_empty(len(x), len(constant))
        for rows, total in zip(torch.split(x, TILE_ROWS), torch.split(out, TILE_ROWS), strict=True):
            diagonal_scores_(rows, constant, linear, precision, total)
            for part, block in zip(torch.split(total, count, dim=1), blocks, strict=True):
                _add_along(part, rows, *block)
        return out

    def factor_posterior(self) -> FactorPosterior | None:
        r"""Basis :math:`\Sigma^{-1}A` and posterior covariance :math:`M^{-1}` of the factors."""
        scaled, root = self._factors()
        eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root)
        half = linalg.right_divide_tril(eye, root)  # the inverse of the Cholesky factor, transposed
        uncertainty = half @ half.mT
        return FactorPosterior(scaled @ uncertainty, uncertainty)

    @classmethod
    def principal(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        mean: Float[Tensor, "K D"],
        rank: int,
        weight: Float[Tensor, " N"] | None = None,
    ) -> "LowRank":
        """Initialization: principal directions of each label's samples about its mean; the residual is the diagonal."""
        n_components, dimension = mean.shape
        rank = max(1, min(rank, dimension - 1)) if dimension > 1 else 1
        factor = torch.zeros(n_components, dimension, rank, dtype=torch.float64, device=x.device)
        variance = torch.ones(n_components, dimension, dtype=torch.float64, device=x.device)
        counts = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
        spread = (counts @ (x.double() - mean[labels]).square().mean(1)) / counts.sum()
        spread = spread if float(spread) > 0 else torch.ones_like(spread)
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
            else:  # a single sample, or copies of it
                squares = spread.expand(dimension)
            rest = squares - factor[k].square().sum(1)
            variance[k] = torch.maximum(rest, 1e-2 * squares.mean().clamp_min(1e-6 * spread))
        return cls(factor, variance)

    @staticmethod
    def second(
        shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None
    ) -> Float[Tensor, "K D S"]:
        """Weighted squares and the scatter times the basis, computed in blocks of components."""
        assert factors is not None
        n_components, dimension, rank = factors.basis.shape
        basis = factors.basis.to(shifted.dtype)
        block = max(1, dimension // rank)
        projected: list[Tensor] = []
        for start in range(0, n_components, block):
            part = basis[start : start + block]
            latent = shifted @ part.permute(1, 0, 2).reshape(dimension, -1)
            latent = latent.view(len(shifted), len(part), rank) * resp[:, start : start + block, None]
            scatter = shifted.T @ latent.view(len(shifted), -1)
            projected.append(scatter.view(dimension, len(part), rank).permute(1, 0, 2).double())
        squares = Diagonal.second(shifted, resp, None)
        return torch.cat([squares[:, :, None], torch.cat(projected)], dim=2)

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "K D S"]:
        """Squares and the scatter times the basis, per label over its own samples."""
        assert factors is not None
        basis = factors.basis.to(shifted.dtype)
        projected = torch.zeros_like(factors.basis, dtype=torch.float64)
        for k in present(labels):
            rows = labels == k
            projected[k] = (scaled[rows].T @ (shifted[rows] @ basis[k])).double()
        squares = Diagonal.second_by_label(shifted, scaled, labels, n_components, None)
        return torch.cat([squares[:, :, None], projected], dim=2)

    @staticmethod
    def recenter(
        second: Float[Tensor, "K D S"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "K D S"]:
        """Squares and projected scatter after shifting the reference points by ``delta``."""
        assert factors is not None
        squares = Diagonal.recenter(second[:, :, 0], weight, first, delta, None)
        basis = factors.basis.double()
        sums = first[:, None, :] @ basis  # K 1 R
        step = delta[:, None, :] @ basis
        moved = delta[:, :, None] * (sums - weight[:, None, None] * step) + first[:, :, None] * step
        return torch.cat([squares[:, :, None], second[:, :, 1:] - moved], dim=2)

    @staticmethod
    def projected(moments: Moments, factors: FactorPosterior) -> Moments:
        """Low-rank moments under ``factors``, from the full-covariance moments of the same samples."""
        centered = moments.centered()
        squares = centered.second.diagonal(dim1=1, dim2=2)[:, :, None]
        second = torch.cat([squares, centered.second @ factors.basis.double()], dim=2)
        return Moments(LowRank, centered.ref, centered.weight, centered.first, second, factors)

    @staticmethod
    def truncate(second: Float[Tensor, "K D S"], width: int) -> None:
        """``None``: the basis spans all features."""

    @staticmethod
    def variances(second: Float[Tensor, "K D S"]) -> Float[Tensor, "K D"]:
        """The sums of squares."""
        return second[:, :, 0]

    @classmethod
    def estimate(cls, moments: Moments, floor: Floor, prior: Prior) -> "LowRank":
        r"""One M-step of factor analysis; the prior shrinks toward the pooled diagonal.

        .. math:: A = Y (M^{-1} + B^\top Y)^{-1}, \quad v = \operatorname{diag}(C) - \operatorname{rowsum}(A \circ Y),
            \qquad B = \Sigma^{-1}A_{\text{old}},\; Y = C B
        """
        factors = moments.factors
        assert factors is not None
        centered = moments.centered()
        basis = factors.basis.double()
        pooled = centered.second[:, :, 0].sum(0) / centered.weight.sum()
        blended = prior.blend(centered.second[:, :, 0], centered.weight, pooled)
        squares = prior.shrink(blended)
        alone = pooled[:, None] * basis
        total = (centered.weight + prior.strength)[:, None, None]
        projected = (centered.second[:, :, 1:] + prior.strength * alone) / torch.where(total > 0, total, 1.0)
        projected = torch.where(total > 0, projected, alone)
        identity = prior.target(blended)[:, :, None] * basis
        projected = (1 - prior.identity) * projected + prior.identity * identity
        inner = factors.uncertainty.double() + basis.mT @ projected
        factor = linalg.solve_spd(0.5 * (inner + inner.mT), projected.mT).mT
        variance = squares - (factor * projected).sum(2)
        least = 1e-6 * squares.mean(1, keepdim=True) if prior.scale is None else 1e-6 * squares
        return cls(factor, with_spread(torch.maximum(variance, least) + floor))

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "LowRank":
        """Small random directions and unit variances; zero directions would get no gradient."""
        rank = max(1, min(rank, dimension - 1))
        return cls(torch.randn(n_components, dimension, rank) / dimension**0.5, torch.ones(n_components, dimension))

    def unconstrained(self) -> dict[str, Tensor]:
        """Directions and log-variances."""
        return {"factor": self.factor, "log_variance": self.variance.log()}

    @classmethod
    def constrained(cls, free: Any) -> "LowRank":
        """Directions and exponentials of the log-variances."""
        return cls(free["factor"], free["log_variance"].exp(), free["log_variance"])

    def scaled(self, factor: Float[Tensor, "*D"]) -> "LowRank":
        """Directions times the factor, variances times its square."""
        return type(self)(self.factor * factor[..., None], self.variance * factor.square())

    def shrunk(self, prior: Prior) -> "LowRank":
        """Directions shortened, and variances shrunk toward the average of the whole diagonal."""
        kept, diagonal = 1 - prior.identity, self.variance + self.factor.square().sum(2)
        variance = kept * self.variance + prior.identity * prior.target(diagonal)
        return type(self)(self.factor * kept**0.5, variance)

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Product with the diagonal part minus the contribution of the directions."""
        directions = linalg.right_divide_tril(*self._factors())
        return mean / self.variance - (directions @ (directions.mT @ mean[:, :, None]))[:, :, 0]

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Diagonal noise plus R latent factors times the directions."""
        latent = normal(self.factor, (len(index), self.factor.shape[2]), generator)
        out = normal(self.variance, (len(index), dimension), generator) * self.variance.sqrt()[index]
        for k in present(index):
            rows = index == k
            out[rows] += latent[rows] @ self.factor[k].T
        return out

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> Tied:
        """One full matrix: the average diagonal, the directions of all components and the scatter of the means."""
        scaled = torch.cat([self.factor, deviation[:, :, None]], dim=2) * share.sqrt()[:, None, None]
        columns = scaled.double().permute(1, 0, 2).reshape(deviation.shape[1], -1)
        total = columns @ columns.T + torch.diag((share[:, None] * self.variance).double().sum(0))
        return Tied(linalg.precision_tril(total)[None].to(self.factor.dtype))

    def borrowed(
        self,
        moments: Moments,
        near: Int[Tensor, "P M"],
        own: tuple[Float[Tensor, "N D"], Int[Tensor, " N"], Float[Tensor, "P D"]],
        floor: Floor,
        prior: Prior,
        strength: float,
    ) -> "LowRank":
        """Covariance of the nearest component, because directions of several cannot be averaged."""
        return self.select(near[:, 0])

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """The covariance matrices."""
        return self.factor @ self.factor.mT + torch.diag_embed(self.variance)

    @classmethod
    def join(cls, parts: "list[LowRank]", weight: Float[Tensor, " P"]) -> "LowRank":
        """Concatenated components of several mixtures; smaller ranks are padded with zero directions."""
        rank = max(part.factor.shape[2] for part in parts)
        factors = [torch.nn.functional.pad(part.factor, (0, rank - part.factor.shape[2])) for part in parts]
        return cls(torch.cat(factors), torch.cat([part.variance for part in parts]))

    def _factors(self) -> tuple[Float[Tensor, "K D R"], Float[Tensor, "K R R"]]:
        """Directions divided by variances, and the Cholesky factor of M = I + squares, which always exists."""
        scale = self.variance.rsqrt()[:, :, None]
        half = self.factor * scale
        eye = torch.eye(half.shape[-1], dtype=half.dtype, device=half.device)
        return half * scale, linalg.cholesky_of_definite(eye + half.mT @ half)


def _add_along(
    total: Float[Tensor, "N M"], x: Float[Tensor, "N D"], directions: Float[Tensor, "D MR"], shift: Float[Tensor, " MR"]
) -> None:
    """Add half the squared projections on a block of directions, in place."""
    along = torch.unflatten(torch.addmm(shift, x, directions), 1, (total.shape[1], -1))
    total.add_(linalg.squared_norms(along), alpha=0.5)
