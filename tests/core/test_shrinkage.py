import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage

from mixtura.core import shrinkage
from mixtura.core.moments import class_means
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
