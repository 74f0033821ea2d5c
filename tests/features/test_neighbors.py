"""Nearest neighbors against the obvious computation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from mixtura.errors import UsageError, WrongDimension
from mixtura.features import neighbors
from mixtura.features.neighbors import groups_of_pairs, knn, others, pairs_above


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_equals_scikit_learn_whatever_the_chunk(monkeypatch, chunk):
    monkeypatch.setattr(neighbors, "_QUERIES", chunk)
    monkeypatch.setattr(neighbors, "_BASES", chunk)
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


def naive_cosine(x):
    unit = x / x.norm(dim=1, keepdim=True)
    return unit @ unit.T


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_others_leave_each_row_out_of_its_own_neighbors(monkeypatch, chunk):
    monkeypatch.setattr(neighbors, "_QUERIES", chunk)
    monkeypatch.setattr(neighbors, "_BASES", chunk)
    x = random(30, 4)
    cosine = naive_cosine(x).fill_diagonal_(-2)
    similarity, index = others(x, 5)
    torch.testing.assert_close(similarity, cosine.topk(5).values)
    assert torch.equal(index, cosine.topk(5).indices)


def test_equal_rows_find_each_other():
    x = torch.ones(40, 3)
    similarity, index = others(x, 3)
    assert index.shape == (40, 3) and not (index == torch.arange(40)[:, None]).any()
    torch.testing.assert_close(similarity, torch.ones(40, 3))
    assert others(random(1, 3), 2)[1].shape == (1, 0)


@pytest.mark.parametrize("chunk", [1, 6, 100])
@pytest.mark.parametrize("limit", [-0.9, 0.0, 0.7, 0.999])
def test_pairs_equal_the_double_loop(monkeypatch, chunk, limit):
    monkeypatch.setattr(neighbors, "_QUERIES", chunk)
    monkeypatch.setattr(neighbors, "_BASES", 2 * chunk)
    x = random(25, 3, seed=4)
    x[7] = 2 * x[3]
    cosine = naive_cosine(x)
    expected = {(i, j) for i in range(25) for j in range(i + 1, 25) if cosine[i, j] >= limit}
    pairs, found = pairs_above(x, limit)
    assert {tuple(pair) for pair in pairs.tolist()} == expected and len(pairs) == len(expected)
    torch.testing.assert_close(found, cosine[pairs[:, 0], pairs[:, 1]])


def test_pairs_that_cannot_be_listed(monkeypatch):
    monkeypatch.setattr(neighbors, "MAX_PAIRS", 5)
    with pytest.raises(UsageError, match=r"More than 5 pairs.*Raise the limit"):
        pairs_above(torch.ones(4, 2), 0.5)
    for limit in (-1.0, 1.01, float("nan")):
        with pytest.raises(UsageError, match="no cosine"):
            pairs_above(random(3, 2), limit)
    assert pairs_above(random(0, 2), 0.5)[0].shape == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_groups_equal_a_union_of_sets(links):
    pairs = [(min(pair), max(pair)) for pair in links if pair[0] != pair[1]]
    sets = [{i} for i in range(12)]
    for left, right in pairs:
        one, two = (next(s for s in sets if row in s) for row in (left, right))
        if one is not two:
            sets.remove(two)
            one |= two
    expected = sorted((sorted(s) for s in sets if len(s) > 1), key=lambda rows: (-len(rows), rows))
    assert groups_of_pairs(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), 12) == expected
