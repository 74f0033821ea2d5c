"""Laws of the projections that bend; those shared with all projections are in test_projection.py."""

import math

import pytest
import torch

from mixtura.errors import UsageError
from mixtura.features.nonlinear import Power, RandomFeatures


def rows(n=200, d=6, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3 + 1


@pytest.mark.parametrize("power", [0.1, 0.5, 0.9, 1.0])
def test_a_power_keeps_sign_and_order_and_has_an_inverse(power):
    x = rows(dtype=torch.float64)
    bent = Power.fit(x, power=power)(x)
    assert torch.equal(bent.sign(), x.sign())
    torch.testing.assert_close(bent.abs().pow(1 / power).copysign(bent), x, rtol=1e-12, atol=1e-12)
    column = x[:, 0].sort().values[:, None]
    assert (Power(power)(column).diff(dim=0) >= 0).all()


def test_a_power_keeps_zero_and_takes_whole_numbers():
    assert torch.equal(Power(0.5)(torch.tensor([[0, 4, -9]])), torch.tensor([[0.0, 2.0, -3.0]]))
    assert Power(0.3)(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("power", [0.0, -1.0, 1.1, math.nan])
def test_an_exponent_out_of_range_is_refused(power):
    with pytest.raises(UsageError, match=r"Power .* is out of range"):
        Power.fit(rows(), power=power)


def test_a_power_makes_rectified_features_less_skewed():
    x = rows().abs() ** 2

    def skew(values):
        centered = values - values.mean(0)
        return float((centered**3).mean() / centered.square().mean() ** 1.5)

    assert skew(Power(0.5)(x)) < 0.5 * skew(x)


def test_random_features_follow_from_the_seed_alone():
    x = rows()
    first, again = RandomFeatures.fit(x, dimension=50, seed=3), RandomFeatures.fit(x.clone(), dimension=50, seed=3)
    other = RandomFeatures.fit(x, dimension=50, seed=4)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert first(x).shape == (200, 50)
    assert (first(x) >= 0).all()


def test_random_features_see_no_shift_and_no_scale():
    x = rows(dtype=torch.float64)
    plain = RandomFeatures.fit(x, dimension=40)(x)
    moved = 7 * x + 100
    torch.testing.assert_close(RandomFeatures.fit(moved, dimension=40)(moved), plain, rtol=0, atol=1e-4)


def test_random_features_approach_the_kernel_they_stand_for():
    """The mean product over many features is that of the arc-cosine kernel of degree one."""
    x = rows(4, 5, dtype=torch.float64)
    projection = RandomFeatures.fit(x, dimension=200_000)
    product = projection(x).double() @ projection(x).double().T / 200_000
    scale = (x - x.mean(0)).square().mean().sqrt()
    centered = (x - x.mean(0)) / (scale * 5**0.5)
    lifted = torch.cat([centered, torch.ones(4, 1, dtype=torch.float64)], dim=1)
    length = lifted.norm(dim=1)
    angle = (lifted @ lifted.T / length[:, None] / length).clamp(-1, 1).acos()
    kernel = length[:, None] * length * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
    torch.testing.assert_close(product, kernel, rtol=0.02, atol=0.01)


def test_constant_rows_stay_finite():
    x = torch.full((5, 3), 2.5)
    assert RandomFeatures.fit(x, dimension=8)(x).isfinite().all()


def test_no_random_feature_is_refused():
    with pytest.raises(UsageError, match="0 random features"):
        RandomFeatures.fit(rows(), dimension=0)


def test_classes_that_no_plane_divides_become_divisible():
    """Two rings: the means agree in x and differ in the features."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(400, generator=generator) * 2 * math.pi
    radius = torch.where(torch.arange(400) % 2 == 0, 1.0, 3.0)
    x = torch.stack([angle.cos(), angle.sin()], dim=1) * radius[:, None]
    bent = RandomFeatures.fit(x, dimension=300)(x).double()
    signs = torch.where(radius > 2, 1.0, -1.0).double()

    def right(features):
        design = torch.cat([features, torch.ones(400, 1, dtype=torch.float64)], dim=1)
        ridge = design.T @ design + 1e-3 * torch.eye(design.shape[1], dtype=torch.float64)
        return float(((design @ torch.linalg.solve(ridge, design.T @ signs)).sign() == signs).double().mean())

    assert right(x.double()) < 0.75
    assert right(bent) > 0.99
