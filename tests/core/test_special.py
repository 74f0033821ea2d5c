"""Log Bessel functions against SciPy and mpmath, their gradient against the ratio, the density against its integral."""

import math

import mpmath
import numpy as np
import pytest
import scipy.special
import torch
from torch.testing import assert_close

from mixtura.core import special
from mixtura.errors import UsageError

KAPPA = torch.logspace(-3, 6, 37, dtype=torch.float64)


@pytest.mark.parametrize("dimension", [2, 3, 10, 51, 128])
def test_log_normalizer_is_scipys_where_scipy_has_numbers(dimension):
    order, kappa = dimension / 2 - 1, KAPPA.numpy()
    value = scipy.special.ive(order, kappa)
    fine = value > 1e-290
    expected = order * np.log(kappa[fine]) - dimension / 2 * math.log(2 * math.pi) - np.log(value[fine])
    found = special.log_normalizer(dimension, KAPPA).numpy()[fine]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert fine.sum() > 15


@pytest.mark.parametrize("dimension", [2, 3, 128, 1280, 4096])
@pytest.mark.parametrize("kappa", [1e-3, 1.0, 50.0, 3e3])
def test_log_bessel_and_ratio_are_mpmaths(dimension, kappa):
    with mpmath.workdps(40):
        order = mpmath.mpf(dimension) / 2 - 1
        low, high = (mpmath.besseli(n, kappa, maxterms=10**6) for n in (order, order + 1))
        smooth = float(mpmath.log(low) - order * mpmath.log(kappa) - kappa)
        ratio = float(high / low)
    at = torch.tensor([kappa], dtype=torch.float64)
    assert_close(special.scaled_log_bessel(dimension / 2 - 1, at).item(), smooth, rtol=1e-13, atol=1e-12)
    assert_close(special.mean_length(dimension, at).item(), ratio, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dimension", [2, 3, 10, 128, 1280, 4096])
def test_gradient_is_one_minus_the_mean_length(dimension):
    kappa = KAPPA.clone().requires_grad_()
    (slope,) = torch.autograd.grad(special.log_normalizer(dimension, kappa).sum(), kappa)
    assert_close(slope, 1 - special.mean_length(dimension, KAPPA), rtol=0, atol=1e-10)


def test_no_concentration_is_the_uniform_density_with_a_finite_slope():
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for dimension, surface in ((2, 2 * math.pi), (3, 4 * math.pi)):
        value = special.log_normalizer(dimension, zero)
        assert_close(value.item(), -math.log(surface), rtol=0, atol=1e-13)
        assert_close(torch.autograd.grad(value.sum(), zero)[0].item(), 1.0, rtol=0, atol=1e-13)


def test_float32_concentrations_are_judged_in_float64():
    value = special.log_normalizer(512, torch.tensor([1e5]))
    assert value.dtype == torch.float64
    assert value.isfinite().all()


def test_one_dimension_is_refused():
    with pytest.raises(UsageError, match=r"1 dimension\(s\) have no density"):
        special.log_normalizer(1, KAPPA)
