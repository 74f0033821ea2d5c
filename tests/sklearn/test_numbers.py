"""Numbers at the edge of their range, parameters set by hand, and labels that are missing: an answer or a sentence."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture as Oracle

from mixtura.core import FAMILIES
from mixtura.errors import CollapsedComponent, LabelError
from mixtura.sklearn import GaussianMixture, MixtureClassifier

TYPES = ["full", "tied", "diag", "spherical"]
FAR = (1e4, 1e6, 1e10, 1e19, 1e30, 3e37)


@pytest.fixture(scope="module")
def clusters():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    return rng.normal(size=(120, 4)) @ rng.normal(size=(4, 4)) + 4 * rng.normal(size=(3, 4))[y], y


def directions():
    rows = np.random.default_rng(1).normal(size=(8, 4))
    return rows / np.abs(rows).max(1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_nearest_class_of_a_direction_stays_however_far(clusters, family, dtype):
    X, y = clusters
    model = MixtureClassifier(family, rank=2, random_state=0).fit(X.astype(dtype), y)
    near = model.predict(1e4 * directions().astype(dtype))
    for far in FAR if dtype == np.float32 else (*FAR, 1e200):
        rows = (far * directions()).astype(dtype)
        proba, decided = model.predict_proba(rows), model.decide(rows)
        assert proba.dtype == dtype
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
        assert not np.isnan(model.predict_log_proba(rows)).any()
        assert not np.isnan(model.score_samples(rows)).any()
        assert model.predict(rows).tolist() == near.tolist() == decided.label.tolist()
        assert set(decided.verdict) == {"unknown"}


@pytest.mark.parametrize("kind", TYPES)
def test_far_rows_of_a_mixture_have_components_and_densities(clusters, kind):
    X = clusters[0].astype(np.float32)
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
    for far in FAR:
        rows = (far * directions()).astype(np.float32)
        assert np.isfinite(model.predict_proba(rows)).all()
        assert (model.score_samples(rows) < -far).all()
    mixed = np.concatenate([X[:5], rows])
    np.testing.assert_allclose(model.predict_proba(mixed)[:5], model.predict_proba(X[:5]), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e30])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_samples_of_any_scale_are_learned(clusters, family, scale):
    X, y = clusters[0][::2], clusters[1][::2]
    model = MixtureClassifier(family, rank=2, shrinkage=0.1, random_state=0, temperature=1.0, false_reject_rate=None)
    plain = model.fit(X, y).predict_proba(X)
    scaled = (X * scale).astype(np.float32)
    found = model.fit(scaled, y).predict_proba(scaled)
    np.testing.assert_allclose(found, plain, atol=5e-3 if scale > 1e-38 else 0.05)


def test_what_no_precision_holds_is_refused_by_its_scale(clusters):
    X, y = clusters
    for scale in (1e-200, 1e150, 1e200):
        for fit in (lambda x: MixtureClassifier("tied").fit(x, y), GaussianMixture(2, random_state=0).fit):
            with pytest.raises(ValueError, match=r"e[+-]\d+.* Rescale the features"):
                fit(X * scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_constant_feature_without_a_floor_collapses_or_has_answers(clusters, family):
    X, y = np.c_[clusters[0], np.ones(120)], clusters[1]
    model = MixtureClassifier(family, rank=2, variance_floor=0.0, shrinkage=0.0)
    try:
        assert np.isfinite(model.fit(X, y).predict_proba(X)).all()
    except CollapsedComponent as error:
        assert "variance_floor or shrinkage, fewer n_components, or another family" in str(error)
    if family in ("tied", "full", "diagonal"):
        for fit in (lambda: model.fit(X, y), lambda: model.partial_fit(X, y, classes=[0, 1, 2])):
            with pytest.raises(CollapsedComponent, match="variance_floor"):
                fit()


@pytest.mark.parametrize("kind", TYPES)
def test_a_collapse_names_the_parameters_of_the_class(kind):
    two = np.repeat([[0.0, 1.0], [5.0, 2.0]], 3, axis=0)
    with pytest.raises(CollapsedComponent, match="larger reg_covar, fewer n_components, or another covariance_type"):
        GaussianMixture(2, covariance_type=kind, reg_covar=0.0, random_state=0).fit(two)
    bad = np.zeros({"full": (2, 2, 2), "tied": (2, 2), "diag": (2, 2), "spherical": (2,)}[kind])
    with pytest.raises(ValueError, match="precisions_init: "):
        GaussianMixture(2, covariance_type=kind, precisions_init=bad).fit(np.random.default_rng(0).normal(size=(9, 2)))
    with pytest.raises(ValueError, match="weights_init"):
        GaussianMixture(2, covariance_type=kind, weights_init=[np.nan, 0.5]).fit(two)


# Parameters set by hand


@pytest.mark.parametrize("given", ["covariances_", "precisions_", "precisions_cholesky_"])
@pytest.mark.parametrize("kind", TYPES)
def test_parameters_of_scikit_learn_predict_without_a_fit(clusters, kind, given):
    X = clusters[0]
    theirs = Oracle(3, covariance_type=kind, random_state=0).fit(X)
    ours = GaussianMixture(3, covariance_type=kind)
    for name in (given, "means_", "weights_"):
        assert not hasattr(ours, "mixture_")
        setattr(ours, name, getattr(theirs, name))
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-9, atol=1e-12)
    assert ours.sample(5)[0].shape == (5, 4)


@pytest.mark.parametrize("kind", [*TYPES, "lowrank"])
def test_a_fitted_attribute_is_set_or_refused_and_never_lost(clusters, kind):
    X = clusters[0]
    model = GaussianMixture(3, covariance_type=kind, rank=2, random_state=0).fit(X)
    before, moved = model.score_samples(X), model.means_ + 1.0
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(model, name)[...] = 0
    model.means_ = moved
    np.testing.assert_allclose(model.means_, moved)
    np.testing.assert_allclose(model.score_samples(X + 1.0), before, rtol=1e-9)


def test_components_can_be_put_in_order(clusters):
    X = clusters[0]
    model = GaussianMixture(3, random_state=0).fit(X)
    labels, density, order = model.predict(X), model.score_samples(X), np.array([2, 0, 1])
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_"):
        setattr(model, name, getattr(model, name)[order])
    np.testing.assert_allclose(model.score_samples(X), density, rtol=1e-9)
    assert (order[model.predict(X)] == labels).all()


def test_precisions_follow_covariances_at_the_next_use(clusters):
    model = GaussianMixture(2, random_state=0).fit(clusters[0])
    model.covariances_ = 2 * model.covariances_
    model.predict(clusters[0])
    np.testing.assert_allclose(model.precisions_ @ model.covariances_, [np.eye(4)] * 2, atol=1e-9)


def test_a_fit_that_fails_leaves_no_model_of_other_classes(clusters):
    X, y = clusters
    model = MixtureClassifier("full", variance_floor=0.0, shrinkage=0.0).fit(X, y)
    with pytest.raises(CollapsedComponent):
        model.fit(np.c_[X, np.ones(120)], y + 5)
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert model.partial_fit(X, y, classes=[0, 1, 2]).classes_.tolist() == [0, 1, 2]


def test_parameters_that_do_not_fit_are_a_sentence(clusters):
    model = GaussianMixture(2)
    model.weights_, model.means_ = [0.5, 0.3, 0.2], np.zeros((2, 4))
    with pytest.raises(ValueError, match=r"weights_ has shape \(3,\), means_ has shape \(2, 4\)\. Set "):
        model.predict(clusters[0])
    model.weights_ = [0.5, 0.5]
    for bad, why in ((np.zeros((2, 4, 4)), "covariances_: "), (np.full((2, 4, 4), np.nan), "covariances_: ")):
        with pytest.raises(ValueError, match=why):
            model.covariances_ = bad
    model.covariances_ = np.stack([np.eye(4)] * 2)
    for bad in ([0.5, 0.6], [np.nan, 1.0], [1.5, -0.5]):
        with pytest.raises(ValueError, match="weights_ must be non-negative and sum to 1"):
            model.weights_ = bad
    with pytest.raises(ValueError, match="means_ holds NaN"):
        model.means_ = np.full((2, 4), np.nan)
    assert model.predict(clusters[0]).shape == (120,)
    model.fit(clusters[0])
    assert len(model.lower_bounds_) > 0


@pytest.mark.parametrize("change", [{"covariance_type": "diag"}, {"n_components": 3}, {"X": 2}, {"rank": 1}])
def test_a_warm_start_with_other_options_fits_anew(clusters, change):
    X, change = clusters[0], dict(change)
    first = {"covariance_type": "lowrank" if "rank" in change else "full", "rank": 2, "random_state": 0}
    model = GaussianMixture(2, warm_start=True, **first).fit(X)
    X = X[:, : change.pop("X", 4)]
    model.set_params(**change).fit(X)
    fresh = GaussianMixture(**model.get_params()).fit(X)
    np.testing.assert_array_equal(model.means_, fresh.means_)
    np.testing.assert_array_equal(model.covariances_, fresh.covariances_)


def test_options_after_a_fit_do_not_change_what_was_fitted(clusters):
    model = GaussianMixture(2, random_state=0).fit(clusters[0])
    before = model.covariances_
    model.set_params(covariance_type="diag", n_components=5)
    np.testing.assert_array_equal(model.covariances_, before)


# Labels and priors


class Ambiguous:
    """Like ``pandas.NA``: a comparison with it has no truth value."""

    __hash__ = None

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("ambiguous")


@pytest.mark.parametrize("missing", [None, np.nan, Ambiguous(), float("nan")])
def test_a_missing_label_is_named(clusters, missing):
    X, y = clusters[0][:40], np.array(["a", "b"] * 20, dtype=object)
    y[3] = missing
    for fit in (
        MixtureClassifier("tied").fit,
        lambda *a: MixtureClassifier("tied").partial_fit(*a, classes=["a", "b"]),
    ):
        with pytest.raises(LabelError, match=r"y\[3\] is .* Give every sample a label"):
            fit(X, y)
    with pytest.raises(LabelError, match=r"classes\[2\] is"):
        MixtureClassifier("tied").partial_fit(X, ["a", "b"] * 20, classes=np.array(["a", "b", missing], object))


@pytest.mark.parametrize("priors", [[0.5, 0.5], [0.5, 0.6, -0.1], [np.nan] * 3, [np.inf, 0, 0], [0.1] * 3])
def test_priors_that_are_no_probabilities_are_refused_in_batches_too(clusters, priors):
    with pytest.raises(ValueError, match="priors must be 3 probabilities"):
        MixtureClassifier("tied", priors=priors).partial_fit(*clusters, classes=[0, 1, 2])
