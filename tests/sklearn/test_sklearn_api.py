"""MixtureClassifier: scikit-learn's contract, its discriminant analyses as oracles, and exact addition of batches."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.covariance import OAS
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mixtura.core import FAMILIES
from mixtura.errors import LabelError
from mixtura.sklearn import MixtureClassifier

ADDITIVE = ["spherical", "diagonal", "tied", "full"]
EXACT = {"shrinkage": 0.0, "variance_floor": 0.0, "temperature": 1.0}
SUMMED = {"shrinkage": "oas", "feature_scale": "unit", "temperature": 1.0}  # what partial_fit means by auto


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = rng.choice(["bolt", "nut", "pin"], 400, p=[0.5, 0.3, 0.2])
    shift = {"bolt": 0.0, "nut": 1.5, "pin": -1.0}
    X = np.stack([rng.normal(shift[c], 1 + 0.2 * abs(shift[c]), 6) for c in y]) @ rng.normal(size=(6, 6))
    return X, y


@parametrize_with_checks(
    [
        MixtureClassifier(),
        *(MixtureClassifier(family=family) for family in FAMILIES),
        MixtureClassifier(n_components="auto"),
        MixtureClassifier(family="diagonal", n_components=2),
        MixtureClassifier("tied", projection="auto"),
        MixtureClassifier(**SUMMED),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def assert_same(ours, theirs, X):
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-7, atol=1e-9)
    assert np.array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_tied_equals_linear_discriminant_analysis(blobs, shrinkage):
    X, y = blobs
    ours = MixtureClassifier("tied", **(EXACT | {"shrinkage": shrinkage}), feature_scale="none").fit(X, y)
    for solver in ("lsqr", "eigen"):
        oracle = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage).fit(X, y)
        np.testing.assert_allclose(ours.mixture_.mean.numpy(), oracle.means_, atol=1e-9)
        np.testing.assert_allclose(ours.mixture_.covariance.dense(3, 6)[0].numpy(), oracle.covariance_, atol=1e-9)
        assert_same(ours, oracle, X)


@pytest.mark.parametrize("priors", [None, [0.2, 0.2, 0.6]])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_full_equals_quadratic_discriminant_analysis(blobs, shrinkage, priors):
    X, y = blobs
    ours = MixtureClassifier("full", **(EXACT | {"shrinkage": shrinkage}), feature_scale="none", priors=priors).fit(
        X, y
    )
    assert_same(ours, QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage, priors=priors).fit(X, y), X)


def test_diagonal_equals_naive_bayes(blobs):
    X, y = blobs
    assert_same(MixtureClassifier("diagonal", **EXACT).fit(X, y), GaussianNB(var_smoothing=0.0).fit(X, y), X)


def test_oas_is_the_oracle_approximating_shrinkage(blobs):
    X, y = blobs
    options = {"family": "tied", "shrinkage": "oas", "feature_scale": "none"}
    ours = MixtureClassifier(**options).fit(X, y)
    centered = X - np.stack([X[y == c].mean(0) for c in ["bolt", "nut", "pin"]])[np.unique(y, return_inverse=True)[1]]
    sub = centered[: len(X) - 3] * np.sqrt(1 + 3 / (len(X) - 3))  # N - C rows with nearly the same covariance
    assert ours.plan_.prior.identity == pytest.approx(OAS(assume_centered=True).fit(sub).shrinkage_, rel=0.05)
    few = MixtureClassifier(**options).fit(X[:20], y[:20])
    assert few.plan_.prior.identity > ours.plan_.prior.identity


@pytest.mark.parametrize("family", ADDITIVE)
@pytest.mark.parametrize("shrinkage", ["oas", 0.1])
def test_batches_give_exactly_what_all_rows_give(blobs, family, shrinkage):
    X, y = blobs
    weight = np.random.default_rng(1).uniform(0.5, 2, len(X))
    whole = MixtureClassifier(family, **(SUMMED | {"shrinkage": shrinkage})).fit(X, y, weight)
    parts = MixtureClassifier(family, shrinkage="auto" if shrinkage == "oas" else shrinkage)
    for rows in np.array_split(np.argsort(y, kind="stable"), 7):  # classes come one after another
        parts.partial_fit(X[rows], y[rows], classes=np.unique(y), sample_weight=weight[rows])
    for key, value in whole.mixture_.state().items():
        np.testing.assert_allclose(parts.mixture_.state()[key].numpy(), value.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), rtol=0, atol=1e-12)


def test_partial_fit_follows_fit_and_keeps_unseen_classes_at_zero(blobs):
    X, y = blobs
    model = MixtureClassifier("full", **SUMMED)
    whole = clone(model).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(
        model.fit(X[:200], y[:200]).partial_fit(X[200:], y[200:]).predict_proba(X), whole, atol=1e-12
    )
    chosen = MixtureClassifier("full", random_state=0, projection=["l2"]).fit(X[:200], y[:200])
    kept = (chosen.plan_, chosen.temperature_)
    assert (chosen.partial_fit(X[200:], y[200:]).plan_, chosen.temperature_) == kept
    assert chosen.mixture_.log_weight.exp().double() @ torch.ones(3, dtype=torch.float64) == pytest.approx(1)
    for priors in (None, [0.25, 0.25, 0.25, 0.25]):
        some = MixtureClassifier("tied", priors=priors).partial_fit(X, y, classes=["bolt", "nut", "pin", "rivet"])
        proba = some.predict_proba(X)
        assert (proba[:, 3] == 0).all()
        np.testing.assert_allclose(proba.sum(1), 1)


def test_partial_fit_says_what_is_wrong(blobs):
    X, y = blobs
    with pytest.raises(LabelError, match="pin is not in classes"):
        MixtureClassifier().partial_fit(X, y, classes=["bolt", "nut"])
    with pytest.raises(ValueError, match="classes must be passed"):
        MixtureClassifier().partial_fit(X, y)
    assert not hasattr(MixtureClassifier("lowrank"), "partial_fit")
    assert not hasattr(MixtureClassifier(n_components=2), "partial_fit")
    with pytest.raises(ValueError, match="cannot fit a projection"):
        MixtureClassifier(projection=["pca"]).partial_fit(X, y, classes=np.unique(y))


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("components", [1, 2])
def test_every_family_scores_as_its_density_says(blobs, family, components):
    X, y = blobs
    model = MixtureClassifier(family, components, rank=2, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.75
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X), atol=1e-12)
    np.testing.assert_allclose(model.score_samples(X), model.mixture_.log_prob(torch.from_numpy(X)).numpy(), rtol=1e-12)
    assert model.mixture_.n_components == 3 * components
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_auto_finds_what_the_data_were_made_with():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1500)
    shared = rng.normal(size=(8, 8))
    tied = rng.normal(size=(1500, 8)) @ shared + 1.5 * y[:, None]
    assert MixtureClassifier(random_state=0).fit(tied, y).plan_.family == "tied"
    spreads = rng.uniform(0.2, 2, size=(2, 8))
    assert MixtureClassifier(random_state=0).fit(rng.normal(size=(1500, 8)) * spreads[y], y).plan_.family != "tied"
    turned = np.einsum("nd,nde->ne", rng.normal(size=(1500, 8)), rng.normal(size=(2, 8, 8))[y])
    assert MixtureClassifier(random_state=0).fit(turned, y).plan_.family in ("full", "lowrank")  # rank 16 of 8 is full
    few = MixtureClassifier(random_state=0).fit(turned[:12], y[:12])
    assert few.plan_.family == "tied"


def test_auto_counts_components_class_by_class():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 600)
    X = rng.normal(size=(1200, 3)) * 0.3
    X[y == 1] += np.array([[3, 3, 3], [-3, 3, -3], [3, -3, -3], [-3, -3, 3]])[rng.integers(0, 4, 600)]
    model = MixtureClassifier("diagonal", n_components="auto", random_state=0).fit(X, y)
    assert model.plan_.components == (1, 4)
    assert model.mixture_.component_class.tolist() == [0, 1, 1, 1, 1]
    assert MixtureClassifier("tied", n_components="auto").fit(X[:900] * [1, 0, 0], y[:900]).predict(X).shape == (1200,)


def test_digits_are_read_by_default():
    X, y = load_digits(return_X_y=True)
    train, test, label, truth = train_test_split(X, y, random_state=0, stratify=y)
    model = MixtureClassifier(random_state=0).fit(train, label)
    assert model.score(test, truth) > 0.98
    assert LinearDiscriminantAnalysis().fit(train, label).score(test, truth) < 0.97
    assert np.array_equal(model.predict(test), clone(model).fit(train, label).predict(test))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_hard_data_is_taken(family):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9, 20))  # fewer rows than dimensions
    X[:, 3] = 1.0  # constant dimension
    X[4] = X[5]  # repeated row
    y = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2])  # a class of one row
    proba = MixtureClassifier(family, rank=2).fit(X, y).predict_proba(X)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(1), 1)


@pytest.mark.parametrize("family", ["auto", *FAMILIES])
def test_float32_stays_float32(blobs, family):
    X, y = blobs
    options = {"rank": 2, "shrinkage": 0.1, "feature_scale": "none", "random_state": 0}
    small, large = (MixtureClassifier(family, **options).fit(X.astype(t), y) for t in ("f4", "f8"))
    assert small.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert small.score_samples(X.astype(np.float32)).dtype == np.float32
    assert small.sample(4)[0].dtype == np.float32
    assert small.plan_ == large.plan_
    np.testing.assert_allclose(small.predict_proba(X.astype(np.float32)), large.predict_proba(X), atol=2e-3)


def test_samples_come_from_the_classes(blobs):
    X, y = blobs
    model = MixtureClassifier("full", random_state=0).fit(X, y)
    drawn, label = model.sample(20_000)
    share = [(label == c).mean() for c in model.classes_]
    np.testing.assert_allclose(share, [(y == c).mean() for c in model.classes_], atol=0.02)
    np.testing.assert_allclose(drawn[label == "nut"].mean(0), X[y == "nut"].mean(0), atol=0.2)
    assert model.score(drawn, label) == pytest.approx(model.score(X, y), abs=0.05)
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)


def test_bad_arguments_are_refused(blobs):
    X, y = blobs
    with pytest.raises(LabelError, match="two classes at least, got 1 class: bolt"):
        MixtureClassifier().fit(X[y == "bolt"], y[y == "bolt"])
    for options in (
        {"family": "diag"},
        {"n_components": 0},
        {"shrinkage": 1.5},
        {"rank": 0},
        {"variance_floor": -1.0},
        {"temperature": 0.0},
        {"feature_scale": "std"},
        {"projection": 3},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            MixtureClassifier(**options).fit(X, y)
    for priors in ([0.5, 0.5], [0.5, 0.6, 0.1], [-0.5, 0.5, 1.0]):
        with pytest.raises(ValueError, match="priors must be 3 probabilities"):
            MixtureClassifier(priors=priors).fit(X, y)
    with pytest.raises(NotFittedError):
        MixtureClassifier().predict(X)


def test_pipeline_and_grid_search(blobs):
    X, y = blobs
    pipeline = make_pipeline(StandardScaler(), MixtureClassifier("tied"))
    search = GridSearchCV(
        pipeline, {"mixtureclassifier__shrinkage": [0.0, 0.9], "mixtureclassifier__family": ["tied", "full"]}, cv=3
    ).fit(X, y)
    assert search.best_score_ > 0.75
    assert search.best_estimator_.predict(X[:3]).shape == (3,)


@pytest.mark.parametrize("family", ADDITIVE)
def test_the_floor_is_a_share_of_the_variance_within_classes(blobs, family):
    X, y = blobs
    with_floor = MixtureClassifier(family, shrinkage=0.0, variance_floor=0.5).fit(X, y).mixture_.covariance.dense(3, 6)
    without = MixtureClassifier(family, shrinkage=0.0, variance_floor=0.0).fit(X, y).mixture_.covariance.dense(3, 6)
    within = sum(((X[y == c] - X[y == c].mean(0)) ** 2).sum(0) for c in np.unique(y)) / len(X)
    variance = np.full(6, within.mean()) if family == "spherical" else within
    added = 0.5 * torch.diag(torch.from_numpy(variance)).expand(3, -1, -1)
    torch.testing.assert_close(with_floor - without, added, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["auto", *FAMILIES])
@pytest.mark.parametrize("components", [1, "auto"])
def test_a_weight_is_exactly_a_number_of_rows_in_any_order(blobs, family, components):
    X, y = blobs
    times = np.random.default_rng(2).integers(0, 3, len(X))
    model = MixtureClassifier(family, n_components=components, rank=2, random_state=0)
    weighted = clone(model).fit(X, y, times)
    order = np.random.default_rng(3).permutation(times.sum())
    many = clone(model).fit(X.repeat(times, 0)[order], y.repeat(times)[order])
    assert many.plan_ == weighted.plan_ and many.temperature_ == weighted.temperature_
    assert np.array_equal(many.predict_proba(X), weighted.predict_proba(X))


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("family", ["auto", "diagonal", "lowrank", "tied", "full"])
def test_no_decision_depends_on_the_unit_of_a_feature(blobs, family, components, factor):
    X, y = blobs
    unit = np.where(np.arange(6) == 1, factor, 1.0)
    model = MixtureClassifier(family, components, rank=2, random_state=0, feature_scale="unit")
    ours, theirs = clone(model).fit(X, y), clone(model).fit(X * unit, y)
    assert np.array_equal(ours.predict(X), theirs.predict(X * unit))
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X * unit), atol=1e-6)


def test_probabilities_are_tempered_and_the_density_is_not(blobs):
    X, y = blobs
    wide = np.concatenate([X, X @ np.random.default_rng(0).normal(size=(6, 6))], 1)  # naive Bayes counts all twice
    auto = MixtureClassifier("diagonal", random_state=0).fit(wide, y)
    plain = MixtureClassifier("diagonal", random_state=0, temperature=1.0).fit(wide, y)
    assert auto.temperature_ > 1.5 and plain.temperature_ == 1.0
    np.testing.assert_array_equal(auto.score_samples(wide), plain.score_samples(wide))
    np.testing.assert_array_equal(auto.predict(wide), plain.predict(wide))
    given = MixtureClassifier("diagonal", random_state=0, temperature=auto.temperature_).fit(wide, y)
    np.testing.assert_allclose(given.predict_proba(wide), auto.predict_proba(wide))
    odds = [m.predict_log_proba(wide)[:, 0] - m.predict_log_proba(wide)[:, 1] for m in (auto, plain)]
    np.testing.assert_allclose(odds[0] * auto.temperature_, odds[1], rtol=1e-9)


def test_other_priors_are_not_tempered(blobs):
    X, y = blobs
    for temperature in (1.0, 3.0):
        model = MixtureClassifier("tied", shrinkage=0.0, temperature=temperature)
        shares = clone(model).fit(X, y).predict_proba(X)
        found = clone(model).set_params(priors=[0.2, 0.8, 0.0]).fit(X, y).predict_proba(X)
        moved = shares * np.array([0.2, 0.8, 0.0]) / [(y == c).mean() for c in ("bolt", "nut", "pin")]
        np.testing.assert_allclose(found, moved / moved.sum(1, keepdims=True), atol=1e-9)


def test_projections_are_chosen_or_named(blobs):
    X, y = blobs
    skewed = np.exp(X / 3) ** 2
    auto = MixtureClassifier(projection="auto", random_state=0).fit(skewed, y)
    assert [step.name for step in auto.projection_.steps] == ["power"]
    named = MixtureClassifier(projection=["power"], random_state=0).fit(skewed, y)
    np.testing.assert_array_equal(named.predict_proba(skewed), auto.predict_proba(skewed))
    fewer = MixtureClassifier(projection=[{"name": "pca", "explained_variance": 0.60}], random_state=0).fit(X, y)
    assert fewer.mixture_.dimension < 6
    assert fewer.score(X, y) > 0.5
    assert MixtureClassifier(random_state=0).fit(X, y).projection_.steps == ()
    for bad, why in (
        (["pwer"], "Did you mean 'power'"),
        ([{"explained_variance": 0.60}], "Unknown name"),
        ([3], "Unknown name"),
        ([{"name": "pca", "percent": 60.0}], "'pca' has no option 'percent'. It has: explained_variance"),
        ([{"name": "pca", "explained_variance": 1.01}], "1.01"),
    ):
        with pytest.raises(ValueError, match=why):
            MixtureClassifier(projection=bad).fit(X, y)


@pytest.mark.parametrize("components", [1, 2, "auto"])
@pytest.mark.parametrize("family", ["auto", *FAMILIES])
def test_degenerate_rows_are_taken(family, components):
    model = MixtureClassifier(family, components, rank=2, random_state=0)
    two, y = np.array([[0.0, 1.0], [5.0, 2.0]]), np.array(["a", "b"])
    cases = [
        (two, y, None),  # two rows
        (two.repeat(40, 0), y.repeat(40), None),  # two distinct rows
        (np.ones((30, 2)), np.tile(y, 15), None),  # one row again and again, in both classes
        (np.random.default_rng(0).normal(size=(60, 2)), np.tile(["a", "b", "c"], 20), np.tile([1.0, 1.0, 0.0], 20)),
    ]
    for X, label, weight in cases:
        proba = clone(model).fit(X, label, weight).predict_proba(X)
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(1), 1)
    assert (proba[:, 2] == 0).all()  # a class of weight zero
    assert (clone(model).fit(two, y).predict(two) == y).all()


def test_what_cannot_be_used_is_refused(blobs):
    X, y = blobs
    for priors in ([0.5, 0.5], [0.3, 0.3, 0.3], [np.nan] * 3, [np.nan, 0.5, 0.5], [np.inf, 0, 0]):
        with pytest.raises(ValueError, match="priors must be 3 probabilities"):
            MixtureClassifier("tied", priors=priors).fit(X, y)
    broken = X.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        MixtureClassifier().fit(broken, y)
    for family in ("tied", "full", "diagonal"):
        with pytest.raises(ValueError, match=r"floor|spread"):
            MixtureClassifier(family, **EXACT).fit(np.c_[X, np.ones(len(X))], y)
    for old in ("components", "floor"):
        with pytest.raises(TypeError, match=old):
            MixtureClassifier(**{old: 1})
