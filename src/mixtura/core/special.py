r"""Log of modified Bessel functions and their ratios, for von Mises-Fisher densities in any dimension."""

import math
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.errors import UsageError

LEAST_ORDER = 12.0  # at this order and above, the series is exact to rounding; smaller orders recur downward from it
DEBYE_TERMS = 14


def _debye(terms: int) -> list[list[float]]:
    r"""Polynomials of the uniform expansion, lowest power of p first, padded to one length; exact before rounding.

    .. math:: U_0 = 1, \qquad U_{k+1}(p) = \tfrac12 p^2 (1 - p^2)\, U_k'(p) + \tfrac18 \int_0^p (1 - 5t^2)\, U_k(t)\,dt
    """
    polynomials = [[Fraction(1)]]
    for _ in range(terms):
        last = polynomials[-1]
        following = [Fraction(0)] * (len(last) + 3)
        for power, value in enumerate(last):
            following[power + 1] += value * Fraction(power, 2) + value * Fraction(1, 8 * (power + 1))
            following[power + 3] -= value * Fraction(power, 2) + value * Fraction(5, 8 * (power + 3))
        polynomials.append(following)
    longest = len(polynomials[-1])
    return [[float(value) for value in polynomial] + [0.0] * (longest - len(polynomial)) for polynomial in polynomials]


DEBYE_COEFFICIENTS = torch.tensor(_debye(DEBYE_TERMS), dtype=torch.float64)


def scaled_log_bessel(order: float, kappa: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    r"""Smooth part of the log of a modified Bessel function, in float64; differentiable.

    .. math:: h_\nu(\kappa) = \log I_\nu(\kappa) - \nu \log \kappa - \kappa

    It is finite down to :math:`\kappa = 0`. For orders of 12 or more, Debye's expansion is uniform in
    :math:`\kappa`; smaller orders recur downward with the ratio :math:`q_\nu = I_{\nu+1} / (\kappa I_\nu)`:

    .. math:: q_\nu = \frac{1}{2(\nu + 1) + \kappa^2 q_{\nu+1}}, \qquad h_\nu = h_{\nu+1} - \log q_\nu

    Args:
        order: :math:`\nu`, zero or more.
        kappa: zero or more.

    Source: NIST Digital Library of Mathematical Functions, 10.29.1 and 10.41.3.
    """
    kappa = kappa.double()
    down = max(0, math.ceil(LEAST_ORDER - order))
    value = _uniform(order + down, kappa)
    if down == 0:
        return value
    ratio = (_uniform(order + down + 1, kappa) - value).exp()
    for step in range(down, 0, -1):
        ratio = 1 / (2 * (order + step) + kappa.square() * ratio)
        value = value - ratio.log()
    return value


def log_normalizer(dimension: int, kappa: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    r"""Log of the peak of a von Mises-Fisher density, in nats, float64.

    .. math:: \log C_D(\kappa) + \kappa
        = (\tfrac D2 - 1) \log\kappa - \tfrac D2 \log 2\pi - \log I_{D/2-1}(\kappa) + \kappa

    With it, :math:`\log p(x) = \log C_D(\kappa) + \kappa - \kappa (1 - \mu^\top x)` loses no digits to a large
    :math:`\kappa`. Its gradient is :math:`1 - A_D(\kappa)`.

    Args:
        dimension: D, the dimension of the ambient space; 2 or more.
        kappa: concentrations, zero (uniform) or more.

    Raises:
        UsageError: less than two dimensions.
    """
    _check(dimension)
    return -0.5 * dimension * math.log(2 * math.pi) - scaled_log_bessel(0.5 * dimension - 1, kappa)


def mean_length(dimension: int, kappa: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    r"""Mean resultant length of a von Mises-Fisher distribution, 0 to 1, float64.

    .. math:: A_D(\kappa) = \frac{I_{D/2}(\kappa)}{I_{D/2-1}(\kappa)}

    Args:
        dimension: D, 2 or more.
        kappa: concentrations, zero or more.

    Raises:
        UsageError: less than two dimensions.
    """
    _check(dimension)
    order = 0.5 * dimension - 1
    return kappa.double() * (scaled_log_bessel(order + 1, kappa) - scaled_log_bessel(order, kappa)).exp()


def _check(dimension: int) -> None:
    if dimension < 2:
        raise UsageError(f"Directions in {dimension} dimension(s) have no density. Give features with 2 or more.")


def _uniform(order: float, kappa: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    r"""Debye's expansion of :math:`h_\nu`, with :math:`s = \sqrt{\nu^2 + \kappa^2}` and :math:`p = \nu / s`."""
    root = (order**2 + kappa.square()).sqrt()
    debye = DEBYE_COEFFICIENTS.to(root.device)
    orders, powers = (torch.arange(n, dtype=root.dtype, device=root.device) for n in debye.shape)
    series = (order / root)[..., None].pow(powers) @ (torch.pow(1 / order, orders) @ debye)
    excess = order**2 / (root + kappa)  # s - kappa without cancellation
    return excess - order * (order + root).log() - 0.5 * (2 * math.pi * root).log() + series.log()
