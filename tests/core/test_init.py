import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import FactorAnalysis

from mixtura.core import em, init
from mixtura.core.covariance import FAMILIES
from mixtura.core.moments import class_means
from mixtura.testing.covariance_laws import clusters, dense


def inertia(x, labels):
    return float((x - class_means(x, labels, int(labels.max()) + 1)[labels]).square().sum())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_kmeans_is_as_tight_as_scikit_learns():
    x, _ = clusters(1500, 8, 6)
    ours = [inertia(x, init.kmeans_plus_plus(x, 8, generator(seed), steps=200)) for seed in range(10)]
    theirs = [
        KMeans(8, init="k-means++", n_init=1, random_state=seed, tol=0).fit(x.numpy()).inertia_ for seed in range(10)
    ]
    assert min(ours) <= 1.001 * min(theirs)
    assert np.mean(ours) <= 1.1 * np.mean(theirs)  # theirs tries several seeds a center


def test_kmeans_ends_where_lloyd_stands_still():
    x, _ = clusters(400, 4, 3)
    labels = init.kmeans_plus_plus(x, 4, generator(), steps=200)
    again = KMeans(4, init=class_means(x, labels, 4).numpy(), n_init=1).fit(x.numpy())
    assert again.inertia_ == pytest.approx(inertia(x, labels), rel=1e-9)
    assert torch.equal(torch.from_numpy(again.labels_).long(), labels)


def test_kmeans_far_from_zero_and_with_weights():
    x, _ = clusters(400, 4, 3)
    labels = init.kmeans_plus_plus(x, 4, generator())
    moved = init.kmeans_plus_plus((x + 1e3).float(), 4, generator())
    assert inertia(x, moved) == pytest.approx(inertia(x, labels), rel=0.05)
    weight = torch.zeros(400, dtype=torch.float64)
    weight[:3] = 1.0
    centers = class_means(x, init.kmeans_plus_plus(x, 3, generator(), weight), 3, weight)
    torch.testing.assert_close(centers.sort(dim=0).values, x[:3].sort(dim=0).values)


def test_more_clusters_than_distinct_rows():
    x = torch.ones(6, 2)
    labels = init.kmeans_plus_plus(x, 4, generator())
    assert ((labels >= 0) & (labels < 4)).all()


def test_nearest_is_the_argmin_of_distances():
    x, _ = clusters(300, 4, 3)
    assert torch.equal(init.nearest(x, x[:9]), torch.cdist(x, x[:9]).argmin(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_component_without_rows_takes_the_pooled_spread(family):
    x, labels = clusters(400, 3, 4)
    mixture = init.from_labels(family, x, labels * 2, 6, floor=1e-6, rank=2)
    assert mixture.log_weight.exp().tolist()[1::2] == [0.0, 0.0, 0.0]
    torch.testing.assert_close(mixture.mean[1], x.mean(0))
    assert (torch.linalg.eigvalsh(dense(mixture)) > 0).all()
    assert mixture.log_prob(x).isfinite().all()


@pytest.mark.parametrize("rank", [1, 2])
def test_low_rank_reaches_the_likelihood_of_factor_analysis(rank):
    x, _ = clusters(300, 1, 6, seed=3)
    begun = init.from_labels("lowrank", x, torch.zeros(len(x), dtype=torch.int64), 1, rank=rank)
    ours = em.fit(begun, em.Chunks(x), steps=500, tolerance=0.0).trace
    theirs = FactorAnalysis(rank, tol=1e-5, max_iter=100_000, svd_method="lapack").fit(x.numpy())
    assert ours[-1] == pytest.approx(theirs.score(x.numpy()), abs=3e-3)
    assert ours[-1] - ours[0] < 0.5  # the start is close already
