"""Training of an encoder on photos, from the folder to answers; what stays, what is refused, what goes on."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import mixtura
from mixtura import files
from mixtura.catalog import Catalog
from mixtura.cli.app import run as command
from mixtura.encoders.own import Own, folder_of
from mixtura.errors import BundleError, CannotWrite, CheckpointError, NonFinite, UsageError
from mixtura.fitting.network import SHARES, train_part
from mixtura.fitting.network_material import Material
from mixtura.model import bundle
from mixtura.onnx import runner
from mixtura.pipeline import training_photos
from mixtura.recipe import load_stored_recipe, resolve
from mixtura.records.training import TrainingProgress
from mixtura.sweeps import grid
from mixtura.tasks import evaluate, export, train
from mixtura.training.activations import KeptViews
from mixtura.training.classifier import other_view
from mixtura.training.order import Order
from mixtura.training_sections import TrainSection

SIDE, CLASSES = 16, 3
SCRATCH = {
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "extract.workers": 0,
    "train.epochs": 8,
    "train.batch_size": 8,
    "train.learning_rate": 3e-3,
}
ENOUGH_TO_JUDGE = {"fit.min_val_fraction": 0.5}

DIES = """
import json, os, sys, torch
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import train
torch.set_num_threads(1)
step, number = int(sys.argv[2]), int(sys.argv[3])
def watch(progress):
    if isinstance(progress, TrainingProgress) and progress.done == step:
        os.kill(os.getpid(), number)
