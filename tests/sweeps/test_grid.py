"""The sweep: its draws, its grid, resuming, and that no test row is seen before the end."""

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mixtura import files
from mixtura.cli.lists import numbers_in
from mixtura.errors import CannotWrite, DataError, LabelError, UnknownName, UsageError
from mixtura.features.projection import PCA
from mixtura.features.store import FeatureStore
from mixtura.fitting import heads
from mixtura.metrics.calibration import ece, gaps
from mixtura.metrics.intervals import over_runs, share_interval, t_interval
from mixtura.metrics.replicates import summarize
from mixtura.recipe import resolve
from mixtura.records.sweep import DONE, FAILED, Run
from mixtura.sweeps import grid as sweep_grid
from mixtura.sweeps import jobs as sweep_jobs
from mixtura.sweeps import results
from mixtura.sweeps.cells import jobs_of
from mixtura.sweeps.grid import run, split_assignments
from mixtura.sweeps.jobs import TEST, TRAIN, VAL, Job, SplitAssignment, Table, Worker


def recipe(folder, **flags):
    base = {
        "data.kind": "digits",
        "encoder.name": "pixels",
        "output": folder,
        "sweep.heads": ["spherical", "tied"],
        "sweep.solvers": ["closed"],
        "sweep.explained_variance": [0.5, 0.9],
        "sweep.n_seeds": 2,
        "sweep.jobs": 1,
        "fit.epochs": 2,
    }
    return resolve(base | {key.replace("__", "."): value for key, value in flags.items()})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    grid = recipe(folder, sweep__heads=["spherical", "softmax", "sdgm-d"], sweep__solvers=["closed", "gradient"])
    return grid, run(grid)


def test_every_cell_has_its_runs(made):
    _, result = made
    assert len(result.runs) == 3 * 2 * 2 * 2 and {one.status for one in result.runs} == {DONE}
    assert all(0.5 < one.accuracy <= 1 and one.nll > 0 and one.parameters > 0 for one in result.runs)
    assert {(one.explained_variance, one.dimension) for one in result.runs if one.seed == 0} == {(0.5, 4), (0.9, 18)}
    kept = {summary.cell: summary for summary in summarize(result.runs)}
    own = [one.accuracy for one in result.runs if one.cell == result.runs[0].cell]
    assert kept[result.runs[0].cell].mean["accuracy"] == pytest.approx(np.mean(own))


def test_gradients_never_end_above_their_start_on_validation_rows(made):
    _, result = made
    loss = {(one.head, one.explained_variance, one.seed, one.solver): one.val_nll for one in result.runs}
    for head, explained, seed, solver in loss:
        if solver == "gradient" and head != "sdgm-d":
            assert loss[head, explained, seed, "gradient"] <= loss[head, explained, seed, "closed"] + 1e-3


def test_the_files_hold_the_same_runs(made):
    grid, result = made
    table = pq.read_table(grid.output / results.PARQUET_FILE).to_pydict()
    assert table["accuracy"] == [one.accuracy for one in result.runs]
    with (grid.output / results.CSV_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["nll"]) for row in rows] == pytest.approx([one.nll for one in result.runs])
    assert resolve({}, grid.output / results.RECIPE_FILE).sweep == grid.sweep


def test_a_second_run_computes_nothing_again_and_a_wider_grid_only_what_is_new(made, monkeypatch):
    grid, result = made
    done = []
    original = Worker.do
    monkeypatch.setattr(Worker, "do", lambda self, job: done.append(job) or original(self, job))
    assert run(grid).runs == result.runs or repr(run(grid).runs) == repr(result.runs)
    assert not done
    wider = grid.model_copy(update={"sweep": grid.sweep.model_copy(update={"explained_variance": (0.5, 0.8, 0.9)})})
    more = run(wider)
    assert {one for job in done for one in job.explained if len(job.explained) == 1} == {0.8}
    assert len(more.runs) == 3 * 2 * 3 * 2


def test_a_line_that_was_cut_off_is_computed_again(made):
    grid, result = made
    path = grid.output / results.RUNS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    again = run(grid)
    assert [(one.key, one.accuracy) for one in again.runs] == [(one.key, one.accuracy) for one in result.runs]


def test_another_recipe_does_not_mix_into_a_folder(made):
    grid, _ = made
    other = grid.model_copy(update={"fit": grid.fit.model_copy(update={"learning_rate": 0.5})})
    with pytest.raises(DataError, match="holds a sweep of other data or with other settings"):
        run(other)


