"""Training on two views of each photo, and below an embedder: from the folder to the model, stopped, and refused."""

import hashlib
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.cli.app import run as command
from mixtura.coarse_sections import COARSE_KEYS, CONTRASTS, FINDS_SUBCLASSES, CoarseSection
from mixtura.encoders.stages import Stages
from mixtura.errors import CheckpointError, UsageError
from mixtura.fitting.network_contrast import ContrastTraining
from mixtura.fitting.network_subclasses import HEADS
from mixtura.model import bundle
from mixtura.objectives import PAIR_OBJECTIVES, SUBCLASS_OBJECTIVES
from mixtura.objectives.angular import LOSSES
from mixtura.objectives.contrast import Keys
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import train
from mixtura.training.checkpoint import Checkpoints
from mixtura.training.embedding import EMBEDDERS, EmbeddingClassifier, EmbeddingHead
from mixtura.training_sections import TrainSection

SIDE, EACH, STEPS = 16, 12, 5
COLOR = {"a1": (200, 60, 60), "a2": (60, 200, 60), "b1": (60, 60, 200), "b2": (190, 190, 60)}
KEYS = {
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "encoder.taps": "none",
    "encoder.filters": 2,
    "extract.workers": 0,
    "head.family": "spherical",
    "decision.score": "density",
    "split.fractions": [0.7, 0.15, 0.15],
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.learning_rate": 3e-3,
    "train.augment.views": ["horizontal_flip", {"name": "color_jitter", "probability": 1.0}],
    "coarse.dimension": 8,
}
OBJECTIVES = ("conditional", *CONTRASTS)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of two kinds each; a kind is a color, in noise."""
    root, rng = tmp_path_factory.mktemp("views") / "photos", np.random.default_rng(0)
    for kind, color in COLOR.items():
        (root / kind[0]).mkdir(parents=True, exist_ok=True)
        for place in range(EACH):
            pixels = np.array(color) + rng.normal(0, 40, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / kind[0] / f"{kind}-{place:02}.png")
    return root


def recipe_for(root, output, objective, **more):
    keys = {"data.root": root, "data.kind": "folder", "output": output, "train.objective": objective}
    return resolve(keys | KEYS | more)


def epochs_of(folder):
    return [json.loads(line) for line in (folder / "training" / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()


def last_checkpoint(folder):
    found = Checkpoints(folder / "training" / "checkpoints").newest()[0]
    assert found is not None
    return found


def state_of(folder):
    return last_checkpoint(folder).tensors


@pytest.fixture(scope="module", params=OBJECTIVES)
def trained(request, photos):
    made = train.run(recipe_for(photos, photos.parent / request.param, request.param))
    assert made.training.replaced
    said = "kinds inside the classes come apart" if request.param in CONTRASTS else "trained from scratch"
    assert said in made.training.outcome
    return request.param, made.fit.bundle_path


def test_the_model_is_one_like_any_other_and_has_no_subclasses(trained, photos):
    _, folder = trained
    model = bundle.from_pretrained(folder)
    assert model.classes == ("a", "b") and model.subclasses is None
    assert command(["predict", str(folder), str(photos / "a" / "a1-00.png"), "-q"]) == 0


def test_losses_are_logged_and_the_last_epoch_is_kept(trained):
    objective, folder = trained
    epochs, newest = epochs_of(folder), last_checkpoint(folder)
    assert [one["number"] for one in epochs] == [1, 2] and all(np.isfinite(one["loss"]) for one in epochs)
    assert all(0 <= one["validation"]["raw"]["accuracy"] <= 1 for one in epochs)
    if objective in CONTRASTS:
        assert newest.values["best"]["raw"]["epoch"] == 2
    if objective == "ancor":
        for one in (epoch["logged"] for epoch in epochs):
            assert one["class_loss"] > 0 < one["contrast_loss"] and 0 <= one["accuracy"] <= 1


def test_the_queues_hold_the_last_keys_of_the_photos(trained):
    objective, folder = trained
    held = {name.rpartition(".")[2]: one for name, one in state_of(folder).items() if name.startswith("hook.queues.")}
    assert bool(held) == (objective in CONTRASTS)
    if held:
        rows, filled = held["row"], held["filled"].tolist()
        assert len(filled) == (2 if objective == "ancor" else 1) and sum(filled) == len(rows)
        assert sorted(rows.tolist()) == list(range(len(rows)))  # each photo once: one epoch
        assert torch.allclose(held["key"].norm(dim=1), torch.ones(len(rows)))


def test_stopped_and_gone_on_to_the_bit_with_its_queues(trained, photos, tmp_path):
    objective, folder = trained

    def watch(progress):
        if isinstance(progress, TrainingProgress) and progress.done == STEPS + 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train.run(recipe_for(photos, tmp_path / "shop", objective), progress=watch)
    stopped = shutil.copytree(tmp_path / "shop", tmp_path / "other")
    train.run(recipe_for(photos, tmp_path / "shop", objective))
    assert weights(tmp_path / "shop") == weights(folder)
    assert [one["loss"] for one in epochs_of(tmp_path / "shop")] == [one["loss"] for one in epochs_of(folder)]
    whole, again = state_of(folder), state_of(tmp_path / "shop")
    assert whole.keys() == again.keys() and all(torch.equal(one, again[name]) for name, one in whole.items())
    if objective in CONTRASTS:
        with pytest.raises(CheckpointError, match=r"coarse\.queue_size was"):
            train.run(recipe_for(photos, stopped, objective, **{"coarse.queue_size": 7}))


def test_steps_that_only_measure_time_leave_nothing_in_the_queues(photos, tmp_path):
    """With more time than it takes, the network is that without a limit."""
    for name, more in {"free": {}, "timed": {"train.minutes": 60}}.items():
        train.run(recipe_for(photos, tmp_path / name, "supcon", **more))
    assert weights(tmp_path / "free") == weights(tmp_path / "timed")


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("supcon", {"coarse.embedder": "none", "coarse.dimension": 128, "train.accumulate": 3}),
        ("supcon", {"train.augment.views": [], "coarse.select": "validation"}),
        ("ancor", {"coarse.embedder": "mlp", "coarse.queue_size": 3, "coarse.contrast_temperature": 0.5}),
        ("maskcon", {"coarse.target_weight": 1, "coarse.target_temperature": 0.2, "train.momentum_encoder": 0.9}),
        ("conditional", {"coarse.embedder": "mlp", "train.unfreeze": 1}),
    ],
    ids=str,
)
def test_every_option_runs(photos, tmp_path, objective, more):
    assert train.run(recipe_for(photos, tmp_path / "shop", objective, **{"train.epochs": 1} | more)).training.replaced
    assert all(np.isfinite(one["loss"]) for one in epochs_of(tmp_path / "shop"))


@pytest.mark.parametrize("part", ["last", "all"])
def test_a_network_with_weights_is_replaced_whatever_the_classes_say(photos, tmp_path, part):
    more = {"encoder.name": "tiny", "encoder.filters": None, "train.trainable": part, "train.epochs": 1}
    made = train.run(recipe_for(photos, tmp_path / "shop", "ancor", **more))
    assert made.training.replaced and made.training.share == 1.0 and made.training.gains[0].before is not None


def test_validation_photos_are_classified_by_the_mean_keys_of_the_classes():
    head = EmbeddingHead(2, 0, embedder="none")
    classifier = EmbeddingClassifier(torch.nn.Identity(), head, Stages((), (), (), ()))
    classifier.anchor = torch.nn.Parameter(torch.zeros(()))  # it has a device
    labels = np.array([0, 0, 1, 1])
    made = ContrastTraining.of(TrainSection(objective="supcon"), CoarseSection(), classifier, labels, 2)
    keys = torch.tensor([[1.0, 0.2], [1.0, -0.2], [0.2, 1.0], [-0.2, 1.0]])
    queues = made.keys.queues
    assert queues is not None
    queues.push(Keys(keys, torch.from_numpy(labels), torch.arange(4)))
    queues.after_step(1)
    classifier.embed = classifier.forward = lambda batch: batch["x"]
    batch = {"x": torch.tensor([[3.0, 0.0], [0.0, 0.5], [1.0, 1.0]]), "label": torch.tensor([0, 1, 1])}
    scores, own = made.scored(classifier, [batch])
    half = 0.5**0.5
    assert torch.allclose(scores, torch.tensor([[1, 0], [0, 1], [half, half]], dtype=torch.float64), atol=1e-6)
    assert torch.equal(own, batch["label"])


REFUSED = {
    "conditional reads no": ("conditional", {"coarse.every": 3}, r"does not read coarse\.every. Leave it out, or set"),
    "supcon": ("supcon", {"coarse.target_weight": 0.3}, r"coarse\.target_weight. Leave .* one that does: maskcon"),
    "scgm-g": (
        "scgm-g",
        {"coarse.queue_size": 9, "coarse.subclasses": 4},
        r"'scgm-g' does not read coarse\.queue_size",
    ),
    "prototypical": ("prototypical", {}, "'prototypical' does not read the section coarse. Leave it out"),
    "joint": ("conditional", {"train.head": "joint"}, "below a linear layer, not below train.head: joint"),
    "both": ("ancor", {"data.level": "both"}, "kinds that have no labels, and --level both"),
    "head": ("ancor", {"train.head": "joint"}, "embeddings in place of a head"),
    "unfreeze": ("maskcon", {"train.unfreeze": 1}, r"Leave out train\.unfreeze 1"),
    "trainable": ("supcon", {"train.trainable": "head"}, "leaves nothing of it to train"),
    "patience": ("supcon", {"train.patience": 2}, r"Leave out train\.patience 2"),
    "momentum": ("conditional", {"train.momentum_encoder": 0.9}, "compares no views"),
}


@pytest.mark.parametrize(("objective", "more", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence_and_leaves_nothing(photos, tmp_path, objective, more, said):
    with pytest.raises(UsageError, match=said):
        train.run(recipe_for(photos, tmp_path / "x", objective, **more))
    assert not (tmp_path / "x").exists()


def test_every_key_of_the_section_is_read_by_an_objective_and_those_of_two_views_are_in_the_table():
    assert set().union(*COARSE_KEYS.values()) == set(CoarseSection.model_fields)
    assert set(CONTRASTS) == set(PAIR_OBJECTIVES) <= set(COARSE_KEYS)
    assert set(FINDS_SUBCLASSES) == set(SUBCLASS_OBJECTIVES) <= set(COARSE_KEYS)
    for name in HEADS:
        assert CoarseSection(head=name).head == name
    for name in LOSSES:
        assert CoarseSection(losses=(name,)).losses == (name,)
    for name in ("seq", "fork", "cls"):
        with pytest.raises(ValueError, match="should have cls in losses"):
            CoarseSection(head=name, losses=("cst_two_class",))
    for name in EMBEDDERS:
        assert CoarseSection(embedder=name).embedder == name


def test_a_loss_that_is_not_finite_keeps_the_last_commit(photos, tmp_path):
    keys = ["train", str(photos), "-o", str(tmp_path / "o"), "--encoder", "cnn", "--size", "16", "-q"]
    more = ("train.objective=ancor", "train.optimizer=sgd", "train.clip=0", "extract.workers=0", "train.batch_size=8")
    words = [*keys, "--learning-rate", "1e30", *(word for one in more for word in ("--set", one))]
    assert command(words) == 65
    assert [path.name for path in (tmp_path / "o" / "training" / "checkpoints").iterdir()] == ["00000000"]
