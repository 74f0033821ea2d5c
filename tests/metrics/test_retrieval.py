import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from mixtura.errors import DataError, NonFinite, UsageError
from mixtura.metrics.retrieval import (
    average_precision,
    knn_accuracy,
    nearest,
    precision_at,
    precision_ceiling,
    recall_at,
)


def naive_average_precision(similarity, relevant):
    """By walking down the ranking; items of equal similarity are returned together."""
    total = 0.0
    for value, own in zip(similarity, relevant, strict=True):
        if own:
            returned = [r for s, r in zip(similarity, relevant, strict=True) if s >= value]
            total += sum(returned) / len(returned)
    return total / sum(relevant)


@given(st.integers(2, 30), st.integers(0, 10_000), st.booleans())
def test_average_precision_equals_the_walk_and_scikit_learn(count, seed, ties):
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 4, (3, count)) / 4 if ties else rng.standard_normal((3, count))
    relevant = rng.random((3, count)) < 0.4
    relevant[:, 0] = True
    found = average_precision(similarity, relevant)
    for row in range(3):
        assert found[row] == pytest.approx(naive_average_precision(similarity[row], relevant[row]), abs=1e-12)
        assert found[row] == pytest.approx(average_precision_score(relevant[row], similarity[row]), abs=1e-12)


def test_the_query_itself_is_never_returned():
    similarity = np.array([[-np.inf, 0.9, 0.1], [-np.inf, 0.1, 0.9]])
    relevant = np.array([[False, True, False], [False, True, False]])
    np.testing.assert_allclose(average_precision(similarity, relevant), [1.0, 0.5])


def test_precision_counts_what_is_missing_as_wrong():
    relevant = np.array([[True, False, True, True], [False, False, True, False]])
    assert precision_at(relevant, 1) == 0.5
    assert precision_at(relevant, 4) == 0.5
    assert precision_at(relevant, 8) == 0.25
    assert precision_ceiling(np.array([1, 3, 20]), 5) == pytest.approx((0.2 + 0.6 + 1) / 3)


def test_senseless_searches():
    with pytest.raises(UsageError, match="precision at 0"):
        precision_at(np.ones((1, 1), dtype=bool), 0)
    with pytest.raises(DataError, match="Query 1 has no item"):
        average_precision(np.zeros((2, 2)), np.array([[True, False], [False, False]]))
    with pytest.raises(NonFinite, match="NaN"):
        average_precision(np.array([[np.nan, 0.0]]), np.array([[True, False]]))
    with pytest.raises(DataError, match="0 items"):
        precision_at(np.ones((0, 3), dtype=bool), 1)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5])
def test_neighbors_vote_as_in_scikit_learn(distance, k):
    """Two labels and an odd number of neighbors: there is no tie."""
    rng = np.random.default_rng(0)
    bank, query = rng.normal(size=(80, 3)), rng.normal(size=(50, 3))
    there, label = (bank.sum(1) > 0).astype(int), (query.sum(1) > 0).astype(int)
    votes = knn_accuracy(there[nearest(query, bank, k, distance)], label)
    oracle = KNeighborsClassifier(k, algorithm="brute", metric=distance).fit(bank, there)
    assert votes == pytest.approx(oracle.score(query, label))
    found = nearest(query, bank, 3, distance)
    if distance == "euclidean":
        assert (found == np.linalg.norm(query[:, None] - bank, axis=2).argsort(1)[:, :3]).all()
    else:
        cosine = (query @ bank.T) / np.linalg.norm(bank, axis=1)
        assert (found == (-cosine).argsort(1)[:, :3]).all()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_row_is_not_its_own_neighbor_but_its_copy_is(distance):
    x = np.repeat(np.random.default_rng(1).normal(size=(6, 4)), 2, axis=0)
    found = nearest(x, None, 1, distance)[:, 0]
    assert (found == np.arange(12) ^ 1).all()
    label = np.repeat(np.arange(6), 2)
    assert recall_at(label[found][:, None] == label[:, None], 1) == knn_accuracy(label[found][:, None], label) == 1.0


def test_recall_counts_queries_with_one_hit_or_more():
    relevant = np.random.default_rng(2).random((40, 6)) < 0.2
    assert [recall_at(relevant, k) for k in (1, 3)] == [np.mean([row[:k].any() for row in relevant]) for k in (1, 3)]


def test_of_equally_many_neighbors_the_nearest_counts():
    assert knn_accuracy(np.array([[3, 1, 1, 3], [0, 2, 5, 1]]), np.array([3, 0])) == 1.0


def test_neighbors_that_cannot_be_sought():
    x = np.eye(3)
    for k in (0, 3):
        with pytest.raises(UsageError, match=f"{k} neighbors cannot be sought among 2 rows"):
            nearest(x, None, k)
    with pytest.raises(UsageError, match="'manhattan' is not known"):
        nearest(x, x, 1, "manhattan")
    with pytest.raises(NonFinite, match="first is item 1"):
        nearest(np.array([[0.0, 1], [np.nan, 1]]), x[:, :2], 1)
    with pytest.raises(UsageError, match="recall at 4"):
        recall_at(np.ones((2, 3), bool), 4)