@pytest.mark.parametrize("damage", [b"5\n", b'{"head": "linear"}\n', b"\xff\xfe\n", b"null\n"])
def test_damaged_lines_are_computed_again(made, damage):
    grid, result = made
    path = grid.output / results.RUNS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], damage, *lines[4:]]))
    again = run(grid)
    assert sorted(map(str, (one.key for one in again.runs))) == sorted(map(str, (one.key for one in result.runs)))
    path.write_bytes(lines[0][:20])
    with pytest.raises(DataError, match="holds a sweep of other data or with other settings"):
        run(grid)
    path.write_bytes(b"".join(lines))


def test_the_same_seed_gives_the_same_head_and_not_by_its_neighbors(tmp_path):
    sdgm = {"sweep__heads": ["sdgm-d"], "sweep__solvers": ["gradient"], "sweep__explained_variance": [0.5]}
    pruned = [run(recipe(tmp_path / name, **sdgm)).runs for name in ("a", "b")]
    assert [one.val_nll for one in pruned[0]] == [one.val_nll for one in pruned[1]]
    tied = {"sweep__heads": ["tied"], "sweep__solvers": ["gradient"], "sweep__explained_variance": [0.5]}
    both = run(recipe(tmp_path / "c", **tied)).runs
    alone = run(recipe(tmp_path / "d", **tied, sweep__n_seeds=1, seed=1))
    assert both[1].seed == alone.runs[0].seed == 1
    assert both[1].val_nll == pytest.approx(alone.runs[0].val_nll, abs=1e-5)


def test_a_grid_without_a_run_and_a_sweep_without_a_success_are_errors(tmp_path):
    with pytest.raises(UsageError, match="nothing to run"):
        run(recipe(tmp_path / "a", sweep__heads=["softmax"], sweep__n_components=[2]))
    with pytest.raises(DataError, match=r"None of the 4 runs could be fitted\. The first says: 500 components"):
        run(recipe(tmp_path / "b", sweep__heads=["tied"], sweep__n_components=[500]))


def test_processes_give_the_same_as_one(tmp_path, made):
    _, result = made
    several = recipe(
        tmp_path, sweep__heads=["spherical", "softmax"], sweep__solvers=["closed", "gradient"], sweep__jobs=2
    )
    expected = {one.key: one.accuracy for one in result.runs}
    got = run(several)
    assert {one.key: one.accuracy for one in got.runs} == pytest.approx(
        {key: value for key, value in expected.items() if key[0].head != "sdgm-d"}, abs=0.006
    )  # one thread adds in another order than two


def test_no_test_row_is_seen_before_the_end(tmp_path, monkeypatch):
    """Test rows replaced by nonsense change nothing but what is measured on them."""
    grid = recipe(tmp_path / "a", sweep__heads=["diagonal", "softmax"], sweep__solvers=["closed", "gradient"])
    plain = run(grid)
    original = sweep_grid.training_set.gather

    def spoiled(recipe, progress=None):
        gathered = original(recipe, progress)
        test = np.array([split == "test" for split in gathered.features.split])
        embedding = gathered.features.embedding.copy()
        embedding[test] = np.random.default_rng(0).normal(size=embedding[test].shape)
        return replace(gathered, features=replace(gathered.features, embedding=embedding))

    monkeypatch.setattr(sweep_grid.training_set, "gather", spoiled)
    other = run(grid.model_copy(update={"output": tmp_path / "b"}))
    for one, two in zip(plain.runs, other.runs, strict=True):
        same = ("dimension", "val_accuracy", "val_nll", "temperature", "epoch", "parameters")
        assert [getattr(one, name) for name in same] == [getattr(two, name) for name in same]
    assert max(two.accuracy for two in other.runs) < 0.4 < min(one.accuracy for one in plain.runs)


def test_draws_keep_groups_whole_and_classes_even(tmp_path):
    features = sweep_grid.training_set.gather(recipe(tmp_path)).features
    one, two = split_assignments(features, recipe(tmp_path))
    labels = features.label_index(features.classes)
    share = [np.mean(one.role[labels == c] == VAL) for c in range(10)]
    assert max(abs(value - 0.08) for value in share) < 0.02  # a tenth of the four fifths that learn
    assert (one.role == TEST).tolist() == (two.role == TEST).tolist() and (one.role != two.role).any()


