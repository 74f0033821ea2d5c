import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mixtura.errors import DataError, NonFinite, UsageError
from mixtura.metrics.retrieval import average_precision, precision_at, precision_ceiling


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
