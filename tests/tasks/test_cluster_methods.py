"""Methods of clustering: counts, probabilities, noise, and agreement with scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score

from mixtura.errors import UsageError
from mixtura.features.projection import L2
from mixtura.tasks import cluster_methods
from mixtura.tasks.cluster_methods import Points, ScoredCount, axes_for, counts_for, points_of, smallest_as_good


def blobs(each=40, clusters=4, dimension=20, seed=0):
    rng = np.random.default_rng(seed)
    middle = 4 * rng.standard_normal((clusters, dimension))
    label = np.arange(each * clusters) % clusters
    x = middle[label] + rng.standard_normal((len(label), dimension))
    return torch.tensor(x, dtype=torch.float32), label


def points(x):
    return points_of(L2()(x), torch.arange(len(x)))[0]


@pytest.mark.parametrize("method", ["mixture", "kmeans", "minibatch_kmeans", "birch", "hdbscan"])
def test_every_method_finds_clusters_that_are_there(method):
    x, label = blobs()
    found = getattr(cluster_methods, method)(points(x), None, 0)
    assert len(set(found.label.tolist()) - {-1}) == 4
    kept = found.label >= 0
    assert kept.mean() > 0.8 and adjusted_rand_score(label[kept], found.label[kept]) > 0.98


@pytest.mark.parametrize("count", [1, 2, 4])
def test_held_out_rows_find_the_count(count):
    x, _ = blobs(each=160 // count, clusters=count, seed=count)
    found = cluster_methods.mixture(points(x), None, 0)
    assert len(np.unique(found.label)) == count
    assert str(count) in found.how and "one standard error" in found.how


def test_probabilities_are_those_of_the_mixture():
    x, _ = blobs()
    made = points(x)
    found = cluster_methods.mixture(made, 3, 0)
    resp = cluster_methods.best_of(made.x, 3, 0).component_log_prob(made.x).double().softmax(1)
    np.testing.assert_allclose(found.probability, resp.max(1).values.numpy(), atol=1e-5)
    assert (found.probability > 1 / 3 - 1e-6).all() and (found.probability <= 1).all()
    assert not found.tried and found.how == "as asked for"


def test_the_best_start_is_kept():
    x, _ = blobs(clusters=6, each=30)
    made = points(x)
    best = float(cluster_methods.best_of(made.x, 6, 1).log_prob(made.x).double().mean())
    each = [float(cluster_methods._fit(made.x, 6, 4 + s).log_prob(made.x).double().mean()) for s in range(4)]
    assert best == max(each)


def test_copies_of_one_row_do_not_judge_each_other():
    """Each row four times: with the copies in one fold the count stays that of the rows, not of the copies."""
    rng = np.random.default_rng(0)
    x = torch.tensor(np.repeat(rng.standard_normal((25, 6)), 4, axis=0), dtype=torch.float32)
    unit = L2()(x)
    apart = cluster_methods.held_out(points_of(unit, torch.arange(100))[0], 0)
    together = cluster_methods.held_out(points_of(unit, torch.arange(25).repeat_interleave(4))[0], 0)
    assert smallest_as_good(together) <= 2 < smallest_as_good(apart)


def test_the_smallest_within_one_standard_error():
    tried = [ScoredCount(1, 1.0, 0.5), ScoredCount(2, 1.9, 0.2), ScoredCount(3, 2.0, 0.0), ScoredCount(4, 1.95, 0.3)]
    assert smallest_as_good(tried) == 2
    assert smallest_as_good(tried[:1]) == 1


def test_the_error_is_that_of_the_paired_gap(monkeypatch):
    x, _ = blobs(each=20)
    tried = cluster_methods.held_out(points(x), 0)
    best = max(tried, key=lambda one: one.score)
    assert best.error == 0.0 and all(one.error > 0 for one in tried if one is not best)
    monkeypatch.setattr(cluster_methods, "COUNT_SAMPLES", 50)
    assert max(one.count for one in cluster_methods.held_out(points(x), 0)) <= 20


def test_counts_and_axes_that_rows_can_carry():
    assert counts_for(14) == [1, 2, 3, 4, 5, 7]
    assert counts_for(3) == [1] and counts_for(1) == [1]
    assert counts_for(10_000)[-1] <= 200 and counts_for(100, first=2)[0] == 2
    assert [axes_for(n) for n in (4, 50, 100, 10_000)] == [2, 5, 10, 16]


def test_kmeans_and_hdbscan_are_scikit_learns():
    made = points(blobs()[0])
    own = KMeans(3, n_init=5, random_state=7).fit_predict(made.x.numpy())
    assert np.array_equal(cluster_methods.kmeans(made, 3, 7).label, own)
    assert np.isnan(cluster_methods.kmeans(made, 3, 7).probability).all()
    found, own = cluster_methods.hdbscan(made, None, 0), HDBSCAN(min_cluster_size=5, copy=True).fit(made.x.numpy())
    assert np.array_equal(found.label, own.labels_)
    np.testing.assert_array_equal(found.probability, own.probabilities_)


def test_hdbscan_takes_no_count():
    with pytest.raises(UsageError, match="Leave out --clusters 3"):
        cluster_methods.hdbscan(points(blobs()[0]), 3, 0)


def test_constant_rows_are_one_cluster():
    x = torch.ones(20, 5)
    for method in (
        cluster_methods.mixture,
        cluster_methods.kmeans,
        cluster_methods.minibatch_kmeans,
        cluster_methods.birch,
    ):
        assert len(np.unique(method(points(x), None, 0).label)) == 1


def test_rows_are_selected_together():
    made = points(blobs()[0])
    part = made.select(torch.tensor([5, 2]))
    assert isinstance(part, Points) and torch.equal(part.x, made.x[[5, 2]]) and part.group.tolist() == [5, 2]
