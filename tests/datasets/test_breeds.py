"""BREEDS from a small tree and a small ImageNet of the official layouts, whole and damaged."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mixtura.cli.app import run
from mixtura.datasets import breeds
from mixtura.datasets.breeds import ROOT, Subset, Tree
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.features.store import FeatureStore
from mixtura.pipeline import factory
from mixtura.recipe import resolve

LIVING, CAT, DOG, FOX, THING, CAR = (f"n0000000{number}" for number in range(1, 7))
CLASSES = {CAT: 3, DOG: 5, FOX: 1, CAR: 4}
"""Superclass -> how many classes of ImageNet lie below it, some of them one step deeper."""

PETS = Subset(LIVING, 2, 2, 2)


def synsets(node):
    return [f"{node[:4]}{node[-1]}{place:04d}" for place in range(CLASSES[node])]


def edges():
    yield from ((ROOT, LIVING), (ROOT, THING), (LIVING, CAT), (LIVING, DOG), (LIVING, FOX), (THING, CAR))
    for node in CLASSES:
        first, *rest = synsets(node)
        yield node, f"dummy{node[-1]}"  # which holds one class, deeper than its siblings
        yield f"dummy{node[-1]}", first
        yield from ((node, one) for one in rest)


@pytest.fixture
def metadata(tmp_path, monkeypatch):
    monkeypatch.setitem(breeds.SUBSETS, "pets", PETS)
    folder = tmp_path / "breeds"
    folder.mkdir()
    (folder / breeds.TREE_FILE).write_text("".join(f"{upper} {lower}\n" for upper, lower in edges()))
    words = {CAT: "domestic cat, house cat", DOG: "dog", FOX: "fox", LIVING: "living thing"}
    (folder / breeds.NAME_FILE).write_text("".join(f"{node}\t{name}\n" for node, name in words.items()))
    listed = [one for node in CLASSES for one in synsets(node)]
    named = [[place, one, f"kind {one[-1]}, another"] for place, one in enumerate([*listed, "n09999999"])]
    (folder / breeds.CLASS_FILE).write_text(json.dumps(named))
    return folder


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "imagenet"
    for part, number in (("train", 2), ("val", 1)):
        for synset in [one for node in CLASSES for one in synsets(node)]:
            for place in range(number):
                path = root / part / synset / f"{synset}_{place}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (20 * place, 9, 9)).save(path)
    return root


def test_superclasses_are_the_large_nodes_at_one_depth_and_hold_equally_many_classes(metadata, photos):
    data = breeds.load(photos, subset="pets", metadata=metadata)
    assert data.superclasses == (f"{CAT} domestic cat", f"{DOG} dog")  # a fox has one class, a car lies elsewhere
    pairs = {(item.superlabel, item.label) for item in data.items}
    assert Counter(one for one, _ in pairs) == {f"{CAT} domestic cat": 2, f"{DOG} dog": 2}
    assert all(str(label)[:9] in synsets(str(owner)[:9]) for owner, label in pairs)
    assert Counter(item.split for item in data.items) == {"train": 8, "test": 4}
    coarse = breeds.load(photos, subset="pets", metadata=metadata, label="coarse")
    assert coarse.classes == data.superclasses and len(coarse) == len(data)


def test_classes_are_drawn_as_the_release_does(metadata):
    """By the definition: the legacy generator with seed 2 chooses of each superclass in turn."""
    rng = np.random.RandomState(2)
    expected = {node: sorted(rng.choice(sorted(synsets(node)), 2, replace=False).tolist()) for node in (CAT, DOG)}
    assert Tree.read(metadata).members(PETS) == expected


def test_files_beside_the_photos_need_no_key(metadata, photos):
    apart = breeds.load(photos, subset="pets", metadata=metadata)
    for path in metadata.iterdir():
        path.rename(photos / path.name)
    assert breeds.load(photos, subset="pets").items == apart.items


@pytest.mark.parametrize("name", [breeds.TREE_FILE, breeds.NAME_FILE, breeds.CLASS_FILE])
def test_a_missing_file_is_one_sentence_with_the_key_that_names_its_folder(metadata, photos, name):
    (metadata / name).unlink()
    with pytest.raises(NoInput, match=rf"breeds: holds no {name}\. Set data\.metadata to the folder of"):
        breeds.load(photos, subset="pets", metadata=metadata)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (breeds.TREE_FILE, "a b c\n", "line 1 has not two fields"),
        (breeds.TREE_FILE, f"{ROOT} {LIVING}\n{THING} {LIVING}\n", f"{LIVING} has a parent too many"),
        (breeds.TREE_FILE, f"{LIVING} {ROOT}\n", f"{ROOT} has a parent too many"),
        (breeds.TREE_FILE, f"{ROOT} {LIVING}\n", "number of superclasses is 0, and 2 were published"),
        (breeds.NAME_FILE, "n1 no tab\n", "line 1 has not two fields"),
        (breeds.CLASS_FILE, "{", "is no list of number, id and name"),
        (breeds.CLASS_FILE, "[[1, 2]]", "is no list of number, id and name"),
        (breeds.CLASS_FILE, "7", "is no list of number, id and name"),
    ],
)
def test_a_damaged_file_is_one_sentence(metadata, photos, name, content, said):
    (metadata / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: .*{said}") as caught:
        breeds.load(photos, subset="pets", metadata=metadata)
    assert "\n" not in str(caught.value)


def test_a_part_of_imagenet_is_refused(metadata, photos):
    gone = Tree.read(metadata).members(PETS)[DOG][0]
    for part in ("train", "val"):
        (photos / part / gone).rename(photos / part / "n09999999")
    with pytest.raises(DataError, match=rf"holds no photo of 1 class of pets, the first {gone} kind"):
        breeds.load(photos, subset="pets", metadata=metadata)


def test_a_subset_has_to_be_named(photos):
    with pytest.raises(UsageError, match=r"living17, nonliving26, entity13, entity30.*data\.subset: living17\."):
        breeds.load(photos)
    with pytest.raises(UsageError, match=r"no subset 'living'\. Did you mean 'living17'"):
        breeds.load(photos, subset="living")


def test_the_published_counts_are_those_of_the_paper():
    counts = {name: (one.published, one.published * one.classes) for name, one in breeds.SUBSETS.items()}
    assert counts == {"living17": (17, 68), "nonliving26": (26, 104), "entity13": (13, 260), "entity30": (30, 240)}


def test_the_command_line_reads_a_subset(metadata, photos, tmp_path, capsys):
    words = ["extract", str(photos), "-o", str(tmp_path / "store"), "--encoder", "pixels", "--set", "data.kind=breeds"]
    assert run([*words, "--set", "data.subset=pets", "--set", f"data.metadata={metadata}"]) == 0
    stored = FeatureStore.open(tmp_path / "store").read()
    assert set(stored.superlabel) == {f"{CAT} domestic cat", f"{DOG} dog"} and len(stored) == 12
    assert run([*words, "--set", "data.subset=pets"]) == 66
    assert "Set data.metadata to the folder" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "said"), [("subset", "have no subsets"), ("metadata", "have no further files")])
def test_other_kinds_refuse_the_keys(key, said):
    section = resolve({"data.kind": "digits", f"data.{key}": "x"}).data
    with pytest.raises(UsageError, match=rf"'digits' {said}\. Leave out data\.{key}"):
        factory.read_data(section)
