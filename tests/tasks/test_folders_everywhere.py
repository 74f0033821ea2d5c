"""One folder means the same to every command, and what fit should say of a folder, it says."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

import mixtura as api
from mixtura.catalog import Catalog
from mixtura.cli.app import run as command
from mixtura.errors import LabelError, NoInput, UsageError
from mixtura.names import text_or_none
from mixtura.pipeline import training_set
from mixtura.pipeline.data_source import data_keys
from mixtura.recipe import resolve
from mixtura.sweeps import grid
from mixtura.tasks import cluster, collection, extract, recalibrate

COLORS = {"apple": (220, 30, 30), "pear": (30, 200, 40), "plum": (90, 40, 210)}
SETTINGS = {"encoder.name": "pixels"}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def photo(name, number):
    rng = np.random.default_rng([number, *name.encode()])
    return Image.fromarray(rng.normal(COLORS.get(name, (200, 200, 20)), 25, (24, 24, 3)).clip(0, 255).astype(np.uint8))


def put(folder, name, numbers, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        photo(name, number).save(folder / f"{number}.{ending}", "PNG")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A model of three classes, and its photos."""
    root = tmp_path_factory.mktemp("everywhere")
    for name in COLORS:
        put(root / "photos" / name, name, range(12))
    api.fit(root / "photos", root / "shop", SETTINGS)
    return root / "shop"


def disturb(folder):
    """Put beside the photos of a folder what devices and systems leave there."""
    for name in ("@eaDir/0.png", "#recycle", "$RECYCLE.BIN", ".ipynb_checkpoints", "__MACOSX"):
        put(folder / name, "plum", [99])
    (folder / "._0.png").write_bytes(b"AppleDouble")
    (folder / "notes.txt").write_text("x")


def said(capsys, *words):
    code = command([str(word) for word in words])
    return code, capsys.readouterr()


def test_every_command_reads_the_same_files_of_a_folder(shop, tmp_path, capsys):
    box = tmp_path / "box"
    put(box, "apple", [50], "JFIF")
    put(box / "sub", "apple", [51], "pnm")
    disturb(box)
    names = [f"{box}/50.JFIF", f"{box}/sub/51.pnm"]
    code, told = said(capsys, "predict", shop, box, "--json")
    assert (code, [one["id"] for one in json.loads(told.out)]) == (0, names)
    code, told = said(capsys, "search", shop, box, "--json")
    assert (code, [one["query"] for one in json.loads(told.out)["results"]]) == (0, names)
    made = extract.run(resolve(data_keys(str(box)) | SETTINGS | {"extract.store": tmp_path / "store"}))
    assert (made.done, made.problems) == (2, ())


def test_refused_files_of_a_folder_are_rows_or_refused_in_words(shop, tmp_path, capsys):
    box = tmp_path / "box"
    put(box, "apple", [50])
    (box / "51.heic").write_bytes(HEIC)
    code, told = said(capsys, "predict", shop, box, "--json")
    answers = json.loads(told.out)
    assert code == 66 and [one.get("error", {}).get("reason") for one in answers] == [None, "format_not_allowed"]
    code, told = said(capsys, "predict", shop, box)
    assert told.out.count("51.heic") <= 2 and "HEIC" in told.out  # in the table, and before its sentence
    code, told = said(capsys, "enroll", shop, "kettle", box)
    assert code == 66 and "51.heic: is a HEIC or AVIF file" in told.err and "Nothing was enrolled" in told.err
    made = extract.run(resolve(data_keys(str(box)) | SETTINGS | {"extract.store": tmp_path / "store"}))
    assert [(one.source, one.reason) for one in made.problems] == [("51.heic", "format_not_allowed")]


def test_an_address_is_no_file_and_shown_as_given(shop, capsys):
    code, told = said(capsys, "predict", shop, "https://example.org/a.jpg")
    assert code == 2 and "https://example.org/a.jpg is an address" in told.err


def test_photos_beside_a_folder_are_clustered_and_extracted(tmp_path):
    flat = tmp_path / "flat"
    put(flat, "apple", range(8))
    put(flat / "old", "pear", range(8))
    recipe = resolve(data_keys(str(flat)) | SETTINGS | {"output": tmp_path / "out"})
    place, problems = collection.photos_of(recipe)
    assert (len(place.features), problems) == (16, ())
    with pytest.raises(LabelError, match="only one class, 'old'"):
        training_set.gather(recipe)


def test_an_evaluation_tells_what_it_leaves_out_and_reads_names_as_people_do(shop, tmp_path, capsys):
    today = tmp_path / "today"
    for name in COLORS:
        put(today / name.upper(), name, range(30, 36))
    disturb(today)
    put(today, "apple", [60])
    (today / "PEAR" / "x.heic").write_bytes(HEIC)
    code, told = said(capsys, "evaluate", shop, today, "--json")
    record = json.loads(told.out)
    assert (code, record["items"], record["metrics"]["top1"]) == (0, 18, 1.0)
    assert [(one["source"], one["reason"]) for one in record["problems"]] == [
        ("PEAR/x.heic", "format_not_allowed"),
        ("60.png", "no_class"),
    ]
    code, told = said(capsys, "evaluate", shop, today)
    assert "2 could not be used and were left out:" in told.out


