import json
import math
import sys

import numpy as np
import pytest
import torch

from mixtura.core.covariance import Prior
from mixtura.errors import CannotWrite, DataError, MissingExtra, UsageError
from mixtura.features.projection import PCA
from mixtura.heads.gaussian import GaussianHead
from mixtura.recipe import Recipe, resolve
from mixtura.sweeps.jobs import TEST, TRAIN, VAL, SplitAssignment, Table
from mixtura.sweeps.tuning import JOURNAL_FILE, SEARCH_SPACE, Options, Range, objective_for, run, search
from mixtura.training.head_stack import train
from mixtura.training.records import Hyperparameters, TrainingData

LINE = {"x": Range(-4.0, 4.0)}


def parabola(params, report):
    return (params["x"] - 1.0) ** 2


def test_it_comes_near_the_best_setting_in_both_directions():
    lowest = search(parabola, LINE, Options("nll", 40)).best
    highest = search(lambda params, report: -parabola(params, report), LINE, Options("accuracy", 40)).best
    assert abs(lowest.params["x"] - 1) < 0.3
    assert abs(highest.params["x"] - 1) < 0.3


def test_metric_and_direction_stand_beside_each_other():
    found = search(parabola, LINE, Options("accuracy", 3))
    assert (found.metric, found.better) == ("accuracy", "higher")
    assert found.best.value == max(trial.value for trial in found.trials)


def test_the_same_seed_tries_the_same_settings():
    one, other, third = (search(parabola, LINE, Options("nll", 15, seed)).trials for seed in (1, 1, 2))
    assert one == other
    assert one[0].params != third[0].params


def test_settings_keep_to_their_space():
    trials = search(lambda params, report: params["learning_rate"], SEARCH_SPACE, Options("nll", 30)).trials
    for trial in trials:
        assert set(trial.params) == set(SEARCH_SPACE)
        assert trial.params["explained_variance"] in SEARCH_SPACE["explained_variance"]
        assert type(trial.params["n_components"]) is int and 1 <= trial.params["n_components"] <= 8
        assert 1e-4 <= trial.params["learning_rate"] <= 3e-2


def test_a_search_goes_on_where_it_was_left(tmp_path):
    calls = []

    def judge(params, report):
        calls.append(params["x"])
        return parabola(params, report)

    first = search(judge, LINE, Options("nll", 6, folder=tmp_path))
    again = search(judge, LINE, Options("nll", 15, folder=tmp_path))
    assert again.trials[:6] == first.trials
    assert len(again.trials) == len(calls) == len(set(calls)) == 15
    assert search(judge, LINE, Options("nll", 15, folder=tmp_path)) == again
    assert len(calls) == 15


