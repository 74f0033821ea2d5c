import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from mixtura.errors import DataError
from mixtura.metrics.intervals import binomial_sigma, share_over_classes, wilson


@given(st.integers(1, 500), st.data())
@settings(max_examples=150, deadline=None)
def test_wilson_agrees_with_scipy(count, data):
    successes = data.draw(st.integers(0, count))
    expected = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    low, high = wilson(successes, count)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / count <= high <= 1
    assert wilson(count - successes, count) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_of_nothing_knows_nothing_and_narrows_with_items():
    assert wilson(0, 0) == (0.0, 1.0)
    widths = [np.diff(wilson(n // 2, n))[0] for n in (2, 20, 200, 2000)]
    assert widths == sorted(widths, reverse=True)


@given(st.floats(1e-6, 1 - 1e-6), st.integers(1, 10_000))
@settings(max_examples=50, deadline=None)
def test_sigma_is_the_binomial_deviation(share, count):
    assert binomial_sigma(share, count) == pytest.approx(binom(count, share).std() / count, abs=1e-12)


def test_impossible_counts_are_refused():
    with pytest.raises(DataError, match="7 of 5 items is impossible"):
        wilson(7, 5)
    with pytest.raises(DataError, match=r"share 5.0 of 100 items"):
        binomial_sigma(5.0, 100)


@pytest.mark.parametrize(("classes", "most"), [(10, 0.999), (40, 0.97), (100, 0.955)])
@pytest.mark.parametrize("shape", [(2.0, 2.0), (0.6, 1.2), (6.0, 1.5)])
def test_the_share_of_other_classes_lies_in_its_interval_as_often_as_stated(classes, most, shape):
    """Classes differ by a beta distribution and in size; the truth is the share in other classes of that kind."""
    rng, hits = np.random.default_rng(3), []
    for _ in range(800):
        known, others = ((rng.beta(*shape, n), rng.integers(10, 40, n)) for n in (classes, classes // 4))
        counts = rng.binomial(known[1], known[0])
        truth = rng.binomial(others[1], others[0]).sum() / others[1].sum()
        _, low, high = share_over_classes(counts.astype(float), known[1].astype(float), classes / 4)
        hits.append(low <= truth <= high)
    assert 0.86 <= np.mean(hits) <= most  # wider than stated where few classes say little


def test_the_interval_counts_classes_and_not_items():
    rng = np.random.default_rng(0)
    share, weight = rng.beta(2, 2, 30), np.full(30, 20.0)
    one, many = (share_over_classes(share * weight * n, weight * n, 8.0) for n in (1, 1000))
    assert one == pytest.approx(many)
    assert share_over_classes(share * 0, weight, 8.0)[:2] == (0.0, 0.0)
    empty = share_over_classes(np.append(share * weight, 0), np.append(weight, 0), 8.0)
    assert empty == pytest.approx(one)
    with pytest.raises(DataError, match="no class has items"):
        share_over_classes(np.zeros(2), np.zeros(2), 1.0)
