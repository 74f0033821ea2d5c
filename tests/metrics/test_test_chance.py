"""Intervals and paired tests over seeds and shared test items: what they promise, by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from mixtura.errors import DataError
from mixtura.metrics import paired as paired_tests
from mixtura.metrics.calibration import brier, brier_terms, ece, ece_terms
from mixtura.metrics.intervals import (
    Estimate,
    mean_interval,
    over_runs,
    over_runs_and_item_variance,
    over_runs_and_items,
    share_interval,
    t_interval,
    wilson,
)
from mixtura.metrics.paired import comparisons, holm, paired, sign_test
from mixtura.metrics.replicates import estimate, summarize
from mixtura.metrics.right import packed, unpacked
from mixtura.records.sweep import DONE, Run, Sweep


def drawn(rng, seeds, items, seed_spread, item_spread, level=1.4):
    """Right and wrong answers: a logit of seed and item effects; the same items for every seed."""
    logit = level + rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, item_spread, items)
    return (rng.random((seeds, items)) < 1 / (1 + np.exp(-logit))).astype(float)


def coverage(seeds, items, seed_spread, item_spread, draws=1200):
    """Share of the intervals that contain the mean over many seeds and items, and of those of the seeds alone."""
    rng = np.random.default_rng(7)
    truth = drawn(rng, 2000, 2000, seed_spread, item_spread).mean()
    hits = np.zeros(2)
    for _ in range(draws):
        values = drawn(rng, seeds, items, seed_spread, item_spread)
        low, high = share_interval(over_runs_and_items(values), items)
        mean, half = t_interval(values.mean(1).tolist())
        hits += [low <= truth <= high, mean - half <= truth <= mean + half]
    return hits / draws


@pytest.mark.parametrize(
    ("seeds", "items", "seed_spread", "item_spread"),
    [(1, 300, 0.0, 0.0), (3, 300, 0.0, 3.0), (3, 300, 0.1, 3.0), (5, 150, 0.3, 2.0), (5, 400, 0.0, 0.0)],
)
def test_intervals_contain_the_truth_as_often_as_they_say(seeds, items, seed_spread, item_spread):
    whole, _ = coverage(seeds, items, seed_spread, item_spread)
    assert 0.93 <= whole <= 0.98


def test_intervals_of_the_seeds_alone_do_not():
    """The state before: seeds agree on shared items, and their spread says nothing of another test part."""
    whole, seeds_alone = coverage(3, 300, 0.02, 3.0)
    assert seeds_alone < 0.85 < 0.93 <= whole


def test_the_variance_is_the_true_one_on_average():
    rng = np.random.default_rng(3)
    means, claimed, bound = [], [], []
    for _ in range(1500):
        values = 5 + rng.normal(0, 0.3, (4, 1)) + rng.normal(0, 2.0, 60) + rng.normal(0, 1.5, (4, 60))
        means.append(values.mean())
        claimed.append(over_runs_and_items(values).variance)
        variance = float(np.mean(values.var(1, ddof=1)))
        bound.append(over_runs_and_item_variance(values.mean(1).tolist(), variance, 60).variance)
    truth = 0.3**2 / 4 + 2.0**2 / 60 + 1.5**2 / 240
    assert np.var(means) == pytest.approx(truth, rel=0.1)
    assert np.mean(claimed) == pytest.approx(truth, rel=0.05)
    assert truth * 1.1 < np.mean(bound) < truth * 1.6  # what seeds differ by on an item counts more than once


def test_one_run_is_binomial_and_a_share_of_92_percent_of_614_is_two_points_wide():
    values = np.repeat([1.0, 0.0], [565, 49])[None]
    found = over_runs_and_items(values)
    assert found.variance == pytest.approx(values.mean() * (1 - values.mean()) / 613)
    assert share_interval(found, 614) == pytest.approx(wilson(565, 614), abs=2e-4)
    low, high = share_interval(over_runs_and_items(np.repeat(values, 3, 0)), 614)  # seeds that agree add nothing
    assert (high - low) / 2 == pytest.approx(0.0214, abs=0.0005)


def test_folds_have_the_interval_of_student_and_one_run_none():
    folds = [0.8, 0.85, 0.9, 0.75]
    mean, half = t_interval(folds)
    assert mean_interval(over_runs(folds)) == pytest.approx((mean - half, mean + half))
    assert np.isnan(mean_interval(over_runs([0.5]))).all()
    assert np.isnan(share_interval(Estimate(0.5, float("nan"), float("nan")), 10)).all()


def test_all_right_is_not_certain():
    for seeds in (1, 3):
        low, high = share_interval(over_runs_and_items(np.ones((seeds, 50))), 50)
        assert (low, high) == (pytest.approx(wilson(50, 50)[0], abs=0.01), 1.0)
    assert share_interval(over_runs_and_items(np.zeros((2, 50))), 50)[0] == 0.0


def rejections(difference, folds=1, draws=120):
    """Share of pairs with p < 0.05 where both heads have item and seed effects of their own."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(draws):
        both = rng.normal(0, 2.0, 240)  # items that are hard for both
        runs = []
        for name, level in (("a", 1.5 + difference), ("b", 1.5)):
            logit = level + both + rng.normal(0, 0.15, (3, 1)) + rng.normal(0, 0.5, 240)
            right = rng.random((3, 240)) < 1 / (1 + np.exp(-logit))
            runs += runs_of(name, right, folds)
        found.append(paired(runs, runs[0].cell, runs[-1].cell)[1] < 0.05)
    return np.mean(found)


