"""Training for hidden subclasses, from the folder to the model: what it finds, goes on, keeps apart, refuses."""

import csv
import hashlib
import json
import math
import os
import re
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from mixtura.catalog import create
from mixtura.catalog.subclasses import SUBLABEL_FILE
from mixtura.cli.app import run as command
from mixtura.coarse_sections import COARSE_KEYS, FINDS_SUBCLASSES, CoarseSection
from mixtura.datasets.episodes import Design
from mixtura.datasets.items import Dataset, Item
from mixtura.errors import BundleError, CheckpointError, UsageError
from mixtura.features.store import FeatureStore
from mixtura.fitting import network_subclasses
from mixtura.fitting.network_subclasses import HEADS, SubclassTraining, counts_of
from mixtura.metrics.clustering import adjusted_rand
from mixtura.model import bundle
from mixtura.objectives.angular import LOSSES
from mixtura.pipeline import training_set
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import fewshot, train
from mixtura.tasks.trained_subclasses import SUBCLASS_FILE, subclass_numbers
from mixtura.training.checkpoint import Checkpoints
from mixtura.training.kept_embedder import EMBEDDER_FILE, load_embedder
from mixtura.training.subclasses import AssignedRows, SubclassHead

SIDE, EACH, EPOCHS = 16, 30, 12
KINDS = {"a": ("a1", "a2"), "b": ("b1", "b2")}
COLOR = {"a1": (200, 60, 60), "a2": (60, 200, 60), "b1": (60, 60, 200), "b2": (190, 190, 60)}
CROPS = [{"name": "random_resized_crop", "probability": 1.0, "options": {"scale": [0.6, 1.0]}}]
KEYS = {
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "encoder.taps": "none",
    "encoder.filters": 2,
    "extract.workers": 0,
    "head.family": "spherical",
    "decision.score": "density",
    "split.fractions": [0.8, 0.1, 0.1],
    "train.objective": "scgm-g",
    "train.epochs": EPOCHS,
    "train.batch_size": 16,
    "train.learning_rate": 3e-3,
    "train.augment.views": ["horizontal_flip"],
    "coarse": {"subclasses": 4, "every": 3, "dimension": 8, "init": "kmeans", "warmup": 1},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of two kinds each; a kind is a color, in noise."""
    root, rng = tmp_path_factory.mktemp("kinds") / "photos", np.random.default_rng(0)
    for name, kinds in KINDS.items():
        (root / name).mkdir(parents=True)
        for kind in kinds:
            for place in range(EACH):
                pixels = np.array(COLOR[kind]) + rng.normal(0, 40, (SIDE, SIDE, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{kind}-{place:02}.png")
    return root


def recipe_for(root, output, **more):
    return resolve({"data.root": root, "data.kind": "folder", "output": output} | KEYS | more)


def epochs_of(folder):
    return [json.loads(line) for line in (folder / "training" / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module", params=FINDS_SUBCLASSES)
def objective(request):
    return request.param


@pytest.fixture(scope="module")
def trained(photos, objective):
    made = train.run(recipe_for(photos, photos.parent / objective, **{"train.objective": objective}))
    assert made.training.replaced
    assert "trained to tell subclasses apart: of 4, 4 are in use in 2 classes." in made.training.outcome
    return made.fit.bundle_path


def test_the_kinds_are_found_and_listed(trained):
    split = dict(line.split(",") for line in (trained / "split.csv").read_text().splitlines()[1:])
    rows = list(csv.DictReader((trained / "training" / SUBCLASS_FILE).read_text().splitlines()))
    assert {row["id"] for row in rows} == {id for id in split if split[id] != "test"}
    kind = [row["id"].partition("/")[2].partition("-")[0] for row in rows]
    found = [f"{row['class']}/{row['subclass']}" for row in rows]
    assert all(row["id"].startswith(row["class"]) for row in rows)
    true, own = (np.unique(names, return_inverse=True)[1] for names in (kind, found))
    assert adjusted_rand(true, own) > 0.9
    sizes = Counter(found)
    assert all(sizes[f"{name}/1"] == max(sizes[one] for one in sizes if one.startswith(name)) for name in KINDS)


def test_classes_own_the_subclasses_and_subclasses_the_components(trained):
    model = bundle.from_pretrained(trained)
    assert model.classes == ("a", "b") and model.subclasses is not None
    assert model.subclasses.names == ("a/1", "a/2", "b/1", "b/2")
    assert model.subclasses.class_parent.tolist() == [0, 0, 1, 1]


def test_the_terms_of_the_loss_are_logged_and_begin_after_the_warmup(trained):
    epochs = epochs_of(trained)
    assert len(epochs) == EPOCHS
    logged = [one["logged"] for one in epochs]
    assert all(one["subclass_loss"] == one["owner_loss"] == 0 for one in logged[:1])
    assert all(one["subclass_loss"] > 0 < one["owner_loss"] for one in logged[1:])
    for one in epochs:
        own = one["logged"]
        assert one["loss"] == pytest.approx(
            own["class_loss"] + own.get("contrast_loss", 0) + 0.5 * (own["subclass_loss"] + own["owner_loss"]), rel=1e-4
        )


def test_it_is_a_model_like_any_other(trained, photos, tmp_path):
    query = str(photos / "a" / "a1-00.png")
    for verb in (["predict", str(trained), query], ["export", str(trained), "-o", str(tmp_path / "onnx")]):
        assert command([*verb, "-q"]) == 0, verb


@pytest.fixture(scope="module", params=[3 * 6 + 2, 4 * 6], ids=["in an epoch", "before an assignment"])
def stopped(request, photos, objective):
    def watch(progress):
        if isinstance(progress, TrainingProgress) and progress.done == request.param:
            os.kill(os.getpid(), signal.SIGINT)

    folder = photos.parent / f"stopped{request.param}-{objective}"
    with pytest.raises(KeyboardInterrupt):
        train.run(recipe_for(photos, folder, **{"train.objective": objective}), progress=watch)
    return folder


def test_stopped_and_gone_on_to_the_bit_with_its_assignments(trained, photos, stopped, objective, tmp_path):
    shutil.copytree(stopped, tmp_path / "shop")
    train.run(recipe_for(photos, tmp_path / "shop", **{"train.objective": objective}))
    assert weights(tmp_path / "shop") == weights(trained)
    assert [one["loss"] for one in epochs_of(tmp_path / "shop")] == [one["loss"] for one in epochs_of(trained)]


def test_going_on_with_other_settings_of_subclasses_is_refused(photos, stopped, objective, tmp_path):
    shutil.copytree(stopped, tmp_path / "shop")
    with pytest.raises(CheckpointError, match=r"coarse\.every was"):
        train.run(recipe_for(photos, tmp_path / "shop", **{"coarse.every": 2, "train.objective": objective}))


@pytest.mark.parametrize(
    "more",
    [
        {"mask": True, "init": "random", "warmup": 0},
        *({"head": name, "losses": LOSSES} for name in HEADS),
        *({"queue": name, "metric": "norm", "losses": LOSSES, "soft": True} for name in ("single", "none")),
        {"assign": "steps", "losses": ("cls", "cst_by_subclass")},
        {"assign": "steps", "queue": "none"},
        {"normalize_head": False, "class_temperature": 0.5, "queue_size": 3, "contrast_temperature": 0.1},
        {"soft": True, "mixture_prior": True},
        {"mask": True, "soft": True, "subclasses": [3, 2]},
        {"strength": 0.5, "angular": True, "embedder": "mlp", "normalize": "both"},
        {"embedder": "none", "distill": {"weight": 0.3, "momentum": 0.9}, "select": "validation"},
    ],
    ids=str,
)
def test_every_option_runs(photos, tmp_path, more):
    angular = any(key in COARSE_KEYS["scgm-a"] - COARSE_KEYS["scgm-g"] for key in more)
    keys = {"train.objective": "scgm-a", "train.epochs": 2} if angular else {"train.epochs": 5}
    made = train.run(recipe_for(photos, tmp_path / "shop", **keys, coarse=KEYS["coarse"] | more))
    assert made.training.replaced
    assert all(np.isfinite(one["loss"]) for one in epochs_of(tmp_path / "shop"))


def test_the_number_of_subclasses_follows_from_the_kinds_of_the_encoder_as_it_is(photos, tmp_path):
    more = {"encoder.name": "tiny", "encoder.filters": None, "coarse.subclasses": None, "train.epochs": 2}
    told = []
    made = train.run(recipe_for(photos, tmp_path / "shop", **more), progress=told.append)
    assert made.training.replaced and made.training.gains[0].before is not None
    said = next(one.message for one in told if "kinds were found" in getattr(one, "message", ""))
    kinds, number = map(int, re.findall(r"\d+", said))
    assert kinds >= 2 and number == math.ceil(1.5 * kinds)


def test_assignments_see_no_random_view_and_leave_the_network_as_it_is(photos, tmp_path, monkeypatch):
    """Batch norms in evaluation mode, photos without views, every row; twice the same."""
    made = []
    before = SubclassTraining.before

    def twice(self, epoch):
        state = {name: tensor.clone() for name, tensor in self.classifier.state_dict().items()}
        means = state.pop("head.subclass_mean")
        before(self, epoch)
        first = self.assignment.assigned.clone()
        before(self, epoch)
        made.append(bool((first >= 0).all()))
        assert torch.equal(first, self.assignment.assigned) and self.classifier.training
        now = self.classifier.state_dict()
        assert all(torch.equal(now[name], tensor) for name, tensor in state.items())
        assert torch.equal(now["head.subclass_mean"], means) == (epoch != 1)  # where k-means gives the means

    monkeypatch.setattr(SubclassTraining, "before", twice)
    train.run(recipe_for(photos, tmp_path / "shop", **{"train.epochs": 5}))
    assert made == [False, True, True, True, True]


def test_photos_are_assigned_in_every_step_once_all_have_been(photos, tmp_path, monkeypatch):
    """Each step moves those of its batch alone, and shares them among the subclasses with the photos before them."""
    updates, whole = [], []
    update, before = AssignedRows.update, SubclassTraining.before

    def watch(self, assigned, rows):
        kept = self.assigned.clone()
        update(self, assigned, rows)
        others = torch.ones(len(kept), dtype=torch.bool)
        others[rows] = False
        assert torch.equal(kept[others], self.assigned[others]) and (self.assigned >= 0).all()
        updates.append(len(rows))

    monkeypatch.setattr(AssignedRows, "update", watch)
    monkeypatch.setattr(SubclassTraining, "before", lambda self, epoch: (whole.append(epoch), before(self, epoch)))
    keys = {"train.objective": "scgm-a", "train.epochs": 4, "coarse": KEYS["coarse"] | {"assign": "steps", "every": 1}}
    train.run(recipe_for(photos, tmp_path / "shop", **keys))
    assert whole == [0, 1] and sum(updates) == 3 * 96  # none in the epoch of the warmup, then each photo once an epoch
    made = list(csv.DictReader((tmp_path / "shop" / "training" / SUBCLASS_FILE).read_text().splitlines()))
    assert len({(row["class"], row["subclass"]) for row in made}) == 4


def test_forgetting_a_photo_is_exact(trained, tmp_path):
    """The means of the catalog follow from its items, each by the subclass that it was learned by."""
    shutil.copytree(trained, tmp_path / "shop")
    model = bundle.from_pretrained(tmp_path / "shop")
    rows = create.first_rows(tmp_path / "shop", model)
    assert rows.components is not None
    learned = np.array([split != "test" for split in rows.features.split], dtype=bool)
    assert (rows.components[learned] >= 0).all() and (rows.components[~learned] < 0).all()
    parts = model.projection(torch.from_numpy(rows.features.embedding))
    for component, mean in enumerate(model.mixture.mean):
        own = parts[(rows.components == component) & torch.from_numpy(learned)]
        assert torch.allclose(own.mean(0), mean, atol=1e-4)


def test_the_embedder_is_kept_and_few_shot_episodes_read_through_it(trained, photos, tmp_path, capsys):
    """Its embeddings are those of training; a changed byte, another folder and other vectors are told."""
    embedder, store = load_embedder(trained), FeatureStore.open(trained / "features").read()
    state = Checkpoints(trained / "training" / "checkpoints").newest()[0].tensors
    weight, bias = (state[f"module.head.embedder.{end}"] for end in ("weight", "bias"))
    x = torch.from_numpy(store.embedding)
    assert torch.allclose(embedder(x), x @ weight.T + bias, atol=1e-5)
    new = tmp_path / "new"
    for kind in ("a1", "a2"):
        shutil.copytree(
            photos / "a", new / kind, ignore=lambda _, names, kind=kind: [n for n in names if kind not in n]
        )
    made = []
    for tap in ("backbone", "embedder"):
        words = ["fewshot", str(trained), str(new), "--way", "2", "--query", "5", "--episodes", "20", "--tap", tap]
        assert command([*words, "--classifier", "prototype,gaussian", "--json", "-q"]) == 0
        made.append(json.loads(capsys.readouterr().out))
    assert [one["facts"]["tap"] for one in made] == ["backbone", "embedder"]
    assert made[0]["results"] != made[1]["results"]
    assert command(["fewshot", str(trained / "features"), "--tap", "embedder", "-q"]) == 2
    assert "no embedder" in capsys.readouterr().err
    shop = shutil.copytree(trained, tmp_path / "shop")
    content = bytearray((shop / EMBEDDER_FILE).read_bytes())
    content[-1] ^= 1
    (shop / EMBEDDER_FILE).write_bytes(content)
    assert command(["fewshot", str(shop), str(new), "--tap", "embedder", "-q"]) == 65


def test_a_damaged_table_of_subclasses_is_an_error(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "shop")
    (tmp_path / "shop" / SUBLABEL_FILE).write_text("[1]")
    with pytest.raises(BundleError, match="damaged"):
        create.first_rows(tmp_path / "shop", bundle.from_pretrained(tmp_path / "shop"))


def test_distillation_waits_for_subclasses_and_begins_at_the_same_means(photos, tmp_path, monkeypatch):
    seen = []
    taught = SubclassTraining._taught

    def watch(self, module, v, batch):
        slow = self.teacher.network
        seen.append(float((slow.head.subclass_mean - module.head.subclass_mean).detach().abs().max()))
        return taught(self, module, v, batch)

    monkeypatch.setattr(SubclassTraining, "_taught", watch)
    coarse = KEYS["coarse"] | {"distill": {"weight": 0.3, "momentum": 0.9}}
    train.run(recipe_for(photos, tmp_path / "shop", **{"train.epochs": 2, "coarse": coarse}))
    assert len(seen) == 6 and seen[0] == 0  # none in the epoch of the warmup


def test_photos_of_no_weight_make_no_subclass():
    items = [Item(id=str(n), source="", payload=b"", label="a", weight=float(n > 1)) for n in range(5)]
    data = Dataset("x", tuple(items))
    photos = TrainingPhotos(data, np.zeros(5, int), np.zeros(5, bool), ("a",), 0, 5, 0, (None,) * 5)
    assert subclass_numbers(photos, np.array([3, 1, 1, 2, 2])) == {"0": 1, "1": 2, "2": 2, "3": 1, "4": 1}


def test_class_posteriors_of_a_head_are_probabilities():
    head = SubclassHead(6, 3, 5, width=4, embedder="mlp")
    assert torch.allclose(head(torch.randn(7, 6)).exp().sum(1), torch.ones(7))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"train.objective": "conditional"}, r"'conditional' does not read coarse\.subclasses. Leave it out, or set"),
        ({"coarse": None}, r"scgm-g from scratch needs the number of subclasses. Set coarse\.subclasses"),
        ({"coarse.subclasses": 1}, r"coarse\.subclasses is 1, with 2 classes"),
        ({"coarse.subclasses": 10**6}, r"coarse\.subclasses is 1000000, with 2 classes and \d+ training photos"),
        ({"coarse.subclasses": [2, 2, 2], "coarse.mask": True}, "has 3 numbers for 2 classes"),
        (
            {"coarse.subclasses": [2, 99], "coarse.mask": True},
            r"asks for 99 subclasses of class 'b', which has \d+ ",
        ),
        ({"data.level": "both"}, "looks for kinds that have no labels, and --level both"),
        ({"train.head": "joint"}, "in place of a head"),
        ({"train.unfreeze": 1}, r"Leave out train\.unfreeze 1; for scgm-g, coarse\.warmup"),
        ({"train.trainable": "head"}, "'head' leaves nothing of it to train"),
        ({"train.patience": 2}, r"Leave out train\.patience 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence_and_leaves_nothing(photos, tmp_path, keys, said):
    with pytest.raises(UsageError, match=said):
        train.run(recipe_for(photos, tmp_path / "x", **keys))
    assert not (tmp_path / "x").exists()


def test_shares_that_do_not_fit_into_memory_are_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(network_subclasses, "SOFT_BYTES", 100)
    with pytest.raises(UsageError, match=r"Leave out coarse\.soft"):
        train.run(recipe_for(photos, tmp_path / "x", **{"coarse.soft": True}))


def test_assignments_that_have_not_converged_are_told_once(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(network_subclasses, "MAX_STEPS", 1)
    told, coarse = [], KEYS["coarse"] | {"every": 1, "init": "random", "warmup": 0}
    train.run(recipe_for(photos, tmp_path / "x", **{"train.epochs": 3, "coarse": coarse}), progress=told.append)
    said = [one.message for one in told if "of its target" in getattr(one, "message", "")]
    assert len(said) == 1 and re.search(r"a component's mass is off by [\d.e+]+% of its target, above 1%", said[0])


def test_classes_share_the_subclasses_by_their_size():
    labels = np.repeat([0, 1, 2], [70, 25, 5])
    assert counts_of(CoarseSection(subclasses=10), labels, 3) == (7, 2, 1)
    assert counts_of(CoarseSection(subclasses=[1, 4, 2], mask=True), labels, 3) == (1, 4, 2)


@pytest.mark.slow
def test_digits_learned_by_their_parity_come_apart(tmp_path):
    """One seed, 20 epochs: one shot of each digit of a parity, in vectors of both trainings."""
    digits, rng = load_digits(), np.random.default_rng(0)
    split = np.full(len(digits.target), "train", dtype="<U5")
    order = rng.permutation(len(split))
    split[order[:540]], split[order[540:640]] = "test", "val"
    pixels, names = (digits.images * 255 / 16).astype(np.uint8), np.array([f"digit {one}" for one in range(10)])
    parts = {"y": digits.target, "classes": names, "split": split}
    np.savez(tmp_path / "digits.npz", image=pixels, coarse=digits.target % 2, coarse_classes=["even", "odd"], **parts)
    keys = {key: value for key, value in KEYS.items() if key.startswith(("encoder.", "extract.", "head.", "decision."))}
    keys |= {"data.kind": "npz", "data.root": str(tmp_path / "digits.npz"), "data.level": "superlabel"}
    keys |= {"encoder.filters": 8, "train.epochs": 20, "train.batch_size": 64, "train.optimizer": "sgd"}
    keys |= {"train.learning_rate": 0.03, "train.weight_decay": 1e-4, "train.augment.views": CROPS}
    accuracy = {}
    for objective, more in {"conditional": {}, "scgm-g": {"coarse": {"subclasses": 20}}}.items():
        output = tmp_path / objective
        made = train.run(resolve(keys | more | {"output": str(output), "train.objective": objective}))
        assert made.fit.evaluation.metrics["top1"] > 0.97
        recipe, model = bundle.recipe_of(output), bundle.from_pretrained(output)
        data = recipe.data.model_copy(update={"level": "label"})
        vectors = training_set.stored(recipe.model_copy(update={"data": data}), model.identity).select_split("test")
        material = fewshot.of_features(vectors, "0", 0)
        listed = fewshot.drawn(material, "intra", Design(way=5, shot=1, query=15, episodes=200, seed=0))
        accuracy[objective] = fewshot.run(material, listed, ["cosine"]).results[0].mean
    assert accuracy["scgm-g"] > accuracy["conditional"] + 0.04
