"""Laws of a split: nothing crosses, shares hold, and what is settled stays."""

import errno
import io
import os
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from mixtura.datasets import split as module
from mixtura.datasets.duplicates import find_groups, fingerprint, near_pairs
from mixtura.datasets.items import SPLITS, Dataset, Item
from mixtura.datasets.split import DEFAULT_FRACTIONS, make_split, read_split, settle_split, write_split
from mixtura.datasets.synthetic import stripes
from mixtura.errors import CannotWrite, DataError, NoInput, OutOfSpace, UsageError

THREE = (0.7, 0.15, 0.15)


def item(name: str, label: str | None = "pin", **known) -> Item:
    """An item whose picture cannot be read, so that only what is known of it counts."""
    return Item(name, name, name.encode(), label, **known)


def dataset(*items: Item) -> Dataset:
    return Dataset("pins", tuple(items))


def noise(seed: int, size: int = 64) -> Image.Image:
    """A picture with structure at every scale, like a photo's."""
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (3, 6, 12)]
    grown = [np.asarray(Image.fromarray(a).resize((size, size), Image.Resampling.BICUBIC), float) for a in layers]
    return Image.fromarray(np.mean(grown, 0).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 50) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.sampled_from([DEFAULT_FRACTIONS, (0.8, 0.0, 0.2), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0)]),
    st.integers(0, 100),
)
def test_each_label_gets_its_shares_to_within_one(sizes, shares, seed):
    data = dataset(*(item(f"{label}/{i}", str(label)) for label, size in enumerate(sizes) for i in range(size)))
    split = make_split(data, shares, seed)
    assert list(split) == [one.id for one in data.items]
    for label, size in enumerate(sizes):
        counts = Counter(part for id_, part in split.items() if id_.startswith(f"{label}/"))
        assert counts["train"] >= 1
        for part, share in zip(SPLITS, shares, strict=True):
            assert abs(counts[part] - share * size) <= 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=60), st.integers(0, 9))
def test_no_group_crosses(rows, seed):
    data = dataset(*(item(f"{i}", str(label), group=str(group)) for i, (label, group) in enumerate(rows)))
    split = make_split(data, seed=seed)
    parts = defaultdict(set)
    for one in data.items:
        parts[one.group].add(split[one.id])
    assert all(len(found) == 1 for found in parts.values())


def test_the_order_of_items_does_not_matter_but_the_seed_does():
    data = stripes(4, 30)
    turned = data.subset(np.random.default_rng(0).permutation(len(data)))
    assert make_split(data) == make_split(turned)
    assert make_split(data) != make_split(data, seed=1)


def test_a_new_class_leaves_the_others_as_they_are():
    rows = [item(f"{label}/{i}", label) for label in "abc" for i in range(20)]
    assert make_split(dataset(*rows)).items() >= make_split(dataset(*rows[:40])).items()


def test_a_single_photo_and_a_missing_label_train():
    assert make_split(dataset(item("a", "pin"), item("b", "badge"), item("c", None))) == dict.fromkeys("abc", "train")
    assert make_split(dataset()) == {}


def test_given_splits_are_kept():
    rows = [item(f"{part}/{i}", split=part) for part in SPLITS for i in range(10)]
    split = make_split(dataset(*rows))
    assert all(split[one.id] == one.split for one in rows)


def test_what_nothing_was_given_for_is_held_out_of_training():
    rows = [item(f"{part}/{i}", split=part) for part in ("train", "test") for i in range(100)]
    kept = make_split(dataset(*rows), carve=False)
    assert Counter(kept.values()) == {"train": 100, "test": 100}
    carved = make_split(dataset(*rows), (0.8, 0.2, 0.0))
    assert Counter(carved.values()) == {"train": 80, "val": 20, "test": 100}
    assert all(carved[one.id] == "test" for one in rows if one.split == "test")


def test_given_training_items_never_become_test_items_by_likeness():
    twin = jpeg(noise(0))
    rows = [
        Item("t0", "t0", twin, "pin", split="train"),
        *(Item(f"t{i}", f"t{i}", jpeg(noise(i)), "pin", split="train") for i in range(1, 20)),
        *(Item(f"e{i}", f"e{i}", twin, "pin", split="test") for i in range(3)),
    ]
    split = make_split(dataset(*rows), THREE)
    assert split["t0"] == "train"
    assert {split[one.id] for one in rows if one.split == "test"} == {"test"}
    assert "val" in split.values()


def test_copies_follow_the_original():
    originals = [noise(i) for i in range(40)]
    edits = [
        jpeg(originals[0]),
        jpeg(originals[1].resize((48, 48)), 95),
        jpeg(ImageEnhance.Brightness(originals[2]).enhance(1.1), 95),
        jpeg(originals[3].convert("L"), 95),
    ]
    rows = [Item(f"o{i}", f"o{i}", np.array(image), "pin") for i, image in enumerate(originals)]
    rows += [Item(f"c{i}", f"c{i}", data, "badge") for i, data in enumerate(edits)]
    groups = find_groups(dataset(*rows))
    assert all(groups[i] == groups[40 + i] for i in range(len(edits)))
    assert len(set(groups.tolist())) == 40
    for seed in range(10):
        split = make_split(dataset(*rows), seed=seed)
        assert all(split[f"o{i}"] == split[f"c{i}"] for i in range(len(edits)))


