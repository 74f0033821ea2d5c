"""Nearest neighbors against the obvious computation."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mixtura.errors import UsageError, WrongDimension
from mixtura.features import neighbours
from mixtura.features.neighbours import knn


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_equals_scikit_learn_whatever_the_chunk(monkeypatch, chunk):
    monkeypatch.setattr(neighbours, "_QUERIES", chunk)
    monkeypatch.setattr(neighbours, "_BASES", chunk)
    query, base = random(30, 6), random(50, 6, seed=1)
    similarity, index = knn(query, base, 5)
    distance, expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(base.numpy()).kneighbors(query.numpy())
    np.testing.assert_array_equal(index.numpy(), expected)
    np.testing.assert_allclose(similarity.numpy(), 1 - distance, atol=1e-12)


def test_scale_does_not_matter():
    query, base = random(10, 6), random(20, 6, seed=1)
    scaled = base * torch.logspace(-20, 20, 20, dtype=torch.float64)[:, None]
    assert torch.equal(knn(query, base, 3)[1], knn(query * 1e9, scaled, 3)[1])


def test_a_vector_is_its_own_nearest():
    base = random(40, 6, dtype=torch.float32)
    similarity, index = knn(base, base, 1)
    assert torch.equal(index[:, 0], torch.arange(40))
    assert similarity.max() <= 1
    torch.testing.assert_close(similarity, torch.ones(40, 1))


def test_more_neighbors_than_points_and_none_at_all():
    assert knn(random(3, 2), random(2, 2), 9)[0].shape == (3, 2)
    assert knn(random(3, 2), random(0, 2), 9)[0].shape == (3, 0)
    assert knn(random(0, 2), random(4, 2), 3)[1].shape == (0, 3)


def test_zero_vectors_and_half_precision():
    similarity, _ = knn(torch.zeros(1, 3), random(4, 3, dtype=torch.float32), 4)
    assert torch.equal(similarity, torch.zeros(1, 4))
    assert knn(random(2, 3, dtype=torch.float16), random(4, 3, dtype=torch.float16), 2)[0].dtype == torch.float32


def test_the_input_stays():
    query = random(3, 2)
    before = query.clone()
    knn(query, query, 1)
    assert torch.equal(query, before)


def test_senseless_questions():
    with pytest.raises(UsageError, match="0 neighbors"):
        knn(random(1, 2), random(1, 2), 0)
    with pytest.raises(WrongDimension, match="2 dimensions and the base 3"):
        knn(random(1, 2), random(1, 3), 1)
