from dataclasses import replace

import pytest
import torch

from mixtura.core import selection
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross_fitting import Folds, assign_folds, content_folds

PLAN = Plan("tied", rank=2)


def draw(means, factors, each, seed=0):
    """``each`` rows a class from N(mean, A A'), and their labels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(means), each, len(means[0]), generator=generator, dtype=torch.float64)
    x = noise @ factors.mT + means[:, None, :]
    return x.flatten(0, 1), torch.arange(len(means)).repeat_interleave(each)


def folds_of(x, labels):
    return Folds(x, labels, int(labels.max()) + 1, assign_folds(labels, torch.arange(len(x)), 5, 0), 5)


def random_factors(n, dimension, seed=1):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(n, dimension, dimension, generator=generator, dtype=torch.float64)
    return factor + 0.3 * torch.eye(dimension, dtype=torch.float64)


def means_of(n, dimension, scale=1.0):
    return scale * torch.randn(n, dimension, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def accuracy(folds, trial, x, labels):
    return float((folds.mixture(trial.plan).class_log_prob(x).argmax(1) == labels).double().mean())


def test_one_spread_for_all_chooses_tied():
    shared, families = random_factors(1, 6).expand(4, -1, -1), []
    fresh = draw(means_of(4, 6), shared, 5000, 999)
    for seed in range(5):
        folds = folds_of(*draw(means_of(4, 6), shared, 100, seed))
        trial, tied = selection.choose(folds, PLAN), selection.choose(folds, PLAN, family="tied")
        families.append(trial.plan.family)
        assert accuracy(folds, trial, *fresh) >= accuracy(folds, tied, *fresh) - 0.002
    assert families.count("tied") >= 3


def test_a_spread_for_each_class_chooses_full():
    trial = selection.choose(folds_of(*draw(means_of(4, 6, 0.2), random_factors(4, 6), 300)), PLAN)
    assert trial.plan.family == "full"
    tied = selection.choose(folds_of(*draw(means_of(4, 6, 0.2), random_factors(4, 6), 300)), PLAN, family="tied")
    assert trial.accuracy > tied.accuracy


def test_few_rows_keep_to_tied():
    trial = selection.choose(folds_of(*draw(means_of(4, 6, 0.2), random_factors(4, 6), 6)), PLAN)
    assert trial.plan.family == "tied"


def bimodal(seed=0, each=150):
    x, labels = draw(means_of(3, 3, 4.0), 0.5 * torch.eye(3, dtype=torch.float64).expand(3, -1, -1), each, seed)
    x[:each:2, 0] += 5.0  # half of class 0 lies apart
    return x, labels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_with_two_heaps_gets_two_components(family):
    found = []
    for seed in range(3):
        x, labels = bimodal(seed)
        found.append(selection.choose_counts(replace(PLAN, family=family, prior=Prior(1.0, 0.0)), x, labels, 3))
    assert all(counts[0] >= 2 for counts in found), found
    assert found.count((2, 1, 1)) >= 2, found  # held-out likelihood may be lucky once


def test_counts_are_kept_only_when_they_do_not_cost_accuracy():
    folds = folds_of(*bimodal())
    auto = selection.choose(folds, PLAN, family="diagonal", components="auto")
    assert auto.plan.components == (2, 1, 1)
    asked = selection.choose(folds, PLAN, family="diagonal", components=(1, 1, 2))
    assert asked.plan.components == (1, 1, 2)
    assert not selection.choose(folds, PLAN, family="diagonal").significantly_better_than(auto)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_given_shrinkage_is_obeyed(share):
    folds = folds_of(*draw(means_of(3, 4), random_factors(3, 4), 60))
    for family in ("auto", *FAMILIES):
        assert selection.choose(folds, PLAN, family=family, shrinkage=share).plan.prior.identity == share


def test_shrinkage_is_found_where_rows_are_few():
    round_ones = torch.eye(30, dtype=torch.float64).expand(3, -1, -1)
    few = selection.choose(folds_of(*draw(means_of(3, 30, 0.7), round_ones, 12)), PLAN, family="tied")
    assert few.plan.prior.identity >= 0.1
    assert (
        few.accuracy
        >= selection.cross_validate(
            folds_of(*draw(means_of(3, 30, 0.7), round_ones, 12)), replace(PLAN, prior=Prior(0.0, 0.01))
        ).accuracy
    )


def content(x, labels, weight=None):
    return Folds(x, labels, int(labels.max()) + 1, content_folds(x, labels, 5, 0), 5, weight)


def table(each=70, dimension=5, seed=0):
    """Classes with spreads of their own in units that differ by a factor of a hundred."""
    x, labels = draw(means_of(3, dimension), random_factors(3, dimension), each, seed)
    return x * torch.logspace(-1, 1, dimension, dtype=x.dtype), labels


@pytest.mark.parametrize("shrinkage", ["held-out", "oas", 0.2])
@pytest.mark.parametrize("family", ["auto", *FAMILIES])
def test_a_weight_is_a_number_of_rows(family, shrinkage):
    x, labels = table()
    times = torch.randint(1, 4, (len(x),), generator=torch.Generator().manual_seed(1))
    options = {"family": family, "shrinkage": shrinkage, "components": "auto"}
    weighted = content(x, labels, times.double())
    many = content(x.repeat_interleave(times, 0), labels.repeat_interleave(times))
    one, other = (selection.choose(folds, PLAN, **options) for folds in (weighted, many))
    assert replace(one.plan, prior=PLAN.prior) == replace(other.plan, prior=PLAN.prior)
    assert one.plan.prior.identity == pytest.approx(other.plan.prior.identity, rel=1e-9)
    assert one.plan.prior.strength == pytest.approx(other.plan.prior.strength, rel=1e-9)
    assert (one.accuracy, one.loss) == pytest.approx((other.accuracy, other.loss), rel=1e-6)
    degrees = [selection.temperature_of(f.x, trial.held) for f, trial in ((weighted, one), (many, other))]
    assert degrees[0] == pytest.approx(degrees[1], rel=1e-4)
    fresh = table(seed=9)[0]
    ours, theirs = (f.mixture(one.plan).class_log_prob(fresh) for f in (weighted, many))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_row_of_weight_zero_is_absent():
    x, labels = table()
    weight = (torch.arange(len(x)) % 5 != 0).double()
    some, fold = weight > 0, torch.arange(len(x)) // 3 % 5
    for family in ("auto", "full"):
        one = selection.choose(Folds(x, labels, 3, fold, 5, weight), PLAN, family, components="auto")
        other = selection.choose(Folds(x[some], labels[some], 3, fold[some], 5), PLAN, family, components="auto")
        assert one.plan == other.plan
        assert (one.accuracy, one.loss) == pytest.approx((other.accuracy, other.loss), rel=1e-9)


def test_the_order_of_the_rows_does_not_matter():
    x, labels = table()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    for family in ("auto", "tied", "diagonal"):
        one = selection.choose(content(x, labels), PLAN, family, components="auto")
        assert selection.choose(content(x[order], labels[order]), PLAN, family, components="auto").plan == one.plan


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
@pytest.mark.parametrize("components", [1, 2, "auto"])
@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if not kind.round])
def test_no_decision_depends_on_the_unit_of_a_feature(family, components, factor):
    x, labels = table()
    scale = torch.ones(x.shape[1], dtype=x.dtype)
    scale[2] = factor
    fresh = table(1000, seed=9)[0]
    plans, decisions = [], []
    for unit in (torch.ones_like(scale), scale):
        folds = content(x * unit, labels)
        trial = selection.choose(folds, PLAN, family, components=components, feature_scale="unit")
        plans.append(trial.plan)
        decisions.append(folds.mixture(trial.plan).class_log_prob(fresh * unit).argmax(1))
    assert plans[0] == plans[1]
    assert torch.equal(*decisions)


def test_a_wide_feature_of_noise_is_scaled_away():
    x, labels = draw(means_of(3, 4, 0.5), 0.3 * torch.eye(4, dtype=torch.float64).expand(3, -1, -1), 50)
    wide = torch.cat([x, 100 * torch.randn(150, 1, generator=torch.Generator().manual_seed(0), dtype=x.dtype)], 1)
    for family in ("auto", "tied", "full"):
        alone, beside = (selection.choose(content(rows, labels), PLAN, family) for rows in (x, wide))
        assert beside.plan.feature_scale != "none"
        assert beside.accuracy > alone.accuracy - 0.02


def test_ties_leave_features_as_they_are():
    x, labels = draw(means_of(3, 4, 9.0), 0.3 * torch.eye(4, dtype=torch.float64).expand(3, -1, -1), 50)
    assert selection.choose(content(x, labels), PLAN, "spherical").plan.feature_scale == "none"
    assert selection.choose(content(x, labels), PLAN, "tied", shrinkage=0.0).plan.feature_scale == "none"


@pytest.mark.parametrize("each", [2, 3])
def test_few_samples_choose_neither_the_family_nor_the_scale(each):
    """Of ten classes, two samples each are too few, and three are enough."""
    few, chosen = 10 * each < selection.FEW_HELD_OUT, set()
    factors = torch.diag_embed(torch.logspace(-1, 1, 12, dtype=torch.float64)).expand(10, -1, -1)
    for seed in range(3):
        folds = folds_of(*draw(means_of(10, 12, 3.0), factors, each, seed))
        plan = selection.choose(folds, PLAN).plan
        chosen.add((plan.family, plan.feature_scale))
        asked = selection.choose(folds, PLAN, "diagonal", feature_scale="none").plan
        assert (asked.family, asked.feature_scale) == ("diagonal", "none")
    assert (chosen == {("tied", "half")}) is few


def test_where_nothing_can_be_held_out_the_sums_decide():
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    for family in ("auto", *FAMILIES):
        trial = selection.choose(content(x, torch.tensor([0, 1])), PLAN, family, components="auto")
        assert trial.plan.family == ("tied" if family == "auto" else family)
        assert trial.plan.components == 1 and len(trial.held.row) == 0
    assert selection.temperature_of(x, trial.held) == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_one_row_again_and_again_have_one_component(family):
    x = torch.tensor([[0.0, 1.0], [5.0, 2.0]], dtype=torch.float64).repeat_interleave(60, 0)
    labels = torch.arange(2).repeat_interleave(60)
    trial = selection.choose(content(x, labels), PLAN, family, components="auto")
    assert trial.plan.components == 1
    assert content(x, labels).mixture(trial.plan).class_log_prob(x).argmax(1).equal(labels)
