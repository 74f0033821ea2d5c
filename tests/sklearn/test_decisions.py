"""Typicality and verdicts of vectors: the stated rates, the answers of a model, and what is refused."""

import pickle

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mixtura.errors import UsageError
from mixtura.formats import rate_of
from mixtura.model.model import Model
from mixtura.sections import DecisionSection, EncoderSection
from mixtura.sklearn import MixtureClassifier

FIXED = {"family": "tied", "shrinkage": 0.1, "feature_scale": "none", "temperature": 1.0, "random_state": 0}


def draw(count, rng, dimension=6, classes=4):
    """Exchangeable samples of overlapping classes of unequal size; the means are always the same."""
    mean = 2 * np.random.default_rng(7).normal(size=(classes, dimension))
    y = rng.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    return (mean[y] + rng.normal(size=(count, dimension))).astype(np.float32), y


@pytest.fixture(scope="module")
def blobs():
    X, y = draw(600, np.random.default_rng(0))
    return X, np.array(["bolt", "nut", "pin", "rivet"])[y]


@pytest.fixture(scope="module")
def odd():
    """Genuine samples and strangers of several kinds."""
    rng = np.random.default_rng(1)
    return np.concatenate([draw(80, rng)[0], 5 * rng.normal(size=(80, 6)), 1e4 * rng.normal(size=(5, 6))]).astype("f4")


