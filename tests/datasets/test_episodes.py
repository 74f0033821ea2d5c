"""Laws of episodes: what is drawn, from what, and that a list means the same wherever it is read."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtura.datasets import PROTOCOLS, episode_files
from mixtura.datasets.episodes import (
    Design,
    Pool,
    classes_of_split,
    draw,
    require_disjoint,
    split_classes,
)
from mixtura.errors import DataError, LabelError, NoInput, UnknownName, UsageError

DRAWN = ("nway", "allway", "intra")


def pool_of(sizes, superclasses=3, order=None):
    """Items of classes ``c0``, ``c1``, ... with so many items; class i is of superclass ``i % superclasses``."""
    items = [(f"{c}-{i}", f"c{c}", f"s{c % superclasses}") for c, size in enumerate(sizes) for i in range(size)]
    if order is not None:
        items = [items[place] for place in order.permutation(len(items))]
    return Pool.of(*map(list, zip(*items, strict=True)))


pools = st.lists(st.integers(5, 9), min_size=6, max_size=9)
designs = st.builds(
    Design, st.integers(2, 5), st.integers(1, 2), st.integers(1, 3), st.integers(1, 6), st.integers(0, 99)
)


@given(pools, designs, st.sampled_from(DRAWN))
def test_no_item_twice_and_each_of_its_class(sizes, design, protocol):
    pool = pool_of(sizes)
    listed = draw(protocol, pool, design)
    assert len(listed) == design.episodes
    for episode in listed.episodes:
        way = {"nway": design.way, "allway": len(sizes)}.get(protocol, episode.way)
        assert episode.way == way >= 2 and len({*episode.classes.tolist()}) == way
        assert episode.support.shape == (way, design.shot) and episode.query.shape == (way, design.query)
        rows = np.hstack([episode.support, episode.query])
        assert len(np.unique(rows)) == rows.size
        for c, own in zip(episode.classes, rows, strict=True):
            assert all(listed.ids[row].startswith(f"{listed.classes[c][1:]}-") for row in own)


@given(pools, designs)
def test_classes_of_an_intra_episode_are_all_of_one_superclass(sizes, design):
    pool = pool_of(sizes)
    for episode in draw("intra", pool, design).episodes:
        numbers = {int(pool.classes[c][1:]) for c in episode.classes}
        (owner,) = {number % 3 for number in numbers}
        assert numbers == {number for number in range(len(sizes)) if number % 3 == owner}


@given(pools, designs, st.sampled_from(DRAWN), st.integers(1, 4))
def test_a_prefix_of_a_longer_list_is_the_shorter_list(sizes, design, protocol, more):
    longer = Design(**{**vars(design), "episodes": design.episodes + more})
    short, long = (draw(protocol, pool_of(sizes), one) for one in (design, longer))
    assert _named(short) == _named(long)[: len(short)]


@given(pools, designs, st.sampled_from(DRAWN), st.integers(0, 99))
def test_the_order_of_items_does_not_matter(sizes, design, protocol, seed):
    shuffled = pool_of(sizes, order=np.random.default_rng(seed))
    assert _named(draw(protocol, shuffled, design)) == _named(draw(protocol, pool_of(sizes), design))


def test_another_seed_gives_another_list():
    pool = pool_of([9] * 9)
    assert _named(draw("nway", pool, Design(seed=0, query=2))) != _named(draw("nway", pool, Design(seed=1, query=2)))


def _named(listed):
    """Episodes by the ids of their items."""
    return [[[listed.ids[i] for i in np.ravel(rows)] for rows in (e.support, e.query)] for e in listed.episodes]


@pytest.mark.parametrize("protocol", DRAWN)
def test_a_written_list_is_the_list(tmp_path, protocol):
    pool = pool_of([9] * 8)
    listed = draw(protocol, pool, Design(3, 2, 2, 5, 7))
    path = tmp_path / "episodes.json"
    path.write_bytes(episode_files.to_bytes(listed))
    found = episode_files.read(path)
    assert (found.protocol, found.design, found.classes) == (listed.protocol, listed.design, listed.classes)
    assert _named(found) == _named(listed)
    labels = {pool.ids[row]: name for name, rows in zip(pool.classes, pool.members, strict=True) for row in rows}
    ids = [*sorted(labels, reverse=True), "more"]
    moved = found.located(ids, [labels.get(id) for id in ids])
    assert moved.ids == tuple(ids) and _named(moved) == _named(listed)


def test_a_list_that_names_absent_items_or_other_classes_is_refused(tmp_path):
    listed = draw("allway", pool_of([3, 3]), Design(2, 1, 1, 1))
    ids, labels = list(listed.ids), [f"c{id[0]}" for id in listed.ids]
    gone = listed.ids[listed.episodes[0].support[0, 0]]
    kept = [place for place, id in enumerate(ids) if id != gone]
    (tmp_path / "e.json").write_bytes(episode_files.to_bytes(listed))
    with pytest.raises(NoInput, match=rf"names 1 item that is not in the data, the first '{gone}'\."):
        episode_files.read(tmp_path / "e.json").located([ids[i] for i in kept], [labels[i] for i in kept])
    with pytest.raises(LabelError, match=r"as 'c0', and in the data it is 'c1'\. Draw another list\."):
        listed.located(ids, ["c1"] * len(ids))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": 2}, "another layout than 1"),
        ({"episodes": []}, "no episodes"),
        ({"episodes": [{"classes": [0, 1], "support": [[0], [0]], "query": [[1], [2]]}]}, "occurs twice"),
        ({"episodes": [{"classes": [0, 1], "support": [[0], [99]], "query": [[1], [2]]}]}, "does not exist"),
        ({"episodes": [{"classes": [0], "support": [0], "query": [[1]]}]}, "do not fit together"),
        ({"design": {"ways": 2}}, "is no list of episodes"),
    ],
)
def test_a_damaged_list_is_one_sentence(tmp_path, change, said):
    path = tmp_path / "e.json"
    path.write_bytes(episode_files.to_bytes(draw("allway", pool_of([3, 3]), Design(2, 1, 1, 1))))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=re.escape(said)):
        episode_files.read(path)
    with pytest.raises(NoInput, match="cannot be read"):
        episode_files.read(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("protocol", "design", "said"),
    [
        ("nway", Design(7), "An episode needs 7 classes, and there are 6 to draw from."),
        ("nway", Design(5, 1, 4), "Class 'c5' has 4 items, and an episode needs 1 + 4 (--shot + --query)"),
        ("allway", Design(5, 9, 1), "Class 'c5' has 4 items, and an episode needs 9 + 1 (--shot + --query)"),
    ],
)
def test_too_little_data_is_one_sentence(protocol, design, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        draw(protocol, pool_of([9, 9, 9, 9, 9, 4]), design)


def test_small_classes_can_be_left_out():
    pool = pool_of([9, 4, 9]).with_at_least(5)
    assert pool.classes == ("c0", "c2") and pool.sizes == {"c0": 9, "c2": 9}
    listed = draw("allway", pool, Design(2, 1, 4, 3))
    assert {id[0] for e in _named(listed) for part in e for id in part} == {"0", "2"}


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(LabelError, match="No item has a label"):
        Pool.of(["a"], [None])
    with pytest.raises(LabelError, match="Class 'x' has items of two superclasses"):
        Pool.of(["a", "b"], ["x", "x"], ["s", "t"])
    with pytest.raises(LabelError, match="need a superclass"):
        draw("intra", Pool.of(["a", "b"], ["x", "y"]), Design())
    with pytest.raises(UsageError, match="No superclass has two classes"):
        draw("intra", Pool.of(["a", "b"], ["x", "y"], ["s", "t"]), Design())
    with pytest.raises(UsageError, match="there is 1"):
        draw("allway", Pool.of(["a"], ["x"]), Design())
    with pytest.raises(LabelError, match="not the official runs of Omniglot"):
        draw("omniglot-runs", pool_of([3, 3]), Design())
    with pytest.raises(UsageError, match=r"--shot is 0\. Give 1 or more\."):
        Design(shot=0)
    with pytest.raises(UnknownName):
        draw("no-such", pool_of([3, 3]), Design())
    assert set(DRAWN) < set(PROTOCOLS)


@given(st.integers(2, 30), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(0, 99))
def test_base_and_novel_classes_are_a_partition(number, base, seed):
    names = [f"c{i}" for i in range(number)]
    known, novel = split_classes(names, base, seed)
    assert sorted(known + novel) == sorted(names) and novel
    assert len(known) == (int(base) if base == 1 else round(base * number))
    assert split_classes(names[::-1], base, seed) == (known, novel)


def test_classes_of_a_split_must_not_overlap():
    assert classes_of_split(["a", "b", "c", None], ["train", "test", "val", "test"]) == (("a",), ("b",))
    with pytest.raises(LabelError, match=r"1 class is among those to learn from .* the first 'a'\."):
        classes_of_split(["a", "a"], ["train", "test"])
    with pytest.raises(LabelError, match="have no train and test part"):
        classes_of_split(["a", "b"], ["train", None])
    with pytest.raises(LabelError, match=r"2 classes are among"):
        require_disjoint({"a", "b"}, {"b", "a"})
    with pytest.raises(UsageError, match="leaves none of the 2 classes"):
        split_classes(["a", "b"], 2.0, 0)
