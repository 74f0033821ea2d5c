"""Few-shot classifiers against scikit-learn, episode by episode, and laws of those that it does not have."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from mixtura.core import few_shot
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.few_shot import Calibration, Newcomers
from mixtura.core.mixture import Mixture
from mixtura.core.moments import labeled
from mixtura.core.novel import novel_components

WAY, QUERIES, DIMENSION = 4, 12, 7


def episodes(shot, count=2, seed=0, way=WAY, dimension=DIMENSION):
    """Support and queries of overlapping classes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(count, way, 1, dimension, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, way, shot + QUERIES, dimension, generator=generator, dtype=torch.float64)
    rows = center + noise
    return rows[:, :, :shot], rows[:, :, shot:].flatten(1, 2)


def predictions(estimator, support, query):
    labels = np.repeat(np.arange(support.shape[1]), support.shape[2])
    pairs = zip(support.flatten(1, 2).numpy(), query.numpy(), strict=True)
    with np.errstate(invalid="ignore"):  # scikit-learn's deviations of classes with one sample
        return np.stack([estimator.fit(x, labels).predict(q) for x, q in pairs])


@pytest.mark.parametrize("shot", [1, 5])
def test_prototype_is_the_nearest_centroid(shot):
    support, query = episodes(shot)
    expected = predictions(NearestCentroid(), support, query)
    np.testing.assert_array_equal(few_shot.prototype(support, query).argmax(2), expected)


@pytest.mark.parametrize("shot", [1, 5])
def test_nearest_is_one_nearest_neighbor(shot):
    support, query = episodes(shot)
    expected = predictions(KNeighborsClassifier(1), support, query)
    np.testing.assert_array_equal(few_shot.nearest(support, query).argmax(2), expected)


@pytest.mark.parametrize(("shot", "way"), [(1, 2), (1, WAY), (3, WAY)])
def test_knn_is_that_of_scikit_learn_with_weights_by_distance(shot, way):
    support, query = episodes(shot, way=way)
    query[:, 3] = support[:, 1, 0]  # at distance 0 of a sample
    labels = np.repeat(np.arange(way), shot)
    votes = few_shot.knn(support, query)
    for x, q, own in zip(support.flatten(1, 2).numpy(), query.numpy(), votes, strict=True):
        expected = KNeighborsClassifier(min(5, len(x)), weights="distance").fit(x, labels).predict_proba(q)
        np.testing.assert_allclose(own / own.sum(1, keepdim=True), expected, atol=1e-6)
    if shot == 1:
        assert (votes.argmax(2) == few_shot.nearest(support, query).argmax(2)).all()


def test_cosine_is_the_nearest_class_mean_by_cosine():
    support, query = episodes(5)
    means = support.mean(2, keepdim=True)
    expected = predictions(KNeighborsClassifier(1, metric="cosine"), means, query)
    np.testing.assert_array_equal(few_shot.cosine(support, query).argmax(2), expected)


@pytest.mark.parametrize(("shot", "penalty"), [(1, 1.0), (5, 0.1), (5, 30.0), (1, 100.0)])
def test_logistic_is_that_of_scikit_learn(shot, penalty):
    """With fewer samples than dimensions and with more; the probabilities agree, not only the classes."""
    support, query = episodes(shot)
    found = few_shot.logistic(support, query, penalty).softmax(2)
    labels = np.repeat(np.arange(WAY), shot)
    for x, q, own in zip(support.flatten(1, 2).numpy(), query.numpy(), found.numpy(), strict=True):
        rival = LogisticRegression(C=penalty, tol=1e-10, max_iter=10_000).fit(x, labels)
        np.testing.assert_allclose(own, rival.predict_proba(q), atol=1e-4)


@pytest.mark.parametrize(
    "classify", [few_shot.prototype, few_shot.nearest, few_shot.knn, few_shot.cosine, few_shot.logistic]
)
def test_an_episode_does_not_depend_on_the_others(classify):
    support, query = episodes(3)
    whole = classify(support, query)
    for place in range(len(support)):
        alone = classify(support[place : place + 1], query[place : place + 1])
        torch.testing.assert_close(whole[place], alone[0], atol=1e-3, rtol=1e-3)


@pytest.fixture
def base():
    """Twelve base classes of 15 samples each, and what is needed to enroll beside them."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(12).repeat_interleave(15)
    center = 2 * torch.randn(12, DIMENSION, generator=generator, dtype=torch.float64)
    x = center[labels] + torch.randn(len(labels), DIMENSION, generator=generator, dtype=torch.float64)

    def make(family):
        (sums,) = labeled(FAMILIES[family], x, labels, 12)
        prior = Prior(5.0, 0.1)
        mixture = Mixture.from_moments(sums, 1e-3, prior, torch.arange(12), 12)
        return Newcomers(mixture, sums, 1e-3, prior)

    return make


@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if not kind.sums_depend_on_parameters])
@pytest.mark.parametrize("shot", [1, 4])
def test_newcomers_are_those_of_the_core(base, family, shot):
    """Enrolled one episode at a time; the scores differ by a constant of the query."""
    enroll = base(family)
    support, query = episodes(shot)
    found = enroll(support, query)
    for own, shots, rows in zip(found, support, query, strict=True):
        made = novel_components(enroll.mixture, enroll.moments, list(shots), enroll.floor, enroll.prior).mixture
        torch.testing.assert_close(
            own.log_softmax(1), made.component_log_prob(rows).log_softmax(1), rtol=1e-6, atol=1e-6
        )


def test_calibration_of_shots_far_from_all_base_classes_falls_on_them():
    """Shots at a base class's own mean give samples of that class, and every query of it is found."""
    generator = torch.Generator().manual_seed(0)
    mean = 8 * torch.randn(6, DIMENSION, generator=generator)
    calibrate = Calibration(mean, torch.eye(DIMENSION).expand(6, -1, -1) * 0.2)
    support = mean[:3].reshape(1, 3, 1, DIMENSION)
    query = mean[:3].repeat_interleave(20, 0) + torch.randn(60, DIMENSION, generator=generator)
    scores = calibrate(support, query[None])[0]
    assert (scores.argmax(1) == torch.arange(3).repeat_interleave(20)).all()
    torch.testing.assert_close(scores, calibrate(support, query[None])[0], rtol=0, atol=0)


def test_calibration_learns_the_spread_that_a_single_shot_hides():
    """Base classes vary along one axis only; one shot of each class cannot tell, the calibrated samples can."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.diag(torch.tensor([25.0, 0.04]))
    mean = torch.stack([10 * torch.randn(10, generator=generator), torch.randn(10, generator=generator)], 1)
    calibrate = Calibration(mean, wide.expand(10, -1, -1))
    center = torch.tensor([[0.0, -1.0], [0.0, 1.0]])
    noise = torch.randn(200, 2, 31, 2, generator=generator) * torch.tensor([5.0, 0.2])
    rows = center[:, None] + noise
    support, query = rows[:, :, :1], rows[:, :, 1:].flatten(1, 2)
    label = torch.arange(2).repeat_interleave(30)
    calibrated, plain = (
        (one(support, query).argmax(2) == label).double().mean() for one in (calibrate, few_shot.prototype)
    )
    assert calibrated > plain + 0.03
