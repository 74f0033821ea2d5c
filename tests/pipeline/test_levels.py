"""Classes at the level of the superlabels: the labels below them change nothing that is learned."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mixtura.cli.app import run as command
from mixtura.datasets.items import Dataset, Item
from mixtura.errors import LabelError
from mixtura.features.store import FeatureStore
from mixtura.fitting.fit import validation_losses
from mixtura.model import bundle
from mixtura.pipeline import factory, training_photos, training_set
from mixtura.pipeline.levels import dataset_at, features_at
from mixtura.recipe import resolve
from mixtura.sections import EncoderSection
from mixtura.sweeps import grid
from mixtura.tasks import evaluate, extract, fit, train

SIDE, EACH = 16, 14
KINDS = {"round": ("apple", "plum"), "long": ("leek", "pod")}
COLORS = {"apple": (200, 60, 60), "plum": (110, 40, 120), "leek": (60, 160, 80), "pod": (40, 90, 30)}
KEYS = {"encoder.name": "tiny", "encoder.size": 32, "extract.workers": 0, "data.level": "superlabel"}


def listed(folder, name, swap=False):
    """A list of the photos of a folder; with ``swap``, labels are permuted within each superlabel."""
    rows = []
    for superlabel, kinds in KINDS.items():
        labels = [kind for kind in kinds for _ in range(EACH)]
        photos = [f"{kind}-{number}.png" for kind in kinds for number in range(EACH)]
        if swap:
            labels = [labels[i] for i in np.random.default_rng(1).permutation(len(labels))]
        rows += [(photo, label, superlabel) for photo, label in zip(photos, labels, strict=True)]
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "superclass"), *rows])
    return folder / name


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Two lists of the same photos, whose labels differ within the superlabels."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind, color in COLORS.items():
        for number in range(EACH):
            pixels = np.array(color) + rng.normal(0, 60, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{kind}-{number}.png")
    return listed(folder, "true.csv"), listed(folder, "swapped.csv", swap=True)


def same(first, second, name="model.safetensors"):
    ours, theirs = load_file(first / name), load_file(second / name)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def recipe(data, output, **keys):
    kind = "csv" if data.suffix == ".csv" else "features"
    return resolve({"data.kind": kind, "data.root": data, "output": output} | KEYS | keys)


@pytest.fixture(scope="module")
def model(lists):
    """The model of the superlabels, fitted to the true list."""
    return fit.run(recipe(lists[0], lists[0].parent / "model")).bundle_path


def test_the_labels_change_no_bit_of_a_fit(lists, model, tmp_path):
    swapped = fit.run(recipe(lists[1], tmp_path)).bundle_path
    assert bundle.from_pretrained(model).classes == ("long", "round")
    assert same(model, swapped)
    assert (model / "split.csv").read_bytes() == (swapped / "split.csv").read_bytes()
    assert FeatureStore.open(model / "features").read().classes == tuple(sorted(COLORS))  # kept, to measure by


def test_a_feature_store_gives_the_model_of_its_photos(lists, model, tmp_path):
    keys = {key: value for key, value in KEYS.items() if key != "data.level"}
    store = tmp_path / "store"
    extract.run(resolve({"data.kind": "csv", "data.root": lists[0], "output": tmp_path, "extract.store": store} | keys))
    made = fit.run(resolve({"data.kind": "features", "data.root": store, "output": tmp_path / "m", "data.level":
                            "superlabel", "split.file": model / "split.csv"}))  # fmt: skip
    assert same(model, made.bundle_path)


def test_the_labels_change_no_bit_of_a_trained_network(lists, tmp_path):
    made = []
    for place, data in zip(("true", "swapped"), lists, strict=True):
        keys = {"encoder.name": "cnn", "encoder.size": SIDE, "train.epochs": 2, "train.batch_size": 8}
        given = recipe(data, tmp_path / place, **keys, **{"fit.min_val_fraction": 0.3})
        made.append(train.run(given).fit.bundle_path)
        photos = training_photos.of_dataset(given, factory.dataset_of(given.data))
        labels = {item.id: item.label for item in factory.dataset_of(given.data).items}
        assert photos.classes == ("long", "round")
        assert photos.fine == tuple(labels[item.id] for item in photos.dataset.items)
    assert same(*made) and same(*made, name="encoder.safetensors")
    both = train.run(recipe(lists[1], tmp_path / "both", **keys, **{"fit.min_val_fraction": 0.3, "data.level": "both"}))
    assert same(made[0], both.fit.bundle_path, name="encoder.safetensors")  # the network learns classes alone
    assert bundle.from_pretrained(both.fit.bundle_path).subclasses.names == ("leek", "pod", "apple", "plum")


def test_losses_of_both_levels_are_those_of_the_classes(features):
    """Encoders are compared by how well they tell the classes: subclasses that are classes change no loss."""
    rng = np.random.default_rng(0)
    label = np.arange(240) % 4
    x = 4 * rng.standard_normal((4, 5))[label] + rng.standard_normal((240, 5))
    kinds, owners = [f"k{c}" for c in label], [f"c{c // 2}" for c in label]
    rows = features(x, kinds, split=["val" if i % 3 == 0 else "train" for i in range(240)], superlabel=owners)
    given, part = resolve({"data.root": "nowhere", "head.family": "tied"}), dict(zip(rows.id, rows.split, strict=True))
    above, both = (features_at(rows, level, "rows") for level in ("superlabel", "both"))
    alone = replace(both, sublabel=list(map(str, both.label)))
    encoder = EncoderSection(name="tiny", size=32, taps="none")
    found = [validation_losses(given, training_set.Gathered(one, encoder, ()), part) for one in (above, alone, both)]
    assert found[0] == found[1]
    assert found[2].keys() == found[0].keys() and max(found[2].values()) < np.log(2)


def test_a_sweep_sees_the_same_rows(lists, tmp_path):
    found = [grid.gathered(recipe(data, tmp_path / data.stem)) for data in lists]
    (ours, classes), (theirs, others) = found
    assert classes == others == ("long", "round")
    assert ours.label == theirs.label and ours.split == theirs.split
    assert set(ours.superlabel) == {None}


def test_other_data_are_measured_at_the_level_of_the_model(lists, model, tmp_path, capsys):
    section = resolve({"data.kind": "csv", "data.root": lists[1]}).data
    assert evaluate.run(model, section).metrics["top1"] >= 0.9
    plain = lists[0].parent / "plain.csv"
    text = lists[0].read_text()
    plain.write_text(text.replace("superclass", "kind").replace("label", "word").replace("kind", "label"))
    with pytest.raises(LabelError, match=r"None of the .* is of a class of the model"):
        evaluate.run(model, section.model_copy(update={"level": "label"}))
    said = command(["evaluate", str(model), str(plain), "--level", "superlabel"]), capsys.readouterr()
    assert said[0] == 65 and "56 of 56 labeled items have no superlabel" in said[1].err
    for level in ([], ["--level", "label"]):  # its labels are the model's classes
        assert command(["evaluate", str(model), str(plain), *level]) == 0


def test_a_missing_superlabel_is_one_sentence(features):
    items = [Item("a", "a.png", b"", "x", "X"), Item("b", "b.png", b"", "y"), Item("c", "c.png", b"", None)]
    with pytest.raises(LabelError, match=r"^few: 1 of 2 labeled items have no superlabel, the first 'b\.png', and"):
        dataset_at(Dataset("few", tuple(items)), "superlabel")
    rows = features(np.zeros((2, 3)), ["x", "y"], superlabel=[None, "Y"])
    with pytest.raises(LabelError, match=r"^rows: 1 of 2 .* use --level label\.$"):
        features_at(rows, "superlabel", "rows")


def test_an_item_without_a_label_is_of_its_superclass(features):
    rows = features_at(features(np.zeros((3, 2)), ["x", None, None], superlabel=["X", "Y", None]), "superlabel", "rows")
    assert rows.label == ["X", "Y", None]
    assert rows.superlabel == [None] * 3
