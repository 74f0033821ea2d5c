"""Benjamini-Hochberg: SciPy's figures, and the promise kept by conformal p-values of one calibration."""

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control

from mixtura.scores.false_discovery import adjusted, limit
from mixtura.scores.typicality import Typicality

RATES = (0.01, 0.05, 0.1, 0.2, 0.5)


def batches():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40, 500):
        for _ in range(20):
            p = rng.uniform(size=size) ** rng.choice([1, 3, 8])
            yield p
            yield np.ceil(p * 20) / 20  # ties, and values at the limit itself


def test_adjusted_values_are_those_of_scipy():
    for p in batches():
        np.testing.assert_array_equal(adjusted(p), false_discovery_control(p, method="bh"))
    assert len(adjusted(np.zeros(0))) == 0


@pytest.mark.parametrize("rate", RATES)
def test_what_lies_below_the_limit_is_what_scipy_rejects(rate):
    found = 0
    for p in batches():
        wanted = false_discovery_control(p, method="bh") <= rate
        np.testing.assert_array_equal(p < limit(p, rate), wanted)
        found += int(wanted.sum())
    assert found > 100


def test_one_row_has_the_rate_as_its_limit():
    assert limit(np.array([0.3]), 0.05) == 0.05
    assert limit(np.array([0.01]), 0.05) == pytest.approx(0.05, rel=1e-12)
    assert limit(np.zeros(0), 0.05) == 0.05


def test_without_a_discovery_the_limit_is_that_of_a_single_row():
    assert limit(np.array([0.5, 0.4, 0.04, 0.9]), 0.1) == 0.1 / 4


def inbox(rng, calibration, genuine, strange, classes=4):
    """P-values of genuine and strange rows, all ranked among the same calibration rows of classes that differ."""

    def rows(count, shift):
        c = rng.integers(0, classes, count)
        log_density = (1 + c) * rng.normal(size=count) - 10 * c - shift
        return (torch.from_numpy(v) for v in (log_density, log_density + 3 * rng.normal(size=count), c))

    typicality = Typicality.fit(*rows(calibration, 0.0))
    log_density, background, c = (
        torch.cat(parts) for parts in zip(rows(genuine, 0.0), rows(strange, 400.0), strict=True)
    )
    return typicality(typicality.score(log_density, background), c).numpy()


@pytest.mark.parametrize(("rate", "genuine"), [(0.05, 150), (0.2, 150), (0.2, 40)])
def test_the_rate_is_kept_on_average_and_not_by_refusing_to_discover(rate, genuine):
    """With a share of genuine rows of g, the expected share of false discoveries is rate * g."""
    rng, strange, rounds = np.random.default_rng(genuine), 50, 200
    wrong, found = [], []
    for _ in range(rounds):
        p = inbox(rng, 400, genuine, strange)
        unknown = p < limit(p, rate)
        wrong.append(unknown[:genuine].sum() / max(1, unknown.sum()))
        found.append(unknown[genuine:].mean())
    promised, error = rate * genuine / (genuine + strange), np.std(wrong) / rounds**0.5
    assert abs(np.mean(wrong) - promised) < 3 * error + 0.05 * promised
    assert np.mean(found) > 0.8


def test_without_a_stranger_a_batch_hardly_ever_has_a_discovery():
    """Every discovery is false then: some are made in at most a share ``rate`` of the batches."""
    rng, rounds, rate = np.random.default_rng(1), 300, 0.2
    some = []
    for _ in range(rounds):
        p = inbox(rng, 400, 60, 0)
        some.append(bool((p < limit(p, rate)).any()))
    error = (rate * (1 - rate) / rounds) ** 0.5
    assert rate / 4 < np.mean(some) < rate + 3 * error
