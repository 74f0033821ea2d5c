"""How components spread, as free parameters: log-variances and factors of the precision with a positive diagonal.

Each spread works in the head's own units, where the rows are centered and the average variance is one. None has a
clamp: every parameter may take every value and has a gradient everywhere.
"""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.core import linalg
from mixtura.core.covariance import Covariance, Diagonal, Full, LowRank, Spherical, Tied


class Spread(Protocol):
    """What a Gaussian head asks of the covariances of its K components; an ``nn.Module`` of ``(K, D, rank)``."""

    @property
    def n_parameters(self) -> int:
        """Free numbers."""
        ...

    def log_root_det(self) -> Float[Tensor, " K"]:
        """Half the log-determinant of each covariance, in nats."""
        ...

    def covariance(self, scale: Float[Tensor, ""]) -> Covariance:
        """The covariances as a family of the core, in units of x; ``scale`` is the head's unit of length."""
        ...

    def assign(self, covariance: Covariance, scale: Float[Tensor, ""]) -> None:
        """Take over the covariances of a mixture in units of x."""
        ...

    def pull(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """The precision of each component times its mean: the gradient of its log-density at zero."""
        ...

    def __call__(
        self, z: Float[Tensor, "N D"], mean: Float[Tensor, "K D"], constant: Float[Tensor, " K"]
    ) -> Float[Tensor, "N K"]:
        """A constant of each component, less half the squared Mahalanobis distance of each row to its mean."""
        ...


class SphericalSpread(nn.Module):
    r""":math:`\Sigma_k = e^{s_k} I`, one product of width D."""

    def __init__(self, n_components: int, dimension: int, rank: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.log_variance = nn.Parameter(torch.zeros(n_components))

    @property
    def n_parameters(self) -> int:
        """One number a component."""
        return self.log_variance.numel()

    def log_root_det(self) -> Float[Tensor, " K"]:
        """D s / 2."""
        return 0.5 * self.dimension * self.log_variance

    def covariance(self, scale: Float[Tensor, ""]) -> Covariance:
        """Variances in units of x."""
        return Spherical(self.log_variance.exp() * scale.square())

    def assign(self, covariance: Covariance, scale: Float[Tensor, ""]) -> None:
        """Log-variances in units of the head."""
        assert isinstance(covariance, Spherical)
        self.log_variance.copy_((covariance.variance / scale.square()).log())

    def pull(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Means over variances."""
        return mean * (-self.log_variance).exp()[:, None]

    def forward(
        self, z: Float[Tensor, "N D"], mean: Float[Tensor, "K D"], constant: Float[Tensor, " K"]
    ) -> Float[Tensor, "N K"]:
        """Expanded squares: one product of the rows, and one outer product of their lengths."""
        precision = (-self.log_variance).exp()
        constant = constant - 0.5 * precision * mean.square().sum(1)
        lengths = 0.5 * linalg.squared_norms(z)[:, None]
        return torch.addmm(constant, z, self.pull(mean).T) - lengths * precision


class DiagonalSpread(nn.Module):
    r""":math:`\Sigma_k = \operatorname{diag}(e^{s_k})`, two products of width D."""

    def __init__(self, n_components: int, dimension: int, rank: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(n_components, dimension))

    @property
    def n_parameters(self) -> int:
        """One number a component and dimension."""
        return self.log_variance.numel()

    def log_root_det(self) -> Float[Tensor, " K"]:
        """Half the sum of the log-variances."""
        return 0.5 * self.log_variance.sum(1)

    def covariance(self, scale: Float[Tensor, ""]) -> Covariance:
        """Variances in units of x."""
        return Diagonal(self.log_variance.exp() * scale.square())

    def assign(self, covariance: Covariance, scale: Float[Tensor, ""]) -> None:
        """Log-variances in units of the head."""
        assert isinstance(covariance, Diagonal)
        self.log_variance.copy_((covariance.variance / scale.square()).log())

    def pull(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Means over variances."""
        return mean * (-self.log_variance).exp()

    def forward(
        self, z: Float[Tensor, "N D"], mean: Float[Tensor, "K D"], constant: Float[Tensor, " K"]
    ) -> Float[Tensor, "N K"]:
        """Expanded squares: the rows and their squares meet a matrix each."""
        precision = (-self.log_variance).exp()
        scaled = mean * precision
        linear = torch.addmm(constant - 0.5 * (mean * scaled).sum(1), z, scaled.T)
        return torch.addmm(linear, z.square(), precision.T, alpha=-0.5)


class LowRankSpread(nn.Module):
    r""":math:`\Sigma_k = A_k A_k^\top + \operatorname{diag}(e^{s_k})`, by Woodbury's identity."""

    def __init__(self, n_components: int, dimension: int, rank: int) -> None:
        super().__init__()
        rank = max(1, min(rank, dimension - 1))
        self.factor = nn.Parameter(torch.randn(n_components, dimension, rank) / dimension**0.5)
        self.diagonal = DiagonalSpread(n_components, dimension, rank)

    @property
    def n_parameters(self) -> int:
        """Directions up to a rotation among themselves, and a diagonal, for each component."""
        n_components, dimension, rank = self.factor.shape
        return n_components * (dimension * (rank + 1) - rank * (rank - 1) // 2)

    def log_root_det(self) -> Float[Tensor, " K"]:
        r"""Half of :math:`\log|M| + \sum_d s_d` with :math:`M = I + A^\top V^{-1} A`."""
        return self.diagonal.log_root_det() + self._root().diagonal(dim1=1, dim2=2).log().sum(1)

    def covariance(self, scale: Float[Tensor, ""]) -> Covariance:
        """Directions and variances in units of x."""
        return LowRank(self.factor * scale, self.diagonal.log_variance.exp() * scale.square())

    def assign(self, covariance: Covariance, scale: Float[Tensor, ""]) -> None:
        """Directions and log-variances in units of the head; missing directions are nearly empty.

        A direction of exact zeros would have no gradient.
        """
        assert isinstance(covariance, LowRank)
        given = covariance.factor.shape[2]
        self.factor.mul_(1e-3)[:, :, :given] = covariance.factor / scale
        self.diagonal.log_variance.copy_((covariance.variance / scale.square()).log())

    def pull(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """That of the diagonal part, less what the directions take."""
        directions = self._directions()
        return self.diagonal.pull(mean) - (directions @ (directions.mT @ mean[:, :, None]))[:, :, 0]

    def forward(
        self, z: Float[Tensor, "N D"], mean: Float[Tensor, "K D"], constant: Float[Tensor, " K"]
    ) -> Float[Tensor, "N K"]:
        """The distance of the diagonal part, less that along the directions."""
        n_components, dimension, rank = self.factor.shape
        directions = self._directions()
        shift = (mean[:, None, :] @ directions)[:, 0]  # K R
        seen = z @ directions.permute(1, 0, 2).reshape(dimension, n_components * rank) - shift.reshape(-1)
        return self.diagonal(z, mean, constant) + 0.5 * seen.square().reshape(-1, n_components, rank).sum(2)

    def _directions(self) -> Float[Tensor, "K D R"]:
        """What the precision is short of that of the diagonal, as a root."""
        scaled = self.factor * (-self.diagonal.log_variance).exp()[:, :, None]
        return linalg.right_divide_tril(scaled, self._root())

    def _root(self) -> Float[Tensor, "K R R"]:
        scaled = self.factor * (-0.5 * self.diagonal.log_variance).exp()[:, :, None]
        eye = torch.eye(self.factor.shape[2], dtype=scaled.dtype, device=scaled.device)
        return linalg.cholesky_of_definite(eye + scaled.mT @ scaled)


class TiedSpread(nn.Module):
    r""":math:`\Sigma^{-1} = W^\top W` for all components, W lower triangular with diagonal :math:`e^{w}`."""

    def __init__(self, n_components: int, dimension: int, rank: int) -> None:
        super().__init__()
        self.n_components = n_components
        self.log_diagonal = nn.Parameter(torch.zeros(dimension))
        self.lower = nn.Parameter(torch.zeros(dimension, dimension))

    @property
    def n_parameters(self) -> int:
        """A triangle."""
        dimension = len(self.log_diagonal)
        return dimension * (dimension + 1) // 2

    def log_root_det(self) -> Float[Tensor, " K"]:
        """Less the sum of the log-diagonal."""
        return -self.log_diagonal.sum().expand(self.n_components)

    def covariance(self, scale: Float[Tensor, ""]) -> Covariance:
        """The shared factor in units of x."""
        return Tied((linalg.inverse_tril(_tril(self.log_diagonal, self.lower)) * scale)[None].to(self.lower.dtype))

    def assign(self, covariance: Covariance, scale: Float[Tensor, ""]) -> None:
        """The inverse of the shared factor, in units of the head."""
        assert isinstance(covariance, Tied)
        whiten = linalg.inverse_tril(covariance.scale_tril[0]) * scale
        self.log_diagonal.copy_(whiten.diagonal().log())
        self.lower.copy_(whiten.tril(-1))

    def pull(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Through the factor and back."""
        whiten = _tril(self.log_diagonal, self.lower)
        return mean @ whiten.T @ whiten

    def forward(
        self, z: Float[Tensor, "N D"], mean: Float[Tensor, "K D"], constant: Float[Tensor, " K"]
    ) -> Float[Tensor, "N K"]:
        """Rows and means are whitened once, then every component is a unit sphere."""
        whiten = _tril(self.log_diagonal, self.lower).T
        white, means = z @ whiten, mean @ whiten
        linear = torch.addmm(constant - 0.5 * means.square().sum(1), white, means.T)
        return linear - 0.5 * linalg.squared_norms(white)[:, None]


class FullSpread(nn.Module):
    r""":math:`\Sigma_k^{-1} = W_k^\top W_k`, W lower triangular with diagonal :math:`e^{w}`.

    Working memory is N K D numbers for N rows: the whitened rows of every component.
    """

    def __init__(self, n_components: int, dimension: int, rank: int) -> None:
        super().__init__()
        self.log_diagonal = nn.Parameter(torch.zeros(n_components, dimension))
        self.lower = nn.Parameter(torch.zeros(n_components, dimension, dimension))

    @property
    def n_parameters(self) -> int:
        """A triangle a component."""
        n_components, dimension = self.log_diagonal.shape
        return n_components * dimension * (dimension + 1) // 2

    def log_root_det(self) -> Float[Tensor, " K"]:
        """Less the sum of the log-diagonal."""
        return -self.log_diagonal.sum(1)

    def covariance(self, scale: Float[Tensor, ""]) -> Covariance:
        """The factors in units of x."""
        factor = linalg.inverse_tril(_tril(self.log_diagonal, self.lower)) * scale
        return Full(factor.to(self.lower.dtype))

    def assign(self, covariance: Covariance, scale: Float[Tensor, ""]) -> None:
        """The inverses of the factors, in units of the head."""
        assert isinstance(covariance, Full)
        for k, factor in enumerate(covariance.scale_tril):  # one by one: K matrices in float64 would be the peak
            whiten = linalg.inverse_tril(factor) * scale
            self.log_diagonal[k] = whiten.diagonal().log()
            self.lower[k] = whiten.tril(-1)

    def pull(self, mean: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """Through each factor and back."""
        whiten = _tril(self.log_diagonal, self.lower)
        return (mean[:, None, :] @ whiten.mT @ whiten)[:, 0]

    def forward(
        self, z: Float[Tensor, "N D"], mean: Float[Tensor, "K D"], constant: Float[Tensor, " K"]
    ) -> Float[Tensor, "N K"]:
        """Rows are whitened by each component."""
        whiten = _tril(self.log_diagonal, self.lower).mT
        white = z @ whiten - mean[:, None, :] @ whiten
        return constant - 0.5 * white.square().sum(2).T


def _tril(log_diagonal: Float[Tensor, "*K D"], lower: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
    return lower.tril(-1) + torch.diag_embed(log_diagonal.exp())


SPREADS: dict[str, type[nn.Module]] = {
    "spherical": SphericalSpread,
    "diagonal": DiagonalSpread,
    "lowrank": LowRankSpread,
    "tied": TiedSpread,
    "full": FullSpread,
}
"""The parametrization of each covariance family."""
