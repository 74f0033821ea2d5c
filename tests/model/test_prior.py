"""Another class prior after the fit: the one that the densities would have been built with, and its limits hold."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.catalog import Catalog
from mixtura.errors import DataError, MixturaError, NoInput, UsageError
from mixtura.features import imports
from mixtura.metrics.classification import balanced_accuracy
from mixtura.model import bundle
from mixtura.model.prior import (
    DATA,
    SCORE_PRIOR_FACT,
    UNIFORM,
    AskedPrior,
    asked_prior,
    data_share,
    recalibrated,
    score_share,
)
from mixtura.model.prior_file import read_prior
from mixtura.onnx.graph import HeadGraph, output_names
from mixtura.recipe import resolve
from mixtura.records.catalog import Shot
from mixtura.tasks import fit
from mixtura.tasks import prior as task

COUNTS = (600, 200, 60, 20)
POINTS = np.random.default_rng(5).normal(0, 2, (64, 5)).astype(np.float32)


CENTERS = np.random.default_rng(1).normal(0, 1.3, (4, 5))


def draw(counts, seed):
    """Rows of overlapping round classes, so many of each."""
    rng, label = np.random.default_rng(seed), np.repeat(np.arange(len(counts)), counts)
    order = rng.permutation(len(label))
    x = CENTERS[label] + rng.normal(0, 1, (len(label), 5))
    return x[order].astype(np.float32), label[order]


@pytest.fixture(scope="module")
def rows(features):
    x, label = draw(COUNTS, seed=0)
    return features(x, [f"c{c}" for c in label])


@pytest.fixture(scope="module")
def fitted(rows, learn):
    """Models of unequal classes, by family or head."""
    made = {}

    def make(**settings):
        key = json.dumps(settings)
        if key not in made:
            made[key] = learn(rows, **settings)
        return made[key]

    return make


def under(model, name, shares=None):
    return recalibrated(model, asked_prior(model, name, shares))


GAUSSIAN = [{"head__family": family, "head__shrinkage": 0.1} for family in ("tied", "full", "diagonal")]
OTHERS = [{"head__name": "linear"}, {"head__name": "vmf"}]


@pytest.mark.parametrize("settings", [*GAUSSIAN, {"head__family": "diagonal", "head__n_components": 2}])
def test_decisions_are_those_of_the_same_densities_built_with_the_prior(fitted, settings):
    model = fitted(**settings)
    share = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    for got, prior in ((under(model, UNIFORM), torch.full((4,), 0.25)), (under(model, "file", share), share)):
        built = replace(model, mixture=model.mixture.with_prior(prior.log()), temperature=got.temperature)
        assert np.abs(got.answers(POINTS).posterior - built.answers(POINTS).posterior).max() < 1e-6
        assert (got.answers(POINTS).predicted == built.predicted(POINTS)).all()
        totals = got.mixture.over_classes(got.mixture.log_weight[None])[0].exp()
        torch.testing.assert_close(totals, prior.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", OTHERS)
def test_scores_without_a_density_are_adjusted_by_the_ratio_of_the_priors(fitted, settings):
    model = fitted(**settings)
    got = under(model, UNIFORM)
    with torch.inference_mode():
        scores = model.head.class_scores(model.project(POINTS)).double()
    wanted = ((scores - data_share(model).log()) / got.temperature).softmax(1)
    assert np.abs(got.answers(POINTS).posterior - wanted.numpy()).max() < 1e-6


@pytest.mark.parametrize("settings", [GAUSSIAN[0], OTHERS[0]])
def test_the_stated_rate_is_measured_under_both_priors(fitted, settings):
    model, each = fitted(**settings), 4000
    x, label = draw((each,) * 4, seed=9)
    data = np.array(COUNTS) / sum(COUNTS)
    for name, share in ((DATA, data), (UNIFORM, np.full(4, 0.25))):
        made = under(model, name)
        made = replace(made, decision=made.decision.model_copy(update={"false_reject_rate": 0.1}))
        unknown = made.answers(x).verdict == "unknown"
        rate = sum(s * unknown[label == c].mean() for c, s in enumerate(share))
        held = np.bincount(model.held.label.numpy(), minlength=4)
        error = np.sqrt(sum(s**2 * 0.09 * (1 / each + 1 / n) for s, n in zip(share, held, strict=True)))
        largest = made.typicality.weight.max() / held.sum() if name == UNIFORM else 1 / held.sum()  # of one item
        assert abs(rate - 0.1) < 3 * error + float(largest), (name, rate, error)


def test_a_uniform_prior_finds_more_of_the_rare_classes_and_tells_its_doubts(fitted):
    model = fitted(**GAUSSIAN[0])
    x, label = draw((1000,) * 4, seed=4)
    uniform = under(model, UNIFORM)
    gain = [balanced_accuracy(label, one.predicted(x), 4) for one in (model, uniform)]
    assert gain[1] > gain[0] + 0.02
    loss = [-np.log(one.answers(x).posterior[np.arange(len(x)), label]).mean() for one in (model, uniform)]
    assert loss[1] < loss[0]


@pytest.mark.parametrize("settings", [GAUSSIAN[1], *OTHERS, {"fit__solver": "gradient", "fit__epochs": 3}])
def test_the_prior_of_the_data_gives_back_the_first_answers(fitted, settings):
    model = fitted(**settings)
    back = under(under(model, UNIFORM), DATA)
    first, now = model.answers(POINTS), back.answers(POINTS)
    if SCORE_PRIOR_FACT not in model.facts:
        assert all(np.array_equal(getattr(first, name), getattr(now, name)) for name in vars(first))
    assert np.abs(first.posterior - now.posterior).max() < 1e-6


def test_a_recipe_asks_for_the_prior_that_is_set_later(rows, learn, fitted):
    asked = learn(rows, decision__prior="uniform", **GAUSSIAN[0])
    later = under(fitted(**GAUSSIAN[0]), UNIFORM)
    one, other = asked.answers(POINTS), later.answers(POINTS)
    assert np.array_equal(one.posterior, other.posterior) and np.array_equal(one.typicality, other.typicality)
    assert asked.decision.prior == "uniform"


def test_scores_of_a_balanced_training_are_not_corrected_twice(rows, learn):
    trained = {"head__name": "linear", "fit__solver": "gradient", "fit__epochs": 40, "fit__learning_rate": 0.03}
    trained |= {"head__options": {"start": "zeros"}}
    plain, balanced = (learn(rows, **trained, fit__logit_adjustment=one) for one in (0.0, 1.0))
    torch.testing.assert_close(score_share(balanced), torch.full((4,), 0.25, dtype=torch.float64))
    x, label = draw(COUNTS, seed=7)
    losses = [
        -np.log(one.answers(x).posterior[np.arange(len(x)), label]) for one in (plain, under(balanced, DATA), balanced)
    ]
    error = (losses[1] - losses[0]).std() / np.sqrt(len(x))
    assert losses[1].mean() - losses[0].mean() < max(error, 0.01)
    assert losses[2].mean() > losses[1].mean()


@pytest.mark.parametrize("settings", [GAUSSIAN[0], OTHERS[0]])
def test_a_bundle_and_its_graph_keep_the_prior(fitted, settings, tmp_path):
    made = under(fitted(**settings), UNIFORM)
    bundle.save_pretrained(made, tmp_path / "m")
    again = bundle.from_pretrained(tmp_path / "m")
    wanted = made.answers(POINTS)
    assert all(np.array_equal(one, getattr(again.answers(POINTS), name)) for name, one in vars(wanted).items())
    assert np.array_equal(under(again, DATA).answers(POINTS).posterior, fitted(**settings).answers(POINTS).posterior)
    with torch.inference_mode():
        found = dict(zip(output_names(again), HeadGraph(again)(torch.from_numpy(POINTS)), strict=True))
    np.testing.assert_allclose(found["posterior"], wanted.posterior, atol=1e-5)
    np.testing.assert_allclose(found["typicality"], wanted.typicality, atol=1e-9)


def test_a_bundle_without_out_of_fold_scores_is_refused(fitted):
    with pytest.raises(UsageError, match="earlier version"):
        under(replace(fitted(**GAUSSIAN[0]), held=None), UNIFORM)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class,share\nc0,0.5\nc1,0.3\nc2,0.2\n", "'c3' has no share"),
        ("c0,0.5\nc1,0.3\nc2,0.2\nc3,0\n", "share of class 'c3' is '0'"),
        ("c0,0.5\nc1,0.7\nc2,0.2\nc3,-0.4\n", "share of class 'c3' is '-0.4'"),
        ("c0,0.5\nc1,0.5\nc2,0.2\nc3,0.1\n", "sum to 1.3"),
        ("c0,0.4\nc1,0.3\nc2,0.2\nx,0.1\n", "no class 'x'"),
        ("c0,0.4\nc1,0.3\nc2,0.2\nc2,0.1\n", "there twice"),
        ("c0,0.4,1\n", "has 3 columns"),
        ("class,share\n\nc0,0.4,1\n", "row 3 has 3 columns"),
        ("", "is empty"),
        ('{"c0": "nan", "c1": 0.5, "c2": 0.2, "c3": 0.3}', "share of class 'c0'"),
        ("[1, 2]", "no object of class and share"),
        ("{", "is no JSON"),
    ],
)
def test_a_wrong_file_of_shares_is_one_sentence(fitted, tmp_path, text, said):
    (tmp_path / "shares").write_text(text)
    with pytest.raises(DataError, match=said):
        read_prior(fitted(**GAUSSIAN[0]), str(tmp_path / "shares"))


def test_shares_are_read_from_csv_and_json_alike(fitted, tmp_path):
    model, missing = fitted(**GAUSSIAN[0]), tmp_path / "missing.csv"
    (tmp_path / "a.csv").write_text("Class;Share\nC3;40%\nc0;10%\nc1;20%\nc2;30%\n")
    (tmp_path / "b.json").write_text('{"c0": 0.1, "c1": 0.2, "c2": 0.3, "c3": 0.4}')
    for name in ("a.csv", "b.json"):
        assert read_prior(model, tmp_path / name).values == pytest.approx([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(NoInput, match="cannot be read"):
        read_prior(model, missing)


@pytest.fixture(scope="module")
def shops(rows, tmp_path_factory):
    """Model folders with a catalog and without one."""
    folder = tmp_path_factory.mktemp("shops")
    imports.save(rows, folder / "store")
    for name, head in (("catalog", {"head.family": "full"}), ("fixed", {"head.name": "linear"})):
        keys = {"data.kind": "features", "data.root": folder / "store", "output": folder / name}
        fit.run(resolve(keys | head))
    return folder


def answers_in(folder):
    if bundle.config_of(folder).head is not None:
        return bundle.from_pretrained(folder).answers(POINTS)
    catalog = Catalog.open(folder)
    try:
        return catalog.model.answers(POINTS)
    finally:
        catalog.close()


@pytest.mark.parametrize("name", ["catalog", "fixed"])
def test_a_prior_is_written_undone_and_given_back(shops, name):
    folder = shops / name
    first = answers_in(folder)
    change = task.change_prior(folder, UNIFORM)
    assert change.after.nll < change.before.nll
    assert np.array_equal(answers_in(folder).posterior, first.posterior)
    task.write(folder, change)
    uniform = answers_in(folder)
    assert np.array_equal(uniform.posterior, change.made.answers(POINTS).posterior)
    assert task.change_prior(folder, UNIFORM).notes[0].startswith("The model has this prior")
    task.write(folder, task.change_prior(folder, DATA))
    back = answers_in(folder)
    assert all(np.array_equal(one, getattr(back, key)) for key, one in vars(first).items())
    task.undo(folder)
    assert np.array_equal(answers_in(folder).typicality, uniform.typicality)
    task.undo(folder)
    assert np.array_equal(answers_in(folder).posterior, first.posterior)
    with pytest.raises(MixturaError, match="nothing to undo"):
        task.undo(folder)


def shares_of(catalog):
    mixture = catalog.model.mixture
    return mixture.over_classes(mixture.log_weight[None])[0].exp().numpy()


def test_edits_keep_the_prior_that_was_asked_for(shops, tmp_path):
    folder = shops / "catalog"
    catalog = Catalog.open(folder)
    shots = [Shot(row + 9, f"{number:064x}", f"{number}.jpg", None) for number, row in enumerate(POINTS[:4], 7000)]
    try:
        (tmp_path / "shares.json").write_text('{"c0": 0.1, "c1": 0.2, "c2": 0.3, "c3": 0.4}')
        task.write(folder, task.change_prior(folder, str(tmp_path / "shares.json")))
        catalog.enroll("kettle", shots)
        np.testing.assert_allclose(shares_of(catalog), [0.08, 0.16, 0.24, 0.32, 0.2], atol=1e-6)
        catalog.remove_product("c3")
        np.testing.assert_allclose(shares_of(catalog), [0.125, 0.25, 0.375, 0.25], atol=1e-6)
        task.write(folder, task.change_prior(folder, UNIFORM))
        catalog.merge("c0", "c1")
        np.testing.assert_allclose(shares_of(catalog), [1 / 3] * 3, atol=1e-6)
        while catalog.history(1) and any(not edit.undone and edit.kind != "undo" for edit in catalog.history()):
            catalog.undo()
        np.testing.assert_allclose(shares_of(catalog), np.array(COUNTS) / sum(COUNTS), atol=0.01)
    finally:
        catalog.close()


def test_forgetting_under_a_prior_equals_the_fit_without_the_item(shops):
    folder = shops / "catalog"
    catalog = Catalog.open(folder)
    try:
        item = catalog.items("c3")[0]
        catalog.remove_item(item.id)
        wanted = catalog.model.mixture.with_prior(torch.zeros(4)).posterior(catalog.model.project(POINTS))
        catalog.undo()
        task.write(folder, task.change_prior(folder, UNIFORM))
        catalog.remove_item(item.id)
        got = catalog.model.mixture.posterior(catalog.model.project(POINTS))
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
        catalog.undo()
        catalog.undo()
    finally:
        catalog.close()


def test_a_prior_as_it_was_asked_for_is_named():
    assert [AskedPrior(name).kind for name in (None, DATA, UNIFORM, "a.csv")] == [DATA, DATA, UNIFORM, "file"]