def test_equal_bytes_are_one_group_and_flat_pictures_are_not():
    flat = [np.full((8, 8), value, np.uint8) for value in (3, 3, 200)]
    rows = [Item(str(i), str(i), pixels, None) for i, pixels in enumerate(flat)]
    groups = find_groups(dataset(*rows))
    assert groups[0] == groups[1] != groups[2]


def test_near_pairs_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    prints = [fingerprint(noise(int(i)), "") for i in rng.integers(0, 25, 100)]
    bits = np.array([one.bits for one in prints], np.uint64)
    thumbnail = np.stack([one.thumbnail for one in prints])
    naive = {
        (i, j)
        for j in range(100)
        for i in range(j)
        if (prints[i].bits ^ prints[j].bits).bit_count() <= 6 and prints[i].thumbnail @ prints[j].thumbnail >= 0.995
    }
    assert naive
    assert {(int(i), int(j)) for i, j in near_pairs(bits, thumbnail)} == naive


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.2), (1.2, -0.1, -0.1), (0.0, 0.5, 0.5), (np.nan, 0.5, 0.5)])
def test_shares_are_shares(shares):
    with pytest.raises(UsageError, match="sum to 1"):
        make_split(dataset(item("a")), tuple(map(float, shares)))


def test_a_settled_split_is_extended_and_never_redrawn(tmp_path):
    path = tmp_path / "split.csv"
    rows = [item(f"{i}") for i in range(100)]
    first = settle_split(path, dataset(*rows[:60]), THREE, seed=0)
    before = path.read_bytes()
    assert settle_split(path, dataset(*rows[:30]), (0.5, 0.25, 0.25), seed=9) == {
        one.id: first[one.id] for one in rows[:30]
    }
    assert path.read_bytes() == before
    whole = settle_split(path, dataset(*rows), THREE, seed=0)
    assert path.read_bytes().startswith(before)
    assert first.items() <= whole.items()
    assert read_split(path) == whole
    assert abs(Counter(whole.values())["val"] - 15) <= 1


def test_new_copies_of_settled_items_join_them(tmp_path):
    path = tmp_path / "split.csv"
    rows = [Item(f"o{i}", f"o{i}", np.array(noise(i)), "pin") for i in range(20)]
    settled = settle_split(path, dataset(*rows))
    copies = [Item(f"c{i}", f"c{i}", jpeg(noise(i)), "pin") for i in range(20)]
    whole = settle_split(path, dataset(*rows, *copies))
    assert all(whole[f"c{i}"] == settled[f"o{i}"] for i in range(20))


def test_a_split_file_is_written_once(tmp_path):
    path = tmp_path / "split.csv"
    split = {"a,b": "train", 'say "x"': "val", "é": "test"}
    write_split(split, path)
    assert read_split(path) == split
    assert path.read_text().splitlines()[0] == "id,split"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with pytest.raises(CannotWrite, match="never redrawn"):
        write_split({}, path)
    assert read_split(path) == split


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,train\n", 1),
        ("id,split\na,train\na,val\n", 3),
        ("id,split\na,tset\n", 2),
        ("id,split\na\n", 2),
        ("id,split\n\n", 2),
    ],
)
def test_a_wrong_file_is_an_error_with_its_line(tmp_path, text, line):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=f"line {line}: "):
        read_split(tmp_path / "split.csv")


def test_an_unreadable_file_is_an_error(tmp_path):
    with pytest.raises(NoInput, match="cannot be read"):
        read_split(tmp_path / "split.csv")
    (tmp_path / "split.csv").write_bytes(b"id,split\n\xff,train\n")
    with pytest.raises(DataError, match="is not a CSV file"):
        read_split(tmp_path / "split.csv")


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, OutOfSpace), (errno.EROFS, CannotWrite)],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_earlier_file_and_no_other(tmp_path, monkeypatch, code, error, call):
    path = tmp_path / "split.csv"
    first = settle_split(path, dataset(item("a")))

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(error, match=r"Cannot write .*split\.csv"):
        settle_split(path, dataset(item("a"), item("b")))
    assert read_split(path) == first
    assert [found.name for found in tmp_path.iterdir()] == ["split.csv"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_split({"a": "train"}, tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CannotWrite, match="No such file"):
        write_split({}, tmp_path / "missing" / "split.csv")


def test_pictures_are_looked_at_only_when_something_is_to_be_drawn(monkeypatch):
    monkeypatch.setattr(module, "find_groups", lambda *_: pytest.fail("looked"))
    make_split(dataset(*(item(part, split=part) for part in SPLITS)))
