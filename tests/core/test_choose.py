from dataclasses import replace

import pytest
import torch
from sklearn.mixture import GaussianMixture

from mixtura.core import choose, em, start
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross import Folds, assign_folds
from mixtura.testing.covariance_laws import clusters

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
    return float((folds.mixture(trial.plan).class_joint(x).argmax(1) == labels).double().mean())


def test_one_spread_for_all_chooses_tied():
    shared, families = random_factors(1, 6).expand(4, -1, -1), []
    fresh = draw(means_of(4, 6), shared, 5000, 999)
    for seed in range(5):
        folds = folds_of(*draw(means_of(4, 6), shared, 100, seed))
        trial, tied = choose.choose(folds, PLAN), choose.choose(folds, PLAN, family="tied")
        families.append(trial.plan.family)
        assert accuracy(folds, trial, *fresh) >= accuracy(folds, tied, *fresh) - 0.002
    assert families.count("tied") >= 3


def test_a_spread_for_each_class_chooses_full():
    trial = choose.choose(folds_of(*draw(means_of(4, 6, 0.2), random_factors(4, 6), 300)), PLAN)
    assert trial.plan.family == "full"
    tied = choose.choose(folds_of(*draw(means_of(4, 6, 0.2), random_factors(4, 6), 300)), PLAN, family="tied")
    assert trial.accuracy > tied.accuracy


def test_few_rows_keep_to_tied():
    trial = choose.choose(folds_of(*draw(means_of(4, 6, 0.2), random_factors(4, 6), 6)), PLAN)
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
        found.append(choose.choose_counts(replace(PLAN, family=family, prior=Prior(1.0, 0.0)), x, labels, 3))
    assert all(counts[0] >= 2 for counts in found), found
    assert found.count((2, 1, 1)) >= 2, found  # held-out likelihood may be lucky once


def test_counts_are_kept_only_when_they_do_not_cost_accuracy():
    folds = folds_of(*bimodal())
    auto = choose.choose(folds, PLAN, family="diagonal", components="auto")
    assert auto.plan.components == (2, 1, 1)
    asked = choose.choose(folds, PLAN, family="diagonal", components=(1, 1, 2))
    assert asked.plan.components == (1, 1, 2)
    assert not choose.choose(folds, PLAN, family="diagonal").beats(auto)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_given_shrinkage_is_obeyed(share):
    folds = folds_of(*draw(means_of(3, 4), random_factors(3, 4), 60))
    for family in ("auto", *FAMILIES):
        assert choose.choose(folds, PLAN, family=family, shrinkage=share).plan.prior.identity == share


def test_shrinkage_is_found_where_rows_are_few():
    round_ones = torch.eye(30, dtype=torch.float64).expand(3, -1, -1)
    few = choose.choose(folds_of(*draw(means_of(3, 30, 0.7), round_ones, 12)), PLAN, family="tied")
    assert few.plan.prior.identity >= 0.1
    assert (
        few.accuracy
        >= choose.attempt(
            folds_of(*draw(means_of(3, 30, 0.7), round_ones, 12)), replace(PLAN, prior=Prior(0.0, 0.01))
        ).accuracy
    )


def test_bic_is_scikit_learns():
    x, labels = clusters()
    for family, theirs in (("full", "full"), ("tied", "tied"), ("diagonal", "diag"), ("spherical", "spherical")):
        mixture = em.fit(start.from_labels(family, x, labels, 5, 1e-6), em.Chunks(x), 1e-6, steps=3).mixture
        oracle = GaussianMixture(5, covariance_type=theirs)
        oracle.means_, oracle.n_features_in_ = mixture.mean.numpy(), 4
        expected = oracle._n_parameters() * torch.tensor(float(len(x))).double().log() - 2 * mixture.evidence(x).sum()
        assert choose.bic(mixture, x) == pytest.approx(float(expected), rel=1e-6)
