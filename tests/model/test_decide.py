"""Verdict, reason and sentence of points whose place is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.errors import NonFinite, WrongDimension
from mixtura.formats import short_percent
from mixtura.model.decide import MAX_CANDIDATES, Known, decide
from mixtura.records.decision import REASONS, VERDICTS
from mixtura.scores.verdict import BETWEEN_CLASSES, FAR_FROM_ALL, UNUSUAL_FOR_CLASS
from mixtura.sections import DecisionSection

N = 400


@pytest.fixture(scope="module")
def made(features, learn):
    """Three classes in a plane: two wide ones at (-10, 0) and (10, 0), and a narrow one at (0, 40)."""
    rng = np.random.default_rng(0)
    label = np.arange(3 * N) % 3
    x = np.array([[-10, 0], [10, 0], [0, 40]])[label] + np.array([1.0, 1.0, 0.05])[label][
        :, None
    ] * rng.standard_normal((3 * N, 2))
    known = features(x, [("left", "right", "narrow")[c] for c in label])
    return learn(known, head__family="tied", head__shrinkage=0.0), known


def at(model, *points):
    x = np.array(points, dtype=np.float32)
    return decide(model, [f"p{i}" for i in range(len(x))], x)


def test_a_genuine_item_matches_with_its_numbers(made):
    decision = at(made[0], (-10.2, 0.1))[0]
    assert (decision.verdict, decision.reason, decision.label) == ("match", None, "left")
    assert decision.probability > 0.9
    assert f"Matches left ({short_percent(decision.probability)})" in decision.sentence
    assert f"{short_percent(decision.typicality)} of genuine items" in decision.sentence


def test_far_from_all(made):
    for point in ((500, 500), (-60, -60), (0, -1000), (-17, -7)):
        decision = at(made[0], point)[0]
        assert (decision.verdict, decision.reason) == ("unknown", FAR_FROM_ALL)
        assert decision.typicality < 0.01
        share = f"only {short_percent(decision.typicality)} of genuine items look this unusual"
        rare = share if decision.typicality else "no genuine item is nearly this unusual"
        assert decision.sentence == (
            f"Like nothing in the catalog: {rare}; the limit is 5%. The nearest class is {decision.label}."
        )
        assert (decision.typicality > 0) == (point == (-17, -7))


def test_between_classes(made):
    decision = at(made[0], (0.0, 0.0))[0]
    assert (decision.verdict, decision.reason) == ("unknown", BETWEEN_CLASSES)
    first, second = decision.candidates[:2]
    assert {first.label, second.label} == {"left", "right"}
    for candidate in (first, second):
        assert f"{candidate.label} ({short_percent(candidate.probability)})" in decision.sentence
    assert decision.sentence.startswith("Between ")
    assert (
        f"only {short_percent(decision.typicality)} of genuine items look this unusual; the limit is 5%"
        in decision.sentence
    )


def test_unusual_for_its_class(made):
    """As far off as many items of the wide classes are, and as no item of the narrow one is."""
    decision = at(made[0], (0.0, 41.2))[0]
    assert (decision.verdict, decision.reason, decision.label) == ("unknown", UNUSUAL_FOR_CLASS, "narrow")
    assert decision.sentence.startswith(
        f"Nearest to narrow, but unusual for it: only {short_percent(decision.typicality)}"
    )
    same_distance = at(made[0], (-10.0, 1.2))[0]
    assert same_distance.verdict == "match"


def test_unsure_when_the_classes_compete_for_a_genuine_item(features, learn):
    rng = np.random.default_rng(0)
    label = np.arange(900) % 3
    corners = np.array([[0, 1], [1, -0.6], [-1, -0.6]])
    known = features(corners[label] + rng.standard_normal((900, 2)), [f"c{c}" for c in label])
    decision = at(learn(known), (0.0, 0.0))[0]
    assert (decision.verdict, decision.reason) == ("unsure", BETWEEN_CLASSES)
    assert decision.probability < 0.5
    first, second = decision.candidates[:2]
    expected = (
        f"{first.label} ({short_percent(first.probability)}) or {second.label} ({short_percent(second.probability)})"
    )
    assert expected in decision.sentence


def test_the_rules_of_a_model_are_those_of_its_recipe(made):
    model = made[0]
    strict = replace(model, decision=DecisionSection(false_reject_rate=0.5, min_probability=1.0))
    edge = (-9.0, 1.0)
    assert at(model, edge)[0].verdict == "match"
    assert at(strict, edge)[0].verdict == "unknown"
    assert "the limit is 50%" in at(strict, edge)[0].sentence
    usual = at(strict, (-10.0, 0.02))[0]
    assert usual.typicality > 0.5


@pytest.mark.parametrize("seed", range(2))
def test_verdict_and_reason_follow_the_table(cloud, learn, seed):
    model = learn(cloud(200, 4, 3, separation=2.0, seed=seed), head__n_components=2)
    x = np.random.default_rng(seed).standard_normal((500, 3)).astype(np.float32) * 5
    for decision in decide(model, [str(i) for i in range(500)], x):
        assert decision.verdict in VERDICTS
        assert (decision.reason is None) == (decision.verdict == "match")
        assert decision.reason is None or decision.reason in REASONS
        assert (decision.verdict == "unknown") == (decision.typicality < 0.05)
        if decision.verdict == "unsure":
            assert decision.probability < 0.5
        assert 0 < decision.typicality <= 1
        probabilities = [candidate.probability for candidate in decision.candidates]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == min(4, MAX_CANDIDATES)
        assert (decision.label, decision.probability) == (decision.candidates[0].label, probabilities[0])
        assert 0 <= decision.subclass < 2
        assert decision.sentence.endswith(".")


def test_a_row_is_judged_alone(made):
    model, known = made
    whole = model.answers(known.embedding[:20])
    alone = model.answers(known.embedding[3:4])
    np.testing.assert_allclose(alone.score, whole.score[3:4], rtol=1e-4, atol=1e-4)
    assert alone.verdict[0] == whole.verdict[3]


def test_subclasses_are_counted_within_their_class(features, learn):
    """Two clumps in each of two classes: the subclass tells them apart, from 0 in each class."""
    rng = np.random.default_rng(0)
    part = np.arange(400) % 4
    x = np.array([[0, 0], [20, 0], [0, 20], [20, 20]])[part] + rng.standard_normal((400, 2))
    model = learn(features(x, ["a" if p < 2 else "b" for p in part]), head__family="full", head__n_components=2)
    found = [decision.subclass for decision in at(model, (0, 0), (20, 0), (0, 20), (20, 20))]
    assert sorted(found[:2]) == [0, 1]
    assert sorted(found[2:]) == [0, 1]
    assert [d.label for d in at(model, (0, 0), (20, 0), (0, 20), (20, 20))] == ["a", "a", "b", "b"]


def test_of_equally_probable_classes_the_predicted_one_leads(features, learn):
    """The same photos under two labels: a tie, and still one answer throughout."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((100, 2)), 2, axis=0)
    known = features(x, ["a", "b"] * 100, sha256=[f"{i // 2:064x}" for i in range(200)])
    model = learn(known, head__family="tied", head__shrinkage=0.5)
    answers = model.answers(known.embedding)
    decisions = decide(model, known.id, known.embedding)
    assert [d.label for d in decisions] == [model.classes[c] for c in answers.predicted]
    assert [d.probability for d in decisions] == answers.probability.tolist()


