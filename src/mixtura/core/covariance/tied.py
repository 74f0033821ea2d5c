"""Tied covariance: one full matrix for all components."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.covariance.protocol import LOG_2PI, Floor, Operands, Prior, TensorRecord, normal
from mixtura.core.moments import FactorPosterior, Moments

TILE_ROWS = 512  # samples summed in their own dtype before accumulating in float64
ROUNDING_FACTOR = 32  # times eps (8 + sqrt D): above the measured loss on collinear samples, D = 4 to 1280
LABELED_ROWS = 2048  # a tile of samples stays in cache between its three uses
TRIANGLE_PANELS = 4  # of the triangle; more panels make the products too narrow to be fast


@final
@dataclass(frozen=True)
class Tied(TensorRecord):
    r""":math:`\Sigma_k^{-1} = W^\top W`, W lower triangular; after whitening, every component has unit covariance.

    .. math:: \log N_k(x) = z^\top m_k - \tfrac12\|z\|^2 - \tfrac12\|m_k\|^2 + \log|W| - \tfrac D2 \log 2\pi,
        \qquad z = W x, \; m_k = W \mu_k

    With one component per class, this is linear discriminant analysis.
    """

    precision_tril: Float[Tensor, "1 D D"]
    log_diagonal: Float[Tensor, "1 D"] | None = field(default=None, repr=False)
    name: ClassVar[str] = "tied"
    shared: ClassVar[bool] = True

    @property
    def n_parameters(self) -> int:
        """One triangle for all components."""
        dimension = self.precision_tril.shape[-1]
        return dimension * (dimension + 1) // 2

    def log_peak(self, dimension: int) -> Float[Tensor, " 1"]:
        """Peak log-density, from the diagonal of the factor."""
        log_diagonal = linalg.log_diagonal(self.precision_tril) if self.log_diagonal is None else self.log_diagonal
        return log_diagonal.sum(1) - 0.5 * dimension * LOG_2PI

    def operands(self, mean: Float[Tensor, "K D"]) -> Operands:
        """Constants, the whitening matrix and the whitened means."""
        whiten = self.precision_tril.squeeze(0).T
        means = mean @ whiten
        constant = torch.sub(self.log_peak(mean.shape[1]), means.square().sum(1), alpha=0.5)
        return constant, whiten, means.T

    @staticmethod
    def score(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Two products: whiten the samples, then multiply by the whitened means."""
        constant, whiten, means = operands
        white = x @ whiten
        return torch.addmm(constant, white, means) - 0.5 * linalg.squared_norms(white)[:, None]

    @staticmethod
    def score_tiled(operands: Operands, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Same as :meth:`score`, with the norms subtracted in place."""
        constant, whiten, means = operands
        white = x @ whiten
        return torch.addmm(constant, white, means).sub_(linalg.squared_norms(white)[:, None], alpha=0.5)

    @staticmethod
    def second(
        shifted: Float[Tensor, "N D"], resp: Float[Tensor, "N K"], factors: FactorPosterior | None
    ) -> Float[Tensor, "1 D D"]:
        """One scatter matrix over all components."""
        return scatter(shifted * resp.sum(1, keepdim=True), shifted)[None]

    @staticmethod
    def second_by_label(
        shifted: Float[Tensor, "N D"],
        scaled: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_components: int,
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "1 D D"]:
        """One scatter matrix of all deviations from the samples' own reference points."""
        return scatter(scaled, shifted)[None]

    @staticmethod
    def reference(
        x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_components: int, weight: Float[Tensor, " N"] | None
    ) -> Float[Tensor, "K D"]:
        """One point for all components, so a single triangle of products is enough."""
        point = x[:LABELED_ROWS].mean(0) if len(x) else x.new_zeros(x.shape[1])
        return point.double().expand(n_components, -1)

    @classmethod
    def labeled(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        ref: Float[Tensor, "K D"],
        weight: Float[Tensor, " N"] | None,
        row: Int[Tensor, " M"] | None,
    ) -> Moments:
        r"""Moments about one point a for all components, in one pass over the samples.

        .. math:: \sum_c S_c = \sum_n w_n (x_n - a)(x_n - a)^\top

        Products use the samples' dtype within a tile; sums over tiles use float64.
        """
        zeros = functools.partial(torch.zeros, dtype=torch.float64, device=x.device)
        dimension = x.shape[1]
        first, triangle, total = zeros(len(ref), dimension), zeros(dimension, dimension), zeros(len(ref))
        product = torch.empty(dimension, dimension, dtype=x.dtype, device=x.device)
        wide = zeros(LABELED_ROWS, dimension)
        for shifted, part in _tiles(x, ref[0].to(x.dtype), row):
            own = labels[part]
            times = zeros(len(own)) + 1 if weight is None else weight[part].double()
            root = None if weight is None else times.sqrt().to(x.dtype)[:, None]
            if root is not None:
                shifted.mul_(root)
            triangle += upper_products(shifted, product.zero_())
            if root is not None:
                shifted.mul_(root)
            first.index_add_(0, own, wide[: len(own)].copy_(shifted))
            total.index_add_(0, own, times)
        second = rounded_up(triangle.triu() + triangle.triu(1).T, x.dtype)
        return Moments(cls, ref[:1].to(x.dtype).double().expand(len(ref), -1), total, first, second[None])

    @staticmethod
    def recenter(
        second: Float[Tensor, "1 D D"],
        weight: Float[Tensor, " K"],
        first: Float[Tensor, "K D"],
        delta: Float[Tensor, "K D"],
        factors: FactorPosterior | None,
    ) -> Float[Tensor, "1 D D"]:
        """Scatter matrix after shifting the reference points by ``delta``."""
        cross = delta.T @ (first - 0.5 * weight[:, None] * delta)
        return second - (cross + cross.T)

    @staticmethod
    def truncate(second: Float[Tensor, "1 D D"], width: int) -> Float[Tensor, "1 W W"]:
        """The leading block."""
        return second[:, :width, :width]

    @staticmethod
    def variances(second: Float[Tensor, "1 D D"]) -> Float[Tensor, "1 D"]:
        """The diagonal."""
        return second.diagonal(dim1=1, dim2=2)

    @classmethod
    def estimate(cls, moments: Moments, floor: Floor, prior: Prior) -> "Tied":
        """Pooled scatter divided by the total weight, then shrunk."""
        centered = moments.centered()
        matrix = prior.shrink_dense(centered.second / centered.weight.sum())
        return cls(linalg.precision_tril(with_floor(matrix, floor)))

    @classmethod
    def initial(cls, n_components: int, dimension: int, rank: int) -> "Tied":
        """The identity."""
        return cls(torch.eye(dimension)[None])

    def unconstrained(self) -> dict[str, Tensor]:
        """Log-diagonal and strictly lower triangle of the factor."""
        return linalg.free_tril(self.precision_tril)

    @classmethod
    def constrained(cls, free: Any) -> "Tied":
        """Factor with an exponentiated diagonal."""
        return cls(linalg.tril_of(free["log_diagonal"], free["lower"]), free["log_diagonal"])

    def scaled(self, factor: Float[Tensor, "*D"]) -> "Tied":
        """Precision factor divided by ``factor``."""
        return type(self)(self.precision_tril / factor)

    def shrunk(self, prior: Prior) -> "Tied":
        """Factor of the shrunk matrix."""
        matrix = prior.shrink_dense(linalg.covariance_of(self.precision_tril))
        return type(self)(linalg.precision_tril(matrix).to(self.precision_tril.dtype))

    def precision_matmul(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Multiply by the factor and its transpose."""
        return mean @ self.precision_tril[0].T @ self.precision_tril[0]

    def sample(
        self, index: Int[Tensor, " N"], dimension: int, generator: torch.Generator | None
    ) -> Float[Tensor, "N D"]:
        """Noise times the inverse of the shared factor."""
        noise = normal(self.precision_tril, (len(index), dimension), generator)
        return linalg.solve_rows(self.precision_tril[0], noise)

    def pooled(self, share: Float[Tensor, " K"], deviation: Float[Tensor, "K D"]) -> "Tied":
        """Shared matrix plus the scatter of the means.

        After whitening with W the shared matrix is the identity, so no inverse of W is needed.
        """
        whiten = self.precision_tril[0].double()
        white = (share.sqrt()[:, None] * deviation).double() @ whiten.T
        total = white.T @ white + torch.eye(len(whiten), dtype=white.dtype, device=white.device)
        return type(self)(linalg.matmul_tril(linalg.precision_tril(total), whiten)[None].to(self.precision_tril.dtype))

    def borrowed(
        self,
        moments: Moments,
        near: Int[Tensor, "P M"],
        own: tuple[Float[Tensor, "N D"], Int[Tensor, " N"], Float[Tensor, "P D"]],
        floor: Floor,
        prior: Prior,
        strength: float,
    ) -> "Tied":
        """The shared matrix, which new components use too."""
        return self

    def dense(self, n_components: int, dimension: int) -> Float[Tensor, "K D D"]:
        """The shared matrix, repeated for each component."""
        matrix = linalg.covariance_of(self.precision_tril).to(self.precision_tril.dtype)
        return matrix.expand(n_components, -1, -1)

    def select(self, index: Int[Tensor, " J"]) -> "Tied":
        """The shared matrix, whatever the components."""
        return self

    @classmethod
    def join(cls, parts: "list[Tied]", weight: Float[Tensor, " P"]) -> "Tied":
        """Average of the shared matrices, weighted by ``weight``."""
        if all(part is parts[0] for part in parts):
            return parts[0]
        share = (weight / weight.sum()).double()
        dense = torch.stack([linalg.covariance_of(part.precision_tril)[0] for part in parts])
        return cls(linalg.precision_tril((share[:, None, None] * dense).sum(0, keepdim=True)))


def _tiles(
    x: Float[Tensor, "N D"], anchor: Float[Tensor, " D"], row: Int[Tensor, " M"] | None
) -> Iterator[tuple[Tensor, slice | Tensor]]:
    """Yield tiles of samples minus ``anchor``, in one reused buffer, with their indices; copies each sample once."""
    count = len(x) if row is None else len(row)
    buffer = torch.empty(min(LABELED_ROWS, count), x.shape[1], dtype=x.dtype, device=x.device)
    for start in range(0, count, LABELED_ROWS):
        part = slice(start, min(count, start + LABELED_ROWS))
        shifted = buffer[: part.stop - start]
        if row is None:
            yield torch.sub(x[part], anchor, out=shifted), part
        else:
            yield torch.index_select(x, 0, row[part], out=shifted).sub_(anchor), row[part]


def scatter(scaled: Float[Tensor, "N D"], shifted: Float[Tensor, "N D"]) -> Float[Tensor, "D D"]:
    """``scaled.T @ shifted``: products in the samples' dtype, summed over tiles in float64."""
    total = torch.zeros(shifted.shape[1], shifted.shape[1], dtype=torch.float64, device=shifted.device)
    for left, right in zip(torch.split(scaled, TILE_ROWS), torch.split(shifted, TILE_ROWS), strict=True):
        total += (left.T @ right).double()
    return rounded_up(total, shifted.dtype)


def upper_products(rows: Float[Tensor, "N D"], out: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """Upper triangle of ``rows.T @ rows``, in panels; three fifths of the work of the full product."""
    width = -(-rows.shape[1] // TRIANGLE_PANELS)
    for start in range(0, rows.shape[1], width):
        panel = slice(start, start + width)
        out[panel, start:].addmm_(rows[:, panel].T, rows[:, start:])
    return out


def rounded_up(scatter: Float[Tensor, "D D"], dtype: torch.dtype) -> Float[Tensor, "D D"]:
    """Raise the diagonal of the scatter, in place, by the rounding error that products in ``dtype`` may have.

    The scatter of samples that span fewer than D dimensions then has no negative eigenvalues. In float32, variances
    grow by a share of 4e-5 (D = 8) to 1.7e-4 (D = 1280).
    """
    if dtype != torch.float64:
        scatter.diagonal().mul_(1 + ROUNDING_FACTOR * torch.finfo(dtype).eps * (8 + len(scatter) ** 0.5))
    return scatter


def with_floor(matrix: Float[Tensor, "*K D D"], floor: Floor) -> Float[Tensor, "*K D D"]:
    """Copy of the covariance matrices with ``floor``, in squared units of x, added to every variance."""
    raised = matrix.clone()
    raised.diagonal(dim1=-2, dim2=-1).add_(floor)
    return raised
