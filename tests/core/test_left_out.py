"""A mixture without some classes is the refit without their rows, and every class is left out twice in ten draws."""

import pytest
import torch

from mixtura.core import classes, left_out
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross_fitting import Folds, assign_folds
from mixtura.testing.covariance_laws import clusters

X, LABELS = clusters(400, 6, 5)
FOLD = assign_folds(LABELS, torch.arange(400), 5, 0)
WEIGHT = torch.rand(400, generator=torch.Generator().manual_seed(5), dtype=X.dtype)
WEIGHT[::17] = 0
GONE = torch.tensor([False, True, False, False, True, False])


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_subtraction_equals_the_refit_without_the_classes(family, components, weight):
    plan = Plan(family, components, prior=Prior(3.0, 0.1), rank=2)
    folds = Folds(X, LABELS, 6, FOLD, 5, weight)
    got = left_out.mixture_without(folds, plan, GONE, 2)
    kept = ~GONE[LABELS] & (FOLD != 2)
    rows = (X[kept], LABELS[kept], 6, None if weight is None else weight[kept])
    refit = classes.fit(plan, *rows, folds.feature_variance(family))
    assert got.component_class.unique().tolist() == [0, 2, 3, 5]
    torch.testing.assert_close(got.class_log_prob(X), refit.class_log_prob(X), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.background().log_prob(X), refit.background().log_prob(X), rtol=1e-8, atol=1e-8)
    assert bool(got.class_log_prob(X)[:, GONE].isneginf().all())


@pytest.mark.parametrize(("family", "dimension"), [(family, 5) for family in FAMILIES] + [("tied", 40)])
def test_scores_and_background_are_those_of_the_mixture(family, dimension):
    """With few classes in many dimensions, the tied family takes the short way."""
    x, labels = clusters(300, 4, dimension)
    mixture = classes.fit(Plan(family, prior=Prior(1.0, 0.1), rank=2), x, labels, 4)
    joint, background = left_out.scores_with_background(mixture, x)
    torch.testing.assert_close(joint, mixture.class_log_prob(x), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(background, mixture.background().log_prob(x), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("count", [5, 6, 9, 10, 43, 100])
def test_each_class_is_left_out_twice_and_each_draw_leaves_out_a_fifth(count):
    draws = left_out.class_draws(count, 0)
    assert len(draws) == 10
    assert torch.stack(draws).sum(0).tolist() == [2] * count
    assert {int(draw.sum()) for draw in draws} <= {count // 5, -(-count // 5)}
    assert not all(torch.equal(*pair) for pair in zip(draws, left_out.class_draws(count, 1), strict=True))
    assert all(torch.equal(*pair) for pair in zip(draws, left_out.class_draws(count, 0), strict=True))


def test_judged_rows_depend_on_values_and_have_weight():
    folds = Folds(X, LABELS, 6, FOLD, 5, WEIGHT)
    every = left_out.judged_rows(folds, 1, 1000, 0)
    assert bool((FOLD[every] == 1).all()) and bool((WEIGHT[every] > 0).all())
    some = left_out.judged_rows(folds, 1, 20, 0)
    assert len(some) == 20 and set(some.tolist()) < set(every.tolist())
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    moved = Folds(X[order], LABELS[order], 6, FOLD[order], 5, WEIGHT[order])
    assert set(order[left_out.judged_rows(moved, 1, 20, 0)].tolist()) == set(some.tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_without_rows_is_the_refit_to_the_others(family):
    plan = Plan(family, prior=Prior(3.0, 0.1), rank=2)
    folds = Folds(X, LABELS, 6, torch.zeros_like(FOLD), 0, WEIGHT)
    refit = classes.fit(plan, X[FOLD != 1], LABELS[FOLD != 1], 6, WEIGHT[FOLD != 1], folds.feature_variance(family))
    got = left_out.mixture_without_rows(folds, plan, FOLD == 1)
    torch.testing.assert_close(got.class_log_prob(X), refit.class_log_prob(X), rtol=1e-8, atol=1e-8)


def test_the_background_of_classes_far_apart_keeps_its_digits():
    """Means a thousand spreads apart: in float32, the differences of their distances would not be positive definite."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(15) % 5
    x = (30 * torch.randn(5, 2000, generator=generator))[labels] + 0.1 * torch.randn(15, 2000, generator=generator)
    mixture = classes.fit(Plan("tied", prior=Prior(0.0, 0.01)), x, labels, 5)
    _, background = left_out.scores_with_background(mixture, x)
    expected = mixture.background().log_prob(x.double())
    torch.testing.assert_close(background, expected, rtol=1e-3, atol=0, check_dtype=False)
