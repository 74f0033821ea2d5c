"""Kinds by a trained embedder: found in any order of the rows, of equal sizes, and no worse at the classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mixtura.core.subclasses.search import Rules
from mixtura.errors import NonFinite, UsageError
from mixtura.features.projection import L2
from mixtura.fitting.vector_subclasses import VectorTraining, learned
from mixtura.metrics.clustering import adjusted_rand
from mixtura.tasks.subclass_methods import Training
from mixtura.tasks.subclasses import METHODS, run

SHORT, EACH = Training(epochs=6), 20


@pytest.fixture(scope="module")
def garden(features):
    """Two classes of two kinds each, 20 rows a kind, and 12 rows of a third class, too few to judge."""
    rng = np.random.default_rng(0)
    x = [3 * middle + 0.5 * rng.standard_normal((EACH, 8)) for middle in rng.standard_normal((4, 8))]
    few = 3 * rng.standard_normal((1, 8)) + 0.5 * rng.standard_normal((12, 8))
    return features(np.concatenate([*x, few]), ["apple"] * 2 * EACH + ["pear"] * 2 * EACH + ["plum"] * 12)


def named(found):
    return {id: (label, n) for id, label, n in zip(found.features.id, found.features.label, found.number, strict=True)}


@pytest.fixture(scope="module")
def found(garden):
    return run(garden, "scgm", (), 2, training=SHORT)


def test_kinds_that_are_there_are_found_in_all_classes_at_once(garden, found):
    apple, pear, plum = found.classes
    assert (apple.count, pear.count, plum.count) == (2, 2, 1) and plum.reason == "few_rows"
    for start in (0, 2 * EACH):
        kinds = found.number[start : start + 2 * EACH]
        assert sorted({tuple(set(kinds[:EACH].tolist())), tuple(set(kinds[EACH:].tolist()))}) == [(1,), (2,)]
    assert min(apple.stability, pear.stability) > 0.8 and np.isnan(found.probability).all()


@pytest.mark.parametrize("embedder", ["linear", "mlp"])
def test_the_order_of_the_rows_changes_nothing(garden, embedder):
    mixed = garden.select(np.random.default_rng(1).permutation(len(garden)))
    given = Training(epochs=1, embedder=embedder)
    one, other = (run(rows, "scgm", (), 2, training=given) for rows in (garden, mixed))
    assert named(one) == named(other)
    assert [one.stability for one in one.classes] == [one.stability for one in other.classes]


def test_one_class_may_be_asked_for_while_all_are_learned(garden, found):
    alone = run(garden, "scgm", ["pear"], 2, training=SHORT)
    assert [one.name for one in alone.classes] == ["pear"]
    assert alone.number.tolist() == [0] * 2 * EACH + found.number[2 * EACH :].tolist()


def test_without_a_number_kinds_follow_from_those_of_mixtures(garden):
    """1.5 times two kinds, of equal sizes."""
    auto = run(garden, "scgm", (), None, Rules(draws=99, min_rows=5), replace(SHORT, epochs=2))
    apple, pear, plum = auto.classes
    assert (apple.count, pear.count, plum.count) == (3, 3, 1) and apple.reason == "split"
    assert all(11 <= kind.size <= 15 for one in (apple, pear) for kind in one.kinds)


@pytest.mark.parametrize("method", METHODS)
def test_features_that_are_not_finite_are_refused_by_every_method(garden, method):
    bad = garden.embedding.copy()
    bad[7, 3] = np.nan
    with pytest.raises(NonFinite, match="features of 'i7' hold NaN or infinity, as those of 1 of 92 items"):
        run(replace(garden, embedding=bad), method)


def test_methods_that_are_not_trained_take_no_epochs(garden):
    with pytest.raises(UsageError, match=r"kmeans is not trained\. Leave out --epochs and --embedder"):
        run(garden, "kmeans", training=SHORT)


def digits():
    found = load_digits()
    return L2()(torch.from_numpy(found.data.astype(np.float32))), found.target


def test_classes_are_told_through_subclasses_no_worse_than_by_a_linear_model():
    """Digits by their parity, half of them for testing; within one point, and here well above."""
    x, digit = digits()
    parity = torch.from_numpy(digit % 2)
    made = learned(x[::2], parity[::2], (5, 5), VectorTraining(epochs=8, starts=1))
    ours = (made.class_log_prob(x[1::2]).argmax(1) == parity[1::2]).double().mean()
    assert ours >= LogisticRegression(C=100).fit(x[::2], parity[::2]).score(x[1::2], parity[1::2]) - 0.01


@pytest.mark.slow
def test_digits_come_apart_better_than_by_k_means_within_their_parity():
    x, digit = digits()
    parity = digit % 2
    made, kmeans = learned(x, torch.from_numpy(parity), (5, 5)).subclass, np.zeros(len(digit), dtype=np.int64)
    for c in range(2):
        own = parity == c
        kmeans[own] = 5 * c + KMeans(5, n_init=10, random_state=0).fit_predict(x[own].numpy())
    ours, theirs = (sum(np.bincount(digit[kind == k]).max() for k in range(10)) for kind in (made, kmeans))
    assert ours > theirs + 0.02 * len(digit)
    assert adjusted_rand(digit, made) > adjusted_rand(digit, kmeans)
