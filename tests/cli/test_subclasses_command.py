"""``mixtura subclasses`` as people type it, on small photos and the tiny encoder."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

ENCODER = ("--encoder", "tiny", "--size", "32")


def photo(rng, color):
    y, x = np.mgrid[:40, :40]
    disk = (y - rng.integers(17, 23)) ** 2 + (x - rng.integers(17, 23)) ** 2 < rng.integers(10, 15) ** 2
    picture = np.where(disk[..., None], np.array(color), 235) + rng.normal(0, 12, (40, 40, 3))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """``photos/`` with red and green apples in one folder, and plums."""
    folder, rng = tmp_path_factory.mktemp("shelf"), np.random.default_rng(0)
    kinds = {
        "red": ("apple", (200, 30, 30), 18),
        "green": ("apple", (90, 190, 60), 14),
        "dark": ("plum", (90, 30, 120), 20),
    }
    for kind, (name, color, count) in kinds.items():
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            photo(rng, color).save(folder / "photos" / name / f"{kind}{number}.png")
    return folder


@pytest.fixture
def photos(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shelf / "photos", tmp_path / "photos")
    return tmp_path / "photos"


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_kinds_are_found_named_and_fitted(mixtura, photos, tmp_path):
    made = json.loads(mixtura("subclasses", "photos", "-o", "out", *ENCODER, "--json").out)
    apple, plum = made["classes"]
    assert (apple["class"], apple["count"], plum["count"]) == ("apple", 2, 1) and made["split"] == 1
    assert [one["size"] for one in apple["subclasses"]] == [18, 14] and apple["p_value"] <= 0.01
    assert all("red" in id for id in apple["subclasses"][0]["items"])
    page = (tmp_path / "out/subclasses.html").read_text()
    assert page.count("data:image/jpeg") == 32 and "apple/2" in page and "too few" not in page
    assert page.count('class="plus ') == 3 and page.count('class="star ') == 2  # of two kinds and one whole class
    assert Image.open(made["picture"]).format == "PNG"
    answer = mixtura("subclasses", "photos", "-o", "out", *ENCODER, "--accept", "--name", "apple/1=red")
    assert answer.code == 0, answer.err
    assert "mixtura fit photos/labels.csv -o out --level both --encoder tiny --size 32" in answer.out
    rows = rows_of(photos / "labels.csv")
    assert {(row["label"], row["superclass"]) for row in rows} == {
        ("apple/red", "apple"), ("apple/2", "apple"), ("plum", "plum"),
    }  # fmt: skip
    parts = set((tmp_path / "out/features").glob("*.parquet"))
    fitted = json.loads(mixtura("fit", "photos/labels.csv", "-o", "out", *ENCODER, "--level", "both", "--json").out)
    assert set(fitted["classes"]) == {"apple", "plum"} and fitted["metrics"]["top1"] == 1.0
    flat = json.loads(mixtura("fit", "photos/labels.csv", "-o", "flat", *ENCODER, "--json").out)
    assert set(flat["classes"]) == {"apple/red", "apple/2", "plum"} and flat["metrics"]["top1"] == 1.0
    assert parts <= set((tmp_path / "out/features").glob("*.parquet"))
    again = mixtura("subclasses", "photos", "-o", "out", *ENCODER, "--accept")
    assert again.code == 73 and "labels.csv is there already" in again.err


def test_a_store_becomes_a_store_and_changed_photos_are_refused(mixtura, photos, tmp_path):
    assert mixtura("extract", "photos", "-o", "store", *ENCODER).code == 0
    answer = mixtura("subclasses", "store", "--method", "dendrogram", "--class", "apple")
    assert (
        answer.code == 0
        and "2 kinds (18 + 14)" in answer.out
        and "mixtura subclasses store -o kinds --accept" in answer.out
    )
    answer = mixtura("subclasses", "store", "--accept", "--name", "apple/2=", "-q")
    assert answer.out.strip() == "kinds/accepted"
    fitted = json.loads(mixtura("fit", "kinds/accepted", "-o", "model", "--level", "both", "--json").out)
    assert set(fitted["classes"]) == {"apple", "plum"}  # apple/1, and apple itself for what is left of it
    lines = mixtura("subclasses", "kinds/accepted", "--method", "kmeans", "-o", "two", "-q").out.splitlines()
    assert lines and all(line.count("\t") == 2 for line in lines)
    (photos / "apple" / "red0.png").rename(photos / "plum" / "red0.png")
    assert mixtura("extract", "photos", "-o", "moved", *ENCODER).code == 0
    answer = mixtura("subclasses", "moved", "--accept")
    assert answer.code == 65 and "have changed since" in answer.err and len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--count", "many"), 2, "neither a number of 1 or more nor auto"),
        (("--name", "apple/1=x"), 2, "--name belongs to --accept"),
        (("--accept", "--count", "2"), 2, "uses the kinds of the last run"),
        (("--accept",), 66, "Find kinds first"),
        (("--class", "aple"), 2, "Did you mean 'apple'"),
        (("--method", "kmean"), 2, "Did you mean 'kmeans'"),
        (("--method", "hdbscan", "--count", "2"), 2, "hdbscan finds"),
    ],
)
def test_questions_without_sense(mixtura, photos, words, code, said):
    answer = mixtura("subclasses", "photos", "-o", "out", *ENCODER, *words)
    assert answer.code == code and said in answer.err and len(answer.err.splitlines()) == 1


def test_photos_without_classes_are_refused(mixtura, photos, tmp_path):
    (tmp_path / "mixed").mkdir()
    for path in (photos / "plum").iterdir():
        shutil.copy(path, tmp_path / "mixed" / path.name)
    answer = mixtura("subclasses", "mixed", "-o", "out", *ENCODER)
    assert answer.code == 65 and "have no class" in answer.err and "mixtura cluster" in answer.err
    assert mixtura("subclasses", "out/features", "--size", "64").code == 2


def stores(folder):
    return sorted(path.name for path in folder.glob("features*"))


def write_pack(photos):
    paths = sorted(photos.glob("*/*.png"))
    files = [path.read_bytes() for path in paths]
    own = [path.parent.name for path in paths]
    classes = sorted(set(own))
    np.savez(
        "pack.npz",
        data=np.frombuffer(b"".join(files), np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        y=np.array([classes.index(name) for name in own]),
        classes=np.array(classes),
    )


@pytest.mark.parametrize(("command", "words"), [("subclasses", ("--count", "2")), ("cluster", ("--clusters", "2"))])
def test_accepting_a_pack_uses_the_features_of_the_run(mixtura, photos, tmp_path, command, words):
    write_pack(photos)
    assert mixtura(command, "pack.npz", "-o", "out", *ENCODER, *words).code == 0
    other = mixtura(command, "pack.npz", "-o", "out", "--accept", "--encoder", "tiny", "--size", "48")
    assert other.code == 2 and "has --encoder tiny --size 32" in other.err and len(other.err.splitlines()) == 1
    answer = mixtura(command, "pack.npz", "-o", "out", "--accept")
    assert answer.code == 0 and stores(tmp_path / "out") == ["features"], answer.err
    headers = [(tmp_path / "out" / name / "store.json").read_text() for name in ("features", "accepted")]
    assert json.loads(headers[0])["identity"] == json.loads(headers[1])["identity"]
    assert mixtura(command, "pack.npz", "-o", "out", "--accept").code == 73
    shutil.rmtree(tmp_path / "out/accepted")
    shutil.copy(photos / "apple" / "red1.png", photos / "apple" / "red0.png")
    write_pack(photos)
    changed = mixtura(command, "pack.npz", "-o", "out", "--accept")
    assert changed.code == 65 and "have changed since" in changed.err and stores(tmp_path / "out") == ["features"]


def test_accepting_photos_needs_no_features(mixtura, photos, tmp_path):
    (photos / "apple" / "broken.png").write_bytes(b"no photo")
    assert mixtura("subclasses", "photos", "-o", "out", *ENCODER, "--count", "2").code == 0
    shutil.rmtree(tmp_path / "out/features")
    table = tmp_path / "out/subclasses.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:1] + lines[2:]))
    (photos / "labels.csv").write_text("mine")
    assert mixtura("subclasses", "photos", "-o", "out", "--accept").code == 73
    (photos / "labels.csv").unlink()
    shutil.copy(photos / "apple" / "red0.png", photos / "plum" / "added.png")
    assert mixtura("subclasses", "photos", "-o", "out", "--accept").code == 65
    (photos / "plum" / "added.png").unlink()
    answer = mixtura("subclasses", "photos", "-o", "out", "--accept")
    assert answer.code == 0 and "1 item was left out: not in out/subclasses.csv." in answer.out
    assert "-o out --level both --encoder tiny --size 32" in answer.out
    assert len(rows_of(photos / "labels.csv")) == len(lines) - 2 and stores(tmp_path / "out") == []


def test_a_catalog_takes_the_kinds_without_a_fit(mixtura, photos, tmp_path):
    """Found in its items, named, given in one edit that says before and after, and taken back."""
    assert mixtura("fit", "photos", "-o", "shop", *ENCODER).code == 0
    assert mixtura("subclasses", "shop").code == 0
    early = mixtura("subclasses", "shop", "--accept", "--edit")
    assert early.code == 2 and "shop has no catalog yet" in early.err
    assert mixtura("products", "shop").code == 0
    early = mixtura("subclasses", "shop", "--accept", "--edit")  # the table is of photos, not of the catalog's items
    assert early.code == 65 and "again" in early.err
    found = json.loads(mixtura("subclasses", "shop", "--json").out)
    assert [(one["class"], one["count"]) for one in found["classes"]] == [("apple", 2), ("plum", 1)]
    answer = mixtura("subclasses", "shop", "--accept", "--edit", "--name", "apple/1=red", "--json")
    effect = json.loads(answer.out)
    sizes = [kind["size"] for kind in found["classes"][0]["subclasses"]]
    assert effect["kinds"][0]["before"] == {"apple": sum(sizes)}
    assert effect["kinds"][0]["after"] == {"red": sizes[0], "2": sizes[1]}
    [decided] = json.loads(mixtura("predict", "shop", str(photos / "apple/red0.png"), "--json").out)
    assert (decided["label"], decided["subclass"]) == ("apple", "red")
    text = mixtura("undo", "shop").out
    assert "Undone: apple has 2 kinds: red" in text
    again = mixtura("subclasses", "shop", "--accept", "--edit", "--name", "apple/1=one", "--name", "apple/2=one")
    assert f"apple: apple {sum(sizes)} before, one {sum(sizes)} after" in again.out and "The limits are" in again.out
    for words, said in (
        (("subclasses", "photos", "--accept", "--edit"), "--edit is for the catalog of a model, and photos is none"),
        (("subclasses", "shop", "--edit"), "--edit belongs to --accept"),
    ):
        refused = mixtura(*words)
        assert refused.code == 2 and said in refused.err


def test_a_picture_of_an_earlier_run_does_not_stay(mixtura, photos, tmp_path):
    found = ("subclasses", "photos", "-o", "out", *ENCODER, "--json")
    picture = tmp_path / "out/subclasses.png"
    assert json.loads(mixtura(*found).out)["picture"] and picture.exists()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        if number % 16:
            path.unlink()
    answer = mixtura(*found)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["picture"] is None and not picture.exists()
    assert 'class="star ' not in (tmp_path / "out/subclasses.html").read_text()


def test_photos_without_any_difference_have_a_picture(mixtura, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "black/dot").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (32, 32)).save(tmp_path / f"black/dot/{number}.png")
    answer = mixtura("subclasses", "black", "-o", "out", "--encoder", "pixels", "--size", "32")
    assert answer.code == 0 and (tmp_path / "out/subclasses.png").exists(), answer.err