def test_folds_are_groups_and_each_other_one_judges_under_one_seed_or_another(tmp_path):
    features = sweep_grid.training_set.gather(recipe(tmp_path)).features
    folded = replace(features, group=[f"fold {i % 5 + 1}" for i in range(len(features))])
    everything = split_assignments(folded, recipe(tmp_path, sweep__folds=True, sweep__n_seeds=4))
    draws = everything[:5]
    group = np.array(folded.group)
    assert [draw.fold for draw in draws] == [f"fold {i}" for i in range(1, 6)]
    for place, draw in enumerate(draws):
        assert set(group[draw.role == TEST]) == {draw.fold}
        assert set(group[draw.role == VAL]) == {draws[(place + 1) % 5].fold}
        assert len(set(group[draw.role == TRAIN])) == 3
        judges = {group[one.role == VAL][0] for one in everything if one.fold == draw.fold}
        assert len(judges) == 4 and draw.fold not in judges
    with pytest.raises(DataError, match=r"there are 2, and 0 of 1797 items have none"):
        split_assignments(
            replace(features, group=[str(i % 2) for i in range(len(features))]), recipe(tmp_path, sweep__folds=True)
        )


def test_few_groups_leave_some_to_judge_by_under_every_seed(tmp_path):
    features = sweep_grid.training_set.gather(recipe(tmp_path)).features
    group = [f"session {i % 4}" for i in range(len(features))]
    grouped = replace(features, group=group, split=["test" if one == "session 0" else "train" for one in group])
    for draw in split_assignments(grouped, recipe(tmp_path, sweep__n_seeds=8)):
        judges = {one for one, role in zip(group, draw.role, strict=True) if role == VAL}
        assert judges and judges < {"session 1", "session 2", "session 3"}


def test_of_folds_the_interval_is_over_folds_and_the_calibration_error_over_all_their_rows():
    rng = np.random.default_rng(0)
    of_seed, runs = {0: [], 1: []}, []
    for seed, (fold, count) in itertools.product(of_seed, {"a": 20, "b": 50, "c": 35}.items()):
        stated = rng.uniform(0.2, 1, count)
        right = rng.random(count) < stated
        of_seed[seed].append((stated, right))
        measured = {"accuracy": right.mean(), "ece": ece(stated, right), "tested": count}
        runs.append(Run("a", "closed", "", 0.5, 1, seed, fold, DONE, **measured, gaps=tuple(gaps(stated, right))))
    summary = summarize(runs)[0]
    together = [ece(*map(np.concatenate, zip(*parts, strict=True))) for parts in of_seed.values()]
    assert summary.mean["ece"] == pytest.approx(np.mean(together), abs=1e-12)
    folds = [np.mean([run.accuracy for run in runs if run.fold == fold]) for fold in "abc"]
    assert summary.interval["accuracy"] == share_interval(over_runs(folds), 105) and summary.test_chance
    assert (summary.mean["accuracy"], summary.half_width["accuracy"]) == pytest.approx(t_interval(folds), abs=0.01)
    assert summary.runs == 6


def test_nested_variances_equal_a_fit_of_each_alone(tmp_path):
    grid = recipe(
        tmp_path,
        sweep__heads=["diagonal", "tied", "full", "spherical", "lowrank"],
        sweep__explained_variance=[0.3, 0.8],
        sweep__n_seeds=1,
    )
    together = {one.key: one.accuracy for one in run(grid).runs}
    for explained in (0.3, 0.8):
        alone = recipe(
            tmp_path / str(explained),
            sweep__heads=["diagonal", "tied", "full", "spherical", "lowrank"],
            sweep__explained_variance=[explained],
            sweep__n_seeds=1,
        )
        for one in run(alone).runs:
            assert together[one.key] == pytest.approx(one.accuracy, abs=1e-9)


def test_one_component_heads_are_not_asked_for_more(tmp_path):
    jobs = jobs_of(recipe(tmp_path, sweep__heads=["softmax", "spherical"], sweep__n_components=[1, 2]), 1)
    assert {(job.name, job.n_components) for job in jobs} == {("softmax", 1), ("spherical", 1), ("spherical", 2)}
    assert jobs[0].explained[0] == 0.9


def test_what_cannot_be_fitted_is_a_run_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "MAX_BYTES", 20_000)
    result = run(recipe(tmp_path, sweep__heads=["full", "tied"], sweep__n_components=[1, 200]))
    notes = {
        (one.head, one.explained_variance, one.n_components): one.note for one in result.runs if one.status == FAILED
    }
    assert "takes about" in notes["full", 0.9, 1] and "bytes, more than 20,000" in notes["full", 0.9, 1]
    assert "200 components a class need 400 training rows in each" in notes["tied", 0.5, 200]
    assert all(one.status == DONE for one in result.runs if one.head == "tied" and one.n_components == 1)


