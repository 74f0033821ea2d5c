"""GaussianMixture against scikit-learn's: the same arguments give the same numbers."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Oracle
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mixtura.errors import CollapsedComponent
from mixtura.sklearn import GaussianMixture

SHARED = ["full", "tied", "diag", "spherical"]
TYPES = [*SHARED, "lowrank"]
ARRAYS = ["weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"]


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    blobs = [rng.normal(3 * c, 1 + 0.3 * c, (150, 4)) @ rng.normal(size=(4, 4)) for c in range(3)]
    return np.concatenate(blobs)


def quiet(model, X, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, **options)


@parametrize_with_checks([GaussianMixture(), *(GaussianMixture(covariance_type=kind) for kind in TYPES[1:])])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
def test_twenty_steps_equal_scikit_learn(points, kind, init):
    if kind == "tied" and init in ("k-means++", "random_from_data"):
        init = "random"  # from single rows scikit-learn takes the raw scatter of all rows for the tied matrix
    options = {
        "n_components": 3, "covariance_type": kind, "init_params": init, "random_state": 3, "max_iter": 20, "tol": 0.0
    }  # fmt: skip
    ours, theirs = quiet(GaussianMixture(**options), points), quiet(Oracle(**options), points)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-9, err_msg=name)
    # single rows as means: scikit-learn's first weights sum to K / N, ours to 1
    np.testing.assert_allclose(ours.lower_bounds_[1:], theirs.lower_bounds_[1:], rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(points), theirs.predict_proba(points), atol=1e-9)
    np.testing.assert_allclose(ours.score_samples(points), theirs.score_samples(points), rtol=1e-9)
    assert np.array_equal(ours.predict(points), theirs.predict(points))
    assert ours.bic(points) == pytest.approx(theirs.bic(points), rel=1e-9)
    assert ours.aic(points) == pytest.approx(theirs.aic(points), rel=1e-9)


@pytest.mark.parametrize("kind", SHARED)
def test_convergence_and_restarts_equal_scikit_learn(points, kind):
    options = {"n_components": 3, "covariance_type": kind, "n_init": 3, "init_params": "random", "random_state": 0}
    ours, theirs = quiet(GaussianMixture(**options), points), quiet(Oracle(**options), points)
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-9)
    assert len(ours.lower_bounds_) == ours.n_iter_


@pytest.mark.parametrize("kind", SHARED)
def test_given_starts_equal_scikit_learn(points, kind):
    seed = Oracle(3, covariance_type=kind, random_state=1).fit(points)
    given = {
        "weights_init": [0.2, 0.3, 0.5],
        "means_init": seed.means_ + 0.1,
        "precisions_init": seed.precisions_ * 1.1,
    }
    for names in (list(given), ["means_init"], ["precisions_init", "weights_init"]):
        options = {name: given[name] for name in names} | {"covariance_type": kind, "max_iter": 3, "random_state": 1}
        options["reg_covar"] = 0.01
        ours, theirs = quiet(GaussianMixture(3, **options), points), quiet(Oracle(3, **options), points)
        for name in ARRAYS:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-9, err_msg=name)


def test_bad_starts_are_refused(points):
    for options, message in [
        ({"weights_init": [0.5, 0.6]}, "sum to 1"),
        ({"means_init": np.zeros((2, 3))}, "should have the shape of"),
        ({"precisions_init": -np.ones((2, 4)), "covariance_type": "diag"}, "positive"),
        ({"precisions_init": np.zeros((2, 4, 4))}, "not positive definite"),
        ({"precisions_init": np.zeros((2, 4, 4)), "covariance_type": "lowrank"}, "no precisions_init"),
        ({"n_components": 0}, "n_components"),
        ({"covariance_type": "diagonal"}, "covariance_type"),
        ({"rank": 0}, "rank"),
    ]:
        with pytest.raises(ValueError, match=message):
            GaussianMixture(**({"n_components": 2} | options)).fit(points)
    with pytest.raises(ValueError, match="n_samples >= n_components"):
        GaussianMixture(5).fit(points[:4])


@pytest.mark.parametrize("kind", TYPES)
def test_float32_stays_float32_and_is_close(points, kind):
    options = {"n_components": 3, "covariance_type": kind, "random_state": 0, "tol": 1e-6, "rank": 2, "max_iter": 30}
    small, large = (quiet(GaussianMixture(**options), points.astype(t)) for t in (np.float32, np.float64))
    for name in ARRAYS:
        assert getattr(small, name).dtype == np.float32, name
        assert getattr(large, name).dtype == np.float64, name
    np.testing.assert_allclose(small.means_, large.means_, rtol=2e-2, atol=2e-2)
    assert small.predict_proba(points.astype(np.float32)).dtype == np.float32
    assert small.score_samples(points.astype(np.float32)).dtype == np.float32
    assert small.sample(3)[0].dtype == np.float32


@pytest.mark.parametrize("kind", TYPES)
def test_an_integer_weight_is_a_repeated_row(points, kind):
    counts = np.random.default_rng(1).integers(0, 4, len(points))
    start = {"means_init": points[[0, 200, 400]], "max_iter": 5, "tol": 0.0, "covariance_type": kind, "random_state": 0}
    if kind != "lowrank":
        seed = quiet(GaussianMixture(3, covariance_type=kind, random_state=0), points)
        start |= {"weights_init": seed.weights_, "precisions_init": seed.precisions_}
    else:
        start |= {"n_components": 1, "means_init": None, "rank": 2}
    model = GaussianMixture(**({"n_components": 3} | start))
    weighted = quiet(clone(model), points, sample_weight=counts)
    repeated = quiet(clone(model), points.repeat(counts, axis=0))
    tolerance = 1e-9
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=tolerance)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=tolerance, atol=tolerance)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=tolerance)


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("kind", TYPES)
def test_weights_reach_every_start(points, kind, init):
    keep = np.arange(len(points)) < 300  # the third blob does not count
    model = quiet(
        GaussianMixture(2, covariance_type=kind, init_params=init, rank=2, random_state=0), points, sample_weight=keep
    )
    assert model.score(points[keep]) > model.score(points[~keep])
    assert np.isfinite(model.score(points))


@pytest.mark.parametrize("kind", TYPES)
def test_likelihood_never_falls(points, kind):
    bounds = quiet(
        GaussianMixture(3, covariance_type=kind, random_state=0, tol=0.0, max_iter=40, rank=2, reg_covar=0.0), points
    ).lower_bounds_
    assert np.diff(bounds).min() > -1e-9


def test_lowrank_of_full_rank_is_as_good_as_full(points):
    low = quiet(GaussianMixture(3, covariance_type="lowrank", rank=3, random_state=0, tol=1e-7, max_iter=500), points)
    full = quiet(GaussianMixture(3, random_state=0, tol=1e-7, max_iter=500), points)
    assert low.score(points) == pytest.approx(full.score(points), abs=0.02)
    identity = np.broadcast_to(np.eye(4), (3, 4, 4))
    np.testing.assert_allclose(low.covariances_ @ low.precisions_, identity, atol=1e-9)
    assert low.mixture_.covariance.factor.shape == (3, 4, 3)


@pytest.mark.parametrize("kind", TYPES)
def test_batches_of_separated_clusters_give_what_the_whole_gives(kind):
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(5, 5)) * [[1.0], [1.0], [0.3], [0.2], [0.1]]
    X = np.concatenate([rng.normal(size=(300, 5)) @ spread + 1000 * c for c in range(3)])
    X = X[rng.permutation(len(X))]
    options = {"n_components": 3, "covariance_type": kind, "random_state": 0, "rank": 2, "tol": 1e-9}
    whole, parts = quiet(GaussianMixture(**options), X), GaussianMixture(**options)
    for batch in np.array_split(X, 5):
        parts.partial_fit(batch)
    order, other = whole.means_[:, 0].argsort(), parts.means_[:, 0].argsort()
    np.testing.assert_allclose(parts.weights_[other], whole.weights_[order], rtol=1e-9)
    np.testing.assert_allclose(parts.means_[other], whole.means_[order], rtol=1e-9, atol=1e-9)
    if kind == "lowrank":
        assert parts.score(X) == pytest.approx(whole.score(X), abs=0.02)
    elif kind == "tied":
        np.testing.assert_allclose(parts.covariances_, whole.covariances_, rtol=1e-7, atol=1e-7)
    else:
        np.testing.assert_allclose(parts.covariances_[other], whole.covariances_[order], rtol=1e-7, atol=1e-7)


def test_partial_fit_follows_fit_and_takes_single_rows(points):
    model = quiet(GaussianMixture(3, random_state=0), points)
    weight = model.weights_.copy()
    model.partial_fit(points[:1])
    model.partial_fit(points[:5], sample_weight=np.full(5, 0.5))
    expected = weight * len(points) + np.r_[1, np.full(5, 0.5)] @ model.predict_proba(points[[0, 0, 1, 2, 3, 4]])
    np.testing.assert_allclose(model.weights_, expected / (len(points) + 3.5), atol=1e-3)
    untouched = quiet(GaussianMixture(3, max_iter=0, random_state=0), points)
    assert untouched.partial_fit(points).weights_.sum() == pytest.approx(1)


def test_warm_start_goes_on(points):
    model = GaussianMixture(3, init_params="random", random_state=0, max_iter=2, tol=0.0, warm_start=True)
    for _ in range(5):
        quiet(model, points)
    straight = quiet(GaussianMixture(3, init_params="random", random_state=0, max_iter=10, tol=0.0), points)
    np.testing.assert_allclose(model.means_, straight.means_, rtol=1e-12)
    assert model.lower_bound_ == pytest.approx(straight.lower_bound_, rel=1e-12)


def test_no_steps_keep_the_start(points):
    ours = GaussianMixture(3, max_iter=0, random_state=0).fit(points)
    theirs = Oracle(3, max_iter=0, random_state=0).fit(points)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-9)
    assert (ours.n_iter_, ours.converged_, ours.lower_bound_) == (0, False, -np.inf)


@pytest.mark.parametrize("kind", TYPES)
def test_samples_follow_the_mixture(points, kind):
    model = quiet(GaussianMixture(2, covariance_type=kind, random_state=0, rank=2), points)
    X, component = model.sample(40_000)
    assert (np.diff(component) >= 0).all()
    np.testing.assert_allclose(np.bincount(component) / 40_000, model.weights_, atol=0.01)
    for k in range(2):
        own = X[component == k]
        scale = own.std(0).max()
        np.testing.assert_allclose(own.mean(0) / scale, model.means_[k] / scale, atol=0.03)
        cov = model.mixture_.covariance.dense(2, 4)[k].numpy()
        np.testing.assert_allclose(np.cov(own.T) / scale**2, cov / scale**2, atol=0.06)
    assert np.array_equal(model.sample(5)[0], model.sample(5)[0])
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)


def test_warnings_words_and_errors(points, capsys):
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        GaussianMixture(3, max_iter=1, random_state=0, verbose=2, verbose_interval=1).fit(points)
    assert "Iteration 1\t gain inf" in capsys.readouterr().out
    with pytest.raises(CollapsedComponent, match=r"reg_covar, .* covariance_type"):
        GaussianMixture(2, reg_covar=0.0, random_state=0).fit(np.repeat([[0.0, 1.0], [5.0, 2.0]], 3, axis=0))
    with pytest.raises(CollapsedComponent, match="spread"):
        GaussianMixture(2, covariance_type="diag", reg_covar=0.0, random_state=0).fit(
            np.repeat([[0.0, 1.0], [5.0, 2.0]], 3, axis=0)
        )
    with pytest.raises(NotFittedError):
        GaussianMixture().predict(points)
    assert not hasattr(GaussianMixture(), "means_")


def test_pipeline_grid_search_clone_and_pickle(points):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMixture(random_state=0)),
        {"gaussianmixture__n_components": [1, 3]},
        cv=3,
    ).fit(points[np.random.default_rng(0).permutation(len(points))])
    assert search.best_params_ == {"gaussianmixture__n_components": 3}
    model = search.best_estimator_[-1]
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_samples(points), model.score_samples(points))
    assert clone(model).get_params() == model.get_params()


def test_a_count_of_numpy_is_a_count():
    from mixtura.sklearn import MixtureClassifier

    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    found = MixtureClassifier("full", n_components=np.int64(2), random_state=0).fit(x, y)
    assert np.array_equal(
        found.predict(x), MixtureClassifier("full", n_components=2, random_state=0).fit(x, y).predict(x)
    )
