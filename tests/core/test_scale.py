import pytest
import torch

from mixtura.core.scale import check_single, in_range
from mixtura.errors import DataError


def samples(scale, dtype=torch.float64):
    return (scale * torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_ordinary_samples_stay_as_they_are(scale):
    x = samples(scale, torch.float32)
    assert in_range(x) is x
    check_single(x)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_samples_whose_squares_leave_float32_become_float64(scale):
    x = samples(scale, torch.float32)
    assert torch.equal(in_range(x), x.double())
    with pytest.raises(DataError, match=r"e[+-]\d\d.* Rescale the features"):
        check_single(x)


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e100, 1e300])
def test_samples_whose_squares_leave_float64_are_refused_by_their_scale(scale):
    with pytest.raises(DataError, match=r"e[+-]\d{2,3}.* Rescale the features"):
        in_range(samples(scale))


def test_one_narrow_feature_does_not_spoil_the_others():
    x = samples(1.0)
    x[:, 1] *= 1e-200
    found = in_range(x)
    assert torch.equal(found[:, [0, 2]], x[:, [0, 2]])
    assert bool((found[:, 1] == found[0, 1]).all())


def test_constant_samples_have_no_scale_to_refuse():
    assert in_range(torch.zeros(5, 2)).shape == (5, 2)
