"""Training by episodes, from the folder to episodes of new classes; what is kept apart, goes on, is refused."""

import hashlib
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

import mixtura
from mixtura import names
from mixtura.cli.app import run as command
from mixtura.datasets import duplicates, episodes
from mixtura.datasets.items import Dataset
from mixtura.errors import CheckpointError, LabelError, UsageError
from mixtura.fitting import network_episodes
from mixtura.fitting.network_episodes import VALIDATION_EPISODES, episodes_of
from mixtura.fitting.network_material import Material
from mixtura.names import Spellings
from mixtura.pipeline import factory, training_photos
from mixtura.pipeline.training_set import known_classes, labels_of
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.report.training import training_page
from mixtura.tasks import fewshot, train
from mixtura.tasks.training_search import NetworkSearch
from mixtura.training import distributed
from mixtura.training_sections import EpisodesSection

SIDE, EACH, CLASSES, STRANGERS = 16, 14, 8, 3
COUNT, EPOCHS = 6, 3
KEYS = {
    "data.unknown": ["new*"],
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "encoder.taps": "none",
    "encoder.filters": 2,
    "extract.workers": 0,
    "head.family": "spherical",
    "train.objective": "prototypical",
    "train.episodes": {"way": 3, "shot": 2, "query": 3, "count": COUNT, "held_out": 0.3},
    "train.epochs": EPOCHS,
    "train.batch_size": 16,
    "train.augment.views": ["horizontal_flip"],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A color and a direction of stripes a class, in noise; and classes that are for episodes only."""
    root, rng = tmp_path_factory.mktemp("prototypical") / "photos", np.random.default_rng(0)
    names = [f"c{number}" for number in range(CLASSES)] + [f"new{number}" for number in range(STRANGERS)]
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        color = rng.integers(60, 200, 3)
        wave = np.sin(np.arange(SIDE) * (1 + number % 3))
        stripes = (wave[:, None] if number % 2 else wave[None]) * np.ones((SIDE, SIDE))
        for place in range(EACH):
            pixels = color + 40 * stripes[..., None] + rng.normal(0, 30, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{place:02}.png")
    return root


def recipe_for(root, output, **more):
    return resolve({"data.root": root, "data.kind": "folder", "output": output} | KEYS | more)


def epochs_of(folder):
    return [json.loads(line) for line in (folder / "training" / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(photos):
    made = train.run(recipe_for(photos, photos.parent / "shop"))
    assert made.training.replaced and made.training.part == "all"
    assert (
        "On 100 others, of 2 classes that it was not trained on, the loss at its best temperature is"
        in made.training.outcome
    )
    assert "(2-way, 2-shot)" in made.training.outcome
    assert "by episodes of classes that are not trained on" in training_page(made.course, "shop")
    return made.fit.bundle_path


def used_by(photos, **given):
    """The photos of the network, and its episodes; by the split that the recipe makes."""
    recipe = recipe_for(photos, photos.parent / "shop")
    chosen = training_photos.of_dataset(recipe, factory.dataset_of(recipe.data))
    return chosen, episodes_of(EpisodesSection(**(KEYS["train.episodes"] | given)), chosen, 0)


def test_classes_of_validation_are_neither_trained_on_nor_anywhere_else_in_training(trained, photos):
    chosen, made = used_by(photos)
    training, judging = ({*made.photos.labels[rows]} for rows in (made.photos.training, made.photos.validation))
    assert not training & judging and len(judging) == 2 and training | judging == {*range(CLASSES)}
    kept_apart = {chosen.dataset.items[row].id for row in chosen.validation}
    items = made.photos.dataset.items
    assert not kept_apart & {items[row].id for row in made.photos.training}
    ids = {item.id for item in chosen.dataset.items}
    assert {items[row].id for row in made.photos.validation} == {
        id for id in ids if chosen.classes.index(id.partition("/")[0]) in judging
    }
    test = {id for id, part in _split(trained).items() if part == "test"}
    assert not test & {item.id for item in items} and not any(id.startswith("new") for id in ids)
    assert len(made.validation) == VALIDATION_EPISODES
    labels = made.photos.labels[made.photos.validation]
    for one in made.validation.episodes:
        assert (labels[one.support] == labels[one.support[:, :1]]).all()
        assert len({*labels[one.query][:, 0]}) == one.way == 2


def _split(folder):
    return dict(line.split(",") for line in (folder / "split.csv").read_text().splitlines()[1:])


def test_a_step_is_an_episode_that_follows_from_seed_epoch_and_step(trained, photos):
    _, made = used_by(photos)
    labels = made.photos.labels[made.photos.training]
    assert made.order.steps == COUNT and made.order.count == len(labels)
    for epoch in range(2):
        rows, parts = made.order.rows(epoch), list(made.order.slices(2))
        for part, own in zip(parts, made.order.batches(epoch, 2), strict=True):
            assert np.array_equal(rows[part], own)
            assert len({*own}) == 15 and sorted(np.unique(labels[own], return_counts=True)[1]) == [5, 5, 5]
            assert np.array_equal(labels[own[:6]], labels[own[6:]][[0, 1, 3, 4, 6, 7]])
    drawn = [tuple(own) for epoch in range(4) for own in made.order.batches(epoch)]
    assert len({*drawn}) == len(drawn)
    again = used_by(photos)[1]
    assert np.array_equal(again.order.rows(3), made.order.rows(3))


def test_the_loss_falls_and_the_best_epoch_is_taken(trained):
    epochs = epochs_of(trained)
    assert len(epochs) == EPOCHS and epochs[-1]["loss"] < epochs[0]["loss"] and epochs[-1]["step"] == COUNT * EPOCHS
    assert all(0 <= one["logged"]["accuracy"] <= 1 for one in epochs)
    assert min(one["validation"]["raw"]["loss"] for one in epochs) < math.log(2)


def test_every_other_task_works_on_it(trained, photos, tmp_path):
    query = str(photos / "c0" / "00.png")
    assert mixtura.load(trained).model.classes == tuple(f"c{number}" for number in range(CLASSES))
    for verb in (
        ["predict", str(trained), query],
        ["enroll", str(trained), "one", *(str(photos / "new0" / f"{place:02}.png") for place in range(3))],
        ["export", str(trained), "-o", str(tmp_path / "onnx")],
        ["fewshot", str(trained), "--way", "3", "--episodes", "20", "--query", "5", "--classifier", "prototype"],
    ):
        assert command([*verb, "-q"]) == 0, verb
    material = fewshot.of_model(trained)
    assert material.novel.classes == tuple(f"new{number}" for number in range(STRANGERS))


STOP = COUNT + 2  # in the second epoch


@pytest.fixture(scope="module")
def stopped(photos):
    """The folder of a run that a signal has stopped in the middle of an epoch."""

    def watch(progress):
        if isinstance(progress, TrainingProgress) and progress.done == STOP:
            os.kill(os.getpid(), signal.SIGINT)

    folder = photos.parent / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train.run(recipe_for(photos, folder), progress=watch)
    return folder


def generations(folder):
    return sorted(path.name for path in (folder / "training" / "checkpoints").iterdir())


def test_stopped_in_an_epoch_and_gone_on_to_the_bit(trained, photos, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "shop")
    assert generations(tmp_path / "shop")[-1] == f"{STOP:08d}" and len(epochs_of(tmp_path / "shop")) == 1
    said = []
    train.run(recipe_for(photos, tmp_path / "shop"), progress=lambda one: said.append(getattr(one, "message", "")))
    assert f"Training goes on after step {STOP} of {COUNT * EPOCHS}." in said
    assert weights(tmp_path / "shop") == weights(trained)


def other_episodes(monkeypatch):
    """A generator that draws other episodes of the same seed, as another NumPy may."""
    drawn = episodes._episode
    monkeypatch.setattr(episodes, "_episode", lambda number, *rest: drawn(number + 1000, *rest))


def other_classes(monkeypatch):
    """A generator that holds out other classes of the same seed."""
    split = network_episodes.split_classes
    monkeypatch.setattr(network_episodes, "split_classes", lambda names, base, seed: split(names, base, seed + 1))


@pytest.mark.parametrize(("change", "said"), [(other_episodes, "episodes was"), (other_classes, "data was")])
def test_going_on_with_other_episodes_is_refused_and_changes_nothing(
    photos, stopped, tmp_path, monkeypatch, change, said
):
    shutil.copytree(stopped, tmp_path / "shop")
    change(monkeypatch)
    with pytest.raises(CheckpointError, match=said):
        train.run(recipe_for(photos, tmp_path / "shop"))
    assert generations(tmp_path / "shop") == generations(stopped)


def test_a_search_goes_on_with_the_same_episodes_only(photos, tmp_path, monkeypatch):
    recipe = recipe_for(photos, photos.parent / "shop", **{"search.trials": 2})
    chosen, _ = used_by(photos)
    encoder = factory.trainable_of(recipe.encoder, 0)

    def about(section):
        material = Material(section, encoder, chosen, None, 0, 0)
        own = recipe.model_copy(update={"train": section})
        return material.facts, NetworkSearch(own, tmp_path, float, lambda *_: ([], ""), print)._options(material).about

    plain = recipe.train.model_copy(update={"objective": "conditional", "episodes": None})
    facts, first = about(recipe.train)
    assert about(plain)[0] == {"data": chosen.digest}
    assert about(recipe.train) == (facts, first)
    other_episodes(monkeypatch)
    changed, second = about(recipe.train)
    assert changed["data"] == facts["data"] and changed["episodes"] != facts["episodes"] and second != first


@pytest.mark.parametrize(("rate", "part", "better"), [(1e-2, "all", True), (1e-2, "last", True), (1e-30, "all", False)])
def test_weights_that_exist_stay_unless_validation_episodes_gain(photos, tmp_path, rate, part, better):
    """The start is judged by the same episodes as what comes of it."""
    more = {"encoder.name": "tiny", "encoder.filters": None, "train.learning_rate": rate, "train.trainable": part}
    made = train.run(recipe_for(photos, tmp_path / "shop", **more))
    tried = made.course.parts[0]
    assert made.training.replaced == better and (tried.share > 0) == better
    assert tried.loss < tried.start_loss if better else tried.loss == tried.start_loss
    if better:
        assert (
            f"the loss at its best temperature went from {tried.start_loss:.3f} to {tried.loss:.3f} nats"
            in made.training.outcome
        )
        assert made.training.gains[0].before is not None
    else:
        assert "No training had a lower validation loss" in made.training.outcome


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"train.head": "joint"}, "Prototypes take the place of a head in training. Leave out train.head: joint"),
        ({"train.unfreeze": 2}, "Prototypical training has no head to train first. Leave out train.unfreeze 2"),
        ({"train.trainable": "frozen"}, "'frozen' leaves nothing of it to train. Use last, norm or all"),
        ({"train.trainable": "head"}, "'head' leaves nothing of it to train"),
        ({"train.accumulate": 2}, "cannot be split into parts. Leave out train.accumulate 2"),
        ({"train.balance": 0.5}, r"draw all classes alike. Leave out train.balance 0\.5"),
        ({"train.pixels": "l1"}, "'prototypical' compares no pixels"),
        ({"train.objective": "conditional"}, r"'conditional' draws no episodes. Leave out train\.episodes, or set"),
        ({"train.objective": "conditional", "train.episodes": None, "train.distance": "cosine"},
         r"draws no episodes. Leave out train\.distance, or set train\.objective=prototypical"),
        ({"search.space": {"train.episodes.way": {"choices": [2, 3]}}, "search.trials": 2},
         r"cannot vary 'train\.episodes\.way'"),
        ({"train.episodes.way": 7},
         r"2 of 8 classes are held out for validation \(train\.episodes\.held_out 0\.3\), which leaves 6 to train on, "
         r"and an episode needs 7 \(train\.episodes\.way\). Lower the way"),
        ({"train.episodes.query": 13},
         r"Class 'c0' has 14 photos in all, and an episode needs 2 \+ 13 \(train"),
        ({"train.episodes.query": 10},
         r"has \d+ photos to train on, and an episode needs 2 \+ 10 \(train\.episodes\.shot \+ query\) of each class"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence_and_leaves_nothing(photos, tmp_path, keys, said):
    recipe = resolve({"data.root": photos, "data.kind": "folder", "output": tmp_path / "x"} | KEYS | keys)
    with pytest.raises(UsageError, match=said):
        train.run(recipe)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("keys", [{"train.episodes.way": 7}, {"train.episodes.query": 13}])
@pytest.mark.parametrize("encoder", [{}, {"encoder.name": "tiny", "encoder.filters": None}])
def test_too_few_classes_or_photos_are_told_before_a_photo_is_read(photos, tmp_path, monkeypatch, keys, encoder):
    def read(*arguments, **options):
        raise AssertionError("a photo was read")

    monkeypatch.setattr(Dataset, "image", read)
    recipe = resolve({"data.root": photos, "data.kind": "folder", "output": tmp_path / "x"} | KEYS | keys | encoder)
    with pytest.raises(UsageError, match="an episode needs"):
        train.run(recipe)


def test_copies_are_looked_for_once(photos, tmp_path, monkeypatch):
    seen, one = [], duplicates.fingerprint
    monkeypatch.setattr(duplicates, "fingerprint", lambda image, digest: (seen.append(digest), one(image, digest))[1])
    with pytest.raises(UsageError, match=r"train\.epochs is 0"):
        train.run(recipe_for(photos, tmp_path / "x", **{"train.epochs": 0}))
    assert len(seen) == EACH * (CLASSES + STRANGERS)


def test_several_processes_are_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(UsageError, match=r"not divided among 2 processes. Train on episodes in one process"):
        train.run(recipe_for(photos, tmp_path / "x"))


def test_a_pattern_leaves_out_what_fits_it_and_a_class_of_that_name_comes_first():
    labels = ["a/1", "a/2", "b/1", "b[1]/2", "*"]
    assert labels_of(labels, ["a/*"]) == {"a/1", "a/2"} and labels_of(labels, ["b[1]*"]) == {"b[1]/2"}
    assert labels_of(labels, ["*"]) == {"*"} and known_classes(labels, ["b*"]) == ("a/1", "a/2", "*")
    with pytest.raises(LabelError, match=r"No item has the label 'c/\*'"):
        known_classes(labels, ["c/*"])


def test_only_the_star_of_a_pattern_is_special():
    flowers = ["pink-yellow dahlia?", "pink-yellow dahlias", "a pink-yellow dahlia?", "pink-yellow dahlia? [1]"]
    assert labels_of(flowers, ["pink-yellow dahlia?*"]) == {flowers[0], flowers[3]}
    assert labels_of(flowers, ["*? [1]"]) == {flowers[3]}
    assert labels_of(flowers, ["*dahlia?"]) == {flowers[0], flowers[2]}
    assert not labels_of(flowers, ["pink-yellow dahlia"]) and not labels_of(flowers, ["*[!x]"])


def test_names_to_leave_out_are_looked_up_in_one_table(monkeypatch):
    made = []
    monkeypatch.setattr(names, "Spellings", lambda known: made.append(1) or Spellings(known))
    labels = [f"n{number:04}" for number in range(50)]
    assert known_classes(labels, labels[2:]) == ("n0000", "n0001") and len(made) == 1