OPTIONS = [
    {"random_state": 0},
    FIXED,
    {"family": "diagonal", "n_components": 2, "random_state": 0},
    FIXED | {"projection": ["pca", "whiten"], "temperature": "auto"},
    FIXED | {"false_reject_rate": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_model_of_the_same_mixture_answers_alike(blobs, odd, options):
    made = MixtureClassifier(**options, min_probability=0.95).fit(*blobs)
    model = Model(
        tuple(made.classes_), EncoderSection(name="tiny"), {"name": "tiny"}, 6, made.projection_, made.mixture_,
        made.temperature_, made.typicality_, DecisionSection(
            false_reject_rate=made.false_reject_rate, min_probability=made.min_probability
        ),
    )  # fmt: skip
    found, wanted = made.decide(odd), model.answers(odd)
    assert found.label.tolist() == [model.classes[c] for c in wanted.predicted]
    np.testing.assert_allclose(found.probability, wanted.probability, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.typicality, wanted.typicality)
    np.testing.assert_array_equal(found.verdict, wanted.verdict)
    np.testing.assert_array_equal(found.reason, wanted.reason)
    assert set(found.verdict) == {"match", "unsure", "unknown"}


def test_decide_agrees_with_the_other_methods(blobs, odd):
    made = MixtureClassifier(random_state=0).fit(*blobs)
    found = made.decide(odd)
    assert len(found) == len(odd)
    np.testing.assert_array_equal(found.label, made.predict(odd))
    np.testing.assert_allclose(found.probability, made.predict_proba(odd).max(1), atol=1e-6)
    np.testing.assert_array_equal(found.typicality, made.typicality(odd))
    np.testing.assert_array_equal(found.verdict == "unknown", found.typicality < 0.05)
    assert ((found.reason == "") == (found.verdict == "match")).all()


@pytest.mark.parametrize("options", [{}, FIXED, FIXED | {"projection": ["lda"]}])
def test_genuine_samples_are_rejected_at_the_stated_rate(options):
    """Two-sided: many samples in few dimensions, where a fold more or less changes no density."""
    rng = np.random.default_rng(3)
    made = MixtureClassifier(**({"random_state": 0} | options)).fit(*draw(3000, rng))
    values = made.typicality(draw(20_000, rng)[0])
    assert ((values > 0) & (values <= 1)).all()
    for rate in (0.01, 0.05, 0.1, 0.2, 0.5):
        error = (rate * (1 - rate) * (1 / 3000 + 1 / 20_000)) ** 0.5
        assert abs((values < rate).mean() - rate) < 3.5 * error, rate


def test_copies_count_as_often_as_they_come(blobs):
    """Three in four of the genuine samples are one of two values: their typicality is that of their share."""
    rng = np.random.default_rng(5)
    common = np.array([[0.0, 0.0], [8.0, 0.0]])
    y = rng.integers(0, 2, 4000)
    X = np.where(rng.random(4000)[:, None] < 0.75, common[y], common[y] + rng.normal(size=(4000, 2)))
    made = MixtureClassifier(**FIXED).fit(X[:2000], y[:2000])
    for rate in (0.05, 0.1, 0.2):
        measured = (made.typicality(X[2000:]) < rate).mean()
        assert abs(measured - rate) < 3.5 * (rate * (1 - rate) / 1000) ** 0.5, rate
    weighted = MixtureClassifier(**FIXED).fit(X[:2000], y[:2000], np.full(2000, 2.0))
    twice = MixtureClassifier(**FIXED).fit(X[:2000].repeat(2, 0), y[:2000].repeat(2))
    np.testing.assert_array_equal(weighted.typicality(X), twice.typicality(X))
    uneven = MixtureClassifier(**FIXED).fit(X[:2000], y[:2000], rng.uniform(0.5, 2, 2000))
    assert (uneven.typicality(X[2000:]) < 0.1).mean() < 0.2


def test_strangers_are_found(blobs, odd):
    made = MixtureClassifier(random_state=0).fit(*blobs)
    assert (made.decide(odd[80:]).verdict == "unknown").mean() > 0.9


def test_a_false_discovery_rate_sets_the_limit_of_the_batch(blobs, odd):
    made = MixtureClassifier(random_state=0).fit(*blobs)
    for rate in ("5%", 0.05, "20%"):
        found = made.decide(odd, rate)
        wanted = false_discovery_control(made.typicality(odd)) <= rate_of(rate, "rate")
        np.testing.assert_array_equal(found.verdict == "unknown", wanted)
        assert 20 < wanted.sum() < 100
    one = made.decide(odd[-1:], 0.05)
    assert one.verdict.tolist() == ["unknown"] and one.limit == pytest.approx(0.05)


def test_thresholds_change_without_a_fit(blobs, odd):
    made = MixtureClassifier(random_state=0).fit(*blobs)
    strict = pickle.loads(pickle.dumps(made)).set_params(false_reject_rate=0.4, min_probability=1.0)
    np.testing.assert_array_equal(strict.decide(odd).verdict == "unknown", made.typicality(odd) < 0.4)
    sure = strict.decide(odd).probability == 1
    np.testing.assert_array_equal(strict.decide(odd).verdict == "match", sure & (made.typicality(odd) >= 0.4))
    assert strict.decide(odd).limit == 0.4 and made.decide(odd).limit == 0.05


def test_probabilities_do_not_depend_on_the_thresholds(blobs, odd):
    with_limit, without = (
        MixtureClassifier(random_state=0, false_reject_rate=rate).fit(*blobs) for rate in (0.1, None)
    )
    assert with_limit.temperature_ == without.temperature_
    np.testing.assert_array_equal(with_limit.predict_proba(odd), without.predict_proba(odd))


@pytest.mark.parametrize("priors", [[0.7, 0.1, 0.1, 0.1], [0.0, 0.2, 0.4, 0.4]])
def test_other_priors_keep_the_rate(priors):
    rng = np.random.default_rng(4)
    made = MixtureClassifier(**FIXED, priors=priors).fit(*draw(3000, rng))
    found = made.decide(draw(10_000, rng)[0])
    assert abs((found.typicality < 0.1).mean() - 0.1) < 3.5 * (0.09 * (1 / 3000 + 1e-4)) ** 0.5
    assert (found.label == 0).any() == (priors[0] > 0)


def test_no_training_sample_is_kept(blobs):
    made = MixtureClassifier(**FIXED).fit(*blobs)
    more = MixtureClassifier(**FIXED).fit(np.tile(blobs[0], (2, 1)) + np.float32(1e-3), np.tile(blobs[1], 2))
    per_sample = (len(pickle.dumps(more)) - len(pickle.dumps(made))) / len(blobs[0])
    assert per_sample < 24  # its score and its predicted class, not its six numbers
    assert len(made.typicality_.scores) == len(blobs[0])


def test_in_pipelines_and_searches(blobs, odd):
    pipeline = make_pipeline(StandardScaler(), MixtureClassifier(**FIXED))
    search = GridSearchCV(pipeline, {"mixtureclassifier__false_reject_rate": [None, 0.1]}, cv=3).fit(*blobs)
    step = pipeline.fit(*blobs)[-1]
    assert step.decide(pipeline[:-1].transform(odd)).limit == 0.05 and search.best_score_ > 0.8
    assert clone(step).get_params()["false_reject_rate"] == 0.05


@pytest.mark.parametrize("name", ["false_reject_rate", "min_probability"])
@pytest.mark.parametrize("value", [-0.1, 1.5, "often"])
def test_wrong_thresholds_are_one_sentence(blobs, name, value):
    with pytest.raises(ValueError, match=rf"The '{name}' parameter .* Got {value!r} instead"):
        MixtureClassifier(**FIXED, **{name: value}).fit(*blobs)
    made = MixtureClassifier(**FIXED).fit(*blobs).set_params(**{name: value})
    with pytest.raises(ValueError, match=name):
        made.decide(blobs[0])


@pytest.mark.parametrize("rate", [0, 1, 0.0, 1.0])
def test_a_rate_of_zero_or_one_is_refused(blobs, rate):
    with pytest.raises(ValueError, match=rf"false_reject_rate.* in the range \(0\.0, 1\.0\).* Got {rate} instead"):
        MixtureClassifier(false_reject_rate=rate).fit(*blobs)
    made = MixtureClassifier(**FIXED).fit(*blobs)
    with pytest.raises(
        ValueError, match=f"false_discovery_rate is {rate}, but it should be above 0 and below 1, as in"
    ):
        made.decide(blobs[0], false_discovery_rate=rate)
    with pytest.raises(UsageError, match=f"--rate is '{rate}'"):
        rate_of(str(rate), "--rate")


def test_without_held_out_samples_the_classifier_works_and_says_why_not(blobs):
    two, y = np.array([[0.0, 1.0], [5.0, 2.0]]), ["a", "b"]
    lone = MixtureClassifier(random_state=0).fit(two, y)
    assert lone.predict(two).tolist() == y and lone.typicality_ is None
    fast = MixtureClassifier(**FIXED, false_reject_rate=None).fit(*blobs)
    parts = MixtureClassifier("tied").partial_fit(*blobs, classes=np.unique(blobs[1]))
    for made, X, said in (
        (lone, two, "Fewer than two samples could be held out"),
        (fast, blobs[0], "false_reject_rate=None, which holds out no samples"),
        (parts, blobs[0], "partial_fit holds out no samples"),
    ):
        for ask in (made.typicality, made.decide):
            with pytest.raises(ValueError, match=said):
                ask(X)
    with pytest.raises(NotFittedError):
        MixtureClassifier().typicality(two)
    with pytest.raises(ValueError, match="false_reject_rate is None"):
        MixtureClassifier(**FIXED).fit(*blobs).set_params(false_reject_rate=None).decide(blobs[0])


def test_a_class_of_one_sample_is_left_out_of_the_calibration(blobs):
    X, y = blobs
    X, y = np.r_[X, X[:1] + 50], np.r_[y, ["washer"]]
    made = MixtureClassifier(**FIXED).fit(X, y)
    assert len(made.typicality_.scores) == len(y) - 1
    assert made.decide(X[-1:]).label.tolist() == ["washer"]


def test_batches_after_a_fit_keep_its_calibration(blobs):
    X, y = blobs
    made = MixtureClassifier(**FIXED).fit(X[:500], y[:500])
    before = made.typicality_
    made.partial_fit(X[500:], y[500:])
    assert made.typicality_ is before
    rate = (made.typicality(draw(4000, np.random.default_rng(9))[0]) < 0.1).mean()
    assert 0.05 < rate < 0.15