def test_wrong_names_and_numbers_are_refused_before_any_photo_is_read(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'spherical'"):
        run(recipe(tmp_path, sweep__heads=["sperical"]))
    with pytest.raises(UsageError, match="'linear' has no density, which the objective 'hybrid' lowers"):
        run(recipe(tmp_path, sweep__heads=["softmax"], sweep__solvers=["gradient"], sweep__objectives=["hybrid"]))
    with pytest.raises(UsageError, match="Only the solver 'gradient' lowers the objective 'hybrid'"):
        run(recipe(tmp_path, sweep__objectives=["hybrid"]))
    for wrong in ([0, 0.5], [1.01], [-1]):
        with pytest.raises(UsageError, match=r"sweep\.explained_variance"):
            recipe(tmp_path, sweep__explained_variance=wrong)
    with pytest.raises(UsageError, match="no place for the results"):
        run(recipe(None))


def test_a_class_without_rows_to_learn_from_is_named(tmp_path):
    features = sweep_grid.training_set.gather(recipe(tmp_path)).features
    split = ["test" if label == "3" else own for label, own in zip(features.label, features.split, strict=True)]
    with pytest.raises(LabelError, match="Class '3' has no item to learn from"):
        split_assignments(replace(features, split=split), recipe(tmp_path))


def test_lists_of_numbers_are_read_as_people_write_them():
    assert numbers_in("5,10,...,100", "--explained-variance") == list(range(5, 101, 5))
    assert numbers_in("0.5, 1, ..., 2", "--explained-variance") == [0.5, 1, 1.5, 2]
    for wrong in ("5,...,100", "10,5,...,100", "5,x", "5,10,..."):
        with pytest.raises(UsageError, match="--explained-variance"):
            numbers_in(wrong, "--explained-variance")


def test_a_whitened_grid_has_unit_axes(tmp_path):
    grid = recipe(tmp_path, sweep__whiten_power=1)
    features = sweep_grid.training_set.gather(grid).features
    draws = split_assignments(features, grid)
    x = torch.from_numpy(features.embedding.astype(np.float32))
    axes = tuple(PCA.fit(x[torch.from_numpy(draw.role == TRAIN)], explained_variance=1.0) for draw in draws)
    from mixtura.sweeps.jobs import Table

    table = Table(x, torch.from_numpy(features.label_index(features.classes)), 10, draws, axes, 1.0)
    z, _, _ = table.rotated(0, 8, TRAIN)
    torch.testing.assert_close(z.var(0), torch.ones(8), rtol=1e-3, atol=1e-3)


def test_json_lines_are_plain(made):
    grid, _ = made
    lines = (grid.output / results.RUNS_FILE).read_text().splitlines()
    assert set(json.loads(lines[0])) == {"sweep"} and all(json.loads(line)["status"] == DONE for line in lines[1:])
    assert Job("a", "closed", "", 1, (0.05,), (0,)) == Job("a", "closed", "", 1, (0.05,), (0,))


def test_projections_that_learn_nothing_come_before_the_axes(tmp_path):
    made = run(recipe(tmp_path / "power", **{"projection": [{"name": "power", "power": 1.0}], "sweep.n_seeds": 1}))
    plain = run(recipe(tmp_path / "plain", **{"sweep.n_seeds": 1}))
    assert [one.accuracy for one in made.runs] == [one.accuracy for one in plain.runs]
    root = run(recipe(tmp_path / "root", **{"projection": [{"name": "power"}], "sweep.n_seeds": 1}))
    assert [one.val_nll for one in root.runs] != [one.val_nll for one in plain.runs]
    with pytest.raises(UsageError, match="'lda' learns from rows"):
        run(recipe(tmp_path / "lda", projection=[{"name": "lda"}]))


def test_a_folder_has_one_sweep_at_a_time_and_is_not_that_of_the_data(tmp_path):
    grid = recipe(tmp_path / "out")
    (tmp_path / "out").mkdir()
    with files.only_writer(tmp_path / "out"), pytest.raises(CannotWrite, match="another process"):
        run(grid)
    store = FeatureStore.create(tmp_path / "store", {"name": "tiny"}, dimension=2)
    before = sorted(path.name for path in store.path.iterdir())
    with pytest.raises(UsageError, match="holds the data"):
        run(recipe(store.path, data__kind="features", data__root=store.path))
    assert sorted(path.name for path in store.path.iterdir()) == before


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="Device 'banana' cannot be used"):
        run(recipe(tmp_path / "out", encoder__device="banana"))
    assert not (tmp_path / "out").exists()


