"""Leaving classes out foretells what a model makes of strangers; every score works everywhere the density does."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from mixtura.catalog import Catalog, Shot
from mixtura.core import cross_fitting
from mixtura.errors import UnknownName
from mixtura.features import imports
from mixtura.fitting import strangers
from mixtura.fitting.fit import check_names
from mixtura.model import card
from mixtura.model.bundle import from_pretrained, save_pretrained
from mixtura.onnx import graph as onnx_graph
from mixtura.recipe import resolve
from mixtura.records.strangers import ScoreTrial, StrangerEstimate
from mixtura.scores import DENSITY, SCORES
from mixtura.tasks import fit, inspect
from mixtura.tasks.evaluate import evaluate

TIED = {"head__family": "tied", "head__shrinkage": 0.1, "head__feature_scale": "none"}


@pytest.fixture(scope="module")
def crowd(features):
    """Rows of classes from one population: near each other, with a common spread."""

    def make(classes, a_class, seed=0, dimension=8):
        rng = np.random.default_rng(seed)
        mean = 1.6 * rng.standard_normal((classes, dimension))
        label = np.repeat(np.arange(classes), a_class)
        x = mean[label] + rng.standard_normal((len(label), dimension))
        return features(x, [f"c{c:02d}" for c in label])

    return make


def test_the_estimate_foretells_classes_that_are_really_kept_out(crowd, learn):
    """Eight populations, each of 20 known classes and 5 others: the truth lies inside, and as often above as below."""
    inside, errors = [], []
    for seed in range(8):
        every = crowd(25, 40, seed)
        known = np.array([label < "c20" for label in every.label])
        model = learn(every.select(known), decision__score=DENSITY, **TIED)
        estimate = StrangerEstimate.of_facts(model.facts)
        truth = float((model.answers(every.select(~known).embedding).verdict == "unknown").mean())
        inside.append(estimate.low <= truth <= estimate.high)
        errors.append(estimate.noticed - truth)
    assert sum(inside) >= 6
    assert abs(np.mean(errors)) < 0.1  # 2.5 standard errors


def test_fewer_than_five_classes_give_a_sentence_and_no_figure(cloud, learn):
    estimate = StrangerEstimate.of_facts(learn(cloud(120, 4)).facts)
    assert estimate.noticed is None and estimate.score == DENSITY
    assert estimate.sentence == (
        "How often something new would be reported as unknown is not estimated: 4 classes are too few to leave a fifth "
        "of them out. It takes 5."
    )


def test_a_model_that_can_call_nothing_unknown_foretells_nothing(crowd, learn):
    """Of ten photos held out, none can be among the least typical 5%."""
    model = learn(crowd(5, 3), **TIED)
    estimate = StrangerEstimate.of_facts(model.facts)
    assert estimate.noticed is None
    assert estimate.sentence == strangers.NOTHING_HELD_OUT


def test_the_estimate_is_said_in_one_sentence_and_survives_json():
    estimate = StrangerEstimate(0.58, 0.45, 0.7, draws=(0.5, 0.6), trials={"knn": ScoreTrial(0.8, 0.5, 10)})
    assert estimate.sentence == (
        "Anything new that differs from your classes as much as they differ from each other would be reported as "
        "unknown 58% of the time (90% interval 45 to 70%)."
    )
    assert StrangerEstimate.from_dict(json.loads(json.dumps(estimate.to_dict()))) == estimate


@pytest.fixture(scope="module")
def fitted(crowd, tmp_path_factory):
    """A model of ten classes on the disk."""
    folder = tmp_path_factory.mktemp("strangers")
    imports.save(crowd(10, 30, 3), folder / "store")
    keys = {key.replace("__", "."): value for key, value in TIED.items()}
    keys |= {"data.kind": "features", "data.root": folder / "store", "output": folder / "shop"}
    return fit.run(resolve(keys)), folder / "shop"


def test_each_class_is_told_with_what_it_is_mistaken_for(fitted):
    report, _ = fitted
    estimate = StrangerEstimate.of_facts(report.evaluation.facts)
    assert list(estimate.classes) == list(report.evaluation.classes)
    assert len(estimate.draws) == 10 and set(estimate.trials) == {DENSITY, *SCORES}
    for name, one in estimate.classes.items():
        assert one.mistaken_for != name and 0 <= one.mistaken_share <= 1 - one.noticed + 1e-9
    shares = [one.noticed for one in estimate.classes.values()]
    assert estimate.low <= estimate.noticed <= estimate.high and min(shares) <= estimate.noticed <= max(shares)


def test_the_sentence_is_on_the_card_in_the_metrics_and_in_the_inspection(fitted):
    report, folder = fitted
    sentence = StrangerEstimate.of_facts(report.evaluation.facts).sentence
    assert sentence in (folder / "README.md").read_text(encoding="utf-8")
    stored = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["strangers"]
    assert StrangerEstimate.from_dict(stored).sentence == sentence
    assert inspect.run(folder)[0].strangers == sentence
    assert "strangers" in card.metrics_record(report.evaluation)


def test_the_incumbent_stays_unless_it_is_clearly_beaten():
    trials = {DENSITY: ScoreTrial(0.8, 0.4, 10)}
    assert strangers.winner(trials) == DENSITY
    close = {"knn": ScoreTrial(0.85, 0.43, 10, 0.03, 0.04, 0.05)}
    lucky = {"knn": ScoreTrial(0.75, 0.5, 10, 0.1, 0.04, -0.05)}
    short = {"knn": ScoreTrial(0.85, 0.5, 3, 0.1, 0.04, 0.05)}
    clear = {"knn": ScoreTrial(0.85, 0.5, 10, 0.1, 0.04, 0.05), "vim-residual": ScoreTrial(0.9, 0.6, 10, 0.2, 0.1, 0.1)}
    assert [strangers.winner(trials | one) for one in (close, lucky, short)] == [DENSITY] * 3
    assert strangers.winner(trials | clear) == "vim-residual"


def test_a_small_set_lets_every_score_notice_something(crowd, learn):
    """Ten rows of a fold alone could not fall below 5%: scores race on as many rows as the estimate has."""
    model = learn(crowd(8, 10, 1), **TIED)
    estimate = StrangerEstimate.of_facts(model.facts)
    assert estimate.noticed > 0.05
    assert estimate.trials[DENSITY].noticed == pytest.approx(np.mean(estimate.draws))


def test_limits_of_another_score_come_from_the_rows_of_the_others(crowd, learn, monkeypatch):
    """Where enough rows are held out, the folds of the limits hold out the same ones."""
    monkeypatch.setattr(cross_fitting, "ENOUGH_HELD_OUT", 150)
    fitted = learn(crowd(6, 60, 5), decision__score="knn", **TIED)
    assert len(fitted.typicality.scores) >= 150


def test_a_score_that_is_not_there_is_one_sentence():
    with pytest.raises(UnknownName, match="Did you mean 'mahalanobis'"):
        check_names(resolve({"data.root": ".", "data.kind": "features", "decision.score": "mahalanobi"}))


@pytest.fixture(scope="module", params=SCORES)
def chosen(request, crowd, learn):
    """A model with another score than the density, and its features."""
    features = crowd(6, 60, 5)
    return learn(features, decision__score=request.param, **TIED), features


def test_a_chosen_score_turns_away_about_as_many_as_stated(chosen):
    model, features = chosen
    assert StrangerEstimate.of_facts(model.facts).score in SCORES and model.score is not None
    rejected = evaluate(model, features.select_split("test")).metrics["false_reject"]
    assert rejected <= 0.05 + 3 * (0.05 * 0.95 * (1 / 72 + 1 / 288)) ** 0.5
    far = model.answers(np.full((1, 8), 40, np.float32) * np.array([[1, -1] * 4], np.float32))
    assert far.typicality[0] < 0.05


def test_a_chosen_score_comes_back_with_the_same_bits(chosen, tmp_path):
    model, features = chosen
    save_pretrained(model, tmp_path / "m")
    again = from_pretrained(tmp_path / "m")
    ours, theirs = (one.answers(features.embedding) for one in (model, again))
    assert np.array_equal(ours.score, theirs.score) and np.array_equal(ours.typicality, theirs.typicality)


def test_the_graph_of_a_chosen_score_is_the_model(chosen):
    model, features = chosen
    session = onnxruntime.InferenceSession(onnx_graph.head_bytes(model), providers=["CPUExecutionProvider"])
    x = features.select_split("test").embedding
    score, typicality = session.run(["score", "typicality"], {"features": x})
    answers = model.answers(x)
    np.testing.assert_allclose(score, answers.score, rtol=1e-4, atol=1e-4)
    assert np.mean(np.abs(typicality - answers.typicality) > 0.005) < 0.05  # a tie may fall on the other side


@pytest.mark.parametrize("name", SCORES)
def test_a_product_is_known_after_its_enrollment_by_every_score(name, crowd, tmp_path):
    imports.save(crowd(6, 40, 7), tmp_path / "store")
    keys = {key.replace("__", "."): value for key, value in TIED.items()} | {"decision.score": name}
    keys |= {"data.kind": "features", "data.root": tmp_path / "store", "output": tmp_path / "shop"}
    fit.run(resolve(keys))
    shop = Catalog.open(tmp_path / "shop")
    rng = np.random.default_rng(1)
    rows = (np.array([9.0, -9] * 4) + rng.standard_normal((25, 8))).astype(np.float32)
    before = shop.decide([str(i) for i in range(20)], rows[5:])
    shop.enroll("kettle", [Shot(row, f"f{i:063x}", f"{i}.jpg", b"") for i, row in enumerate(rows[:5])])
    after = shop.decide([str(i) for i in range(20)], rows[5:])
    assert sum(one.verdict == "unknown" for one in before) >= 19
    assert sum(one.label == "kettle" for one in after) == 20
    assert sum(one.verdict == "match" for one in after) >= 12
    shop.undo()
    assert [one.verdict for one in shop.decide(["a"], rows[:1])] == ["unknown"]
    shop.remove_product("c03")
    assert torch.isfinite(torch.from_numpy(shop.model.answers(rows).score)).all()
