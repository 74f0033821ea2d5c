"""Folders that were written before keys were renamed: opened, gone on with, and not one figure changed."""

import hashlib
import json

import pytest
import torch

from mixtura import __version__
from mixtura.catalog.statistics import exact
from mixtura.model import bundle
from mixtura.pipeline import training_set
from mixtura.recipe import resolve
from mixtura.sweeps import grid as sweep_grid
from mixtura.sweeps import results, tuning
from mixtura.sweeps.jobs import Worker
from mixtura.tasks import evaluate, fit

OLD_RECIPE = """\
data: {kind: digits, unknown: []}
encoder: {name: pixels, device: auto}
projection: [{name: pca, share: 90.0}]
head: {name: diagonal, family: auto, components: 1, shrinkage: auto, rank: 16, floor: 1.0e-06}
train: {fit: sgd, epochs: 2, batch_size: 256, rate: 0.003, hybrid: 0.1, smoothing: 0.0, penalty: 1.0, ridge: 0.0}
split: {shares: [0.8, 0.0, 0.2], seed: 0}
seed: 0
"""


def digits(folder, **flags):
    base = {"data.kind": "digits", "encoder.name": "pixels", "output": folder, "fit.epochs": 2}
    return resolve(base | {key.replace("__", "."): value for key, value in flags.items()})


def test_a_model_of_before_answers_as_it_did(tmp_path):
    pca = [{"name": "pca", "explained_variance": 0.9}]
    recipe = digits(tmp_path / "m", projection=pca, head__name="diagonal", fit__solver="gradient")
    made = fit.run(recipe)
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    facts = {key: value for key, value in config["facts"].items() if key not in ("solver", "objective", "n_components")}
    config |= {"layout": 1, "facts": facts | {"fit": "sgd", "components": 1}}
    assert config["projection"]["steps"][0].pop("explained_variance") == 0.9
    config["projection"]["steps"][0]["share"] = 90.0
    path.write_text(json.dumps(config))
    (tmp_path / "m" / "recipe.yaml").write_text(OLD_RECIPE)
    told = recipe.fit  # the weight of the hybrid objective was written out, used or not
    encoder = recipe.encoder.model_copy(update={"taps": "none"})  # there were none
    assert bundle.recipe_of(tmp_path / "m") == recipe.model_copy(update={"fit": told, "encoder": encoder})
    model = bundle.from_pretrained(tmp_path / "m")
    assert (model.facts["solver"], model.facts["objective"], model.facts["n_components"]) == (
        "gradient",
        "conditional",
        1,
    )
    assert model.projection.steps[0].explained_variance == 0.9 and not exact(model)
    assert evaluate.run(tmp_path / "m").metrics == made.evaluation.metrics


