"""Heads that are trained with the network, heads that are trained first, and rates that are found."""

import gzip
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mixtura
from mixtura.datasets import idx
from mixtura.errors import CheckpointError, UsageError
from mixtura.fitting import network, network_head
from mixtura.fitting.network import SHARES, train_part
from mixtura.fitting.network_material import Material
from mixtura.heads import HEADS
from mixtura.heads.gaussian import GaussianHead
from mixtura.pipeline import network_setup, training_photos
from mixtura.recipe import resolve
from mixtura.tasks import train
from mixtura.training.range_test import suitable_rate

SIDE, CLASSES, EACH = 16, 3, 40
KEYS = {
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "extract.workers": 0,
    "train.batch_size": 16,
    "train.head": "joint",
    "train.epochs": 1,
}
TINY = KEYS | {"encoder.name": "tiny", "encoder.size": 32, "fit.min_val_fraction": 0.5}
OPTIONS = {"random_projection": {"width": 64}}


def shoot(folder, each=EACH):
    """Photos of stripes, one direction a class."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for c in range(CLASSES):
        (folder / f"c{c}").mkdir(parents=True)
        for number in range(each):
            angle, phase = np.pi * c / CLASSES + rng.normal(0, 0.1), rng.uniform(0, 2 * np.pi)
            wave = np.sin(x * np.cos(angle) + y * np.sin(angle) + phase)
            pixels = 128 + 60 * wave[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 25, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"c{c}" / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return shoot(tmp_path_factory.mktemp("train") / "photos")


def recipe_for(root, output, keys=KEYS, **more):
    return resolve({"data.root": root, "output": output} | keys | more)


def material(root, head="full", keys=TINY, progress=None, **section):
    """What parts are trained with, of the encoder ``tiny`` or, drawn from a seed, of another one."""
    (root.parent / "split").mkdir(exist_ok=True)
    recipe = recipe_for(root, root.parent / "split", keys, **{"head.name": head})
    options = {"options": OPTIONS[head]} if head in OPTIONS else {}
    recipe = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=section),
            "head": recipe.head.model_copy(update=options),
        }
    )
    chosen = training_photos.of_dataset(recipe, train.factory.dataset_of(recipe.data))
    drawn = recipe.encoder.name != "tiny"
    encoder = train.factory.trainable_of(recipe.encoder, 0 if drawn else None)
    spec, start = network_head.head_spec(recipe, encoder.dimension), None
    if not drawn:
        pictures = [encoder.prepare(chosen.dataset.image(int(row))) for row in chosen.training]
        start = encoder.encode(torch.stack(pictures))
    return Material(recipe.train, encoder, chosen, start, 0, 0, progress, spec)


def forever():
    return math.inf


def of_last_commit(folder):
    """The hash of every tensor of a run as it ended."""
    last = max((folder / "checkpoints").iterdir(), key=lambda path: path.name)
    return last.name, hashlib.sha256((last / "state.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_is_the_last_layer(photos, tmp_path, head):
    """It begins fitted to the vectors, is trained with the last block, and is no worse than its start."""
    made = material(photos, head, learning_rate=0.01)
    first = made.classifier().head
    assert isinstance(first, network_head.find(HEADS, head))
    labels = torch.from_numpy(made.photos.labels[made.photos.training])
    assert (first.eval()(made.start).argmax(1) == labels).double().mean() > 0.5  # chance is a third
    found = train_part(made, "last", tmp_path / "run", forever)
    assert found.loss <= found.start_loss
    before, after = first.state_dict(), found.head
    if found.share:
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_drawn_network_has_a_fitted_head_too(photos):
    made = material(photos, "full", KEYS)
    state = torch.get_rng_state()
    one, other = made.classifier(), made.classifier()
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(one.head, GaussianHead)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.network.buffers(), made.encoder.network().buffers(), strict=True))


@pytest.mark.parametrize(("head", "part"), [("full", "all"), ("online", "last"), ("full", "head")])
def test_a_run_that_goes_on_ends_with_the_same_bits(photos, tmp_path, head, part):
    """Also where it stops before the head has met a batch of the network, and where the head learns by itself."""
    given = {"learning_rate": 0.01, "epochs": 2}
    whole = train_part(material(photos, head, **given), part, tmp_path / "whole", forever)
    steps = []

    def watch(progress):
        steps.append(progress.done)

    for stop in (2, 7):
        del steps[:]
        made = material(photos, head, progress=watch, **given)
        _stopped(made, part, tmp_path / "parts", steps, stop)
    again = train_part(material(photos, head, **given), part, tmp_path / "parts", forever)
    assert whole.share == again.share
    last = [of_last_commit(tmp_path / name) for name in ("whole", "parts")]
    assert last[0] == last[1]


def _stopped(made, part, folder, steps, stop):
    """Train until so many steps are done."""

    def left():
        return math.inf if max(steps, default=0) < stop else -math.inf

    train_part(made, part, folder, left)


def test_the_head_alone_leaves_the_network(photos, tmp_path):
    made = material(photos, learning_rate=0.01)
    found = train_part(made, "head", tmp_path / "run", forever)
    before, after = made.encoder.network().state_dict(), found.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.share in SHARES
    assert found.blocks == ()
    said = train.run(recipe_for(photos, tmp_path / "shop", TINY, **{"train.trainable": "head", "head.name": "full"}))
    assert not said.training.replaced
    assert said.training.part in ("head", "")


@pytest.mark.parametrize("kind", ["joint", "refit"])
def test_the_head_is_trained_first(photos, tmp_path, kind):
    """The part begins with the head that was trained alone; the incumbent is the start before that."""
    keys = TINY | {"train.head": kind, "train.unfreeze": 2, "train.trainable": "all", "head.name": "full"}
    train.run(recipe_for(photos, tmp_path / "shop", keys))
    lines = (tmp_path / "shop" / "training" / "head" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2]
    made = material(photos, learning_rate=0.01)
    alone = train_part(made, "head", tmp_path / "head", forever)
    moved = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in alone.head.items()}
    still = material(photos, learning_rate=1e-20)
    found = train_part(still, "all", tmp_path / "all", forever, moved)
    plain = train_part(still, "all", tmp_path / "plain", forever)
    assert found.start_loss == plain.start_loss
    assert found.log.epochs[-1].validation != plain.log.epochs[-1].validation


def searched(key, *choices):
    """Keys of a search over the values of a key."""
    return {"search.trials": 2, "search.space": {key: {"choices": list(choices)}}}


def test_what_cannot_be_trained_is_refused_before_any_photo(tmp_path):
    (tmp_path / "empty").mkdir()
    for more, words in (
        ({"head.name": "online", "train.unfreeze": 2}, "no parameter that a gradient trains"),
        ({"head.name": "online", "train.trainable": "head"}, "no parameter that a gradient trains"),
        ({"head.name": "softmax", "head.n_components": "auto"}, "cannot count its components"),
        ({"head.options": {"width": 4096, "projection": "orthogonal"}, "train.unfreeze": 1}, "project"),
        ({"train.unfreeze": 2, "train.trainable": "head"}, "trains nothing after it"),
        ({"head.name": "online"} | searched("train.unfreeze", 0, 2), "no parameter that a gradient trains"),
        ({"head.name": "online"} | searched("train.trainable", "all", "head"), "no parameter that a gradient trains"),
    ):
        with pytest.raises(UsageError, match=words):
            train.run(recipe_for(tmp_path / "empty", tmp_path / "shop", TINY, **more))
        assert not (tmp_path / "shop").exists()


def test_another_head_is_another_run(photos, tmp_path):
    train_part(material(photos, "full"), "last", tmp_path / "run", forever)
    with pytest.raises(CheckpointError, match="head"):
        train_part(material(photos, "diagonal"), "last", tmp_path / "run", forever)


def test_a_model_of_a_joint_run(photos, tmp_path):
    recipe = recipe_for(photos, tmp_path / "shop", KEYS, **{"head.name": "full", "train.epochs": 4})
    assert train.run(recipe).training.replaced
    assert mixtura.load(tmp_path / "shop").predict([photos / "c1" / "000.png"])[0].label in ("c0", "c1", "c2")


def test_the_range_test_changes_nothing(photos, tmp_path):
    """Neither the network to the bit, nor PyTorch's generator, nor a file; and it finds the same rate again."""
    made = material(photos, learning_rate="auto", epochs=1)
    run = network._Run(made, made.classifier(), "all")
    network_setup.prepare(run.classifier, "all", made.section, True)
    before = {name: tensor.clone() for name, tensor in run.classifier.state_dict().items()}
    state, found = torch.get_rng_state(), []
    for _ in range(2):
        found.append(run._settled_rate(None))
        run.section = made.section
    assert found[0] == found[1]
    assert 1e-7 <= found[0] <= 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in run.classifier.parameters())
    assert not list(tmp_path.iterdir())


