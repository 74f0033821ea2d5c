"""Standardized features and their products: what a sparse discriminative mixture weights."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.scale import MAX_FEATURE, within
from mixtura.heads import init
from mixtura.heads.base import REACH, Head
from mixtura.heads.joint import follow

TILE_ROWS = 1024


def squares(dimension: int) -> tuple[Int[Tensor, " Q"], Int[Tensor, " Q"]]:
    """Index pairs of each feature with itself."""
    return torch.arange(dimension), torch.arange(dimension)


def products(dimension: int) -> tuple[Int[Tensor, " Q"], Int[Tensor, " Q"]]:
    """Index pairs of all feature products, squares included."""
    first, second = torch.triu_indices(dimension, dimension)
    return first, second


QUADRATIC_TERMS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {"diagonal": squares, "full": products}
"""Feature products that a component may weight, by name."""


class QuadraticMap(nn.Module):
    r"""Standardized features and their products, each with mean zero and variance one over the samples of :meth:`fit`.

    .. math:: z = (x - a) / u, \qquad \phi_h = (z_{i_h} z_{j_h} - m_h) / s_h, \quad z_D = 1

    A constant feature is mapped to zero.

    Args:
        dimension: D.
        n_features: H, the number of pairs (i, j); j = D stands for the single feature i.
    """

    first: Tensor
    second: Tensor
    center: Tensor
    gain: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, dimension: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(n_features, dtype=torch.int64))
        self.register_buffer("second", torch.full((n_features,), dimension))
        self.register_buffer("center", torch.zeros(dimension))
        self.register_buffer("gain", torch.ones(dimension))
        self.register_buffer("offset", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def raw(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H"]:
        """Features and products before they are standardized."""
        return self._products(within((x - self.center.to(x.dtype)) * self.gain.to(x.dtype), REACH[x.dtype]))

    def _products(self, z: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H"]:
        z = nn.functional.pad(z, (0, 1), value=1.0)
        return z[..., self.first] * z[..., self.second]

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H"]:
        """Standardized features and products, the input of the linear layer."""
        return self._standard(self.raw(x))

    def following(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H"]:
        """The same in the units of a mini-batch that a network computed, which the stored ones then follow."""
        used = self.gain > 0
        unit = torch.where(used, self.gain, 1.0).reciprocal()
        z, _ = follow(x, self.center, unit)
        self.gain.copy_(torch.where(used, unit.reciprocal(), 0.0))
        return self._standard(self._products(torch.where(used, z, 0.0)))

    def _standard(self, raw: Float[Tensor, "*N H"]) -> Float[Tensor, "*N H"]:
        return (raw - self.offset.to(raw.dtype)) * self.scale.to(raw.dtype)

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "N D"]) -> None:
        """Set centers and scales from the samples."""
        _, variance = _moments(x, lambda part: part)
        self.center.copy_(init.center_of(x))
        self.gain.copy_(_inverse(variance))
        mean, variance = _moments(x, self.raw)
        self.offset.copy_(mean)
        self.scale.copy_(_inverse(variance))

    @torch.no_grad()
    def take(self, other: "QuadraticMap", index: Int[Tensor, " J"]) -> None:
        """Copy the features at ``index`` from another map."""
        for name in ("first", "second", "offset", "scale"):
            getattr(self, name).copy_(getattr(other, name)[index])
        self.center.copy_(other.center)
        self.gain.copy_(other.gain)


def mapped(head: Head, quadratic: QuadraticMap, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H"]:
    """The map's features in the head's compute dtype."""
    if head.follows(x):
        return quadratic.following(x.to(head.working(x)))
    return quadratic(within(x.to(head.working(x)), MAX_FEATURE))


def _moments(
    x: Float[Tensor, "N D"], features: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, " H"], Float[Tensor, " H"]]:
    """Mean and variance of derived features, in float64; computed in tiles to bound memory."""
    anchor = features(x[:1])[0]
    first = torch.zeros_like(anchor, dtype=torch.float64)
    for part in x.split(TILE_ROWS):
        first += (features(part) - anchor).sum(0, dtype=torch.float64)
    mean = anchor.double() + first / len(x)
    second = torch.zeros_like(mean)
    for part in x.split(TILE_ROWS):
        second += (features(part) - mean.to(x.dtype)).square().sum(0, dtype=torch.float64)
    return mean, second / len(x)


def _inverse(variance: Float[Tensor, " H"]) -> Float[Tensor, " H"]:
    """Inverse standard deviation; zero if a millionth of the others' or less, so rounding errors are not amplified."""
    least = 1e-12 * variance.mean()
    return torch.where(variance > least, variance.clamp_min(torch.finfo(variance.dtype).tiny).rsqrt(), 0.0)
