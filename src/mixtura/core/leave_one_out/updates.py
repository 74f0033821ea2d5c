"""Gaussians after a change of low rank, and anchors between which scores are interpolated."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.content import distinct
from mixtura.core.covariance.protocol import LOG_2PI

MAX_ANCHORS = 32  # decompositions of one matrix
MAX_GROWTH = 1e6  # of the inverse, beyond which an update has lost too many digits
TOLERANCE = {torch.float64: 1e-11}  # relative error of scores, by dtype of the samples
COARSE_TOLERANCE = 1e-4  # of scores, for other dtypes


@dataclass(frozen=True)
class Updated:
    r"""B Gaussians with precisions :math:`(\operatorname{diag}(v) + Y^\top \operatorname{diag}(c)\, Y)^{-1}`.

    With :math:`G = Y v^{-1} Y^\top` and :math:`H = (I + cG)^{-1} c`:

    .. math:: |e|^2 = e^\top v^{-1} e - f^\top H f, \quad f = Y v^{-1} e, \qquad
        \log\det = \textstyle\sum \log v + \log|I + cG|

    ``lossy`` marks Gaussians for which these differences lose too many digits.

    Source: Woodbury's identity and the matrix determinant lemma.
    """

    precision: Float[Tensor, "B D"]
    scaled: Float[Tensor, "B Q D"]
    gain: Float[Tensor, "B Q Q"]
    log_det: Float[Tensor, " B"]
    lossy: Bool[Tensor, " B"]

    @classmethod
    def of(
        cls, variance: Float[Tensor, "B D"], factors: Float[Tensor, "B Q D"], coefficient: Float[Tensor, "B Q"]
    ) -> "Updated":
        """The Gaussians of diagonal variances, Q factors a Gaussian and their signed coefficients."""
        precision = variance.reciprocal()
        scaled = factors * precision[:, None]
        inner = coefficient[:, :, None] * (scaled @ factors.mT)
        inner.diagonal(dim1=1, dim2=2).add_(1.0)
        inverse, log_det, positive = linalg.small_inverse(inner)
        log_det = log_det + variance.log().sum(1)
        lossless = positive & log_det.isfinite() & (inverse.abs().amax((1, 2)) < MAX_GROWTH)
        return cls(precision, scaled, inverse * coefficient[:, None], log_det, ~lossless)

    def distance(self, e: Float[Tensor, "B M D"]) -> Float[Tensor, "B M"]:
        """Squared distances of deviations."""
        along = e @ self.scaled.mT
        return (e.square() @ self.precision[:, :, None])[..., 0] - self.gained(along)

    def gained(self, along: Float[Tensor, "B M Q"]) -> Float[Tensor, "B M"]:
        """What the update takes off squared distances, from :math:`f`."""
        return ((along @ self.gain) * along).sum(-1)

    def log_density(self, distance: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
        """Log-densities in nats, from squared distances."""
        return self.peak.reshape(-1, *[1] * (distance.ndim - 1)) - 0.5 * distance

    @property
    def peak(self) -> Float[Tensor, " B"]:
        """The largest log-density of each Gaussian, in nats."""
        return -0.5 * (self.log_det + self.precision.shape[1] * LOG_2PI)


def tolerance_of(dtype: torch.dtype) -> float:
    """The relative error that scores of samples of a dtype may have."""
    return TOLERANCE.get(dtype, COARSE_TOLERANCE)


def anchors(values: Float[Tensor, " U"], ratio: float, tolerance: float) -> list[float]:
    """Points at which to decompose a matrix that depends smoothly on one number.

    A polynomial through them is exact to ``tolerance`` for all ``values``: through every value where there are few,
    through Chebyshev points otherwise.

    Args:
        values: the numbers that occur.
        ratio: the factor by which one more point lowers the error.
        tolerance: the relative error.
    """
    low, high = float(values.min()), float(values.max())
    count = 1 if ratio <= tolerance else MAX_ANCHORS
    if tolerance < ratio < 1:
        count = min(MAX_ANCHORS, math.ceil(math.log(tolerance) / math.log(ratio)))
    if low == high or count == 1:
        return [(low + high) / 2]
    few = distinct(values)
    if len(few) <= count:
        return [float(value) for value in few]
    angles = (math.pi * (i + 0.5) / count for i in range(count))
    return [(low + high) / 2 + (high - low) / 2 * math.cos(angle) for angle in angles]


def interpolation(points: list[float], at: Float[Tensor, " B"]) -> Float[Tensor, "B P"]:
    """Lagrange weights of the ``points`` for values between them."""
    columns = list[Tensor]()
    for own in points:
        others = [(at - other) / (own - other) for other in points if other != own]
        columns.append(torch.stack([torch.ones_like(at), *others]).prod(0))
    return torch.stack(columns, 1)