def test_a_sweep_tells_what_it_leaves_out(tmp_path):
    for name in COLORS:
        put(tmp_path / "photos" / name, name, range(6))
    (tmp_path / "photos" / "apple" / "x.heic").write_bytes(HEIC)
    told = []
    recipe = resolve(data_keys(str(tmp_path / "photos")) | SETTINGS | {"output": tmp_path / "out"})
    grid.gathered(recipe, lambda progress: told.append(progress.message))
    assert told[-1].startswith("1 file could not be used; the first: apple/x.heic: is a .heic file")


def test_confirmed_photos_are_read_like_those_of_fit(shop, tmp_path):
    checked = tmp_path / "checked"
    for name in COLORS:
        put(checked / name / "2024" if name == "plum" else checked / name, name, range(20, 30))
        disturb(checked / name)
    disturb(checked)
    (checked / "apple" / "x.heic").write_bytes(HEIC)
    put(checked, "apple", [60])
    catalog = Catalog.open(shop)
    found = recalibrate.from_folder(catalog, checked)
    assert found.label == ("apple",) * 10 + ("pear",) * 10 + ("plum",) * 10
    assert [(one.source, one.reason) for one in found.problems] == [
        ("apple/x.heic", "format_not_allowed"),
        ("60.png", "no_class"),
    ]
    put(tmp_path / "flat", "apple", range(3))
    with pytest.raises(NoInput, match="no photo lies in a sub-folder"):
        recalibrate.from_folder(catalog, tmp_path / "flat")
    (tmp_path / "photos.zip").touch()
    with pytest.raises(NoInput, match="is an archive"):
        recalibrate.from_folder(catalog, tmp_path / "photos.zip")
    catalog.close()


def notes_of(folder, output, **settings):
    return " ".join(api.fit(folder, output, SETTINGS | settings).notes)


def test_fit_tells_of_names_that_differ_in_case_only(tmp_path):
    put(tmp_path / "a" / "Apple", "apple", range(6))
    put(tmp_path / "a" / "apple", "apple", range(6, 12))
    put(tmp_path / "a" / "pear", "pear", range(12))
    said = notes_of(tmp_path / "a", tmp_path / "o")
    assert "The classes 'Apple', 'apple' differ only in upper and lower case" in said and "pear" not in said


def test_fit_tells_of_files_in_two_classes(shop, tmp_path):
    folder = tmp_path / "photos"
    for name in COLORS:
        put(folder / name, name, range(12))
    assert "two classes" not in notes_of(folder, tmp_path / "o")
    for number in range(2):
        (folder / "plum" / f"same{number}.png").write_bytes((folder / "pear" / f"{number}.png").read_bytes())
    assert "2 items lie in two classes or more, byte for byte (pear/0.png and plum/same0.png)" in notes_of(
        folder, tmp_path / "o"
    )


def test_fit_tells_of_a_lonely_split(tmp_path):
    for name in COLORS:
        put(tmp_path / "a" / "train" / name, name, range(4))
    put(tmp_path / "a" / "docs", "other", range(12))
    said = notes_of(tmp_path / "a", tmp_path / "o")
    assert "The class 'train' is named like a split and holds 3 folders." in said


def test_copies_are_named_as_the_reason(tmp_path):
    for name in ("apple", "pear"):
        folder = tmp_path / "copies" / name
        put(folder, name, [0])
        for number in range(1, 8):
            (folder / f"{number}.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(LabelError, match="three photos or more that are no copies of each other"):
        api.fit(tmp_path / "copies", tmp_path / "o", SETTINGS)
    recipe = resolve(data_keys(str(tmp_path / "copies" / "pear")) | SETTINGS | {"output": tmp_path / "c"})
    with pytest.raises(NoInput, match="All 8 items have the same features"):
        cluster.run(collection.photos_of(recipe)[0].features)


def test_one_group_needs_a_number_of_clusters(features):
    x = np.random.default_rng(0).standard_normal((12, 4))
    rows = features(x, [None] * 12, group=["one"] * 12)
    with pytest.raises(UsageError, match="All items are of one group"):
        cluster.run(rows)
    assert len(cluster.run(rows, clusters=2).clusters) == 2


@pytest.mark.parametrize("given", ["Café", unicodedata.normalize("NFD", "café"), "CAFÉ", "caf\u200bé", " café "])
def test_unknown_classes_are_found_in_any_spelling(given):
    assert training_set.known_classes(("apple", "café", "pear"), (given,)) == ("apple", "pear")
    assert training_set.labels_of(("Apple", "apple"), ["apple"]) == {"apple"}  # by the very name first
    with pytest.raises(LabelError, match="No item has the label 'cafe'"):
        training_set.known_classes(("apple", "café", "pear"), ("cafe",))


def test_a_folder_is_of_sounds_if_most_of_its_files_are(tmp_path):
    put(tmp_path, "apple", range(2))
    (tmp_path / "0.wav").touch()
    assert data_keys(str(tmp_path))["data.kind"] == "folder"
    for number in range(3):
        (tmp_path / f"{number}.wav").touch()
        (tmp_path / f".{number}.png").touch()
    assert data_keys(str(tmp_path))["data.kind"] == "audio"


def test_only_files_have_links_to_follow(tmp_path):
    with pytest.raises(UsageError, match="'digits' hold no links"):
        extract.run(resolve({"data.kind": "digits", "data.follow_links": True, "extract.store": tmp_path} | SETTINGS))


@pytest.mark.parametrize(
    "missing", [None, float("nan"), np.float32("nan"), "", " ", "nan", "NaN", "<NA>", b"", "\u200d"]
)
def test_missing_values_are_no_text(missing):
    assert text_or_none(missing) is None