train.run(resolve(json.loads(sys.argv[1])), progress=watch)
"""


def stripes(rng, c):
    """A photo of class c: stripes of one direction, of any color and phase, under noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    angle = np.pi * c / CLASSES + rng.normal(0, 0.1)
    wave = np.sin(rng.uniform(0.8, 1.3) * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 2 * np.pi))
    pixels = 128 + 60 * wave[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 25, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shoot(folder, each, seed=0):
    """Photos in one folder a class."""
    rng = np.random.default_rng(seed)
    for c in range(CLASSES):
        (folder / f"c{c}").mkdir(parents=True, exist_ok=True)
        for number in range(each):
            stripes(rng, c).save(folder / f"c{c}" / f"{number:03}.png")
    return folder


def recipe_for(root, output, keys=SCRATCH, **more):
    return resolve({"data.root": root, "output": output} | keys | more)


def sha(folder):
    return hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return shoot(tmp_path_factory.mktemp("train") / "photos", 30)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return shoot(tmp_path_factory.mktemp("many") / "photos", 90)


@pytest.fixture(scope="module")
def trained(photos):
    """A folder with a model whose network was trained from scratch."""
    made = train.run(recipe_for(photos, photos.parent / "shop"))
    assert made.training.replaced
    return made.fit.bundle_path


@pytest.fixture
def shop(trained, tmp_path):
    """A copy of it elsewhere, while the original is away."""
    away = trained.with_name("away")
    trained.rename(away)
    yield shutil.copytree(away, tmp_path / "elsewhere")
    away.rename(trained)


def test_every_task_works_on_a_folder_that_was_moved(shop, photos):
    predictor = mixtura.load(shop)
    query = photos / "c1" / "000.png"
    before = predictor.predict([query])[0]
    assert before.label == "c1"
    assert folder_of(predictor.model.encoder.name) == shop
    catalog = Catalog.open(shop)
    new = [shop / f"{number}.png" for number in range(3)]
    rng = np.random.default_rng(5)
    for path in new:
        Image.fromarray(rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    assert command(["enroll", str(shop), "dark", *map(str, new)]) == 0
    assert "dark" in mixtura.load(shop).classes
    assert command(["remove", str(shop), "--product", "dark"]) == 0
    after = mixtura.load(shop).predict([query])[0]
    assert (after.label, after.probability, after.typicality) == (before.label, before.probability, before.typicality)
    measured = json.loads((shop / "metrics.json").read_text())
    assert evaluate.run(shop).metrics["top1"] == measured["metrics"]["top1"] > 0.7
    for verb in (["search", str(shop), str(query)], ["inspect", str(shop)], ["report", str(shop)]):
        assert command([*verb, "-q"]) == 0
    assert catalog.folder == shop


def test_exported_graphs_answer_as_the_model(trained, photos, tmp_path):
    made = export.run(trained, tmp_path / "onnx")
    assert made.difference <= 1e-4
    paths = [photos / f"c{c}" / "000.png" for c in range(CLASSES)]
    answers, decisions = runner.Runner(made.folder).photos(paths), mixtura.load(trained).predict(paths)
    assert [answer["label"] for answer in answers] == [decision.label for decision in decisions]
    found, expected = [answer["probability"] for answer in answers], [decision.probability for decision in decisions]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_changed_byte_is_told_before_any_answer(trained, photos, tmp_path):
    for name in ("encoder.safetensors", "encoder.json"):
        broken = shutil.copytree(trained, tmp_path / name)
        data = bytearray((broken / name).read_bytes())
        data[len(data) // 2] ^= 1
        (broken / name).write_bytes(bytes(data))
        for work in (mixtura.load, mixtura.from_pretrained, evaluate.run):
            with pytest.raises(BundleError) as caught:
                work(broken)
            assert caught.value.exit_code == 65
        assert command(["predict", str(broken), str(photos / "c1" / "000.png")]) == 65
    (broken / "encoder.safetensors").unlink()
    with pytest.raises(BundleError, match="missing"):
        mixtura.load(broken)


def test_a_model_takes_its_encoder_along(trained, photos, tmp_path):
    """Another fit on the trained encoder, and a saved copy, need the first folder no more."""
    other = mixtura.fit(photos, tmp_path / "other", {"encoder.name": f"own:{trained}"}).bundle_path
    mixtura.save_pretrained(mixtura.from_pretrained(trained), tmp_path / "copy")
    query = sorted(photos.rglob("*.png"))[::5]
    folders = (other, tmp_path / "copy")
    before = [[one.label for one in mixtura.load(folder).predict(query)] for folder in (other, trained)]
    away = trained.rename(trained.with_name("gone"))
    try:
        after = [[one.label for one in mixtura.load(folder).predict(query)] for folder in folders]
    finally:
        away.rename(trained)
    assert after == before


def test_the_stored_recipe_makes_the_same_encoder(trained, tmp_path):
    recipe = load_stored_recipe(trained / "recipe.yaml")
    assert recipe.encoder.name == "cnn"
    train.run(recipe.model_copy(update={"output": tmp_path / "again"}))
    assert sha(tmp_path / "again") == sha(trained)


def test_test_photos_are_never_looked_at(trained, photos, tmp_path):
    other, rng = shutil.copytree(photos, tmp_path / "photos"), np.random.default_rng(7)
    shutil.copyfile(trained / "split.csv", tmp_path / "split.csv")
    rows = [line.split(",") for line in (tmp_path / "split.csv").read_text().splitlines()[1:]]
    tested = [name for name, part in rows if part == "test"]
    assert len(tested) == 0.2 * len(rows)
    for name in tested:
        stripes(rng, 1).save(other / name)
    keys = SCRATCH | {"split.file": tmp_path / "split.csv"}
    train.run(recipe_for(other, tmp_path / "shop", keys))
    assert sha(tmp_path / "shop") == sha(trained)


def test_validation_photos_alone_set_the_limits(trained, photos):
    """The encoder has seen the others, which are more typical of their classes than later photos."""
    recipe = recipe_for(photos, trained)
    dataset = train.factory.dataset_of(recipe.data)
    chosen = training_photos.of_dataset(recipe, dataset)
    facts = mixtura.from_pretrained(trained).facts
    assert facts["held_out_items"] == len(chosen.validation) < len(chosen.training)
    assert facts["training_items"] == len(chosen.labels)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_stopped_and_gone_on(trained, photos, tmp_path, number, code):
    given = {"data.root": str(photos), "output": str(tmp_path / "shop")} | SCRATCH
    done = subprocess.run(
        [sys.executable, "-c", DIES, json.dumps(given), "19", str(int(number))],
        check=False, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code or number == signal.SIGTERM
    assert done.returncode
    assert not (tmp_path / "shop" / "config.json").exists()
    train.run(recipe_for(photos, tmp_path / "shop"))
    assert sha(tmp_path / "shop") == sha(trained)


def test_the_same_command_again_changes_nothing(trained, photos):
    before, steps = sha(trained), []

    def watch(progress):
        steps.extend([progress.done] if isinstance(progress, TrainingProgress) else [])

    train.run(recipe_for(photos, trained), progress=watch)
    assert sha(trained) == before
    assert len(set(steps)) <= 1


@pytest.mark.parametrize(("key", "value"), [("train.learning_rate", 1e-3), ("seed", 8), ("encoder.filters", 8)])
def test_another_recipe_is_refused_until_fresh(trained, photos, tmp_path, key, value):
    shop = shutil.copytree(trained, tmp_path / "shop")
    other = recipe_for(photos, shop, SCRATCH | {key: value})
    with pytest.raises(CheckpointError, match="--fresh"):
        train.run(other)
    assert sha(shop) == sha(trained)
    train.run(other, fresh=True)
    assert sha(shop) != sha(trained)
    assert (shop / "training-1" / "checkpoints").is_dir()


def test_other_photos_are_refused(trained, photos, tmp_path):
    shop, more = shutil.copytree(trained, tmp_path / "shop"), shutil.copytree(photos, tmp_path / "photos")
    stripes(np.random.default_rng(3), 0).save(more / "c0" / "new.png")
    with pytest.raises(CheckpointError, match="data was"):
        train.run(recipe_for(more, shop))


def test_one_run_a_folder(photos, tmp_path):
    (tmp_path / "shop").mkdir()
    with files.only_writer(tmp_path / "shop"), pytest.raises(CannotWrite) as caught:
        train.run(recipe_for(photos, tmp_path / "shop"))
    assert caught.value.exit_code == 73


def test_a_broken_photo_is_listed_and_left_out(photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    (some / "c1" / "005.png").write_bytes((some / "c1" / "005.png").read_bytes()[:90])
    for keys in (SCRATCH, {"encoder.name": "tiny", "train.trainable": "all", "train.epochs": 1}):
        made = train.run(recipe_for(some, tmp_path / keys["encoder.name"], keys))
        assert [problem.source for problem in made.fit.problems] == ["c1/005.png"]


def test_a_loss_that_is_not_finite(photos, tmp_path):
    keys = SCRATCH | {"train.optimizer": "sgd", "train.learning_rate": 1e30, "train.clip": 0}
    with pytest.raises(NonFinite, match="not finite in step") as caught:
        train.run(recipe_for(photos, tmp_path / "shop", keys))
    assert caught.value.exit_code == 65
    assert [path.name for path in (tmp_path / "shop" / "training" / "checkpoints").iterdir()] == ["00000000"]
    assert not (tmp_path / "shop" / "config.json").exists()


TINY = {"encoder.name": "tiny", "train.epochs": 2, "extract.workers": 0}


def test_too_few_validation_photos_stay_frozen(photos, tmp_path):
    made = train.run(recipe_for(photos, tmp_path / "shop", TINY))
    assert not made.training.replaced
    assert made.training.outcome.startswith("15 validation photos are too few")
    assert mixtura.load(tmp_path / "shop").model.encoder.name == "tiny"
    assert not (tmp_path / "shop" / "encoder.safetensors").exists()


@pytest.mark.parametrize("trainable", ["auto", "last", "norm", "all"])
def test_minutes_that_are_too_few_stay_frozen(many, tmp_path, trainable):
    keys = TINY | ENOUGH_TO_JUDGE | {"train.minutes": 1e-4, "train.trainable": trainable}
    made = train.run(recipe_for(many, tmp_path / "shop", keys))
    assert (
        made.training.outcome == "0.0001 minutes are too short for one epoch of training. The frozen encoder is kept."
    )
    assert mixtura.load(tmp_path / "shop").classes == ("c0", "c1", "c2")


def test_minutes_that_are_too_few_from_scratch(photos, tmp_path):
    with pytest.raises(UsageError, match="too short"):
        train.run(recipe_for(photos, tmp_path / "shop", SCRATCH | {"train.minutes": 1e-4}))


def test_a_network_that_is_not_better_leaves_the_frozen_one(many, tmp_path):
    keys = TINY | ENOUGH_TO_JUDGE | {"train.trainable": "all", "train.learning_rate": 1e-12}
    made = train.run(recipe_for(many, tmp_path / "shop", keys))
    assert not made.training.replaced
    assert "The frozen encoder is kept." in made.training.outcome
    assert mixtura.load(tmp_path / "shop").model.encoder.name == "tiny"


def test_auto_takes_what_validation_photos_prefer(many, tmp_path):
    """One filter bank of the small network is drawn at random; training makes it one of directions."""
    keys = TINY | ENOUGH_TO_JUDGE | {"train.epochs": 12, "train.learning_rate": 0.02, "train.layer_decay": 1.0}
    keys |= {"encoder.size": SIDE, "train.augment.views": []}
    made = train.run(recipe_for(many, tmp_path / "shop", keys))
    gains = {gain.name: gain for gain in made.training.gains}
    assert made.training.replaced
    assert made.training.part in ("last", "all")
    assert gains["nll"].after < gains["nll"].before
    assert isinstance(train.factory.encoder_of(mixtura.load(tmp_path / "shop").model.encoder), Own)
    assert {path.name for path in (tmp_path / "shop" / "training").iterdir()} == {
        "last",
        "all",
    }  # the model has the network


def material(many, **options):
    recipe = recipe_for(many, many.parent / "unused", TINY | ENOUGH_TO_JUDGE)
    dataset = train.factory.dataset_of(recipe.data)
    rows = np.arange(len(dataset)) % 10
    split = {item.id: "val" if row < 3 else "train" for item, row in zip(dataset.items, rows, strict=True)}
    groups = {item.id: row for row, item in enumerate(dataset.items)}
    chosen = training_photos._chosen(recipe, dataset, split, groups)
    encoder = train.factory.trainable_of(recipe.encoder)
    start = encoder.encode(torch.stack([encoder.prepare(chosen.dataset.image(int(row))) for row in chosen.training]))
    return Material(TrainSection(**options), encoder, chosen, start, 0, 0)


def test_kept_activations_are_those_of_the_views(many):
    """An epoch on kept activations has the scores of the whole network on the same views."""
    made = material(many)
    classifier, loader = made.classifier(), made.training
    first = len(classifier.stages) - 1
    assert first
    kept = KeptViews(loader, classifier.network, classifier.stages, first, 32)
    order, epoch = Order(0, len(made.photos.training), 20), 2
    classifier.eval()
    with torch.no_grad():
        for photos, below in zip(loader.batches(order, epoch), kept.batches(order, epoch), strict=True):
            classifier.first = 0
            whole = classifier(photos)
            classifier.first = first
            torch.testing.assert_close(classifier(below), whole, rtol=1e-5, atol=1e-4)
            assert torch.equal(photos["row"], below["row"])


def test_kept_activations_have_another_view_for_objectives_of_two(many):
    made = material(many)
    classifier, loader = made.classifier(), made.training
    loader.augmentation = replace(loader.augmentation, count=2)
    first = len(classifier.stages) - 1
    kept = KeptViews(loader, classifier.network, classifier.stages, first, 32)
    order = Order(0, len(made.photos.training), 20)
    seconds = set()
    for epoch in range(12):
        for batch in kept.batches(order, epoch):
            names = [name for name in batch if name.startswith("activation ")]
            again = other_view(batch)
            assert names and all(not torch.equal(again[name], batch[name]) for name in names)
            assert torch.equal(again["row"], batch["row"])
        seconds.add((epoch % 4, kept._second(epoch)))
    assert seconds == {(one, other) for one in range(4) for other in range(4) if one != other}


def test_two_views_stay_two_where_memory_has_room_for_one(many, monkeypatch):
    monkeypatch.setattr("mixtura.training.activations.MAX_BYTES", 1)
    made = material(many)
    classifier, loader = made.classifier(), made.training
    loader.augmentation = replace(loader.augmentation, count=2)
    first = len(classifier.stages) - 1
    kept = KeptViews(loader, classifier.network, classifier.stages, first, 32)
    for batch in kept.batches(Order(0, len(made.photos.training), 20), 0):
        again = other_view(batch)
        assert all(not torch.equal(again[name], batch[name]) for name in batch if name.startswith("activation "))


@pytest.mark.parametrize("part", ["last", "norm", "all"])
def test_only_the_part_changes_and_the_best_share_is_taken(many, tmp_path, part):
    made = material(many, epochs=1, learning_rate=0.01)
    if part == "norm":
        made = replace(made, encoder=train.factory.trainable_of(resolve({"encoder.name": "cnn"}).encoder, 0))
        made = replace(made, start=torch.randn(len(made.photos.training), made.encoder.dimension))
    network = made.encoder.network()
    found = train_part(made, part, tmp_path / "run", lambda: float("inf"))
    assert found.share in SHARES[1:]  # the start is compared later, by the models that follow
    before, after = dict(network.named_parameters()), dict(found.network.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if part == "last":
        assert not any(name.endswith("first") for name in changed)
    if part == "norm":
        assert all(before[name].dim() == 1 for name in changed)


@pytest.mark.parametrize(
    ("encoder", "words"), [("pixels", "no network"), ("logmel", "takes sounds"), ("cnn", "no weights of its own")]
)
def test_encoders_that_cannot_be_trained(photos, tmp_path, encoder, words):
    with pytest.raises(UsageError, match=words):
        train.run(recipe_for(photos, tmp_path / "shop", {"encoder.name": encoder, "train.start": "pretrained"}))
    assert not (tmp_path / "shop").exists()


def test_features_and_other_commands_refuse(trained, photos, tmp_path):
    with pytest.raises(UsageError, match="trained on photos"):
        train.run(resolve({"data.root": trained / "features", "data.kind": "features", "output": tmp_path / "x"}))
    for work in (mixtura.fit, grid.run):
        with pytest.raises(UsageError, match="Use mixtura train, or rename the section to 'fit'"):
            work(recipe_for(photos, tmp_path / "x", {"train.epochs": 3}))
    assert command(["fit", "-r", str(trained / "recipe.yaml"), "-o", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_the_command_says_what_was_gained(photos, tmp_path, capsys):
    given = [str(photos), "-o", str(tmp_path / "shop"), "--encoder", "cnn", "--size", str(SIDE), "--epochs", "1"]
    assert command(["train", *given, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["training"]["part"] == "all"
    assert record["training"]["gains"]["nll"]["after"] == pytest.approx(record["metrics"]["nll"])
    assert command(["train", *given]) == 0
    said = capsys.readouterr().out
    assert "Loss of the class" in said
    assert "trained from scratch" in said
    assert "`cnn`, trained further" in (tmp_path / "shop" / bundle.CARD_FILE).read_text()
