import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.errors import DataError
from mixtura.metrics.selective import aurc, risk_coverage


@given(st.integers(1, 50), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_without_ties_it_is_the_naive_loop(n, seed):
    rng = np.random.default_rng(seed)
    score, correct = rng.permutation(n).astype(float), rng.random(n) < 0.7
    order = sorted(range(n), key=lambda i: -score[i])
    naive = [sum(not correct[j] for j in order[: i + 1]) / (i + 1) for i in range(n)]
    coverage, risk = risk_coverage(score, correct)
    assert coverage == pytest.approx(np.arange(1, n + 1) / n)
    assert risk == pytest.approx(naive, abs=1e-12)
    assert risk[-1] == pytest.approx(1 - correct.mean())


def test_ties_give_the_mean_over_all_orders():
    score, correct = np.array([1.0, 0, 0, 0]), np.array([True, True, False, False])
    curves = []
    for order in itertools.permutations(range(1, 4)):
        wrong = np.cumsum(~correct[[0, *order]])
        curves.append(wrong / np.arange(1, 5))
    assert risk_coverage(score, correct)[1] == pytest.approx(np.mean(curves, axis=0), abs=1e-12)


@given(st.integers(1, 30), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_order_and_monotone_maps_do_not_matter(n, seed):
    rng = np.random.default_rng(seed)
    score, correct, order = rng.integers(0, 4, n).astype(float), rng.random(n) < 0.5, rng.permutation(n)
    assert aurc(score[order], correct[order]) == pytest.approx(aurc(score, correct), abs=1e-12)
    assert aurc(np.exp(score), correct) == pytest.approx(aurc(score, correct), abs=1e-12)
    assert aurc(correct.astype(float), correct) <= aurc(score, correct) + 1e-12


def test_nothing_wrong_is_no_risk_and_no_items_is_refused():
    assert aurc(np.arange(5.0), np.ones(5, bool)) == 0
    with pytest.raises(DataError):
        aurc(np.zeros(0), np.zeros(0, bool))