def test_a_found_rate_is_said_kept_and_used(photos, tmp_path, monkeypatch):
    said = []
    made = material(photos, progress=lambda one: said.append(one.message), learning_rate="auto", epochs=2)
    _, plan = train_part(made, "last", tmp_path / "run", forever), tmp_path / "run" / network.PLAN_FILE
    rate = json.loads(plan.read_text())["learning_rate"]
    assert f"The learning rate is {rate:g}, by a range test." in said
    rates = [
        json.loads(line)["learning_rate"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert 0 < rates[0] <= rate
    monkeypatch.setattr(network, "suitable_rate", None)  # not asked again
    train_part(made, "last", tmp_path / "run", forever)
    with pytest.raises(CheckpointError, match="learning_rate"):
        train_part(material(photos, learning_rate=rate * 2, epochs=2), "last", tmp_path / "run", forever)


def test_a_run_that_keeps_fewer_epochs_than_asked_says_so(photos, tmp_path):
    said, kept = [], "This run keeps the 1 of 3 epochs that it was given first. For more, use --fresh."
    made = material(photos, progress=lambda one: said.append(one.message), epochs=3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / network.PLAN_FILE).write_text(json.dumps({"asked": 3, "epochs": 1}))
    assert len(train_part(made, "last", tmp_path / "run", forever).log.epochs) == 1
    assert kept in said
    said.clear()
    train_part(made, "last", tmp_path / "other", forever)
    assert not any("--fresh" in one for one in said)


@pytest.mark.parametrize("curvature", [1.0, 100.0])
def test_the_rate_is_below_where_gradient_descent_diverges(curvature):
    """On a quadratic whose minimum differs from batch to batch, that is 2 / curvature."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    trial = network.Setup(
        module,
        lambda net, batch: curvature * (net.weight - batch["x"]).square().mean() / 2,
        torch.optim.SGD(module.parameters(), lr=1.0),
        lambda epoch, first: iter([{"x": torch.tensor([[target]])} for target in (1.1, 0.9, 1.0, 1.2)]),
        4,
        lambda net: {"loss": 0.0},
    )
    rate = suitable_rate(trial, network_setup.settings_of(train.TrainSection(clip=0), 1, 0))
    assert 0.02 / curvature < rate < 1 / curvature


def test_a_joint_head_follows_the_network(photos, tmp_path):
    found = train_part(material(photos, "full", KEYS), "all", tmp_path / "run", forever)
    assert bool(found.head["joined"])


def test_the_recipe_for_mnist_runs(tmp_path, monkeypatch):
    """On few pictures in the layout of MNIST's files, pinned as the real ones are."""
    rng, pinned = np.random.default_rng(0), {}
    for (split, pair), count in zip(idx.MNIST.files.items(), (120, 30), strict=True):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = (rng.random((count, 28, 28)) * 60 + 19 * labels[:, None, None]).astype(np.uint8)
        files = []
        for file, values in zip(pair, (pictures, labels), strict=True):
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            data = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
            (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(data))
            files.append(idx.IdxFile(file.name, values.shape, hashlib.sha256(data).hexdigest()))
        pinned[split] = tuple(files)
    monkeypatch.setattr(idx, "MNIST", replace(idx.MNIST, files=pinned))
    given = {"data.root": tmp_path, "output": tmp_path / "gmml", "train.epochs": 1, "extract.workers": 0}
    made = train.run(resolve(given, Path(__file__).parents[2] / "recipes" / "gmml-mnist.yaml"))
    assert made.training.replaced
    assert made.training.part == "all"
