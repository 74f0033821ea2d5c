from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import completeness_score, homogeneity_score, silhouette_samples

from mixtura.errors import DataError
from mixtura.metrics import clustering
from mixtura.metrics.clustering import (
    adjusted_rand,
    completeness,
    homogeneity,
    hungarian_accuracy,
    mutual_information,
    purity,
    silhouette,
    stability,
    superclass_purity,
    used_share,
)


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


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=40))
def test_agreement_with_labels_is_what_the_definitions_say(items):
    """Purity by counting in each cluster; the best of all matchings by trying each."""
    label, cluster = np.array(items).T
    most = [np.bincount(label[cluster == one]).max() for one in np.unique(cluster)]
    assert purity(label, cluster) == superclass_purity(label, cluster) == pytest.approx(sum(most) / len(label))
    right = [(label == np.array([*order, -1])[cluster]).mean() for order in permutations(range(4))]
    assert hungarian_accuracy(label, cluster) == pytest.approx(max(right))
    assert homogeneity(label, cluster) == pytest.approx(homogeneity_score(label, cluster))
    assert completeness(label, cluster) == pytest.approx(completeness_score(label, cluster))
    assert hungarian_accuracy(label, cluster) <= purity(label, cluster) + 1e-12
    assert used_share(cluster, 5) == len({one for one in cluster if one >= 0}) / 5


def test_clusters_beyond_the_labels_are_pure_but_wrong():
    label = np.repeat([0, 1], 6)
    assert purity(label, np.arange(12)) == 1.0
    assert homogeneity(label, np.arange(12)) == pytest.approx(1.0)
    assert hungarian_accuracy(label, np.arange(12)) == pytest.approx(2 / 12)
    assert hungarian_accuracy(label, np.full(12, -1)) == 0.0


def test_a_cluster_that_does_not_exist_is_no_used_one():
    with pytest.raises(DataError, match="class index 4"):
        used_share(np.array([0, 4]), 4)
    for metric in (purity, homogeneity, completeness, hungarian_accuracy):
        with pytest.raises(DataError, match=f"{metric.__name__} of 0 items"):
            metric(np.empty(0, int), np.empty(0, int))


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
