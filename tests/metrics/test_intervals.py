import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from mixtura.errors import DataError
from mixtura.metrics.intervals import binomial_sigma, wilson


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
