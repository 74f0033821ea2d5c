import hashlib

import numpy as np
import pytest

from mixtura.datasets.items import Dataset, Item, Problem
from mixtura.datasets.synthetic import stripes
from mixtura.errors import BadImage, DataError, LabelError
from mixtura.interfaces import Dataset as AnyDataset
from mixtura.interfaces import Item as AnyItem
from mixtura.interfaces import SoundDataset


def items(count: int) -> tuple[Item, ...]:
    return tuple(Item(f"i{n}", f"i{n}.jpg", b"text", f"class{n % 2}", superlabel="all") for n in range(count))


def test_a_data_set_is_what_other_boxes_ask_for():
    data = Dataset("pins", items(1))
    assert isinstance(data, AnyDataset) and isinstance(data, SoundDataset)
    assert isinstance(data.items[0], AnyItem)


def test_ids_are_unique():
    with pytest.raises(DataError, match="pins: 1 ids occur more than once, first 'i0'"):
        Dataset("pins", items(3) + items(1))


def test_classes_are_sorted_and_without_the_unlabeled():
    data = Dataset("pins", (*items(3)[::-1], Item("x", "x", b"", None)))
    assert data.classes == ("class0", "class1")
    assert data.superclasses == ("all",)


def test_a_subset_keeps_order_and_problems():
    data = Dataset("pins", items(4), [Problem("a", "empty", "a: empty.")])
    part = data.subset(np.array([3, 1]))
    assert [item.id for item in part.items] == ["i3", "i1"]
    assert part.problems == data.problems
    assert len(part) == 2


def test_digests_are_of_bytes_and_of_shaped_pixels(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    pixels = np.arange(12, dtype=np.uint8)
    payloads = [b"text", tmp_path / "a", pixels.reshape(3, 4), pixels.reshape(4, 3), pixels.reshape(2, 2, 3)]
    data = Dataset("pins", tuple(Item(str(i), str(i), payload, None) for i, payload in enumerate(payloads)))
    digests = [data.digest(i) for i in range(len(data))]
    assert digests[0] == digests[1] == hashlib.sha256(b"text").hexdigest()
    assert len(set(digests)) == 4


def test_errors_name_the_source():
    with pytest.raises(BadImage, match=r"i0\.jpg: is not an image"):
        Dataset("pins", items(1)).image(0)


def test_coarse_labels_take_the_place_of_fine_ones():
    data = Dataset("pins", items(2))
    assert data.at_level("fine") is data
    assert data.at_level("coarse").classes == ("all",)
    with pytest.raises(LabelError, match=r"30 of 30 items have no superclass"):
        stripes().at_level("coarse")
    with pytest.raises(LabelError, match="Known: coarse, fine"):
        data.at_level("medium")
