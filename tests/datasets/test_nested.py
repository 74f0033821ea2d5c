"""Folders at two levels: superclasses, and the classes in them."""

import pytest
from PIL import Image

from mixtura.cli.app import run
from mixtura.datasets import folder, nested
from mixtura.errors import LabelError, NoInput
from mixtura.features.store import FeatureStore


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path, "PNG")


NAMES = ("fruit/apple/1.png", "fruit/apple/green/2.png", "fruit/other/1.png", "milk/other/1.png", "milk/oat/1.png")


def test_the_outer_folder_is_the_superclass_and_the_inner_one_the_class(tmp_path):
    put(tmp_path, *NAMES)
    data = nested.load(tmp_path)
    assert {item.id: (item.label, item.superlabel) for item in data.items} == {
        "fruit/apple/1.png": ("fruit/apple", "fruit"),
        "fruit/apple/green/2.png": ("fruit/apple", "fruit"),
        "fruit/other/1.png": ("fruit/other", "fruit"),
        "milk/other/1.png": ("milk/other", "milk"),
        "milk/oat/1.png": ("milk/oat", "milk"),
    }
    assert not data.problems and nested.load(tmp_path, label="coarse").classes == ("fruit", "milk")
    assert folder.load(tmp_path).classes == ("fruit", "milk")
    with pytest.raises(LabelError, match="no superclass"):
        folder.load(tmp_path, label="coarse")


def test_splits_and_folders_around_them_are_as_in_a_plain_folder(tmp_path):
    put(tmp_path, *(f"unpacked/{part}/{name}" for part in ("train", "test") for name in NAMES))
    data = nested.load(tmp_path)
    assert {(item.split, item.label) for item in data.items} == {
        (part, label)
        for part in ("train", "test")
        for label in ("fruit/apple", "fruit/other", "milk/other", "milk/oat")
    }


def test_a_photo_beside_the_classes_is_told_and_left_out(tmp_path):
    put(tmp_path, *NAMES, "fruit/loose.png")
    data = nested.load(tmp_path)
    assert [(one.source, one.reason) for one in data.problems] == [("fruit/loose.png", "no_class")]
    assert "superclass fruit, and in none of its classes" in data.problems[0].message and len(data) == len(NAMES)
    put(tmp_path / "flat", "fruit/1.png", "milk/2.png")
    with pytest.raises(NoInput, match=r"2 files were left out; fruit/1\.png: lies in the folder of the superclass"):
        nested.load(tmp_path / "flat")


def test_a_command_keeps_both_levels(tmp_path):
    put(tmp_path / "shop", *NAMES)
    words = ["extract", str(tmp_path / "shop"), "-o", str(tmp_path / "store"), "--encoder", "pixels"]
    assert run([*words, "--set", "data.kind=nested"]) == 0
    stored = FeatureStore.open(tmp_path / "store").read()
    assert {*zip(stored.label, stored.superlabel, strict=True)} == {
        ("fruit/apple", "fruit"), ("fruit/other", "fruit"), ("milk/other", "milk"), ("milk/oat", "milk"),
    }  # fmt: skip
