"""What judges is held out: of the mixture, of the projection, and of a copy of itself."""

import math

import numpy as np
import pytest
import torch

from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import DEFAULT_FOLDS, Folds
from mixtura.errors import LabelError
from mixtura.features.projected_folds import CrossFittedFolds, cross_fit_projection
from mixtura.features.projection import LDA, PCA, Whiten
from mixtura.fitting.selection import MIN_VALIDATION, TrainingSamples, folds_of
from mixtura.tasks.evaluate import evaluate

STEPS = {
    "none": [],
    "l2": ["l2"],
    "random": [{"name": "random", "dimension": 30}],
    "random_features": [{"name": "random_features", "dimension": 60}],
    "pca": [{"name": "pca", "explained_variance": 0.8}],
    "whiten": ["whiten"],
    "lda": ["lda"],
    "pca, lda": [{"name": "pca", "explained_variance": 0.99}, "lda"],
}


@pytest.mark.parametrize("name", STEPS)
def test_the_stated_rate_is_kept_through_every_projection(cloud, learn, name):
    """150 dimensions and 300 rows: a projection that had seen the held-out rows would reject most new ones."""
    rows = cloud(1200, 6, 150, separation=0.5, split=["train" if i < 300 else "test" for i in range(1200)])
    model = learn(rows, projection=STEPS[name], head__family="tied", head__shrinkage=0.1)
    measured = evaluate(model, rows.select_split("test")).metrics["false_reject"]
    assert measured < 0.05 + 3 * math.sqrt(0.05 * 0.95 * (1 / 300 + 1 / 900))


@pytest.mark.parametrize(("seed", "rate"), [(0, 0.05), (1, 0.1), (2, 0.2), (3, 0.02)])
def test_the_measured_rate_is_the_stated_one(cloud, learn, seed, rate):
    rows = cloud(6000, 5, 6, seed=seed, split=["train" if i < 2000 else "test" for i in range(6000)])
    model = learn(rows, decision__false_reject_rate=rate)
    measured = evaluate(model, rows.select_split("test")).metrics["false_reject"]
    assert abs(measured - rate) < 3 * math.sqrt(rate * (1 - rate) * (1 / 2000 + 1 / 4000))


def problem(n=60, classes=3, **more):
    generator = torch.Generator().manual_seed(0)
    values = {
        "x": torch.randn(n, 5, generator=generator),
        "labels": torch.arange(n) % classes,
        "groups": torch.arange(n),
        "is_validation": torch.zeros(n, dtype=torch.bool),
        "weight": None,
        "n_classes": classes,
    }
    return TrainingSamples(**(values | more))


def test_a_fold_is_projected_by_what_the_other_folds_teach():
    rows = problem()
    folds = folds_of(rows, 0)
    steps = [(PCA, {"explained_variance": 0.7}), (LDA, {})]
    projection, apart = cross_fit_projection(steps, rows.x, folds)
    assert isinstance(apart, CrossFittedFolds)
    assert torch.equal(apart.x, projection(rows.x))
    assert len(apart.without) == DEFAULT_FOLDS
    for i, space in enumerate(apart.without):
        moved = rows.x.clone()
        moved[folds.fold == i] += 100.0  # the rows of fold i must not matter to where the others lie
        again = cross_fit_projection(steps, moved, folds)[1].without[i]
        torch.testing.assert_close(again.x[folds.fold != i], space.x[folds.fold != i])


def test_every_row_is_judged_once():
    rows = problem()
    folds = folds_of(rows, 0)
    for steps in ([], [(Whiten, {})]):
        held = cross_fit_projection(steps, rows.x, folds)[1].cross_val_predict(
            Plan("tied", prior=Prior(0.0, 0.1)), background=True
        )
        assert held.row.sort().values.tolist() == list(range(60))
        assert torch.equal(held.label, rows.labels[held.row])


def test_a_fixed_projection_needs_no_space_for_each_fold():
    rows = problem()
    _, folds = cross_fit_projection([], rows.x, folds_of(rows, 0))
    assert type(folds) is Folds


def test_copies_are_held_out_together():
    rows = problem(groups=torch.arange(60) // 6)
    fold = folds_of(rows, 0).fold
    for group in range(10):
        assert len(fold[rows.groups == group].unique()) == 1


@pytest.mark.parametrize("given", [MIN_VALIDATION - 1, MIN_VALIDATION])
def test_a_given_validation_part_judges_alone_where_it_is_large_enough(given):
    marks = torch.arange(300) < given
    fold = folds_of(problem(300, is_validation=marks), 0).fold
    assert torch.equal(fold < DEFAULT_FOLDS, marks) == (given >= MIN_VALIDATION)


def test_a_given_validation_part_sets_the_threshold(cloud, learn):
    split = ["test" if i % 5 == 4 else "val" if i % 5 in (1, 2) else "train" for i in range(400)]
    model = learn(cloud(400, split=split))
    assert model.facts["held_out_items"] == split.count("val")
    assert model.facts["training_items"] == split.count("val") + split.count("train")


@pytest.mark.parametrize(
    ("labels", "groups", "count"), [([0, 1, 2], [0, 1, 2], 0), ([0, 0, 1, 1], [0, 0, 1, 1], 0), ([0], [0], 0)]
)
def test_without_two_different_rows_of_a_class_nothing_can_be_judged(labels, groups, count):
    rows = problem(len(labels), 3, labels=torch.tensor(labels), groups=torch.tensor(groups))
    with pytest.raises(LabelError, match=f"Only {count} of {len(labels)} items .* can be held out"):
        folds_of(rows, 0)


@pytest.mark.parametrize("family", ["spherical", "diagonal", "lowrank", "tied", "full", "auto"])
@pytest.mark.parametrize("steps", [[], ["lda"]])
def test_thin_data_still_gives_a_model(features, learn, family, steps):
    """One photo in a class, two in another, constant dimensions, more dimensions than rows."""
    rng = np.random.default_rng(0)
    labels = ["a"] * 10 + ["b"] * 10 + ["two"] * 2 + ["one"]
    x = np.zeros((23, 40))
    x[:, :30] = (
        rng.standard_normal((23, 30))
        + 5 * np.array([["a", "b", "two", "one"].index(label) for label in labels])[:, None]
    )
    split = ["test" if i in (0, 10) else "train" for i in range(23)]
    model = learn(features(x, labels, split), head__family=family, projection=steps)
    answers = model.answers(np.asarray(x, np.float32))
    assert np.isfinite(answers.posterior).all()
    np.testing.assert_allclose(answers.posterior.sum(1), 1, atol=1e-9)
    assert ((answers.typicality > 0) & (answers.typicality <= 1)).all()
    assert (answers.predicted[:20] == np.repeat([0, 1], 10)).mean() > 0.9


def test_weights_count_as_copies_do(features, learn):
    """An item of weight zero teaches nothing."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((100, 3)), ["a", "b"] * 50
    x[:, 0] += np.array([0.0, 6.0] * 50)
    weight = np.ones(100)
    wrong = np.arange(0, 100, 10)
    x[wrong], weight[wrong] = 50.0, 0.0
    model = learn(features(x, labels, weight=weight), head__family="tied", head__shrinkage=0.0)
    assert abs(float(model.mixture.mean.max()) - 6) < 1