def test_runs_of_other_groups_are_other_runs_and_a_file_without_runs_holds_none(tmp_path):
    grid = recipe(tmp_path)
    features = sweep_grid.training_set.gather(grid).features
    (tmp_path / results.RUNS_FILE).write_text('{"sweep": "of something that never ran"}\n')
    assert results.earlier(grid, features) == {}
    results.append(tmp_path / results.RUNS_FILE, [Run("a", "closed", "", 0.5, 1, 0, "", FAILED)])
    assert len(results.earlier(grid, features)) == 1
    other = replace(features, group=[str(i % 5) for i in range(len(features))])
    with pytest.raises(DataError, match="holds a sweep of other data"):
        results.earlier(grid, other)


@pytest.mark.parametrize(("name", "solver"), [("diagonal", "closed"), ("diagonal", "em"), ("diagonal", "gradient")])
def test_an_item_of_weight_two_counts_in_a_sweep_as_two_items(name, solver, tmp_path):
    """Also where worker processes read the table; rows that test count once."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    x = torch.randn(240, 6, generator=generator) + 2 * torch.randn(3, 6, generator=generator)[labels]
    role = np.array([TRAIN, TRAIN, VAL, TEST])[np.arange(240) // 3 % 4]
    weight = torch.where(torch.rand(240, generator=generator) < 0.5, 1.0, 2.0).double()
    weight[torch.from_numpy(role == TEST)] = 1.0
    again = torch.arange(240).repeat_interleave(weight.long())
    axes = (PCA.fit(x, explained_variance=1.0),)
    weighted = Table(x, labels, 3, (SplitAssignment(0, "", role),), axes, 0.0, weight=weight)
    often = Table(x[again], labels[again], 3, (SplitAssignment(0, "", role[again.numpy()]),), axes, 0.0)
    sweep_jobs.save(tmp_path, weighted)
    read = sweep_jobs.load(tmp_path, [(0, "")], 3, 0.0)
    kept = resolve({"fit.epochs": 3, "fit.batch_size": 10_000, "head.shrinkage": 0.1, "head.feature_scale": "none"})
    job = Job(name, solver, "conditional" if solver == "gradient" else "", 1, (0.9,), (0,))
    found = [Worker(table, kept.head, kept.fit).do(job)[0] for table in (often, weighted, read)]
    for one in found[1:]:
        for metric in ("accuracy", "nll", "val_accuracy", "val_nll", "temperature"):
            assert getattr(one, metric) == pytest.approx(getattr(found[0], metric), rel=2e-3), metric
    bare = Worker(replace(weighted, weight=None), kept.head, kept.fit).do(job)[0]
    assert bare.val_nll != pytest.approx(found[0].val_nll, rel=2e-3)
    assert [one.status for one in [*found, bare]] == [DONE] * 4


def test_a_head_that_cannot_heed_weights_says_so_in_a_sweep(tmp_path):
    x, labels = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    role = np.array([TRAIN, TRAIN, VAL, TEST])[np.arange(60) // 3 % 4]
    table = Table(x, labels, 3, (SplitAssignment(0, "", role),), (PCA.fit(x),), 0.0, weight=torch.arange(60).double())
    one = Worker(table, resolve({}).head, resolve({}).fit).do(Job("vmf", "closed", "", 1, (0.9,), (0,)))[0]
    assert one.status == FAILED and "weights" in one.note and "--solver gradient" in one.note


def test_a_draw_that_cannot_be_fitted_leaves_the_others_alone():
    """In the first draw a class has two rows to learn from, too few for two components."""
    x, labels = torch.randn(90, 4, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 3
    role = np.array([TRAIN, TRAIN, VAL, TEST])[np.arange(90) // 3 % 4]
    few = np.where((labels.numpy() == 0) & (role == TRAIN) & (np.arange(90) > 20), TEST, role)
    draws = (SplitAssignment(0, "", few), SplitAssignment(1, "", role))
    axes = tuple(PCA.fit(x[torch.from_numpy(draw.role == TRAIN)], explained_variance=1.0) for draw in draws)
    table = Table(x, labels, 3, draws, axes, 0.0)
    job = Job("diagonal", "em", "", 4, (1.0,), (0, 1))
    runs = Worker(table, resolve({}).head, resolve({}).fit).do(job)
    assert [one.status for one in runs] == [FAILED, DONE] and "components" in runs[0].note


def test_a_folder_that_holds_a_model_takes_no_sweep(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a model"):
        run(recipe(tmp_path))
