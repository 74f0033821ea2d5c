import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from mixtura.errors import DataError
from mixtura.metrics import clustering
from mixtura.metrics.clustering import adjusted_rand, mutual_information, silhouette, stability


def pairs_agree(first, second):
    """Hubert and Arabie by counting pairs: agreements beyond those that chance gives."""
    n = len(first)
    same = [(first[i] == first[j], second[i] == second[j]) for i in range(n) for j in range(i)]
    both, one, two = (sum(map(test, same)) for test in (all, lambda p: p[0], lambda p: p[1]))
    expected = one * two / len(same)
    return (both - expected) / ((one + two) / 2 - expected)


def test_adjusted_rand_counts_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 30), rng.integers(-1, 4, 30)
    assert adjusted_rand(first, second) == pytest.approx(pairs_agree(first, second), abs=1e-12)
    assert adjusted_rand(first, (first + 1) % 3) == 1.0
    assert mutual_information(first, (first + 1) % 3) == pytest.approx(1.0)
    assert 0 <= mutual_information(first, second) < 0.3


def test_silhouette_leaves_noise_out_and_samples(monkeypatch):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (60, 3)), rng.normal(8, 1, (60, 3)), rng.normal(4, 9, (20, 3))])
    cluster = np.repeat([0, 1, -1], [60, 60, 20])
    expected = silhouette_samples(x[:120], cluster[:120])
    assert silhouette(x, cluster) == pytest.approx(expected.mean(), abs=1e-12)
    monkeypatch.setattr(clustering, "MAX_SILHOUETTE_SAMPLES", 50)
    assert silhouette(x, cluster) == pytest.approx(expected.mean(), abs=0.1)


def test_silhouettes_that_do_not_exist():
    x = np.random.default_rng(0).normal(size=(5, 2))
    for cluster in ([0] * 5, [-1] * 5, [0, 1, 2, 3, 4], [0, 0, -1, -1, -1]):
        assert np.isnan(silhouette(x, np.array(cluster)))


def test_stability_is_the_mean_over_pairs():
    runs = [np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1])]
    assert stability(runs[:2]) == 1.0
    assert stability(runs) == pytest.approx((1.0 + 2 * adjusted_rand(runs[0], runs[2])) / 3)
    with pytest.raises(DataError, match="1 runs"):
        stability(runs[:1])
    with pytest.raises(DataError, match="0 items"):
        adjusted_rand(np.array([], dtype=int), np.array([], dtype=int))
