"""Leave-one-out scores equal those of a refit without the sample, digit for digit."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.core import LEAVE_ONE_OUT, classes, linalg
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds, content_units
from mixtura.core.leave_one_out import cross_val_predict, has_exact_form, judge, samples
from mixtura.testing.covariance_laws import clusters

RELATIVE = 1e-8


def problem(seed, dimension, n, n_classes, weights, groups):
    """Samples with a constant feature, two equal ones, weights (or none) and units of several samples (or none)."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=g)
    means = 5 + 2 * torch.randn(n_classes, dimension, generator=g, dtype=torch.float64)
    spread = 0.1 + 3 * torch.rand(dimension, generator=g, dtype=torch.float64)
    x = means[labels] + spread * torch.randn(n, dimension, generator=g, dtype=torch.float64)
    if dimension > 2:
        x[:, 1] = 3.0
    x[3], labels[3] = x[1], labels[1]
    weight = {
        "none": None,
        "whole": torch.randint(0, 4, (n,), generator=g).double(),
        "real": 2 * torch.rand(n, generator=g, dtype=torch.float64),
    }[weights]
    some = torch.randint(n // 2 + 1, (n,), generator=g)
    unit = {"none": torch.arange(n), "of a class": some * n_classes + labels, "mixed": some}[groups]
    return Folds(x, labels, n_classes, torch.zeros_like(labels), 2, weight, torch.unique(unit, return_inverse=True)[1])


def refits(folds, plan):
    """Every unit as a fold of its own."""
    count = int(folds.units.max()) + 1
    held = replace(folds, fold=folds.units, n_folds=count).cross_val_predict(plan, background=True)
    return held.select(held.row.argsort())


def assert_equal_scores(found, expected, tolerance=RELATIVE):
    assert torch.equal(found.row, expected.row)
    assert torch.equal(found.label, expected.label)
    for name in ("class_log_prob", "log_prob", "background"):
        one, other = getattr(found, name), getattr(expected, name)
        assert torch.equal(one.isfinite(), other.isfinite())
        error = torch.where(one == other, 0.0, (one - other).abs() / (1 + other.abs()))
        assert not len(error) or float(error.max()) <= tolerance, f"{name} is off by {float(error.max()):.1e}"


@pytest.mark.parametrize("family", LEAVE_ONE_OUT)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    dimension=st.integers(1, 14),
    n=st.integers(8, 26),
    n_classes=st.integers(2, 4),
    weights=st.sampled_from(["none", "whole", "real"]),
    groups=st.sampled_from(["none", "of a class", "mixed"]),
    prior=st.sampled_from([(4.0, 0.0), (0.0, 0.1), (1.0, 0.01), (50.0, 0.3), (0.0, 1.0)]),
    scale=st.sampled_from(["none", "half", "unit"]),
)
def test_scores_equal_those_of_a_refit(family, seed, dimension, n, n_classes, weights, groups, prior, scale):
    folds = problem(seed, dimension, n, n_classes, weights, groups)
    floor = 1e-6 if prior[1] else 1e-3
    plan = Plan(family, prior=Prior(*prior), feature_scale=scale, floor=floor)
    (found,) = cross_val_predict(folds, [plan], background=True)
    assert_equal_scores(found, refits(folds, plan))


