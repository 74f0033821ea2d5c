"""A test part of other classes is refused before anything is read, unless there is a reason for it."""

import pytest

from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.split import write_split
from mixtura.errors import LabelError
from mixtura.pipeline.training_set import check_classes, learnable
from mixtura.recipe import resolve


def data(*items):
    """Items of no content, each as ``label part`` or ``label``."""
    pairs = [[*one.split(), None][:2] for one in items]
    return Dataset(
        "few", tuple(Item(f"{row}", f"{row}", b"", label, split=part) for row, (label, part) in enumerate(pairs))
    )


def recipe(tmp_path, *unknown):
    return resolve({"output": tmp_path, "data.unknown": list(unknown)})


APART = "a train", "b train", "b val", "c test", "d test", "d test"


def test_a_test_part_of_other_classes_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"^All 3 test photos are of classes that are not trained on\. Give"):
        check_classes(recipe(tmp_path), data(*APART))
    with pytest.raises(LabelError, match=r"^The test photo is of a class that is not trained on\."):
        check_classes(recipe(tmp_path, "d"), data(*APART))


@pytest.mark.parametrize(
    ("items", "unknown"),
    [
        ((*APART, "a test"), ()),  # one is of a class to learn
        ((*APART, "a"), ()),  # a part of those without a part is for testing
        (APART, ("c", "d")),  # left out on purpose
        (("a train", "b train", "a val"), ()),  # a test part is drawn
        (("a", "b"), ()),
    ],
)
def test_other_data_are_not(tmp_path, items, unknown):
    check_classes(recipe(tmp_path, *unknown), data(*items))


def test_a_split_file_comes_first(tmp_path):
    items = data(*APART)
    write_split({item.id: ("test", "train")[row % 2] for row, item in enumerate(items.items)}, tmp_path / "split.csv")
    check_classes(recipe(tmp_path), items)
    assert learnable(recipe(tmp_path), items) == ["b", "c", "d"]


def test_what_may_be_learned_from_is_neither_left_out_nor_for_testing(tmp_path):
    items = data("a train", "b", "c", "d test", "b val")
    assert learnable(recipe(tmp_path, "c"), items) == ["a", "b", "b"]