def test_an_interrupted_trial_is_not_counted(tmp_path):
    def stop(params, report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(stop, LINE, Options("nll", 3, folder=tmp_path))
    done = search(parabola, LINE, Options("nll", 3, folder=tmp_path))
    assert sum(trial.status == "done" for trial in done.trials) >= 2
    assert done.best is not None


def test_the_journal_is_plain_text(tmp_path):
    search(parabola, LINE, Options("nll", 2, folder=tmp_path))
    lines = (tmp_path / JOURNAL_FILE).read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize(
    ("space", "options", "name"),
    [(LINE, {"metric": "accuracy"}, "metric"), ({"x": (1, 2)}, {}, "space"), (LINE, {"about": "other rows"}, "about")],
)
def test_a_folder_holds_one_search_only(tmp_path, space, options, name):
    search(parabola, LINE, Options("nll", 1, folder=tmp_path))
    with pytest.raises(UsageError, match=f"holds a search with {name} "):
        search(parabola, space, Options(**({"metric": "nll", "trials": 2, "folder": tmp_path} | options)))


def test_failures_are_kept_with_their_reason_and_the_search_goes_on():
    def judge(params, report):
        if params["x"] < 0:
            raise DataError("Too few rows.")
        return math.nan if params["x"] < 1 else params["x"]

    found = search(judge, LINE, Options("nll", 20))
    failed = [trial for trial in found.trials if trial.status == "failed"]
    assert {trial.note for trial in failed} == {"Too few rows.", "The value was nan."}
    assert found.best.value >= 1
    nothing = search(lambda params, report: math.inf, LINE, Options("nll", 2))
    assert nothing.best is None


def test_an_error_that_nobody_expects_ends_the_search():
    def judge(params, report):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(judge, LINE, Options("nll", 2))


def test_poor_trials_end_early_when_asked():
    steps = []

    def judge(params, report):
        for step in range(10):
            value = parabola(params, report) + 1 / (step + 1)
            steps.append(step)
            if report(step, value):
                break
        return value

    pruned = search(judge, LINE, Options("nll", 20, prune=True))
    count = len(steps)
    assert {trial.status for trial in pruned.trials} == {"done", "pruned"}
    assert pruned.best.status == "done"
    whole = search(judge, LINE, Options("nll", 20))
    assert {trial.status for trial in whole.trials} == {"done"}
    assert count < len(steps) - count


def test_bad_requests_of_a_search_are_told(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="'speed' has no better side"):
        search(parabola, LINE, Options("speed"))
    with pytest.raises(UsageError, match="no setting"):
        search(parabola, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="Choose another folder"):
        search(parabola, LINE, Options("nll", 1, folder=tmp_path / "file" / "inner"))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mixtura\[sweep\]'"):
        search(parabola, LINE)


def crossed():
    """Two classes of two clusters each, which no line parts."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    side = (torch.arange(400) // 2 % 2) * 2.0 - 1.0
    center = torch.stack([torch.where(labels == 0, side * 3, 0.0), torch.where(labels == 1, side * 3, 0.0)], 1)
    return center + torch.randn(400, 2, generator=generator), labels


def test_it_finds_that_two_clusters_a_class_want_two_gaussians():
    x, labels = crossed()
    rows = TrainingData(x[:300], labels[:300], x[300:], labels[300:])

    def judge(params, report):
        prior = Prior(identity=params["shrinkage"])
        head = GaussianHead.from_rows(rows.x, rows.labels, 2, components=params["components"], prior=prior)
        made = train(
            [head],
            [rows],
            lambda head, x, y, weight: torch.nn.functional.nll_loss(head(x), y),
            Hyperparameters(params["epochs"], learning_rate=params["rate"]),
        )[0]
        return made.epochs[made.best].val_nll

    space = {"components": Range(1, 2), "shrinkage": (0.0, 0.1), "rate": Range(1e-3, 1e-2, log=True), "epochs": (0, 2)}
    found = search(judge, space, Options("nll", 8))
    assert found.best.params["components"] == 2
    ones = [trial.value for trial in found.trials if trial.params["components"] == 1]
    assert ones and found.best.value < 0.5 * min(ones)


def test_the_judge_of_a_sweep_is_blind_to_test_rows():
    x, labels = crossed()
    role = np.where(np.arange(400) < 250, TRAIN, np.where(np.arange(400) < 325, VAL, TEST))
    other = labels.clone()
    other[role == TEST] = 1 - other[role == TEST]
    space = {"n_components": Range(1, 3), "explained_variance": (0.5, 1.0), "epochs": (0, 1), "shrinkage": (0.0, 0.5)}
    found = []
    for own in (labels, other):
        draws = (SplitAssignment(0, "", role), SplitAssignment(1, "", role))
        table = Table(x, own, 2, draws, (PCA.fit(x[:250], explained_variance=1.0),) * 2, whiten_power=0.0)
        judge = objective_for(table, "spherical", "accuracy", Recipe())
        found.append(search(judge, space, Options("accuracy", 6, prune=True)))
    assert found[0].trials == found[1].trials
    assert found[0].best.params["n_components"] >= 2 and found[0].best.value > 0.9
    with pytest.raises(UsageError, match="'ece' is not measured"):
        objective_for(table, "spherical", "ece", Recipe())


def test_a_setting_that_cannot_be_fitted_is_a_failed_trial():
    x, labels = crossed()
    role = np.where(np.arange(400) < 8, TRAIN, np.where(np.arange(400) < 100, VAL, TEST))
    table = Table(
        x, labels, 2, (SplitAssignment(0, "", role),), (PCA.fit(x[:8], explained_variance=1.0),), whiten_power=0.0
    )
    found = search(objective_for(table, "diagonal", "nll", Recipe()), {"n_components": (50,)}, Options("nll", 1))
    assert found.best is None and "50" in found.trials[0].note


def searched(folder, trials=2, **flags):
    base = {"data.kind": "digits", "encoder.name": "pixels", "output": folder, "sweep.n_seeds": 1}
    return run(resolve(base | {key.replace("__", "."): value for key, value in flags.items()}), "linear", "nll", trials)


def test_what_is_not_searched_comes_from_the_recipe(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    x = torch.randn(300, 4, generator=generator) * torch.tensor([1.0, 1.0, 4.0, 4.0])
    x[torch.arange(300), labels] += 2
    role = np.where(np.arange(300) < 150, TRAIN, np.where(np.arange(300) < 225, VAL, TEST))
    table = Table(
        x, labels, 3, (SplitAssignment(0, "", role),), (PCA.fit(x[:150], explained_variance=1.0),), whiten_power=0.0
    )

    def loss(head="spherical", **flags):
        own = resolve({key.replace("__", "."): value for key, value in flags.items()})
        return objective_for(table, head, "nll", own)({"epochs": 40, "learning_rate": 0.03}, lambda *_: False)

    assert loss() < loss(fit__l2=1e6) - 0.01  # no step away from the start is worth its slopes
    assert loss() != loss(fit__batch_size=40)
    assert loss("diagonal", head__shrinkage=1.0) > loss("diagonal")
    with pytest.raises(UsageError, match="by the solver gradient, not closed"):
        searched(tmp_path / "c", sweep__solvers=["closed"])
    with pytest.raises(UsageError, match="one objective, not conditional, hybrid"):
        objective_for(table, "tied", "nll", resolve({"sweep.objectives": ["conditional", "hybrid"]}))


def test_a_search_is_not_gone_on_with_other_draws(tmp_path):
    searched(tmp_path)
    with pytest.raises(UsageError, match="1 draws"):
        searched(tmp_path, sweep__n_seeds=2)


def test_only_heads_that_shrink_search_a_shrinkage(tmp_path):
    assert "shrinkage" in searched(tmp_path, 1).trials[0].params
    vmf = run(resolve({"data.kind": "digits", "encoder.name": "pixels", "output": tmp_path}), "vmf", "nll", 1)
    assert "shrinkage" not in vmf.trials[0].params
