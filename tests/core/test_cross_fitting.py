import pytest
import torch

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross_fitting import Folds, OutOfFold, assign_folds, content_folds, validation_rows
from mixtura.testing.covariance_laws import assert_same, clusters

X, LABELS = clusters(400, 4, 5)
FOLD = assign_folds(LABELS, torch.arange(400), 5, 0)
WEIGHT = torch.rand(400, generator=torch.Generator().manual_seed(5), dtype=X.dtype)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("prior", [Prior(), Prior(3.0, 0.1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_holding_out_equals_an_honest_refit(family, prior, weight):
    plan = Plan(family, prior=prior, floor=0.0, rank=2)
    folds = Folds(X, LABELS, 4, FOLD, 5, weight)
    held = folds.cross_val_predict(plan, background=True)
    assert sorted(held.row.tolist()) == list(range(400))
    for i in range(5):
        kept, out = i != FOLD, held.row[FOLD[held.row] == i]
        refit = classes.fit(plan, X[kept], LABELS[kept], 4, None if weight is None else weight[kept])
        assert_same(folds.mixture(plan, i), refit, 1e-9)
        mine = FOLD[held.row] == i
        torch.testing.assert_close(held.class_log_prob[mine], refit.class_log_prob(X[out]), rtol=0, atol=1e-8)
        torch.testing.assert_close(held.log_prob[mine], refit.log_prob(X[out]), rtol=0, atol=1e-8)
        torch.testing.assert_close(held.background[mine], refit.background().log_prob(X[out]), rtol=0, atol=1e-8)
    assert torch.equal(held.label, LABELS[held.row])
    assert_same(folds.mixture(plan), classes.fit(plan, X, LABELS, 4, weight), 1e-9)


def test_several_components_are_refitted_too():
    plan = Plan("diagonal", (1, 2, 1, 3))
    folds = Folds(X, LABELS, 4, FOLD, 5)
    kept = FOLD != 2
    refit = classes.fit(plan, X[kept], LABELS[kept], 4, variance=folds.feature_variance("diagonal"))
    assert_same(folds.mixture(plan, 2), refit, 1e-12)


def test_rows_alone_in_their_class_and_spare_rows_are_not_judged():
    labels = LABELS.clone()
    labels[7] = 4  # one row of a fifth class
    fold = torch.where(torch.arange(400) % 2 == 0, 9, FOLD)  # even rows are never held out
    held = Folds(X, labels, 5, fold, 5).cross_val_predict(Plan("tied"))
    assert sorted(held.row.tolist()) == [i for i in range(1, 400, 2) if i != 7]


def test_folds_are_even_in_every_class_and_keep_groups_together():
    groups = torch.arange(400) // 3
    alone = torch.stack([torch.bincount(FOLD[c == LABELS], minlength=5) for c in range(4)])
    assert (alone.max(1).values - alone.min(1).values <= 1).all()
    grouped = assign_folds(LABELS, groups, 5, 1)
    assert all(len(grouped[groups == g].unique()) == 1 for g in range(134))
    assert torch.equal(grouped, assign_folds(LABELS, groups, 5, 1))
    assert not torch.equal(grouped, assign_folds(LABELS, groups, 5, 2))


def test_content_folds_follow_from_the_rows_alone():
    fold = content_folds(X, LABELS, 5, 0)
    each = torch.stack([torch.bincount(fold[c == LABELS], minlength=5) for c in range(4)])
    assert (each.max(1).values - each.min(1).values <= 1).all()
    assert not torch.equal(fold, content_folds(X, LABELS, 5, 1))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(content_folds(X[order], LABELS[order], 5, 0), fold[order])
    times = torch.randint(1, 4, (400,), generator=torch.Generator().manual_seed(1))
    many = content_folds(X.repeat_interleave(times, 0), LABELS.repeat_interleave(times), 5, 0)
    assert torch.equal(many, fold.repeat_interleave(times))
    scale = torch.tensor([1000.0, 1e-3, 1.0, 7.0, 0.3], dtype=X.dtype)
    assert torch.equal(content_folds(X * scale, LABELS, 5, 0), fold)


def test_content_folds_join_what_either_says_belongs_together():
    x = X.clone()
    x[10] = x[11]  # equal rows in groups of their own, one of them with a further member
    groups = torch.arange(400)
    groups[200:260] = torch.arange(60) // 6 + 200
    groups[12] = groups[11]
    fold = content_folds(x, LABELS, 5, 3, groups)
    assert fold[10] == fold[11] == fold[12]
    assert all(len(fold[groups == g].unique()) == 1 for g in groups.unique())


def test_rows_of_weight_zero_teach_nothing_but_are_judged():
    weight = (torch.arange(400) % 7 != 0).double()
    held = Folds(X, LABELS, 4, FOLD, 5, weight).cross_val_predict(Plan("tied"))
    assert sorted(held.row.tolist()) == list(range(400))
    some = weight > 0
    without = Folds(X[some], LABELS[some], 4, FOLD[some], 5).cross_val_predict(Plan("tied"))
    joint = torch.empty(400, 4, dtype=X.dtype)
    joint[held.row] = held.class_log_prob
    torch.testing.assert_close(joint[some][without.row], without.class_log_prob, rtol=0, atol=1e-9)
    assert held.accuracy == pytest.approx(without.accuracy)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.15, 0.3, 0.4, 0.5, 0.9, 0.99])
def test_rows_for_validation_are_the_fraction_that_was_asked_for(fraction):
    labels = torch.arange(6000) % 3
    val = validation_rows(labels, torch.arange(6000), fraction, 0)
    assert float(val.double().mean()) == pytest.approx(fraction, abs=0.002)
    assert (torch.bincount(labels[val]) - torch.bincount(labels[val]).double().mean()).abs().max() <= 20
    few = validation_rows(labels, torch.arange(6000) % 3, fraction, 0)  # three groups
    assert few.any() and not few.all()


def test_accuracy_is_never_beyond_one():
    """Where all are right, sums of weights in another order may round to more."""
    for seed in range(200):
        weight = torch.rand(90, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        zeros = torch.zeros(90)
        held = OutOfFold(torch.arange(90), torch.zeros(90).long(), torch.zeros(90, 1), zeros, zeros, weight)
        assert held.accuracy <= 1


@pytest.mark.parametrize(("held", "n_folds"), [(12, 1), (60, 5)])
def test_a_small_part_is_held_out_at_once(held, n_folds):
    """Twelve of 60 rows cost one fit instead of five; all rows still take five."""
    fold = torch.where(torch.arange(60) < held, torch.arange(60) % 5, 5)
    folds = Folds(torch.randn(60, 3), torch.arange(60) % 3, 3, fold, 5)
    once = folds.at_once()
    assert once.n_folds == n_folds
    assert torch.equal(once.fold < once.n_folds, fold < 5)
