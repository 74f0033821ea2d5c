"""Heads that cannot be fitted are skipped with a note, and the selected cell can be saved and made again."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from safetensors.torch import load_file

from mixtura.cli.app import run as command
from mixtura.cli.sweep_views import sweep_record, sweep_view
from mixtura.errors import CannotWrite, CollapsedComponent, DataError, UnknownName, UsageError
from mixtura.features.records import Rows, to_features
from mixtura.features.store import FeatureStore
from mixtura.fitting import heads
from mixtura.metrics.paired import comparisons
from mixtura.metrics.replicates import right_items, selected
from mixtura.recipe import load_recipe, resolve
from mixtura.records.sweep import DONE, FAILED
from mixtura.report.sweep import sweep_page
from mixtura.sweeps import grid as sweep_grid
from mixtura.sweeps import results
from mixtura.sweeps.cells import skipped
from mixtura.tasks import fit, sweep

CLASSES, EACH, DIMENSION = 4, 60, 12
GRID = {
    "data.kind": "features",
    "sweep.explained_variance": [0.5, 0.8],
    "sweep.n_seeds": 2,
    "sweep.jobs": 1,
    "fit.epochs": 2,
    "head.shrinkage": 0.1,
    "head.feature_scale": "none",
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Features of overlapping classes, without groups and in four groups."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("stores")
    number = np.arange(CLASSES * EACH)
    x = rng.standard_normal((CLASSES, DIMENSION))[number % CLASSES] + 0.8 * rng.standard_normal(
        (len(number), DIMENSION)
    )
    ids, none, identity = (
        list(map(str, number)),
        [None] * len(number),
        {"name": "tiny", "size": "32 px", "weights": "w"},
    )
    for name, group in (("plain", none), ("grouped", [f"fold {i // CLASSES % 4}" for i in number])):
        label = [f"c{i % CLASSES}" for i in number]
        rows = Rows(x, ids, ids, label, none, group, none, np.ones(len(x)), [""] * len(x))
        store = FeatureStore.create(folder / name, identity, DIMENSION, "float32")
        store.append(to_features(rows, identity))
    return folder


@pytest.fixture
def recipe(stores):
    return partial(recipe_of, stores / "plain")


def recipe_of(store, folder, **flags):
    return resolve(
        GRID | {"data.root": store, "output": folder} | {key.replace("__", "."): value for key, value in flags.items()}
    )


@pytest.fixture(scope="module")
def mixed(stores, tmp_path_factory):
    """A grid of which some combinations cannot be fitted."""
    given = recipe_of(
        stores / "plain",
        tmp_path_factory.mktemp("mixed") / "out",
        sweep__explained_variance=[0.8],
        sweep__heads=["spherical", "softmax"],
        sweep__solvers=["closed", "gradient"],
        sweep__objectives=["conditional", "hybrid"],
        sweep__n_components=[1, 300],
    )
    return given, sweep_grid.run(given)


def test_what_cannot_be_fitted_is_skipped_with_a_note(mixed):
    given, made = mixed
    left_out = {(one.head, one.method, one.n_components) for one in made.skipped}
    methods = ("closed", "gradient (conditional)", "gradient (hybrid)")
    assert left_out == {("softmax", "gradient (hybrid)", 1)} | {("softmax", method, 300) for method in methods}
    assert {(one.head, one.cell.method, one.n_components) for one in made.runs}.isdisjoint(left_out)
    assert {one.status for one in made.runs if one.n_components == 300} == {FAILED}  # too few rows: known only then
    assert {one.status for one in made.runs if one.n_components == 1} == {DONE}
    notes = {one.note for one in made.skipped}
    assert any("has no density" in note for note in notes) and any("one component a class" in note for note in notes)
    assert skipped(given) == made.skipped


def test_table_json_and_page_tell_what_was_skipped(mixed, tmp_path):
    _, made = mixed
    record = json.dumps(sweep_record(made, tmp_path / "sweep.html"), default=str)
    page = sweep_page(made, "A sweep")
    table = "\n".join(str(view) for view in sweep_view(made, tmp_path / "sweep.html"))
    for text in (record, page, table):
        assert "has no density" in text and "has one component a class" in text and "600 training rows" in text
    assert len(json.loads(record)["skipped"]) == 4 and '"right"' not in record


def test_a_grid_without_anything_to_fit_is_an_error_before_anything_is_read(recipe, tmp_path):
    for flags, said in (
        ({"sweep__heads": ["softmax"], "sweep__objectives": ["hybrid"]}, "nothing to run.*has no density"),
        ({"sweep__heads": ["softmax"], "sweep__n_components": [2]}, "nothing to run.*one component a class"),
        ({"sweep__heads": ["tied"], "sweep__solvers": ["closed"], "sweep__objectives": ["hybrid"]}, "Only the solver"),
    ):
        with pytest.raises(UsageError, match=said):
            sweep_grid.run(recipe(tmp_path / "out", **flags))
    with pytest.raises(UnknownName):
        sweep_grid.run(recipe(tmp_path / "out", sweep__heads=["tied", "tide"]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [CollapsedComponent("component 3 holds 1.3 points"), MemoryError()])
def test_an_error_in_one_cell_leaves_the_others(recipe, tmp_path, monkeypatch, error):
    original = heads.initialize

    def failing(spec, folds, plan=None):
        if spec.family == "tied" and folds.x.shape[1] < 5:
            raise error
        return original(spec, folds, plan)

    monkeypatch.setattr(heads, "initialize", failing)
    made = sweep_grid.run(recipe(tmp_path, sweep__heads=["tied", "spherical"], sweep__solvers=["closed"]))
    failed = {(one.head, one.explained_variance) for one in made.runs if one.status == FAILED}
    assert failed == {("tied", 0.5)}
    assert all(one.note == (str(error) or "MemoryError") for one in made.runs if one.status == FAILED)


def test_nothing_fitted_ends_with_an_exit_code(stores, tmp_path, capsys):
    where = ["sweep", str(stores / "plain"), "-o", str(tmp_path), "--heads", "tied", "--n-components", "500"]
    code = command([*where, "--solver", "em", "--explained-variance", "0.5", "--n-seeds", "1", "--jobs", "1", "-q"])
    assert code == DataError.exit_code
    assert "None of the 1 runs could be fitted. The first says: 500 components" in capsys.readouterr().err


def test_runs_keep_which_rows_were_right_and_heads_are_compared_on_them(mixed):
    given, made = mixed
    done = [one for one in made.runs if one.status == DONE]
    assert all(right_items(one).mean() == pytest.approx(one.accuracy, abs=1e-12) for one in done)
    again = sweep_grid.run(given)
    assert [one.right for one in again.runs] == [one.right for one in made.runs]
    (pair,) = comparisons(made)
    top = selected(made)
    assert pair.cell.head != top.cell.head
    assert pair.difference == pytest.approx(
        np.mean([one.accuracy for one in done if one.cell == pair.cell]) - top.mean["accuracy"]
    )


def test_runs_of_an_earlier_version_open_and_show_no_pairs(mixed, tmp_path):
    given, made = mixed
    folder = tmp_path / "old"
    lines = [json.loads(line) for line in (given.output / results.RUNS_FILE).read_text().splitlines()]
    new = ("right", "nll_variance", "ece_variance", "brier_variance")
    earlier = [{key: value for key, value in line.items() if key not in new} for line in lines]
    folder.mkdir()
    (folder / results.RUNS_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in earlier))
    opened = sweep_grid.run(given.model_copy(update={"output": folder}))
    assert [one.accuracy for one in opened.runs if one.status == DONE] == [
        one.accuracy for one in made.runs if one.status == DONE
    ]
    assert comparisons(opened) == []
    page = sweep_page(opened, "A sweep")
    assert "No paired differences: these runs are of an earlier version" in page and "of the seeds alone" in page
    assert any("earlier version" in str(view) for view in sweep_view(opened, tmp_path / "sweep.html"))


@pytest.mark.parametrize(
    ("name", "solver", "extra"),
    [
        ("tied", "closed", {"head__shrinkage": "auto", "head__feature_scale": "auto"}),
        ("diagonal", "em", {"sweep__n_components": [2], "sweep__whiten_power": 0.5}),
        ("tied", "gradient", {"sweep__objectives": ["hybrid"], "head__shrinkage": "auto"}),
        ("softmax", "gradient", {}),
    ],
)
def test_fit_makes_the_saved_model_again_from_its_recipe(recipe, tmp_path, name, solver, extra):
    given = recipe(
        tmp_path / "s",
        **({"sweep__heads": [name], "sweep__solvers": [solver], "sweep__explained_variance": [0.8]} | extra),
    )
    made = sweep.run(given, save=tmp_path / "m")
    stored = load_recipe(tmp_path / "m" / "recipe.yaml")
    fit.run(stored.model_copy(update={"output": tmp_path / "again"}))
    one, two = (load_file(tmp_path / folder / "model.safetensors") for folder in ("m", "again"))
    assert made.sweep.runs[0].tested == 48 and set(one) == set(two) and all(one[key].equal(two[key]) for key in one)
    facts = json.loads((tmp_path / "m" / "config.json").read_text())["facts"]
    run = next(one for one in made.sweep.runs if one.seed == 0)
    if solver == "gradient":  # the fit begins as the sweep's first run did, on the same validation rows
        assert facts["epoch"] == run.epoch
    if name == "softmax":  # thresholds are those of the sweep's own head
        assert facts["held_out_accuracy"] == pytest.approx(run.val_accuracy, abs=1e-12)
    if name == "tied":
        assert (facts["shrinkage"], facts["feature_scale"]) == (stored.head.shrinkage, stored.head.feature_scale)
        assert stored.head.shrinkage != "auto" != stored.head.feature_scale
    assert made.saved.evaluation.metrics["top1"] == pytest.approx(run.accuracy, abs=0.15)


def test_validation_chooses_what_is_saved(mixed, tmp_path):
    """With the test results turned around, the same cell is saved."""
    given, made = mixed
    turned = replace(made, runs=tuple(replace(one, accuracy=1 - one.accuracy, nll=-one.nll) for one in made.runs))
    chosen = [sweep.recipe_of_best(given, one, tmp_path / "m") for one in (made, turned)]
    assert chosen[0] == chosen[1] and chosen[0].head.name == selected(made).cell.head
    assert chosen[0].split.file == tmp_path / "m" / "split.csv"


def test_folds_are_saved_with_the_first_as_the_test_part(stores, tmp_path):
    given = recipe_of(
        stores / "grouped",
        tmp_path / "s",
        sweep__folds=True,
        sweep__heads=["tied"],
        sweep__solvers=["closed"],
        sweep__n_seeds=1,
        sweep__explained_variance=[0.8],
    )
    made = sweep.run(given, save=tmp_path / "m")
    assert len(made.saved.evaluation.ids) == made.sweep.runs[0].tested == 60
    with pytest.raises(CannotWrite, match="another split"):
        (tmp_path / "m" / "split.csv").write_text("id,split\nx,train\n")
        sweep.recipe_of_best(given, made.sweep, tmp_path / "m")


def test_a_model_is_not_saved_over_its_sweep_or_its_data(recipe, tmp_path):
    given = recipe(tmp_path / "s", sweep__heads=["tied"])
    with pytest.raises(UsageError, match="is the folder of the sweep"):
        sweep.run(given, save=tmp_path / "s")
    data = recipe(tmp_path / "s", data__kind="folder", data__root=tmp_path / "photos")
    with pytest.raises(UsageError, match="holds the data"):
        sweep.run(data, save=tmp_path / "photos")
    assert not (tmp_path / "s").exists()
