"""The search of a training: the better setting is found, test photos are not looked at, a stopped search goes on."""

import json
import os
import subprocess
import sys

import pytest

from mixtura import files
from mixtura.cli.app import run as command
from mixtura.cli.page import training_writer
from mixtura.errors import RecipeError, UsageError
from mixtura.recipe import dump, load_recipe, load_stored_recipe, resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import fit, train

RATES = {"search.space": {"train.learning_rate": {"choices": [1e-9, 3e-3]}}, "search.trials": 3}
KEYS = {
    "encoder.name": "cnn",
    "encoder.size": 16,
    "encoder.filters": 4,
    "extract.workers": 0,
    "train.epochs": 2,
    "train.batch_size": 8,
}

DIES = """
import json, os, sys, torch
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import train
torch.set_num_threads(1)
seen = 0
def watch(progress):
    global seen
    if isinstance(progress, TrainingProgress):
        seen += 1
        if seen == 10:
            os.kill(os.getpid(), 9)
train.run(resolve(json.loads(sys.argv[1])), progress=watch)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory, two_colors):
    return two_colors(tmp_path_factory.mktemp("search") / "photos", 20)


def recipe_for(photos, output, **more):
    return resolve({"data.root": str(photos), "output": str(output)} | KEYS | RATES | more)


def steps(recipe):
    seen = []
    made = train.run(recipe, progress=lambda one: seen.append(one.done) if isinstance(one, TrainingProgress) else None)
    return made, len(seen)


def weights(folder):
    return (folder / "encoder.safetensors").read_bytes()


@pytest.fixture(scope="module")
def searched(photos):
    """A folder with the model of a search, and the trials."""
    output = photos.parent / "shop"
    shown = []
    made = train.run(recipe_for(photos, output), show=lambda one: (shown.append(one), training_writer(output)(one)))
    assert len(shown) >= 6
    best = min(made.course.trials, key=lambda one: one.value)
    assert made.course.trial == best.number  # the curves on the page are those of the network that is used
    assert [part.loss for part in made.course.parts] == [best.value]
    return output, made.course.trials


def test_the_better_of_two_known_settings_is_found(searched, photos, tmp_path):
    output, trials = searched
    assert len(trials) == 3
    rates = {one.settings["train.learning_rate"] for one in trials}
    assert rates == {1e-9, 3e-3}
    best = min(trials, key=lambda one: one.value)
    assert best.settings["train.learning_rate"] == 3e-3
    alone = train.run(recipe_for(photos, tmp_path / "alone", search=None, **{"train.learning_rate": 3e-3}))
    assert alone.training.epochs == 2
    assert weights(tmp_path / "alone") == weights(output)
    text = (output / "training.html").read_text()
    assert "Search" in text and f"Trial {best.number} is the best" in text


def test_the_same_command_again_trains_nothing_and_more_trials_add_to_it(searched, photos):
    output, trials = searched
    before = weights(output)
    made, seen = steps(recipe_for(photos, output))
    assert [(one.number, one.settings, one.value) for one in made.course.trials] == [
        (one.number, one.settings, one.value) for one in trials
    ]
    assert seen <= 1  # the one that tells where it goes on
    assert weights(output) == before


def test_a_search_that_is_killed_goes_on_where_it_was(searched, photos, tmp_path):
    output, trials = searched
    recipe = recipe_for(photos, tmp_path / "shop")
    given = {"data.root": str(photos), "output": str(tmp_path / "shop")} | KEYS | RATES
    done = subprocess.run(
        [sys.executable, "-c", DIES, json.dumps(given)], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -9
    made, _ = steps(recipe)
    assert {one.number: (one.settings, one.value) for one in made.course.trials} == {
        one.number: (one.settings, one.value) for one in trials
    }
    assert weights(tmp_path / "shop") == weights(output)


@pytest.mark.parametrize(
    "change",
    [
        {"search.space": {"train.learning_rate": {"choices": [1e-9, 1e-2]}}},
        {"search.metric": "validation_accuracy", "search.direction": "maximize"},
        {"train.weight_decay": 0.5},
        {"train.epochs": 3},
        {"train.patience": 1},
    ],
)
def test_another_search_is_refused(searched, photos, change):
    output, _ = searched
    before = weights(output)
    with pytest.raises(UsageError, match="--fresh"):
        train.run(recipe_for(photos, output, **change))
    assert weights(output) == before


def test_the_stored_recipe_is_that_of_the_search(searched):
    stored = load_stored_recipe(searched[0] / "recipe.yaml")
    assert stored.search is not None
    assert stored.search.space["train.learning_rate"].choices == (1e-9, 3e-3)
    with pytest.raises(UsageError, match="train"):
        fit.run(stored)


def test_a_recipe_survives_being_written(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "search:\n  metric: validation_accuracy\n  direction: maximize\n"
        "  train.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n  train.batch_size: {choices: [16, 32]}\n"
    )
    first = load_recipe(path)
    assert list(first.search.space) == ["train.learning_rate", "train.batch_size"]
    path.write_text(dump(first))
    assert load_recipe(path) == first


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"train.lerning_rate": {"choices": [1]}}, "Did you mean 'train.learning_rate'"),
        ({"train.learning_rate": {}}, "low and high, or choices"),
        ({"train.learning_rate": {"choices": []}}, "at least one choice"),
        ({"train.learning_rate": {"low": 1e-2, "high": 1e-3}}, "low below its high"),
        ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, "low above 0"),
        ({"train.learning_rate": {"low": 0.1, "high": 1, "choices": [1]}}, "not both"),
        ({"train.batch_size": {"low": 8.0, "high": 32.0}}, "train.batch_size"),
        ({"train.optimizer": {"choices": ["sgd", "lion"]}}, "train.optimizer"),
        ({"encoder.name": {"choices": ["cnn"]}}, "cannot vary 'encoder.name'"),
        ({"seed": {"choices": [1]}}, "there is no key 'search.seed'"),
        ({"train.minutes": {"choices": [1]}}, "cannot vary 'train.minutes'"),
        ({"train.norm": {"choices": ["frozen", "synced"]}}, "on GPUs only, not on cpu"),
        ({}, "nothing to search"),
        ({"metric": "validation_loss", "direction": "maximize", "train.ema": {"choices": [0.9]}}, "minimize"),
        ({"metric": "validation_accuracy", "train.ema": {"choices": [0.9]}}, "direction together"),
    ],
)
def test_what_cannot_be_searched_is_said_before_any_photo_is_read(tmp_path, search, said):
    with pytest.raises((UsageError, RecipeError), match=said):
        keys = {"data.root": tmp_path / "none", "output": tmp_path / "o", "encoder.device": "cpu"}
        train.run(resolve(keys | {"search": {"trials": 2} | search}))
    assert not (tmp_path / "o").exists()


def test_a_search_without_a_number_of_trials(tmp_path):
    keys = {"data.root": tmp_path / "none", "output": tmp_path / "o", "search.space": RATES["search.space"]}
    with pytest.raises(UsageError, match="--search N"):
        train.run(resolve(keys))


def test_the_command_names_the_page_and_prints_the_trials(searched, photos, capsys):
    output, _ = searched
    given = [f"--set={key}={json.dumps(value)}" for key, value in KEYS.items() if not key.startswith("encoder.name")]
    given.append(f"--set=search.space={json.dumps(RATES['search.space'])}")
    assert command(["train", str(photos), "-o", str(output), "--encoder", "cnn", "--search", "3", *given]) == 0
    said = capsys.readouterr().out
    assert "training.html" in said
    assert "train.learning_rate" in said
    assert [path.name for path in files.current(output).glob("training.html*")] == ["training.html"]


def test_no_epochs_train_nothing(photos, tmp_path):
    with pytest.raises(UsageError, match=r"train\.epochs is 0"):
        train.run(recipe_for(photos, tmp_path / "o", search=None, **{"train.epochs": 0}))
