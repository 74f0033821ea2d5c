"""Kinds within classes: methods, reasons, files, and what becomes of them."""

import csv
import json
import sys
import types

import numpy as np
import pytest
import torch

from mixtura.cli import subclasses as command
from mixtura.cli.subclass_views import advice
from mixtura.core.subclasses.search import KindsOfClass, Rules
from mixtura.datasets.listing import load
from mixtura.errors import CannotWrite, DataError, LabelError, NoInput, UnknownName, UsageError
from mixtura.features.store import FeatureStore
from mixtura.names import find
from mixtura.recipe import resolve
from mixtura.tasks import fit, subclass_files
from mixtura.tasks.kept_features import Origin
from mixtura.tasks.subclass_files import Table, named
from mixtura.tasks.subclass_sheet import sheet_of
from mixtura.tasks.subclass_view import view_of
from mixtura.tasks.subclasses import METHODS, digest_of, run

FAST = Rules(draws=99)


@pytest.fixture
def basket(features):
    """Apples of two kinds (30 and 20 rows, labels in that order), 40 pears of one, and 12 plums, too few to judge."""
    rng = np.random.default_rng(0)
    middles = {"apple": 9 * rng.standard_normal((2, 12)), "pear": 9 * rng.standard_normal((1, 12))}
    parts = [(middles["apple"][0], 30), (middles["apple"][1], 20), (middles["pear"][0], 40), (30 * np.eye(12)[3], 12)]
    x = np.concatenate([middle + rng.standard_normal((n, 12)) for middle, n in parts])
    return features(x, ["apple"] * 50 + ["pear"] * 40 + ["plum"] * 12)


def by_name(found):
    return {one.name: one for one in found.classes}


def test_kinds_margins_and_reasons(basket):
    found = run(basket, rules=FAST)
    apple, pear, plum = (by_name(found)[name] for name in ("apple", "pear", "plum"))
    assert (apple.count, pear.count, plum.count) == (2, 1, 1) and found.split == (apple,)
    assert found.number.tolist() == [1] * 30 + [2] * 20 + [0] * 52
    assert [kind.size for kind in apple.kinds] == [30, 20] and apple.why == "2 kinds"
    assert sorted(apple.kinds[1].typical) == sorted(apple.kinds[1].borderline) == list(range(30, 50))
    margins = [found.margin[row] for row in apple.kinds[0].borderline]
    assert margins == sorted(margins) and (found.margin[:50] > 0.3).all() and (found.margin[50:] == 1).all()
    assert np.isnan(found.probability[50:]).all() and (found.probability[:50] > 0.99).all()
    assert apple.p_value == 0.01 and apple.corrected == 0.02  # of apple and pear, which could be judged
    assert plum.reason == "few_rows" and "12 photos in 12 independent groups are too few" in plum.why
    assert pear.kinds == () and pear.why.startswith("whole: ")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "scgm"])  # which takes more than there are
def test_every_method_is_found_and_finds_kinds_that_are_there(basket, method):
    assert find(METHODS, method).__doc__
    found = run(basket, method, ["apple"], None, FAST)
    (apple,) = found.classes
    assert apple.count == 2 and len(set(found.number[:30])) == len(set(found.number[30:50])) == 1
    assert apple.stability > 0.9 and [kind.number for kind in apple.kinds] == [1, 2]
    assert (apple.p_value is None) == (method != "mixture")


@pytest.mark.parametrize("method", ["mixture", "kmeans", "dendrogram"])
def test_a_count_is_kept_where_there_are_enough_photos(basket, method):
    found = by_name(run(basket, method, (), 3, FAST))
    assert found["apple"].count == found["pear"].count == 3 and found["apple"].reason == "asked"
    assert found["plum"].count == 1
    many = by_name(run(basket, method, (), 5, FAST))["pear"]
    assert many.why == "whole: 40 photos in 40 independent groups are too few for 5 kinds; 4 is the most"


def test_a_method_of_ones_own_may_leave_rows_out(basket, tmp_path, monkeypatch):
    def thirds(rows, asked):
        kinds = [(rows.classes[c].row % 3) - 1 for c in asked.classes]
        return [
            KindsOfClass(kind, torch.full((len(kind),), 0.5), 2, 2, (), (1.0, 0.5), None, "split") for kind in kinds
        ]

    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(thirds=thirds))
    found = run(basket, "mine:thirds", ["apple"])
    assert found.number[:6].tolist() == [0, 1, 2, 0, 1, 2] and by_name(found)["apple"].kinds[0].size == 17
    subclass_files.write(found, tmp_path)
    table = subclass_files.read(tmp_path)
    assert table.place["i0"] == ("apple", "") and named(table, ["apple/1=red"])["i0"] == ("apple", "apple")


