"""Metrics by class agree with scikit-learn, and with their definitions written as loops."""

import math

import numpy as np
import pytest

from mixtura.errors import DataError, NonFinite
from mixtura.metrics.imbalance import ClassFigures, ShotGroups, class_auc
from sklearn import metrics as oracle


def draw(seed, n=400, classes=5):
    rng = np.random.default_rng(seed)
    true = rng.choice(classes, n, p=[0.5, 0.25, 0.15, 0.07, 0.03])
    posterior = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[true]
    return true, posterior / posterior.sum(1, keepdims=True)


def naive(true, predicted, c):
    """Recall and specificity of a class, counted pair by pair."""
    pairs = list(zip(true.tolist(), predicted.tolist(), strict=True))
    found, own = sum(t == c == p for t, p in pairs), sum(t == c for t, _ in pairs)
    turned = sum(t != c and p != c for t, p in pairs)
    return found / own, turned / (len(pairs) - own)


@pytest.mark.parametrize("seed", range(4))
def test_figures_agree_with_scikit_learn(seed):
    true, posterior = draw(seed)
    predicted = posterior.argmax(1)
    got = ClassFigures.of(true, predicted, 5)
    options = {"labels": range(5), "zero_division": 0}
    for average, one in (("macro", got.mean("f1")), ("micro", got.micro_f1)):
        assert one == pytest.approx(oracle.f1_score(true, predicted, average=average, **options), abs=1e-12)
    assert got.mean("precision") == pytest.approx(
        oracle.precision_score(true, predicted, average="macro", **options), abs=1e-12
    )
    assert got.recall == pytest.approx(oracle.recall_score(true, predicted, average=None, **options), abs=1e-12)
    area = oracle.roc_auc_score(true, posterior, multi_class="ovr", average="macro")
    assert class_auc(true, posterior).mean() == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_both_g_means_are_their_definitions(seed):
    true, posterior = draw(seed)
    predicted = posterior.argmax(1)
    got, pairs = ClassFigures.of(true, predicted, 5), [naive(true, predicted, c) for c in range(5)]
    assert got.specificity == pytest.approx([specificity for _, specificity in pairs], abs=1e-12)
    assert got.mean_g == pytest.approx(sum(math.sqrt(r * s) for r, s in pairs) / 5, abs=1e-12)
    assert got.geometric_mean_recall == pytest.approx(math.prod(r for r, _ in pairs) ** 0.2, abs=1e-12)


def test_a_class_that_is_never_found_or_not_there_counts_as_such():
    true, predicted = np.array([0, 0, 1, 1, 3]), np.array([0, 2, 0, 0, 3])
    got = ClassFigures.of(true, predicted, 4)
    assert got.geometric_mean_recall == 0 and math.isnan(got.recall[2]) and got.precision[2] == 0
    assert got.mean("recall") == pytest.approx((0.5 + 0 + 1) / 3)
    area = class_auc(true, np.eye(4)[predicted])
    assert math.isnan(area[2]) and np.isfinite(area[[0, 1, 3]]).all()
    alone = ClassFigures.of(np.zeros(3, int), np.zeros(3, int), 2)
    assert math.isnan(alone.mean("specificity")) and np.isnan(class_auc(np.zeros(3, int), np.ones((3, 2)))).all()


def test_groups_are_stated_and_fall_back_to_thirds():
    usual = ShotGroups.of(np.array([4000, 101, 100, 20, 19]))
    assert usual.group == ("many", "many", "medium", "medium", "few") and not usual.quantiles
    thirds = ShotGroups.of(np.array([9, 8, 7, 6, 5, 4]))
    assert thirds.quantiles and thirds.group == ("many", "many", "medium", "medium", "few", "few")
    figures = ClassFigures.of(np.array([0, 0, 4, 4]), np.array([0, 1, 4, 4]), 5)
    assert usual.recall(figures) == {"many": 0.5, "few": 1.0}


def test_what_cannot_be_measured_is_an_error():
    none = np.zeros(0, int)
    with pytest.raises(DataError, match="0 items"):
        ClassFigures.of(none, none, 2)
    with pytest.raises(DataError, match="outside"):
        class_auc(np.array([3]), np.ones((1, 2)))
    with pytest.raises(NonFinite):
        class_auc(np.array([0]), np.full((1, 2), np.nan))
    with pytest.raises(DataError, match="0 classes"):
        ShotGroups.of(none)