@pytest.mark.parametrize("family", LEAVE_ONE_OUT)
def test_scores_equal_those_of_an_honest_fit_of_the_other_rows(family):
    """No moment is subtracted in the oracle."""
    x, labels = clusters(60, 3, 5)
    folds = Folds(x, labels, 3, torch.zeros_like(labels), 2)
    plan = Plan(family, prior=Prior(2.0, 0.1))
    (found,) = cross_val_predict(folds, [plan], background=True)
    for i in range(60):
        kept = torch.arange(60) != i
        refit = classes.fit(plan, x[kept], labels[kept], 3, variance=folds.feature_variance(family))
        one = x[i : i + 1]
        torch.testing.assert_close(found.class_log_prob[i : i + 1], refit.class_log_prob(one), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.background[i : i + 1], refit.background().log_prob(one), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("scale", ["none", "unit", "half"])
def test_few_samples_are_compared_in_their_span(dtype, tolerance, scale, monkeypatch):
    """As by refits, hidden dimensions included; nothing larger than the number of samples is decomposed."""
    x, labels = clusters(30, 3, 5)
    wide = torch.cat([x, torch.randn(30, 195, generator=torch.Generator().manual_seed(1), dtype=x.dtype)], 1)
    folds = Folds(wide.to(dtype), labels, 3, torch.zeros_like(labels), 2)
    plan, sizes = Plan("tied", prior=Prior(0.0, 0.05), feature_scale=scale, floor=1e-6), list[int]()
    decompose = linalg.eigh
    monkeypatch.setattr(samples.linalg, "eigh", lambda matrix: sizes.append(len(matrix)) or decompose(matrix))
    (found,) = cross_val_predict(folds, [plan], background=True)
    for i in range(30):
        kept = torch.arange(30) != i
        variance = folds.feature_variance("tied")
        refit = classes.fit(plan, wide[kept], labels[kept], 3, variance=variance)
        one, behind = wide[i : i + 1], refit.background()
        joint, overall = refit.class_log_prob(one), behind.log_prob(one)
        torch.testing.assert_close(found.class_log_prob[i : i + 1].double(), joint, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(found.background[i : i + 1].double(), overall, rtol=tolerance, atol=tolerance)
        assert found.squares is not None
        square = 2 * (behind.covariance.log_peak(200)[0] - overall[0])
        assert float(found.squares[i, 1]) == pytest.approx(float(square), rel=tolerance)
    assert sizes
    assert max(sizes) == 30 or (dtype == torch.float64 and scale != "unit")


@pytest.mark.parametrize("family", LEAVE_ONE_OUT)
def test_settled_scores_shorten_the_distance_from_the_own_class(family):
    """By (1 + 1/n) / (1 + 1/(n - 1)), and what the background shares of it."""
    x, labels = clusters(30, 3, 5)
    folds = Folds(x, labels, 3, torch.zeros_like(labels), 2)
    plan = Plan(family, prior=Prior(2.0, 0.1))
    (plain,) = cross_val_predict(folds, [plan], background=True)
    (found,) = cross_val_predict(folds, [plan], background=True, settled=True)
    n = folds.class_weight[labels]
    for i in range(30):
        kept, own = torch.arange(30) != i, int(labels[i])
        refit = classes.fit(plan, x[kept], labels[kept], 3, variance=folds.feature_variance(family))
        peak = refit.log_weight[own] + refit.covariance.log_peak(5)[0 if family == "tied" else own]
        distance = 2 * (peak - plain.class_log_prob[i, own])
        expected = peak - 0.5 * distance * (1 + 1 / n[i]) / (1 + 1 / (n[i] - 1))
        assert float(found.class_log_prob[i, own]) == pytest.approx(float(expected), rel=1e-9)
        gain = background_gain(refit, x[i], own, float(n[i])) if family == "tied" else 0.0
        assert float(found.background[i] - plain.background[i]) == pytest.approx(gain, rel=1e-6, abs=1e-9)
    others = torch.nn.functional.one_hot(labels, 3) == 0
    torch.testing.assert_close(found.class_log_prob[others], plain.class_log_prob[others], rtol=0, atol=0)


def background_gain(refit, row, own, n):
    """The formula of :mod:`mixtura.core.leave_one_out.settling`, with dense matrices."""
    behind = refit.background()
    inside = refit.covariance.dense(3, len(row))[own].inverse()
    overall = behind.covariance.dense(1, len(row))[0].inverse()
    e, o = row - refit.mean[own], refit.mean[own] - behind.mean[0]
    before = min(float(e @ inside @ e) / n, float(o @ inside @ o))
    after, apart = before * (n - 1) / n, float(o @ inside @ o) - before
    shortened = 1 - (1 + 1 / n) / (1 + 1 / (n - 1))
    return 0.5 * shortened * float(e @ overall @ e) * apart / float(o @ inside @ o) * apart / (apart + after)


@pytest.mark.parametrize("family", LEAVE_ONE_OUT)
def test_many_tiles_and_dimensions_above_the_rows(family):
    x, labels = clusters(60, 3, 5)
    wide = torch.cat([x, torch.randn(60, 195, generator=torch.Generator().manual_seed(1), dtype=x.dtype)], 1)
    folds = Folds(wide, labels, 3, torch.zeros_like(labels), 2)
    plan = Plan(family, prior=Prior(2.0, 0.05))
    (found,) = cross_val_predict(folds, [plan], background=True)
    assert_equal_scores(found, refits(folds, plan))


def test_pairs_that_are_all_of_a_class_but_one_row_are_exact_with_hardly_any_shrinkage():
    """What remains of a class of two rows after one leaves has no spread: the update is refitted."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 30, generator=g, dtype=torch.float64)
    folds = Folds(x, torch.arange(12) // 2, 6, torch.zeros(12, dtype=torch.int64), 2)
    plan = Plan("tied", prior=Prior(0.0, 1e-5), floor=1e-5)
    (found,) = cross_val_predict(folds, [plan], background=True)
    assert_equal_scores(found, refits(folds, plan), 1e-7)


@pytest.mark.parametrize("family", ["tied", "diagonal"])
def test_equal_rows_leave_together_and_weights_count_as_copies(family):
    x, labels = clusters(60, 3, 5)
    times = torch.randint(1, 4, (60,), generator=torch.Generator().manual_seed(1))
    plan = Plan(family, prior=Prior(2.0, 0.1))
    fold = torch.zeros_like(labels)
    (weighted,) = cross_val_predict(Folds(x, labels, 3, fold, 2, times.double()), [plan], background=True)
    many = (part.repeat_interleave(times, 0) for part in (x, labels))
    rows, own = many
    (copies,) = cross_val_predict(Folds(rows, own, 3, torch.zeros_like(own), 2), [plan], background=True)
    repeated = weighted.class_log_prob.repeat_interleave(times, 0)
    torch.testing.assert_close(copies.class_log_prob, repeated, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(copies.background, weighted.background.repeat_interleave(times), rtol=1e-9, atol=1e-9)


def test_only_used_folds_are_judged_and_all_rows_are_learned_from():
    x, labels = clusters(60, 3, 5)
    fold = torch.where(torch.arange(60) % 3 == 0, torch.arange(60) // 3 % 5, 5)
    plan = Plan("tied", prior=Prior(0.0, 0.1))
    (some,) = cross_val_predict(Folds(x, labels, 3, fold, 5), [plan])
    (every,) = cross_val_predict(Folds(x, labels, 3, fold * 0, 2), [plan])
    assert some.row.tolist() == list(range(0, 60, 3))
    torch.testing.assert_close(some.class_log_prob, every.class_log_prob[::3], rtol=1e-9, atol=1e-9)


def test_one_decomposition_compares_shrinkages():
    """The floor of features with other spreads is then not quite that of each plan."""
    x, labels = clusters(200, 3, 5)
    folds = Folds(x * torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=x.dtype), labels, 3, labels * 0, 2)
    plans = [Plan("tied", prior=Prior(0.0, share)) for share in (0.0, 0.01, 0.3, 0.9)]
    for found, plan in zip(cross_val_predict(folds, plans, exact=False), plans, strict=True):
        (exact,) = cross_val_predict(folds, [plan])
        torch.testing.assert_close(found.log_prob, exact.log_prob, rtol=1e-4, atol=1e-4)


def test_float32_samples_come_within_their_rounding():
    x, labels = clusters(200, 3, 5)
    plan, fold = Plan("tied", prior=Prior(0.0, 0.1)), torch.zeros_like(labels)
    (exact,) = cross_val_predict(Folds(x, labels, 3, fold, 2), [plan], background=True)
    (found,) = cross_val_predict(Folds(x.float(), labels, 3, fold, 2), [plan], background=True)
    assert found.class_log_prob.dtype == torch.float32
    torch.testing.assert_close(found.log_prob.double(), exact.log_prob, rtol=1e-3, atol=1e-3)


def test_units_join_equal_rows_and_groups():
    x = torch.tensor([[0.0], [1.0], [1.0], [2.0], [3.0]])
    units = content_units(x, torch.tensor([0, 1, 2, 2, 4]))
    assert units[1] == units[2] == units[3]
    assert len(units.unique()) == 3


@pytest.mark.parametrize(
    ("plan", "more"),
    [
        (Plan("lowrank"), {}),
        (Plan("tied", 2), {}),
        (Plan("tied"), {"fixed": False}),
        (Plan("tied"), {"n_folds": 1}),
    ],
)
def test_what_has_no_exact_form_says_so(plan, more):
    x, labels = clusters(40, 3, 5)
    folds = Folds(x, labels, 3, labels * 0, 5)
    assert has_exact_form(folds, Plan("tied"))
    assert not has_exact_form(replace(folds, **more), plan)


@pytest.mark.parametrize("family", ["tied", "full"])
def test_plans_of_several_shares_are_each_scored_like_alone(family):
    """Zero shares may not lend the others a unit in which the floor, not the target, is the identity."""
    x, labels = clusters(40, 3, 5)
    weight = torch.linspace(0.5, 2, 40, dtype=torch.float64)
    plans = [Plan(family, prior=Prior(2.0, share), floor=1e-3) for share in (0.0, 0.3)]
    together = cross_val_predict(Folds(x, labels, 3, torch.zeros_like(labels), 2, weight), plans)
    for plan, found in zip(plans, together, strict=True):
        (alone,) = cross_val_predict(Folds(x, labels, 3, torch.zeros_like(labels), 2, weight), [plan])
        torch.testing.assert_close(found.class_log_prob, alone.class_log_prob, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", LEAVE_ONE_OUT)
def test_groups_that_are_refitted_are_settled_like_the_others(family, monkeypatch):
    """The same scores, whether a group leaves by an update or by a refit."""
    x, labels = clusters(40, 3, 6)
    folds = Folds(x, labels, 3, torch.zeros_like(labels), 2, None, torch.arange(40) // 3)
    plan = Plan(family, prior=Prior(2.0, 0.1))
    (updated,) = cross_val_predict(folds, [plan], background=True, settled=True)
    monkeypatch.setattr(judge, "MAX_UNIT_ROWS", 0)
    folds.clear_cache()
    (refitted,) = cross_val_predict(folds, [plan], background=True, settled=True)
    torch.testing.assert_close(refitted.class_log_prob, updated.class_log_prob, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(refitted.background, updated.background, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", LEAVE_ONE_OUT)
def test_samples_are_freed_with_their_last_use(family):
    """Not when cycles are collected: many fits in a row would fill the memory until then."""
    folds = problem(0, 6, 40, 3, "none", "none")
    last = weakref.ref(folds)
    cross_val_predict(folds, [Plan(family)], background=True)
    assert folds.exact_forms
    gc.disable()
    try:
        del folds
        assert last() is None
    finally:
        gc.enable()