@pytest.mark.parametrize(("told", "whole"), [({"fit": "closed"}, True), ({}, True), ({"fit": "hybrid"}, False)])
def test_what_a_model_of_before_says_of_its_fit_is_understood(tmp_path, cloud, learn, told, whole):
    model = learn(cloud(120, 3), head__family="tied", head__shrinkage=0.1)
    bundle.save_pretrained(model, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layout": 1, "facts": told}))
    assert exact(bundle.from_pretrained(tmp_path / "m")) == whole


def old_mark(recipe):
    """The fingerprint of a sweep, as it was made of the keys of before."""
    features = training_set.gather(recipe).features
    head = {"name": "gaussian", "family": "auto", "components": 1, "shrinkage": "auto", "rank": 16, "floor": 1e-6}
    train = {"fit": "auto", "epochs": recipe.fit.epochs, "batch_size": 256, "rate": 0.003, "hybrid": 0.1}
    train |= {"smoothing": 0.0, "penalty": 1.0, "ridge": recipe.fit.l2, "validation": 0.1}
    parts = {"head": head, "train": train, "seed": 0, "projection": [], "sweep": [False, 0.0], "mixtura": __version__}
    rows = [list(map(str, features.split)), features.group]
    text = json.dumps([parts, training_set.digest_of(features), rows], sort_keys=True)
    return hashlib.sha256(text.encode() + features.embedding.tobytes()).hexdigest()


OLD_FITS = {("closed", ""): "closed", ("gradient", "conditional"): "sgd", ("gradient", "hybrid"): "hybrid"}


def old_line(line):
    row = json.loads(line)
    method = OLD_FITS[row.pop("solver"), row.pop("objective")]
    return {"head": row.pop("head"), "fit": method, "share": 100 * row.pop("explained_variance")} | {
        "components": row.pop("n_components"),
        **row,
    }


def test_a_sweep_of_before_goes_on_where_it_stopped(tmp_path, monkeypatch):
    grid = digits(
        tmp_path / "s", sweep__heads=["tied"], sweep__solvers=["closed", "gradient"], sweep__n_seeds=1, sweep__jobs=1,
        sweep__objectives=["conditional", "hybrid"], sweep__explained_variance=[0.5, 0.9], fit__l2=3,
    )  # fmt: skip
    first = sweep_grid.run(grid)
    path = tmp_path / "s" / results.RUNS_FILE
    lines = path.read_text().splitlines()
    rows = [json.dumps(old_line(line)) for line in lines[1:]]
    path.write_text("\n".join([json.dumps({"sweep": old_mark(grid)}), *rows, ""]))
    done = []
    original = Worker.do
    monkeypatch.setattr(Worker, "do", lambda self, job: done.append(job) or original(self, job))
    again = sweep_grid.run(grid)
    assert not done and again.runs == first.runs
    assert path.read_text().splitlines() == lines


OLD_SPACE = {
    "components": "(1,)",
    "epochs": "(0, 5, 15, 30)",
    "rate": "Range(low=0.0001, high=0.03, log=True)",
    "share": "(50.0, 80.0, 90.0, 95.0, 99.0, 100.0)",
    "shrinkage": "Range(low=0.0001, high=1.0, log=True)",
}


def journal(about):
    """A study with one finished trial, as optuna has kept it."""

    def choices(*values):
        return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": values}})

    def between(low, high):
        attributes = {"step": None, "low": low, "high": high, "log": True}
        return json.dumps({"name": "FloatDistribution", "attributes": attributes})

    own = {"worker_id": "w"}
    yield own | {"op_code": 0, "study_name": "search", "directions": [1]}
    for attribute in ({"metric": "nll"}, {"about": about}, {"space": OLD_SPACE}):
        yield own | {"op_code": 2, "study_id": 0, "user_attr": attribute}
    yield own | {"op_code": 4, "study_id": 0, "datetime_start": "2026-11-28T22:22:50+00:00"}
    drawn = {
        "share": (1, choices(50.0, 80.0, 90.0, 95.0, 99.0, 100.0)),
        "components": (0, choices(1)),
        "shrinkage": (0.0056, between(1e-4, 1.0)),
        "rate": (0.016, between(1e-4, 0.03)),
        "epochs": (0, choices(0, 5, 15, 30)),
    }
    for name, (value, distribution) in drawn.items():
        yield own | {
            "op_code": 5,
            "trial_id": 0,
            "param_name": name,
            "param_value_internal": value,
            "distribution": distribution,
        }
    yield own | {
        "op_code": 6,
        "trial_id": 0,
        "state": 1,
        "values": [0.25],
        "datetime_complete": "2026-11-28T22:22:51+00:00",
    }


def test_a_search_of_before_goes_on_where_it_stopped(tmp_path):
    recipe = resolve({"data.kind": "digits", "encoder.name": "pixels", "output": tmp_path, "sweep.n_seeds": 1})
    path = tmp_path / "search-linear" / tuning.JOURNAL_FILE
    path.parent.mkdir()
    text = "".join(f"{json.dumps(line)}\n" for line in journal(f"linear (sgd, 1 draws) on {old_mark(recipe)[:12]}"))
    path.write_text(text)
    trials = tuning.run(recipe, "linear", "nll", 2).trials
    assert len(trials) == 2 and (trials[0].value, trials[0].status) == (0.25, "done")
    expected = {"explained_variance": 0.8, "n_components": 1, "shrinkage": 0.0056, "learning_rate": 0.016, "epochs": 0}
    assert trials[0].params == expected and set(trials[1].params) == set(expected)
    assert tuning.run(recipe, "linear", "nll", 2).trials == trials
    assert torch.isfinite(torch.tensor(trials[1].value))
