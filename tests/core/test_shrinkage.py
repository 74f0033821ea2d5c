import pytest
import torch
from sklearn.covariance import OAS, ledoit_wolf_shrinkage

from mixtura.core import shrinkage
from mixtura.core.covariance import FAMILIES
from mixtura.core.moments import class_means, labeled
from mixtura.testing.covariance_laws import clusters


@pytest.mark.parametrize(("n", "dimension"), [(600, 4), (60, 20), (30, 80), (12, 2)])
def test_the_share_is_scikit_learns(n, dimension):
    x, labels = clusters(max(n, 10 * dimension), 3, dimension)
    x, labels = x[:n], labels[:n]
    residual = x - class_means(x, labels, 3)[labels]
    expected = ledoit_wolf_shrinkage(residual.numpy(), assume_centered=True)
    assert shrinkage.ledoit_wolf(x, labels, 3) == pytest.approx(expected, abs=1e-12)
    assert shrinkage.ledoit_wolf(x.float() + 100, labels, 3) == pytest.approx(expected, abs=1e-3)


def test_round_and_constant_rows_shrink_all_the_way():
    labels = torch.zeros(4, dtype=torch.int64)
    assert shrinkage.ledoit_wolf(torch.ones(4, 3, dtype=torch.float64), labels, 1) == 1.0
    assert shrinkage.ledoit_wolf(torch.eye(4, dtype=torch.float64), labels, 1) <= 1.0


def test_a_weight_is_a_number_of_rows_and_a_scale_a_unit():
    x, labels = clusters(60, 3, 20)
    times = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(1))
    scale = torch.linspace(0.1, 9, 20, dtype=x.dtype)
    repeated = shrinkage.ledoit_wolf((x / scale).repeat_interleave(times, 0), labels.repeat_interleave(times), 3)
    assert shrinkage.ledoit_wolf(x, labels, 3, times.double(), scale) == pytest.approx(repeated, rel=1e-10)
    known = labeled(FAMILIES["tied"], x, labels, 3, times.double())[0].centered().second[0]
    assert shrinkage.ledoit_wolf(x, labels, 3, times.double(), scale, known) == pytest.approx(repeated, rel=1e-10)


def test_the_oracle_approximating_share_is_scikit_learns():
    x, _ = clusters(80, 1, 12)
    labels, scale = torch.zeros(80, dtype=torch.int64), torch.linspace(0.5, 3, 12, dtype=x.dtype)
    centered = (x - x.mean(0)) / scale
    theirs = OAS(assume_centered=True).fit(centered[:79] * (80 / 79) ** 0.5).shrinkage_  # one row less for the mean
    (tied,) = labeled(FAMILIES["tied"], x, labels, 1)
    (diagonal,) = labeled(FAMILIES["diagonal"], x, labels, 1)
    assert shrinkage.oas(tied, scale).identity == pytest.approx(theirs, rel=0.05)
    assert shrinkage.oas(tied).strength == 0.0
    assert shrinkage.oas(diagonal) == shrinkage.Prior(strength=1.0)
