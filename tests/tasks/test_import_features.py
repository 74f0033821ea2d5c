"""Features made elsewhere become a store, from the command line on."""

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import mixtura
from mixtura.cli.app import run
from mixtura.datasets.items import Dataset, Item
from mixtura.errors import OutOfSpace, StoreError, UsageError
from mixtura.features.store import FeatureStore
from mixtura.pipeline import factory
from mixtura.sweeps import grid
from mixtura.sweeps.jobs import TEST as TEST_ROLE
from mixtura.tasks import import_features


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 3)).astype(np.float32), np.array(list("aabbcc"))


def test_npz_and_npy_give_the_same_rows(tmp_path, arrays):
    x, y = arrays
    np.savez(tmp_path / "f.npz", embedding=x, label=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    assert run(["data", "import", str(tmp_path / "f.npz"), "-o", str(tmp_path / "a")]) == 0
    labels = ["--labels", str(tmp_path / "y.npy")]
    assert run(["data", "import", str(tmp_path / "x.npy"), "-o", str(tmp_path / "b"), *labels]) == 0
    for name in "ab":
        features = FeatureStore.open(tmp_path / name).read()
        np.testing.assert_array_equal(features.embedding, x)
        assert features.label == y.tolist()


def test_dgmmc_folder(tmp_path, arrays):
    x, y = arrays
    folder = tmp_path / "Train"
    folder.mkdir()
    for row, vector in enumerate(x):
        torch.save(torch.from_numpy(vector.copy()), folder / f"{row}.pt")
    (tmp_path / "labels.txt").write_text("\n".join(y.tolist()) + "\n")
    store = import_features.run(folder, tmp_path / "store", "dgmmc", tmp_path / "labels.txt", "clip", "train")
    features = store.read()
    np.testing.assert_array_equal(features.embedding, x)
    assert features.label == y.tolist()
    assert set(features.split) == {"train"}
    assert features.identity["name"] == "imported:clip"


@pytest.mark.parametrize(
    ("layout", "words"),
    [(None, "--layout"), ("parket", "parquet"), ("dgmmc", "--labels")],
)
def test_a_layout_that_does_not_fit_is_named(tmp_path, layout, words):
    with pytest.raises(UsageError, match=words):
        import_features.run(tmp_path / "features", tmp_path / "store", layout)


def test_a_store_is_not_overwritten(tmp_path, arrays, capsys):
    x, y = arrays
    np.savez(tmp_path / "f.npz", embedding=x, label=y)
    arguments = ["data", "import", str(tmp_path / "f.npz"), "-o", str(tmp_path / "a")]
    assert run(arguments) == 0
    assert run(arguments) == 73
    assert "already holds features" in capsys.readouterr().err


def put_half(folder, vectors):
    folder.mkdir(parents=True)
    for row, vector in enumerate(vectors):
        torch.save(torch.tensor(vector, dtype=torch.float32), folder / f"{row}.pt")


@pytest.fixture
def blobs():
    """Three classes, far apart, in 40 training and 20 test rows: vectors and labels of each half."""
    rng = np.random.default_rng(1)
    mean = 8 * rng.standard_normal((3, 4))
    return {
        half: (mean[np.arange(n) % 3] + rng.standard_normal((n, 4)), np.array(list("abc"))[np.arange(n) % 3].tolist())
        for half, n in (("Train", 40), ("Test", 20))
    }


@pytest.fixture
def tree(tmp_path, blobs):
    """``Features/MYSET/CLIP`` with its two halves, and a text list beside each."""
    place = tmp_path / "Features" / "MYSET" / "CLIP"
    for half, (vectors, labels) in blobs.items():
        put_half(place / half, vectors)
        (place / f"{half.lower()}.txt").write_text("\n".join(labels) + "\n")
    return place


def halves_of(store):
    features = store.read()
    return {
        half: (features.select_split(split).embedding, features.select_split(split).label)
        for half, split in (("Train", "train"), ("Test", "test"))
    }


def assert_halves(store, blobs):
    found = halves_of(store)
    for half, (vectors, labels) in blobs.items():
        np.testing.assert_array_equal(found[half][0], vectors.astype(np.float32))
        assert found[half][1] == labels


def test_both_halves_in_one_command_with_their_splits(tmp_path, tree, blobs, capsys):
    assert run(["data", "import", str(tree), "-o", str(tmp_path / "s"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["items"], record["encoder"]) == ({"train": 40, "test": 20}, "imported:CLIP")
    assert_halves(FeatureStore.open(tmp_path / "s"), blobs)


def test_fit_sweep_and_evaluate_test_on_the_test_half_only(tmp_path, tree):
    store = import_features.run(tree, tmp_path / "s")
    test_ids = set(store.read().select_split("test").id)
    made = mixtura.fit(tmp_path / "s", tmp_path / "m", {"split.fractions": [0.6, 0.2, 0.2]})
    assert set(made.evaluation.ids) == test_ids
    assert set(mixtura.evaluate(tmp_path / "m").ids) == test_ids
    section = mixtura.resolve({"data.kind": "features", "data.root": str(tmp_path / "s")}).data
    assert set(mixtura.evaluate(tmp_path / "m", section).ids) == test_ids
    keys = {"sweep.heads": ["tied"], "sweep.solvers": ["closed"], "sweep.explained_variance": [1.0], "sweep.jobs": 1}
    recipe = mixtura.resolve(keys | {"data.root": str(tmp_path / "s"), "output": str(tmp_path / "sweep")})
    assert mixtura.sweep(recipe).facts["rows_tested"] == len(test_ids)
    features, _ = grid.gathered(factory.settled(recipe))
    for draw in grid.split_assignments(features, recipe):
        tested = np.flatnonzero(draw.role == TEST_ROLE)
        assert {features.id[row] for row in tested} == test_ids


def test_labels_from_wherever_dgmmc_has_them(tmp_path, tree, blobs, monkeypatch):
    texts = {half: (tree / f"{half.lower()}.txt") for half in blobs}
    lists = tmp_path / "lists"
    lists.mkdir()
    table = [f"{half}/{row},{label}" for half, (_, labels) in blobs.items() for row, label in enumerate(labels)]
    (lists / "both.csv").write_text("Filename,Label\n" + "\n".join(table) + "\n")
    fold = tmp_path / "fold_1"
    fold.mkdir()
    for half, (_, labels) in blobs.items():
        rows = [f"{row},{row}.pt,{label}" for row, label in enumerate(labels)]  # pandas writes an index before
        (fold / f"{half.lower()}_data.csv").write_text(",Filename,Label\n" + "\n".join(rows) + "\n")
    loader = types.ModuleType("setof")
    items = [Item(f"{half}{i}", "", b"", label, split=half.lower())
             for half, (_, labels) in blobs.items() for i, label in enumerate(labels)]  # fmt: skip
    loader.load = lambda root: Dataset("setof", tuple(items))
    monkeypatch.setitem(sys.modules, "setof", loader)
    for number, given in enumerate((None, tree, lists / "both.csv", fold, "setof:load")):
        labels = None if given is None else Path(given)
        assert_halves(import_features.run(tree, tmp_path / f"s{number}", None, labels), blobs)
    for half, path in texts.items():
        path.rename(tree / half / "labels.txt")
    assert_halves(import_features.run(tree, tmp_path / "inside"), blobs)


def test_one_folder_and_the_lists_of_a_fold(tmp_path, blobs):
    """ESC-50: all vectors in one folder, and which are tested is said by lists."""
    vectors = np.concatenate([x for x, _ in blobs.values()])
    put_half(tmp_path / "ESC" / "ImageBind", vectors)
    fold, first = tmp_path / "fold_1", 0
    fold.mkdir()
    for half, (_, labels) in blobs.items():
        rows = [f"{first + row},{label}" for row, label in enumerate(labels)]
        (fold / f"{half.lower()}_data.csv").write_text("Filename,Label\n" + "\n".join(rows) + "\n")
        first += len(labels)
    assert_halves(import_features.run(tmp_path / "ESC" / "ImageBind", tmp_path / "s", "dgmmc", fold), blobs)
    (fold / "test_data.csv").write_text("Filename,Label\n0,a\n")
    with pytest.raises(StoreError, match="occurs twice"):
        import_features.run(tmp_path / "ESC" / "ImageBind", tmp_path / "again", "dgmmc", fold)


def test_imagenet_is_tested_on_its_validation_half(tmp_path, tree, blobs):
    (tree / "Test").rename(tree / "val")
    (tree / "test.txt").rename(tree / "val.txt")
    with pytest.raises(UsageError, match="vectors without labels"):
        import_features.run(tree, tmp_path / "s")
    (tree / "val.txt").rename(tree / "test.txt")
    assert_halves(import_features.run(tree, tmp_path / "s"), blobs)


def _missing_half(tree):
    shutil.rmtree(tree / "Test")


def _other_dimension(tree):
    torch.save(torch.ones(7), tree / "Test" / "3.pt")


def _two_encoders(tree):
    shutil.copytree(tree, tree.parent / "ImageBind")


def _one_label_too_few(tree):
    (tree / "train.txt").write_text("a\nb\n")


def _unknown_class(tree):
    lines = (tree / "test.txt").read_text().splitlines()
    (tree / "test.txt").write_text("\n".join(["A", *lines[1:]]) + "\n")


def _no_lists(tree):
    (tree / "train.txt").unlink()


def _more_than_a_tensor(tree):
    torch.save({"a": torch.ones(4)}, tree / "Train" / "0.pt")


REFUSED = [
    (_missing_half, 66, "none in Test"),
    (_other_dimension, 65, "Train/0.pt holds 4 numbers and Test/3.pt holds 7 numbers"),
    (_two_encoders, 2, "CLIP and ImageBind. Name one of them"),
    (_one_label_too_few, 65, "holds 40 .pt files, and the list for train has 2 labels"),
    (_unknown_class, 65, "The class 'A' is in the test part and not in the training part. Spell it as there: 'a'."),
    (_no_lists, 2, "Add --labels"),
    (_more_than_a_tensor, 65, "0.pt"),
]


@pytest.mark.parametrize(("spoil", "code", "said"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_tree_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, tree, capsys, spoil, code, said):
    spoil(tree)
    source = tree.parent if spoil is _two_encoders else tree
    before = sorted(tmp_path.rglob("*"))
    assert run(["data", "import", str(source), "-o", str(tmp_path / "new" / "store")]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_no_half_of_a_store(tmp_path, tree, monkeypatch):
    def full(*arguments):
        raise OutOfSpace("The disk is full.")

    monkeypatch.setattr(FeatureStore, "append", full)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "note").touch()
    for place in (tmp_path / "new" / "store", tmp_path / "kept"):
        with pytest.raises(OutOfSpace):
            import_features.run(tree, place)
    assert not (tmp_path / "new").exists() and [one.name for one in (tmp_path / "kept").iterdir()] == ["note"]


def test_what_is_left_out_or_not_tested_is_said(tmp_path, tree, blobs):
    rows = [f"{row},{label}" for row, label in enumerate(blobs["Test"][1]) if label != "c"]
    (tree / "test.txt").unlink()
    (tree / "test.csv").write_text("Filename,Label\n" + "\n".join(rows) + "\n")
    said = []
    store = import_features.run(tree, tmp_path / "s", note=said.append)
    assert len(store.read()) == 40 + len(rows)
    assert f"{20 - len(rows)} files of {tree / 'Test'} without a label in the list: left out." in said
    assert "1 class without a test item, the first is 'c'." in said


def test_split_is_for_one_half(tmp_path, tree):
    with pytest.raises(UsageError, match="Leave out --split train"):
        import_features.run(tree, tmp_path / "s", split="train")


@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", [("Filename", "Label"), ("Label", "Filename"), ("file_name", "label")])
def test_a_list_of_labels_may_be_a_spreadsheets(tmp_path, between, encoding, header):
    put_half(tmp_path / "vectors", [[0.0, 1.0], [2.0, 3.0]])
    rows = [("1.pt", "päar"), ("0", "apple")]
    lines = [between.join(header), *(between.join(row if header[0].lower() != "label" else row[::-1]) for row in rows)]
    (tmp_path / "list.csv").write_text("\r\n".join([*lines, between, ""]), encoding=encoding)
    made = import_features.run(tmp_path / "vectors", tmp_path / "store", "dgmmc", tmp_path / "list.csv").read()
    assert dict(zip(made.id, made.label, strict=True)) == {"vectors/1": "päar", "vectors/0": "apple"}
    assert made.embedding.tolist() == [[2.0, 3.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [("Filename,Label\n", "has no labels"), ("Filename;Label", "has no labels"), ("label\n", "has no labels"),
     ("", "has no labels"),
     ("Filename,class\n0,a\n", "has one of the columns"), ("Filename,Label\n0,\n", "without one"),
     ("Filename,Label\n0,\"a\n", "are no CSV file")],
)  # fmt: skip
def test_a_list_without_labels_is_told_to_be_so(tmp_path, capsys, text, said):
    put_half(tmp_path / "vectors", [[0.0, 1.0]])
    (tmp_path / "list.csv").write_text(text)
    arguments = [str(tmp_path / "vectors"), "--layout", "dgmmc", "--labels", str(tmp_path / "list.csv")]
    assert run(["data", "import", *arguments, "-o", str(tmp_path / "store")]) == 65
    assert said in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_column_of_labels_may_have_a_title(tmp_path):
    put_half(tmp_path / "vectors", [[0.0, 1.0], [2.0, 3.0]])
    (tmp_path / "list.csv").write_text("Label\na, b\nc\n")
    made = import_features.run(tmp_path / "vectors", tmp_path / "store", "dgmmc", tmp_path / "list.csv").read()
    assert made.label == ["a, b", "c"]


def test_the_other_half_is_not_left_out_in_silence(tmp_path, blobs, capsys):
    place = tmp_path / "CLIP"
    for half, (x, _) in blobs.items():
        put_half(place / half, x)
    for name, half in (("train", "Train"), ("test", "Test")):
        (tmp_path / f"{name}.txt").write_text("\n".join(blobs[half][1]))
    one = [str(place / "Train"), "--layout", "dgmmc", "--labels", str(tmp_path / "train.txt")]
    assert run(["data", "import", *one, "-o", str(tmp_path / "a"), "--json"]) == 0
    note = json.loads(capsys.readouterr().out)["notes"][0]
    assert "Test beside it is left out" in note and f"mixtura data import {place}" in note
    assert run(["data", "import", *one, "-o", str(tmp_path / "b"), "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
    both = [str(place / "Train"), "--layout", "dgmmc", "--labels", str(tmp_path)]
    assert run(["data", "import", *both, "-o", str(tmp_path / "c")]) == 2
    assert "is one half" in capsys.readouterr().err