def test_neighbors_are_the_most_similar_known_items(made):
    model, known = made
    found = decide(model, ["x"], known.embedding[5:6], Known(known), neighbors=4)[0].neighbors
    assert len(found) == 4
    assert found[0].similarity == pytest.approx(1, abs=1e-6)
    assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)
    by_id = dict(zip(known.id, known.label, strict=True))
    assert all(by_id[n.id] == n.label for n in found)
    assert decide(model, ["x"], known.embedding[:1], None, 3)[0].neighbors == ()
    assert Known(known).nearest(known.embedding[:2], 0) == [(), ()]
    assert len(Known(known.select([0, 1])).nearest(known.embedding[:1], 9)[0]) == 2


def test_features_of_another_width_are_refused(made):
    with pytest.raises(WrongDimension, match=r"3 dimensions and the model takes 2\. Use features of encoder 'tiny'"):
        made[0].answers(np.zeros((4, 3), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(made, value):
    x = np.zeros((4, 2), np.float32)
    x[2, 1] = value
    with pytest.raises(NonFinite, match=r"1 of 4 rows of features hold NaN or infinity\. Check the weights"):
        made[0].answers(x)


@pytest.fixture(scope="module", params=["tied", "full", "diagonal", "spherical", "lowrank"])
def of_family(request, cloud, learn):
    return learn(cloud(120, 3), head__family=request.param, head__shrinkage=0.1, head__rank=2)


@pytest.mark.parametrize("size", [1e10, 1e25, 3e38])
def test_what_lies_beyond_any_density_is_unknown_and_far(of_family, size):
    """Float32 overflows on the way; the answer is still an answer."""
    model = of_family
    x = np.full((2, 6), size, np.float32) * np.array([[1], [-1]], np.float32)
    answers = model.answers(x)
    assert answers.verdict.tolist() == ["unknown"] * 2
    assert (
        size < 1e20 or answers.reason.tolist() == [FAR_FROM_ALL] * 2
    )  # before, which class is nearest is lost in rounding
    assert np.isfinite(answers.posterior).all()
    assert np.isfinite(answers.typicality).all()
    np.testing.assert_allclose(answers.posterior.sum(1), 1)


def test_the_mixture_of_a_model_is_single_precision(made):
    assert made[0].mixture.mean.dtype == torch.float32