def test_questions_without_sense(basket):
    with pytest.raises(UnknownName, match="Did you mean 'kmeans'"):
        run(basket, "kmean")
    with pytest.raises(UsageError, match=r"no class 'aple'. Did you mean 'apple'"):
        run(basket, classes=["aple"])
    with pytest.raises(UsageError, match="hdbscan finds"):
        run(basket, "hdbscan", count=2)
    bare = type(basket)(**(vars(basket) | {"label": [None, None, *basket.label[2:]]}))
    with pytest.raises(LabelError, match=r"2 of 102 items have no class, the first is 'i0'.*mixtura cluster"):
        run(bare)
    with pytest.raises(NoInput, match="no items"):
        run(basket.select([]))


def test_defaults_of_the_command_are_those_of_the_rules():
    assert (Rules().most, Rules().min_rows) == (command.MOST, command.MIN_ROWS)


def test_the_table_is_read_as_it_was_written_or_edited(basket, tmp_path):
    found = run(basket, rules=FAST)
    path = subclass_files.write(found, tmp_path / "out")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == list(subclass_files.TABLE_COLUMNS) and [row["id"] for row in rows] == basket.id
    assert (rows[0]["subclass"], rows[0]["count"], rows[0]["p_value"]) == ("1", "2", "0.0100")
    assert (rows[60]["class"], rows[60]["subclass"], rows[60]["count"]) == ("pear", "", "1")
    table = subclass_files.read(tmp_path / "out")
    assert table.place["i40"] == ("apple", "2") and table.digest == digest_of(basket)
    subclass_files.check_same(table, basket, tmp_path)
    path.write_text(path.read_text().replace(",apple,2,", ",apple,green,"))
    edited = subclass_files.read(tmp_path / "out")
    assert named(edited, [])["i40"] == ("apple/green", "apple")
    assert named(edited, ["apple/green=granny"])["i40"] == ("apple/granny", "apple")
    summary = json.loads((tmp_path / "out" / subclass_files.SUMMARY_FILE).read_text())
    assert summary["split"] == 1 and len(summary["classes"][0]["subclasses"]) == 2


def test_tables_that_are_no_tables(tmp_path):
    with pytest.raises(NoInput, match="Find kinds first"):
        subclass_files.read(tmp_path)
    (tmp_path / subclass_files.TABLE_FILE).write_text("id,class\na,b\n")
    with pytest.raises(NoInput, match=r"subclasses\.json is missing"):
        subclass_files.read(tmp_path)
    origin = json.dumps(Origin({}).record())
    (tmp_path / subclass_files.SUMMARY_FILE).write_text(f'{{"digest": "x", "features": {origin}}}')
    with pytest.raises(DataError, match="no column 'subclass'"):
        subclass_files.read(tmp_path)
    (tmp_path / subclass_files.SUMMARY_FILE).write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        subclass_files.read(tmp_path)


PLACES = {"a": ("apple", "1"), "b": ("apple", "2"), "c": ("apple", "3"), "d": ("pear", ""), "e": ("a/b=c", "1")}


def test_kinds_get_names_merge_and_go_back():
    table = Table(PLACES, "", Origin({}))
    plain = {"a": "apple/1", "b": "apple/2", "c": "apple/3", "d": "pear", "e": "a/b=c/1"}
    assert {id: label for id, (label, _) in named(table, []).items()} == plain
    found = named(table, ["apple/1=red", "apple/2= red ", "apple/3=", "a/b=c/1=x=y"])
    assert {id: label for id, (label, _) in found.items()} == {
        "a": "apple/red", "b": "apple/red", "c": "apple", "d": "pear", "e": "a/b=c/x=y",
    }  # fmt: skip
    assert [name for _, name in found.values()] == ["apple", "apple", "apple", "pear", "a/b=c"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["aple/1=x"], r"no class 'aple'.*Did you mean 'apple'"),
        (["apple/4=x"], r"'apple' has no kind '4'.*Known: 1, 2, 3"),
        (["pear/1=x"], r"'pear' is whole"),
        (["apple=x"], "not CLASS/NUMBER=NAME"),
        (["apple/1"], "not CLASS/NUMBER=NAME"),
        (["apple/1=x", "apple/1=y"], "named twice"),
        (["apple/1=two\nlines"], r"'two\\nlines' holds a line break.*Give one line of text"),
    ],
)
def test_names_without_sense(names, said):
    with pytest.raises(UsageError, match=said):
        named(Table(PLACES, "", Origin({})), names)


def test_one_label_never_stands_for_two_classes():
    table = Table({"a": ("apple", "1"), "b": ("apple/red", "")}, "", Origin({}))
    with pytest.raises(UsageError, match="'apple/red' would stand for classes 'apple' and 'apple/red'"):
        named(table, ["apple/1=red"])