def runs_of(name, right, folds=1, **more):
    parts = np.array_split(np.arange(right.shape[1]), folds)
    return [
        Run(
            name,
            "closed",
            "",
            0.5,
            1,
            seed,
            f"fold {i}" if folds > 1 else "",
            DONE,
            accuracy=float(right[seed, part].mean()),
            tested=len(part),
            right=packed(right[seed, part]),
            **more,
        )
        for seed in range(len(right))
        for i, part in enumerate(parts)
    ]


@pytest.mark.parametrize("folds", [1, 5])
def test_equal_heads_are_called_different_at_most_as_often_as_stated_and_better_ones_often(folds, monkeypatch):
    monkeypatch.setattr(paired_tests, "RESAMPLES", 499)
    assert 0.005 <= rejections(0.0, folds) <= 0.075
    assert rejections(1.2, folds) >= 0.6


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_with_one_seed_the_sign_test_is_mcnemars(differences):
    values = np.array(differences)
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(values) == pytest.approx(expected, abs=1e-12)


def test_the_sign_test_lists_all_signs_of_few_items_and_nears_students_t_for_many():
    few = np.array([1, 2 / 3, 1 / 3, 1, -1 / 3, 0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    reached = np.abs(np.abs(few[:5]) @ signs) >= abs(few.sum()) - 1e-9
    assert sign_test(few) == pytest.approx(reached.mean())
    many = np.random.default_rng(5).choice([-1, -1 / 3, 1 / 3, 1], 400, p=[0.2, 0.25, 0.25, 0.3])
    assert sign_test(many) == pytest.approx(ttest_1samp(many, 0).pvalue, abs=0.02)


@given(st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=60, deadline=None)
def test_holm_equals_the_definition(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    expected = [0.0] * len(p_values)
    for place, i in enumerate(order):
        expected[i] = max(min(1.0, (len(p_values) - j) * p_values[order[j]]) for j in range(place + 1))
    assert holm(p_values) == pytest.approx(expected)


def test_heads_are_compared_with_the_one_that_validation_selected():
    rng = np.random.default_rng(0)
    right = rng.random((2, 500)) < 0.9
    worse = right & (rng.random(500) < 0.9)
    runs = [
        *runs_of("best", right, val_accuracy=0.9, val_nll=1.0),
        *runs_of("worse", worse, val_accuracy=0.8, val_nll=1.0),
        *runs_of("same", right, val_accuracy=0.7, val_nll=1.0),
        *(Run("old", "closed", "", 0.5, 1, s, "", DONE, accuracy=0.5, tested=500, val_accuracy=0.6) for s in (0, 1)),
    ]
    found = comparisons(Sweep({}, tuple(runs)))
    assert [one.cell.head for one in found] == ["worse", "same"]  # an earlier version kept no items
    assert found[0].difference == pytest.approx(worse.mean() - right.mean()) and found[0].p_holm < 0.001
    assert found[0].interval[0] < found[0].difference < found[0].interval[1] < 0
    assert (found[1].difference, found[1].p, found[1].p_holm) == (0.0, 1.0, 1.0)
    known = {one.cell.head: one.test_chance for one in summarize(runs)}
    assert known == {"best": True, "worse": True, "same": True, "old": False}
    assert estimate(runs[-2:], "accuracy") == over_runs([0.5, 0.5])


@given(st.lists(st.booleans(), max_size=100))
@settings(max_examples=60, deadline=None)
def test_items_come_back_as_they_were(items):
    right = np.array(items, dtype=bool)
    assert unpacked(packed(right), len(right)).tolist() == items


def test_stored_items_are_short_and_damage_is_named():
    right = np.random.default_rng(0).random(10_000) < 0.95
    text = packed(right)
    assert len(text) < 800
    for damaged, count in ((text[:-9], 10_000), ("\x00", 8), (text, 20_000), ("é", 8)):
        with pytest.raises(DataError, match="stored run"):
            unpacked(damaged, count)


def test_terms_average_to_the_metrics():
    rng = np.random.default_rng(1)
    posterior, true = rng.dirichlet(np.ones(4), 300), rng.integers(0, 4, 300)
    stated, correct = posterior.max(1), posterior.argmax(1) == true
    assert ece_terms(stated, correct).mean() == pytest.approx(ece(stated, correct), abs=1e-12)
    assert brier_terms(true, posterior).mean() == pytest.approx(brier(true, posterior), abs=1e-12)
