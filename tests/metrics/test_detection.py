import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from mixtura.errors import DataError, NonFinite
from mixtura.metrics.detection import aupr, auroc, fpr_at_tpr
from sklearn import metrics as oracle


@st.composite
def scored(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, m = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    score = rng.integers(-4, 5, n + m).astype(float)  # ties on purpose
    known = np.arange(n + m) < n
    order = rng.permutation(n + m)
    return score[order], known[order]


def naive_fpr(score, known, tpr):
    for threshold in sorted(set(score), reverse=True):
        if np.mean(score[known] >= threshold) >= tpr - 1e-12:
            return np.mean(score[~known] >= threshold)
    raise AssertionError


@given(scored())
@settings(max_examples=150, deadline=None)
def test_against_oracles(case):
    score, known = case
    wins = sum((k > u) + 0.5 * (k == u) for k in score[known] for u in score[~known])
    assert auroc(score, known) == pytest.approx(wins / known.sum() / (~known).sum(), abs=1e-12)
    u = mannwhitneyu(score[known], score[~known]).statistic
    assert auroc(score, known) == pytest.approx(u / known.sum() / (~known).sum(), abs=1e-12)
    assert aupr(score, known) == pytest.approx(oracle.average_precision_score(known, score), abs=1e-12)
    for tpr in (0.2, 0.5, 0.95, 1.0):
        assert fpr_at_tpr(score, known, tpr) == pytest.approx(naive_fpr(score, known, tpr), abs=1e-12)


@given(scored())
@settings(max_examples=50, deadline=None)
def test_laws(case):
    score, known = case
    for metric in (auroc, aupr, fpr_at_tpr):
        assert metric(np.exp(score) * 3 - 8, known) == pytest.approx(metric(score, known), abs=1e-12)
    assert auroc(-score, ~known) == pytest.approx(auroc(score, known), abs=1e-12)
    assert auroc(-score, known) == pytest.approx(1 - auroc(score, known), abs=1e-12)
    assert fpr_at_tpr(score, known, 0.5) <= fpr_at_tpr(score, known, 0.95)


def test_a_perfect_a_blind_and_an_infinite_score():
    known = np.array([True, True, False, False])
    assert auroc(np.array([3.0, 2, 1, 0]), known) == 1
    assert fpr_at_tpr(np.array([3.0, 2, 1, 0]), known) == 0
    assert auroc(np.zeros(4), known) == 0.5
    assert fpr_at_tpr(np.zeros(4), known) == 1
    assert auroc(np.array([np.inf, 2, 1, -np.inf]), known) == 1


def test_it_needs_both_kinds_and_numbers():
    with pytest.raises(DataError, match="there is no stranger"):
        auroc(np.arange(3.0), np.ones(3, bool))
    with pytest.raises(DataError, match="there is no known item"):
        fpr_at_tpr(np.arange(3.0), np.zeros(3, bool))
    with pytest.raises(NonFinite):
        aupr(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(DataError, match=r"tpr 0\.0 lies outside"):
        fpr_at_tpr(np.arange(2.0), np.array([True, False]), 0.0)