def test_kinds_of_other_items_are_refused(basket, tmp_path):
    subclass_files.write(run(basket, "dendrogram"), tmp_path)
    table = subclass_files.read(tmp_path)
    moved = type(basket)(**(vars(basket) | {"label": ["pear", *basket.label[1:]]}))
    changed = type(basket)(**(vars(basket) | {"sha256": ["f" * 64, *basket.sha256[1:]]}))
    for other in (basket.select(range(101)), moved, changed):
        with pytest.raises(DataError, match="have changed since"):
            subclass_files.check_same(table, other, tmp_path)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_table_is_read_as_a_spreadsheet_saves_it(basket, tmp_path, separator, encoding):
    path = subclass_files.write(run(basket, rules=FAST), tmp_path)
    before = subclass_files.read(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(",", separator) + 8 * separator + "\n", encoding=encoding)
    assert subclass_files.read(tmp_path) == before


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        (range(90, 102), None, "--min-rows 6"),
        (range(90, 102), 2, "--min-rows 6"),
        (range(50, 90), 5, "--count 4"),
        (range(50, 90), 1, "as you asked"),
        (range(90, 91), 2, "add photos"),
    ],
)
def test_advice_is_what_can_help(basket, rows, asked, said):
    found = run(basket.select(rows), "mixture", (), asked, FAST)
    assert not found.split and said in advice(found, asked, FAST.min_rows)
    words = advice(found, asked, FAST.min_rows).split(" --count ")
    assert asked is None or len(words) == 1 or int(words[1]) < asked


def test_one_photo_is_too_few(basket):
    (plum,) = run(basket.select([101]), rules=FAST).classes
    assert "1 photo in 1 independent group is too few" in plum.why


def test_the_list_is_what_fit_reads_with_split_and_group(basket, tmp_path):
    rows = basket.select([0, 1, 40, 60])
    label = {"i0": ("apple/red", "apple"), "i1": ("apple/red", "apple"), "i40": ("apple", "apple"),
             "i60": ("pear", "pear")}  # fmt: skip
    for id in label:
        (tmp_path / id).write_bytes(b"x")
    made = subclass_files.as_list(label, rows, tmp_path, None)
    items = load(made.path).items
    assert {item.id: (item.label, item.superlabel) for item in items} == label
    assert [item.split for item in items] == rows.split and made.classes == {"apple/red": 2, "apple": 1, "pear": 1}
    with pytest.raises(CannotWrite, match="there already"):
        subclass_files.as_list(label, rows, tmp_path, None)
    assert subclass_files.as_list(label, rows, tmp_path, tmp_path / "labels.csv").path.name == "kinds.csv"


def test_the_store_is_what_fit_reads(basket, tmp_path):
    subclass_files.write(run(basket, rules=FAST), tmp_path)
    label = named(subclass_files.read(tmp_path), ["apple/1=red", "apple/2=green"])
    made = subclass_files.as_store(label, basket, tmp_path)
    stored = FeatureStore.open(made.path).read()
    assert made.classes == {"pear": 40, "apple/red": 30, "apple/green": 20, "plum": 12}
    assert dict(zip(stored.label, stored.superlabel, strict=True)) == {
        "apple/red": "apple", "apple/green": "apple", "pear": "pear", "plum": "plum",
    }  # fmt: skip
    report = fit.run(resolve({"data.kind": "features", "data.root": str(made.path), "output": str(tmp_path / "m")}))
    assert report.evaluation.metrics["top1"] == 1.0


def test_a_picture_lays_out_kinds_and_whole_classes(basket):
    found = run(basket, "mixture")
    view = view_of(found)
    assert view is not None
    counts = [one.count for one in found.classes]
    assert view.class_parent.tolist() == [c for c, count in enumerate(counts) for _ in range(count)]
    assert len(view.mean) == len(counts) < len(view.subclass) and len(view.xy) == len(basket)
    assert sum(view.label.tolist()) == sum(basket.classes.index(name) for name in basket.label)
    few = basket.select(np.arange(3))
    assert view_of(run(few, "mixture")) is None


def test_the_page_shows_kinds_and_lists_whole_classes(basket):
    found = run(basket, rules=FAST)
    sheet = sheet_of(found, "Kinds")
    assert [group.name for group in sheet.groups] == ["apple/1", "apple/2"]
    assert "p = 0.010 against one Gaussian" in sheet.groups[0].note and "stability" in sheet.groups[0].note
    assert [one.id for one in sheet.groups[1].strips[0].pictures] == [
        basket.id[row] for row in by_name(found)["apple"].kinds[1].typical[:18]
    ]
    facts = dict(sheet.facts)
    assert facts["Classes"] == "1 of 3 classes are split, 2 stay whole" and "too few" in facts["plum"]
