"""Fewer samples than dimensions: the tied mixture in coordinates of the space that they span."""

from dataclasses import replace

import pytest
import torch

from mixtura.core import leave_one_out
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds, content_folds
from mixtura.core.selection import cross_validate
from mixtura.core.span import spanned


def folds_of(n=40, d=90, classes=4, weight=None):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(0.3, 3, d, dtype=torch.float64)
    x += 2 * torch.randn(classes, d, generator=generator, dtype=torch.float64)[labels] + 5
    return Folds(x, labels, classes, content_folds(x, labels, 5, 0), 5, weight)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("scale", ["none", "unit", "half"])
def test_class_log_probabilities_are_what_they_were(share, scale):
    """Also where classes differ in size, so that their priors count."""
    folds, plan = folds_of(), Plan("tied", prior=Prior(0.0, share), feature_scale=scale, floor=0.0)
    folds = replace(folds, labels=torch.where(torch.arange(40) < 24, 0, folds.labels))
    space, same = spanned(folds, plan)
    assert space.x.shape == (40, 40)
    here, there = (
        one.class_log_prob - one.class_log_prob.mean(1, keepdim=True)
        for one in (folds.cross_val_predict(plan), space.cross_val_predict(same))
    )
    torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)
    left, moved = (
        leave_one_out.cross_val_predict(one, [asked], background=True, settled=True)[0]
        for one, asked in ((folds, plan), (space, same))
    )
    for of in (lambda o: o.class_log_prob.softmax(1), lambda o: o.log_prob - o.background):
        torch.testing.assert_close(of(moved), of(left), rtol=1e-8, atol=1e-8)


def test_single_precision_does_not_hide_a_small_shrinkage():
    """Rounding is raised as a share of each axis' variance, which is 50 times that of a feature in so small a span."""
    folds, plan = folds_of(n=30, d=1500), Plan("tied", prior=Prior(0.0, 1e-3), floor=0.0)
    space, same = spanned(replace(folds, x=folds.x.float()), plan)
    exact, found = (one.cross_val_predict(asked) for one, asked in ((folds, plan), (space, same)))
    difference = [one.class_log_prob.double().diff(dim=1) for one in (exact, found)]
    torch.testing.assert_close(difference[1], difference[0], rtol=1e-3, atol=1e-3 * float(difference[0].std()))


def test_accuracy_and_loss_are_those_of_a_plain_cross_validation():
    folds, plan = folds_of(), Plan("tied", prior=Prior(0.0, 0.1))
    held = folds.cross_val_predict(plan)
    candidate = cross_validate(folds, plan)
    assert candidate.accuracy == held.accuracy
    assert torch.equal(candidate.held.row, held.row)


@pytest.mark.parametrize("plan", [Plan("full"), Plan("diagonal"), Plan("tied", components=2)])
def test_what_depends_on_the_axes_stays(plan):
    folds = folds_of()
    assert spanned(folds, plan) == (folds, plan)


def test_many_samples_stay_where_they_are():
    folds, plan = folds_of(n=80), Plan("tied")
    assert spanned(folds, plan)[0] is folds


def test_equal_samples_still_leave_together():
    folds = folds_of()
    folds.x[1] = folds.x[5]
    space, _ = spanned(folds, Plan("tied", prior=Prior(0.0, 0.1)))
    assert space.units[1] == space.units[5]
