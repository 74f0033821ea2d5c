"""``mixtura predict --csv``: the answers of JSON as rows, harmless in a spreadsheet, and never over another file."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixtura.cli import spreadsheet
from mixtura.cli.app import run
from mixtura.features.store import FeatureStore


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def as_cells(record):
    """What a JSON record says in its plain values, as CSV spells it."""
    if "error" in record:
        return {"item": record["id"], "verdict": "error", "reason": record["error"]["reason"]}
    plain = {key: value for key, value in record.items() if not isinstance(value, list)}
    titled = {{"id": "item", "label": "class"}.get(key, key): value for key, value in plain.items()}
    return {key: "" if value is None else str(value) for key, value in titled.items()}


def assert_same(text, records):
    found = rows(text)
    assert len(found) == len(records)
    for row, record in zip(found, records, strict=True):
        told = as_cells(record)
        assert {key: row[key] for key in told} == told
        assert "error" in record or set(told) == set(row)


def put_photos(folder, count, seed):
    """Three classes of small photos, each of its own color."""
    rng = np.random.default_rng(seed)
    for name, color in (("apple", (220, 40, 40)), ("pear", (40, 200, 60)), ("plum", (60, 50, 220))):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(rng.normal(color, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("csv")
    put_photos(root / "photos", 8, seed=0)
    put_photos(root / "inbox", 2, seed=1)
    (root / "inbox" / "bad.jpg").write_bytes(b"no photo")
    (root / "list.csv").write_text("file_name,label\ninbox/pear/0.png,pear\ninbox/apple/1.png,apple\n")
    assert run(["fit", str(root / "photos"), "-o", str(root / "shop"), "--encoder", "pixels", "-q"]) == 0
    stored = FeatureStore.open(root / "shop" / "features").read()
    np.savez(root / "v.npz", embedding=stored.embedding[:3])
    np.save(root / "v.npy", stored.embedding[:3])
    return root


@pytest.mark.parametrize(
    "words",
    [
        ("inbox",),
        ("list.csv",),
        ("inbox/apple/0.png",),
        ("inbox", "--false-discovery-rate", "5%"),
        ("shop/features",),
        ("v.npz", "inbox/pear/0.png", "v.npy"),
    ],
    ids=" ".join,
)
def test_rows_are_the_plain_values_of_json_in_its_order(mixtura, shop, monkeypatch, words):
    monkeypatch.chdir(shop)
    told = mixtura("predict", "shop", *words, "--json")
    printed = mixtura("predict", "shop", *words, "--csv")
    assert_same(printed.out, json.loads(told.out))
    assert printed.code == told.code == (66 if words[0] == "inbox" else 0)
    Path("a.csv").unlink(missing_ok=True)
    written = mixtura("predict", "shop", *words, "--csv", "a.csv")
    assert (written.code, Path("a.csv").read_text(encoding="utf-8")) == (told.code, printed.out)
    assert "Written  a.csv" in written.out
    assert json.loads(mixtura("predict", "shop", *words, "--csv=a.csv", "--json").out) == json.loads(told.out)


def test_a_photo_on_standard_input(mixtura, shop, monkeypatch):
    monkeypatch.chdir(shop)
    data = Path("inbox/pear/0.png").read_bytes()
    for words in (("--csv", "-"), ("-", "--csv")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert [row["item"] for row in rows(mixtura("predict", "shop", *words).out)] == ["-"]


def test_rows_of_a_store_get_the_answers_of_their_photos(mixtura, shop, monkeypatch):
    monkeypatch.chdir(shop)
    stored = {row["item"]: row["typicality"] for row in rows(mixtura("predict", "shop", "shop/features", "--csv").out)}
    asked = rows(mixtura("predict", "shop", "photos", "--csv").out)
    assert len(stored) == len(asked) == 24
    rank = 1 / 19  # of the 18 items that are left out in turn; rounding in the store may move an item by one
    for row in asked:
        assert abs(float(stored[row["item"].removeprefix("photos/")]) - float(row["typicality"])) < 1.5 * rank


def test_a_photo_after_the_option_is_a_photo(mixtura, shop, monkeypatch):
    monkeypatch.chdir(shop)
    before = Path("inbox/pear/0.png").read_bytes()
    found = rows(mixtura("predict", "shop", "--csv", "inbox/pear/0.png").out)
    assert [row["item"] for row in found] == ["inbox/pear/0.png"]
    assert Path("inbox/pear/0.png").read_bytes() == before


def test_no_other_file_is_written_over(mixtura, shop, monkeypatch):
    monkeypatch.chdir(shop)
    before = Path("list.csv").read_bytes()
    for target, code in (("list.csv", 73), ("nowhere/a.csv", 66), ("", 2)):
        answer = mixtura("predict", "shop", "inbox", "--csv", target)
        assert answer.code == code and answer.err.count("\n") == 1 and not answer.out
    assert Path("list.csv").read_bytes() == before
    assert not Path("nowhere").exists()
    both = mixtura("predict", "shop", "inbox", "--csv", "--json")
    assert both.code == 2 and "Leave one out" in both.err


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0.jpg", "+1.jpg", "@SUM(A1).jpg", "-2+3", "'=1.jpg", "\t=1.jpg"])
def test_a_name_is_never_a_formula(mixtura, task, decision, name):
    task("mixtura.tasks.predict", run=lambda *arguments: [decision(name, label=name, sentence=f"{name} it is.")])
    row = rows(mixtura("predict", "shop", "a.jpg", "--csv").out)[0]
    assert all(row[key][0] == "'" for key in ("item", "class", "sentence"))
    assert row["item"][1:] == (name if name.isprintable() else "\\t=1.jpg")


def test_plain_names_stay_as_they_are(mixtura, task, decision):
    names = ["a=b.jpg", "-", "é, ü.jpg", 'say "hi".jpg', "'quoted'.jpg", "a b\u200d.jpg"]
    task("mixtura.tasks.predict", run=lambda *arguments: [decision(name) for name in names])
    printed = mixtura("predict", "shop", "a.jpg", "--csv")
    assert [row["item"] for row in rows(printed.out)] == names
    assert printed.out.startswith(f"{spreadsheet.HEADER}\n")
    assert spreadsheet.HEADER.startswith("item,verdict,class,probability,typicality,reason,")
