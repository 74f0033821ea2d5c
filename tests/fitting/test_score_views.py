"""Scores are compared in as few coordinates as there are rows, with the same result as in all features."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mixtura.core import left_out, span
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds, content_folds
from mixtura.fitting.score_views import Views
from mixtura.names import find
from mixtura.records.strangers import ESTIMATE_FACT
from mixtura.scores import SCORES

PLAN = Plan("tied", prior=Prior(0.0, 0.05), feature_scale="half")


@pytest.fixture
def folds():
    """60 rows of 6 classes in 300 dimensions of unlike spread."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 6
    x = torch.randn(60, 300, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 4, 300).double()
    x += torch.randn(6, 300, generator=generator, dtype=torch.float64)[labels] + 1
    return Folds(x, labels, 6, content_folds(x, labels, 5, 0), 5)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_what_it_is_in_all_features(name, told, folds, monkeypatch):
    """Also one that does not say what it sees."""
    kind = find(SCORES, name)
    for one in [base for base in kind.__mro__ if "sees" in vars(base) and not told]:
        monkeypatch.delattr(one, "sees")
    gone = torch.tensor([True, False, False, False, False, False])
    learned = left_out.rows_without(folds, gone, 0)
    without = partial(left_out.mixture_without, gone=gone, fold=0)

    def scored(views: Views) -> torch.Tensor:
        space, plan = views.distances
        mixture = without(space, plan)
        joint, background, peak = left_out.scores_with_peak(mixture, space.x)
        known, x = views.known(kind, learned, mixture, without)
        known.__dict__["background_peak"] = peak
        return kind.fit(known)(x, joint.logsumexp(1), background)

    few = Views.of(folds, PLAN)
    assert few.distances[0].x.shape == (60, 60)
    atol = 1.0 if name == "relative-mahalanobis" else 1e-6  # a difference of distances of some thousands
    torch.testing.assert_close(scored(few), scored(Views.same(folds, PLAN)), rtol=1e-3, atol=atol)  # floors differ


@pytest.mark.parametrize("scale", ["none", "half"])
def test_a_score_that_does_not_say_what_it_sees_sees_the_features(scale, folds, monkeypatch):
    kind = find(SCORES, "knn")
    monkeypatch.delattr(kind, "sees")
    views = Views.of(folds, replace(PLAN, feature_scale=scale))
    fitted = []

    def fit(space, plan):
        fitted.append((space is folds, plan.feature_scale))
        return left_out.mixture_without(space, plan, torch.zeros(6, dtype=torch.bool), 0)

    mixture = left_out.mixture_without(*views.distances, torch.zeros(6, dtype=torch.bool), 0)
    _, x = views.known(kind, torch.arange(60), mixture, fit)
    assert torch.equal(x, folds.x)
    assert fitted == [(True, scale)]


def test_the_estimate_is_that_of_all_features(features, learn, monkeypatch):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(8), 8)
    mean = 0.7 * rng.standard_normal((8, 200))
    x = mean[label] + rng.standard_normal((64, 200)) * np.linspace(0.3, 3, 200)
    known = features(x, [f"c{c}" for c in label])
    options = {"head__family": "tied", "head__shrinkage": 0.1, "head__feature_scale": "half"}
    few = learn(known, **options).facts[ESTIMATE_FACT]
    monkeypatch.setattr(span, "MAX_SPAN_SHARE", 0.0)
    every = learn(known, **options).facts[ESTIMATE_FACT]
    assert few["score"] == every["score"]
    for name, trial in every["trials"].items():
        assert few["trials"][name]["draws"] == trial["draws"]
        assert few["trials"][name]["auroc"] == pytest.approx(trial["auroc"], abs=1e-3)  # ranks within rounding
