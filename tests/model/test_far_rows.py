"""Rows far from every class: the class of exact arithmetic, probabilities, "unknown", whatever else is in the batch."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from mixtura.core.covariance import FAMILIES
from mixtura.heads import HEADS
from mixtura.model.decide import decide
from mixtura.names import find
from mixtura.onnx.graph import HeadGraph
from mixtura.scores.typicality import can_reject
from mixtura.sklearn import MixtureClassifier

FAR = (1e4, 1e8, 1e15, 1e19, 1e30, 3e38)


def directions(count=6, dimension=6):
    rows = np.random.default_rng(3).normal(size=(count, dimension))
    return rows / np.abs(rows).max(1, keepdims=True)


def exact_class(mixture, row):
    """The class of the highest density by rational arithmetic; the constants matter too little to round them away."""
    tril = {
        "tied": lambda k: mixture.covariance.precision_tril[0],
        "full": lambda k: mixture.covariance.precision_tril[k],
        "diagonal": lambda k: torch.diag(mixture.covariance.variance[k].double().rsqrt()),
        "spherical": lambda k: torch.eye(mixture.dimension).double() * mixture.covariance.variance[k].double().rsqrt(),
    }[mixture.covariance.name]
    peak = (mixture.log_weight + mixture.covariance.log_peak(mixture.dimension)).tolist()
    joint = []
    for k, mean in enumerate(mixture.mean.tolist()):
        away = [Fraction(x) - Fraction(m) for x, m in zip(row.tolist(), mean, strict=True)]
        white = [sum(Fraction(w) * a for w, a in zip(line, away, strict=True)) for line in tril(k).tolist()]
        joint.append(Fraction(peak[k]) - sum(value * value for value in white) / 2)
    return int(mixture.component_class[max(range(len(joint)), key=joint.__getitem__)])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_far_rows_have_the_class_of_exact_arithmetic_and_are_unknown(cloud, learn, family):
    data = cloud(n=200, classes=4)
    model = learn(data, head__family=family, projection=())
    near = model.answers(data.embedding[:5])
    for far in FAR:
        rows = (far * directions()).astype(np.float32)
        found = model.answers(rows)
        np.testing.assert_allclose(found.posterior.sum(1), 1, rtol=1e-12)
        assert (found.verdict == "unknown").all()
        assert not np.isnan(found.score).any()
        assert model.predicted(rows).tolist() == found.predicted.tolist()
        if family != "lowrank":
            assert found.predicted.tolist() == [exact_class(model.mixture, row) for row in rows]
        mixed = model.answers(np.concatenate([data.embedding[:5], rows])[::-1])
        assert mixed.predicted[::-1].tolist() == near.predicted.tolist() + found.predicted.tolist()
        np.testing.assert_array_equal(mixed.verdict[::-1][5:], found.verdict)
        np.testing.assert_array_equal(mixed.typicality[::-1][:5], near.typicality)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_far_rows_of_a_head_have_a_class_and_are_unknown(cloud, learn, name):
    data = cloud(n=200, classes=4)
    model, kind = learn(data, head__family="diagonal", projection=()), find(HEADS, name)
    x, labels = torch.from_numpy(data.embedding), torch.arange(200) % 4
    model = replace(model, head=kind.from_rows(x, labels, 4).eval())
    leading = model.answers((1e6 * directions()).astype(np.float32)).predicted
    for far in FAR[2:]:
        found = model.answers((far * directions()).astype(np.float32))
        np.testing.assert_allclose(found.posterior.sum(1), 1, rtol=1e-12)
        assert (found.verdict == "unknown").all()
        assert found.predicted.tolist() == leading.tolist()


@pytest.mark.parametrize("per_class", [3, 5])
@pytest.mark.parametrize("score", ["auto", "knn"])
def test_features_in_another_unit_are_unknown_however_few_rows_set_the_limit(cloud, learn, per_class, score):
    """With fewer than 20 of them, no rank is below the limit."""
    data = cloud(n=4 * per_class, classes=4)
    model = learn(data, head__family="tied", projection=(), decision__score=score)
    assert not can_reject(len(model.typicality.scores), model.decision.false_reject_rate)
    graph = HeadGraph(model)
    assert (model.answers(data.embedding).verdict != "unknown").all()
    for factor in (1e2, 1e6, 1e20, -1e6):
        rows = (factor * data.embedding).astype(np.float32)
        found = model.answers(rows)
        assert (found.verdict == "unknown").all()
        assert (found.reason == "far_from_all").all()
        assert (found.typicality == 0).all()
        *_, typicality, _, far, _ = graph(torch.from_numpy(rows))
        assert (typicality == 0).all()
        assert far.all()
        for decision in decide(model, [str(row) for row in range(len(rows))], rows):
            assert "no genuine item is nearly this unusual" in decision.sentence
        assert all(one.verdict == "unknown" for one in decide(model, ["a"], rows[:1], false_discovery_rate=0.05))


@pytest.mark.parametrize("factor", [1e2, 1e6, 1e150])
def test_a_classifier_calls_samples_in_another_unit_unknown(cloud, factor):
    data = cloud(n=16, classes=4)
    classifier = MixtureClassifier(family="tied")
    classifier.fit(data.embedding.astype(np.float64), data.label)
    assert "unknown" not in classifier.decide(data.embedding.astype(np.float64)).verdict
    found = classifier.decide(factor * data.embedding.astype(np.float64))
    assert (found.verdict == "unknown").all()
    assert (found.typicality == 0).all()
