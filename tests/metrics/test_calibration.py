import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.errors import DataError, NonFinite
from mixtura.metrics.calibration import brier, ece, nll, reliability
from sklearn import metrics as oracle


def naive_ece(probability, correct, bins):
    total, n = 0.0, len(probability)
    for b in range(bins):
        inside = [i for i, p in enumerate(probability) if b / bins < p <= (b + 1) / bins or (b == 0 and p == 0)]
        if inside:
            stated = sum(probability[i] for i in inside) / len(inside)
            measured = sum(bool(correct[i]) for i in inside) / len(inside)
            total += len(inside) / n * abs(stated - measured)
    return total


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_ece_equals_the_naive_loop(n, bins, seed):
    rng = np.random.default_rng(seed)
    probability, correct = rng.random(n), rng.random(n) < 0.5
    probability[rng.random(n) < 0.1] = rng.choice([0.0, 1.0])
    value = ece(probability, correct, bins)
    assert value == pytest.approx(naive_ece(probability, correct, bins), abs=1e-12)
    assert 0 <= value <= 1
    order = rng.permutation(n)
    assert ece(probability[order], correct[order], bins) == pytest.approx(value, abs=1e-12)


def test_the_table_keeps_every_item_and_every_bin():
    rng = np.random.default_rng(0)
    probability, correct = rng.random(500), rng.random(500) < 0.7
    table = reliability(probability, correct)
    assert len(table.count) == 15
    assert table.count.sum() == 500
    assert table.right.sum() == correct.sum()
    full = table.count > 0
    assert (table.stated[full] > table.low[full]).all()
    assert (table.stated[full] <= table.high[full]).all()


def test_edges_fall_as_stated_and_empty_bins_say_nan():
    table = reliability(np.array([0.0, 0.5, 1.0]), np.array([True, False, True]), bins=2)
    assert table.count.tolist() == [2, 1]
    empty = reliability(np.array([0.9]), np.array([True]), bins=3)
    assert np.isnan(empty.measured[:2]).all()
    assert np.isnan(empty.stated[:2]).all()


def test_ece_is_zero_for_a_perfect_and_one_for_a_perverse_model():
    sure = np.ones(8)
    assert ece(sure, np.ones(8, bool)) == 0
    assert ece(sure, np.zeros(8, bool)) == 1


def test_ece_of_a_calibrated_model_vanishes_with_many_items():
    rng = np.random.default_rng(3)
    probability = rng.random(200_000)
    assert ece(probability, rng.random(200_000) < probability) < 0.006  # mean of 15 |N(0, sd about 0.004)|, doubled


def softmax(score):
    e = np.exp(score - score.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("c", [2, 3, 9])
def test_proper_scores_agree_with_scikit_learn(c):
    rng = np.random.default_rng(c)
    p, true = softmax(rng.normal(size=(200, c))), rng.integers(0, c, 200)
    assert nll(true, np.log(p)) == pytest.approx(oracle.log_loss(true, p, labels=range(c)), abs=1e-12)
    expected = oracle.brier_score_loss(true, p, labels=list(range(c)), scale_by_half=False)
    assert brier(true, p) == pytest.approx(expected, abs=1e-12)


@given(st.integers(2, 6), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_proper_scores_are_best_at_the_truth(c, seed):
    rng = np.random.default_rng(seed)
    truth, other = softmax(rng.normal(size=(2, c)))
    count = np.round(truth * 1000).astype(int) + 1
    true = np.repeat(np.arange(c), count)
    share = count / count.sum()

    def many(p):
        return np.tile(p, (len(true), 1))

    assert brier(true, many(share)) <= brier(true, many(other)) + 1e-12
    assert nll(true, np.log(many(share))) <= nll(true, np.log(many(other))) + 1e-12


def test_probability_zero_for_the_truth_costs_infinitely_much():
    assert nll(np.array([0]), np.array([[-np.inf, 0.0]])) == np.inf
    assert nll(np.array([1]), np.array([[-np.inf, 0.0]])) == 0


def test_float32_rounding_is_forgiven_and_percent_is_not():
    assert ece(np.array([1.0000001], dtype=np.float32), np.array([True])) == 0
    with pytest.raises(DataError, match=r"probability 93 of item 1 lies outside \[0, 1\]"):
        ece(np.array([0.5, 93.0]), np.array([True, True]))
    with pytest.raises(NonFinite):
        ece(np.array([np.nan]), np.array([True]))
