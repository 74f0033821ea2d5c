import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.errors import DataError, NonFinite
from mixtura.metrics.classification import accuracy, balanced_accuracy, confusion, recall, top_k
from sklearn import metrics as oracle


def draw(seed, n=300, c=7):
    rng = np.random.default_rng(seed)
    return rng.integers(0, c, n), rng.integers(0, c, n), rng.normal(size=(n, c))


@pytest.mark.parametrize("seed", range(5))
def test_counts_agree_with_scikit_learn(seed):
    true, predicted, score = draw(seed)
    assert accuracy(true, predicted) == oracle.accuracy_score(true, predicted)
    assert balanced_accuracy(true, predicted, 7) == pytest.approx(
        oracle.balanced_accuracy_score(true, predicted), abs=1e-12
    )
    assert (confusion(true, predicted, 7) == oracle.confusion_matrix(true, predicted, labels=range(7))).all()
    for k in (1, 2, 5, 6):
        expected = oracle.top_k_accuracy_score(true, score, k=k, labels=range(7))
        assert top_k(true, score, k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_laws_of_counts(n, c, seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, c, n), rng.integers(0, c, n)
    score = rng.integers(0, 3, (n, c)).astype(float)  # many ties on purpose
    table = confusion(true, predicted, c)
    order, names = rng.permutation(n), rng.permutation(c)
    assert table.sum() == n
    assert accuracy(true, predicted) == pytest.approx(np.trace(table) / n)
    assert (confusion(true[order], predicted[order], c) == table).all()
    assert (confusion(names[true], names[predicted], c)[np.ix_(names, names)] == table).all()
    assert balanced_accuracy(names[true], names[predicted], c) == pytest.approx(balanced_accuracy(true, predicted, c))
    reached = [top_k(true, score, k) for k in range(1, c + 1)]
    assert reached == sorted(reached)
    assert reached[-1] == 1.0
    assert reached[0] == accuracy(true, score.argmax(axis=1))


def test_balanced_accuracy_of_equal_classes_is_accuracy():
    rng = np.random.default_rng(1)
    true, predicted = np.repeat(np.arange(5), 20), rng.integers(0, 5, 100)
    assert balanced_accuracy(true, predicted, 5) == pytest.approx(accuracy(true, predicted), abs=1e-12)


def test_a_class_without_items_is_left_out():
    true, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    right, total = recall(true, predicted, 3)
    assert right.tolist() == [1, 1, 0]
    assert total.tolist() == [2, 1, 0]
    assert balanced_accuracy(true, predicted, 3) == 0.75


def test_what_does_not_exist_is_refused_with_a_sentence():
    none = np.zeros(0, dtype=int)
    with pytest.raises(DataError, match="accuracy of 0 items"):
        accuracy(none, none)
    with pytest.raises(DataError, match=r"class index -1 lies outside 0\.\.2"):
        confusion(np.array([0, -1]), np.array([0, 1]), 3)
    with pytest.raises(DataError, match=r"class index 3 lies outside 0\.\.2"):
        balanced_accuracy(np.array([0, 1]), np.array([0, 3]), 3)
    with pytest.raises(NonFinite, match="1 of 2 items hold NaN, the first is item 1"):
        top_k(np.array([0, 1]), np.array([[0.0, 1.0], [np.nan, 1.0]]), 1)
