"""The real commands on real files: what a shop owner does, and what goes wrong."""

import csv
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mixtura import files
from mixtura.cli.app import run
from mixtura.features.store import FeatureStore

TINY = ("--encoder", "tiny")
COLORS = {"apple": (200, 30, 30), "pear": (40, 180, 60), "kiwi": (60, 60, 200), "plum": (190, 40, 190)}
MODEL = ("config.json", "model.safetensors", "metrics.json", "README.md", "recipe.yaml", "split.csv", "report.html")


def photo(label, seed, size=20):
    rng = np.random.default_rng([seed, sum(label.encode())])
    color = np.array(COLORS[label]) + rng.normal(0, 12, 3)
    return Image.fromarray((color + rng.normal(0, 25, (size, size, 3))).clip(0, 255).astype(np.uint8))


def shoot(root, counts, first=0):
    """Photos in ``root/label/number.png``; returns root."""
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            photo(label, number).save(root / label / f"{number}.png")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder of its own, as people do."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photos of three classes and a model of them; tests work on copies."""
    root = tmp_path_factory.mktemp("made")
    shoot(root / "photos", {"apple": 15, "pear": 15, "kiwi": 15})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run(["fit", "photos", "-o", "shop", *TINY, "-q"]) == 0
    return root


@pytest.fixture
def shop(here, made):
    """A model of three classes in ``shop``, made of ``photos``."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    return here / "shop"


def state(folder):
    """Every file with its content, hidden ones aside."""
    names = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


def told(answer, code, *words):
    """One sentence on stderr, the code, and nothing that looks like a traceback."""
    assert answer.code == code, answer.err
    assert answer.err.startswith("mixtura: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
    assert answer.err.rstrip().endswith((".", "?"))
    for word in words:
        assert word in answer.err, answer.err
    return True


# The usual way


def test_fit_writes_a_whole_model_and_says_what_to_do_next(shop, mixtura):
    assert all((shop / name).is_file() for name in MODEL)
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert answer.code == 0
    for words in ("9 test items of 3 classes", "Right class (top-1)", "stated", "5.0%", "mixtura predict shop"):
        assert words in answer.out
    assert "<html" in (shop / "report.html").read_text()


def test_predict_answers_in_a_table_and_for_programs(shop, mixtura, here):
    shoot(here / "new", {"apple": 1, "pear": 1}, first=100)
    table = mixtura("predict", "shop", "new")
    assert table.code == 0, table.err
    assert "2 match" in table.out
    assert "Matches apple" in table.out
    records = json.loads(mixtura("predict", "shop", "new", "--json").out)
    assert [record["label"] for record in records] == ["apple", "pear"]
    for record in records:
        assert record["verdict"] == "match"
        assert record["reason"] is None
        assert 0 < record["typicality"] <= 1
        assert len(record["neighbors"]) == 3
        assert {neighbor["label"] for neighbor in record["neighbors"]} == {record["label"]}
    stranger = photo("plum", 0)
    stranger.save(here / "plum.png")
    record = json.loads(mixtura("predict", "shop", "plum.png", "--json").out)[0]
    assert record["verdict"] == "unknown"
    assert "the limit is 5%" in record["sentence"]


def test_neighbors_are_a_bonus_that_may_be_gone(shop, mixtura):
    whole = json.loads(mixtura("predict", "shop", "photos/apple/0.png", "--json").out)[0]
    assert whole["neighbors"][0]["id"] == "apple/0.png"
    assert whole["neighbors"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    shutil.rmtree(shop / "features")
    without = json.loads(mixtura("predict", "shop", "photos/apple/0.png", "--json").out)[0]
    assert without["neighbors"] == []
    assert without | {"neighbors": 0} == whole | {"neighbors": 0}


def test_evaluate_repeats_what_fit_has_measured(shop, mixtura):
    metrics = json.loads((shop / "metrics.json").read_text())
    found = json.loads(mixtura("evaluate", "shop", "--json").out)
    assert found["metrics"] == metrics["metrics"]
    assert found["items"] == metrics["items"] == 9
    assert {name: part["count"] for name, part in metrics["recall"].items()} == {"apple": 3, "kiwi": 3, "pear": 3}


@pytest.mark.parametrize("gone", ["photos", "features"])
def test_evaluate_needs_the_photos_or_their_features_not_both(shop, mixtura, here, gone):
    before = json.loads(mixtura("evaluate", "shop", "--json").out)["metrics"]
    shutil.rmtree(here / "photos" if gone == "photos" else shop / "features")
    answer = mixtura("evaluate", "shop", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["metrics"] == before


def test_a_model_may_be_moved(shop, mixtura, here, monkeypatch):
    before = json.loads(mixtura("predict", "shop", "photos/apple/0.png", "--json").out)[0]
    shutil.move(shop, here / "elsewhere")
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    after = json.loads(mixtura("predict", "../elsewhere", "../photos/apple/0.png", "--json").out)[0]
    assert after | {"id": 0} == before | {"id": 0}
    assert mixtura("evaluate", "../elsewhere").code == 0
    assert mixtura("report", "../elsewhere", "-q").out == "../elsewhere/report.html\n"


def test_evaluate_and_report_take_other_photos(shop, mixtura, here):
    shoot(here / "today", {"apple": 4, "pear": 4, "plum": 5}, first=200)
    before = state(shop)
    found = json.loads(mixtura("evaluate", "shop", "today", "--json").out)
    assert found["items"] == 13
    assert found["metrics"]["auroc_unknown"] > 0.9
    assert found["intervals"]["unknown_found"]["count"] == 5
    assert mixtura("report", "shop", "today", "-o", "today.html", "-q").out == "today.html\n"
    assert "<html" in (here / "today.html").read_text()
    assert {name: digest for name, digest in state(shop).items() if not name.startswith("features-other")} == before


def test_a_second_fit_computes_nothing_again(shop, mixtura, here, monkeypatch):
    from mixtura.encoders.tiny import Tiny

    encoded = []
    monkeypatch.setattr(
        Tiny, "encode", lambda self, batch, encode=Tiny.encode: (encoded.append(len(batch)), encode(self, batch))[1]
    )
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0
    assert encoded == []
    shoot(here / "photos", {"apple": 2}, first=50)
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0
    assert sum(encoded) == 2


def test_fitting_twice_gives_the_same_bytes(shop, mixtura):
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0  # here: the recipe names absolute paths
    first = {name: (shop / name).read_bytes() for name in MODEL if name != "report.html"}
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0
    again = {name: (shop / name).read_bytes() for name in first}
    assert {name for name in first if first[name] != again[name]} == set()


def test_the_saved_recipe_makes_the_same_model(shop, mixtura, here):
    recipe = yaml.safe_load((shop / "recipe.yaml").read_text())
    assert recipe["encoder"]["name"] == "tiny"
    limits = {"min_probability": 0.5, "min_subclass_probability": 0.5}
    assert recipe["decision"] == {"false_reject_rate": 0.05, "score": "auto"} | limits
    assert mixtura("fit", "-r", "shop/recipe.yaml", "-o", "copy").code == 0
    for name in ("config.json", "model.safetensors", "metrics.json", "split.csv"):
        assert (here / "copy" / name).read_bytes() == (shop / name).read_bytes(), name


def test_extract_then_fit_equals_fit(shop, mixtura, here):
    """Through a feature store at a size of its own; new photos are then encoded as those were."""
    size = ("--size", "24")
    assert mixtura("extract", "photos", "-o", "features", *TINY, *size, "-q").out == "features\n"
    assert mixtura("fit", "features", "-o", "two", "-q").out == "two\n"
    assert mixtura("fit", "photos", "-o", "one", *TINY, *size).code == 0
    one, two = (json.loads(mixtura("predict", name, "photos/pear/1.png", "--json").out)[0] for name in ("one", "two"))
    assert (one["label"], one["verdict"]) == (two["label"], two["verdict"]) == ("pear", "match")
    assert mixtura("evaluate", "two").code == 0


def test_the_card_says_what_the_model_is(shop):
    card, facts = (shop / "README.md").read_text(), json.loads((shop / "config.json").read_text())["facts"]
    metrics = json.loads((shop / "metrics.json").read_text())["metrics"]
    for words in (
        "# A catalog of 3 classes", "encoder `tiny`", facts["fingerprint"][:12], "fitted to 36 items", "On 9 items",
        f"| right class | {100 * metrics['top1']:.1f}% |", "fewer than 5% of genuine items", "apple, kiwi, pear",
        f"{facts['held_out_items']} genuine items",
    ):  # fmt: skip
        assert words in card, words
    assert metrics["stated_false_reject"] == 0.05
    assert all(0 <= metrics[name] <= 1 for name in ("top1", "top5", "balanced", "ece", "false_reject"))


def test_the_pixels_encoder_and_every_family_work(here, mixtura):
    shoot(here / "photos", {"apple": 12, "pear": 12})
    for family in ("auto", "tied", "diagonal"):
        options = ("--encoder", "pixels", "--size", "4", "--family", family)
        assert mixtura("fit", "photos", "-o", "shop", *options).code == 0
        assert json.loads(mixtura("predict", "shop", "photos/pear/1.png", "--json").out)[0]["label"] == "pear"


def test_subclasses_have_numbers(here, mixtura):
    shoot(here / "photos", {"apple": 20, "pear": 20})
    for number in range(20):
        photo("plum", number).save(here / "photos" / "apple" / f"dark{number}.png")
    options = ("--n-components", "2", "--family", "tied")
    assert mixtura("fit", "photos", "-o", "shop", *TINY, *options).code == 0
    names = ("photos/apple/1.png", "photos/apple/2.png", "photos/apple/dark1.png", "photos/apple/dark2.png")
    records = json.loads(mixtura("predict", "shop", *names, "--json").out)
    numbers = [record["subclass"] for record in records]
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]
    assert {record["label"] for record in records} == {"apple"}


def test_one_class_may_stand_for_the_unknown(here, mixtura):
    shoot(here / "photos", {"apple": 15, "pear": 15, "plum": 10})
    answer = mixtura("fit", "photos", "-o", "shop", *TINY, "--unknown", "plum")
    assert answer.code == 0, answer.err
    assert "2 classes" in answer.out
    assert "In the catalog or not (AUROC)" in answer.out
    assert json.loads((here / "shop" / "config.json").read_text())["classes"] == ["apple", "pear"]
    mistakes = json.loads(mixtura("evaluate", "shop", "--json").out)
    assert mistakes["metrics"]["auroc_unknown"] > 0.9


def test_a_validation_folder_sets_the_threshold(here, mixtura):
    shoot(here / "photos" / "train", {"apple": 10, "pear": 10})
    shoot(here / "photos" / "val", {"apple": 55, "pear": 55}, first=100)
    shoot(here / "photos" / "test", {"apple": 5, "pear": 5, "plum": 3}, first=300)
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert answer.code == 0, answer.err
    facts = json.loads((here / "shop" / "config.json").read_text())["facts"]
    assert (facts["training_items"], facts["held_out_items"]) == (130, 110)
    assert "Class 'plum' occurs only in the test part. It tests the verdict unknown." in answer.out
    with (here / "shop" / "split.csv").open() as file:
        split = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert split["val/apple/100.png"] == "val"
    assert split["test/plum/300.png"] == "test"


def test_near_duplicates_stay_on_one_side(here, mixtura):
    """The same photo, saved again and again, must not both train and test."""
    rng = np.random.default_rng(0)
    for label in ("apple", "pear"):
        folder = here / "photos" / label
        folder.mkdir(parents=True)
        for number in range(12):
            noise = rng.random((6, 6, 3)) * 120 + np.array(COLORS[label]) / 2
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
            image.save(folder / f"{number}a.png")
            image.save(folder / f"{number}b.jpg", quality=85)
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0
    with (here / "shop" / "split.csv").open() as file:
        split = {row["id"]: row["split"] for row in csv.DictReader(file)}
    for label in ("apple", "pear"):
        for number in range(12):
            assert split[f"{label}/{number}a.png"] == split[f"{label}/{number}b.jpg"]
    assert set(split.values()) == {"train", "test"}


def test_data_and_doctor_answer(mixtura):
    sets = json.loads(mixtura("data", "list", "--json").out)
    assert {"fashion-mnist", "digits", "demo"} <= set(sets)
    checks = json.loads(mixtura("doctor", "--json").out)
    assert {check["status"] for check in checks} <= {"ok", "warning", "broken"}


# Few photos


def test_settings_of_steps_that_are_not_taken_are_named(here, mixtura):
    shoot(here / "photos", {"apple": 12, "pear": 12})
    given = ("--epochs", "3", "--set", "fit.class_weight=balanced")
    answer = mixtura("fit", "photos", "-o", "shop", *TINY, *given)
    assert "fit.epochs, fit.class_weight have no effect: the solver auto takes no gradient steps" in " ".join(
        answer.out.split()
    )
    answer = mixtura("fit", "photos", "-o", "shop", *TINY, *given, "--solver", "gradient")
    assert "no effect" not in answer.out


def test_a_class_with_one_photo_is_learned_and_named(here, mixtura):
    shoot(here / "photos", {"apple": 12, "pear": 12, "plum": 1})
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert answer.code == 0, answer.err
    assert "Class 'plum' has one photo to learn from. Add photos." in answer.out
    assert "plum" not in json.loads((here / "shop" / "metrics.json").read_text())["recall"]
    record = json.loads(mixtura("predict", "shop", "photos/plum/0.png", "--json").out)[0]
    assert record["label"] == "plum"


def test_too_few_photos_to_say_unknown_are_a_note(here, mixtura):
    shoot(here / "photos", {"apple": 5, "pear": 5})
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert answer.code == 0, answer.err
    assert "Only 8 photos could be held out. At a false-reject rate of 5% that is too few" in answer.out
    assert "it takes 20 or more." in answer.out
    assert json.loads(mixtura("fit", "photos", "-o", "shop", *TINY, "--json").out)["notes"]


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_left_to_test_with_is_one_sentence(here, mixtura, count):
    shoot(here / "photos", {"apple": count, "pear": count})
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert told(answer, 65, "No photo is left to test with", f"all {2 * count} are needed", "three photos or more")
    shoot(here / "photos", {"apple": 4, "pear": 4}, first=10)
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0


def test_one_class_is_one_sentence_before_any_photo_is_encoded(here, mixtura):
    shoot(here / "photos", {"apple": 5})
    assert told(mixtura("fit", "photos", "-o", "shop", *TINY), 65, "only one class, 'apple',", "folder of its own")
    assert not (here / "shop" / "features").exists()


def test_photos_without_classes_are_one_sentence(here, mixtura):
    shoot(here, {"apple": 3})
    assert told(mixtura("fit", "apple", "-o", "shop", *TINY), 65, "no class", "folder of its own")


def test_an_empty_folder_is_one_sentence(here, mixtura):
    (here / "empty" / "apple").mkdir(parents=True)
    assert told(mixtura("fit", "empty", "-o", "shop", *TINY), 66, "empty", "no photos")
    assert told(mixtura("fit", "nowhere", "-o", "shop", *TINY), 66, "'nowhere'")


# Names


@pytest.mark.parametrize(
    ("arguments", "code", "word", "hint"),
    [
        (("--encoder", "tinny"), 2, "'tinny'", "Did you mean 'tiny'?"),
        (("--family", "diagnal"), 2, "'diagnal'", "Did you mean 'diagonal'?"),
        (("--set", "data.kind=foldr"), 2, "foldr", ""),
        (("--set", "projection=[pcaa]"), 2, "'pcaa'", "Did you mean 'pca'?"),
        (("--unknown", "aple"), 65, "'aple'", "Did you mean 'apple'?"),
        (("--set", "head.famly=full"), 2, "famly", "Did you mean 'head.family'?"),
        (("--encoder", "timm:"), 2, "timm:", "timm:NAME"),
        (("--device", "cudda"), 2, "cudda", ""),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_before_any_photo_is_read(
    shop, mixtura, monkeypatch, arguments, code, word, hint
):
    def refuse(*_, **__):
        raise AssertionError("a photo was read")

    monkeypatch.setattr("mixtura.datasets.items.decode", refuse)
    before = state(shop)
    options = arguments if "--encoder" in arguments else (*TINY, *arguments)
    assert told(mixtura("fit", "photos", "-o", "shop", *options), code, word, hint)
    assert state(shop) == before


def test_a_public_set_with_a_typing_error_is_told(here, mixtura):
    answer = mixtura("fit", "fashion-mnits", "-o", "shop", *TINY)
    assert told(answer, 66, "'fashion-mnits'", "Did you mean 'fashion-mnist'?")
    answer = mixtura("fit", "-o", "shop", *TINY, "--set", "data.kind=digit")
    assert told(answer, 2, "'digit'", "Did you mean 'digits'?")
    assert not (here / "shop").exists()


# Bad features and labels


@pytest.fixture
def broken(monkeypatch):
    """The encoder gives NaN for reddish photos; its name."""
    from mixtura.encoders.tiny import Tiny

    def encode(self, batch, original=Tiny.encode):
        x = original(self, batch).clone()
        x[batch[:, 0].float().mean((1, 2)) > 150] = float("nan")
        return x

    monkeypatch.setattr(Tiny, "encode", encode)
    return "tiny"


def test_features_that_are_no_numbers_are_told(shop, mixtura, broken):
    before = state(shop)
    assert told(mixtura("fit", "photos", "-o", "other", "--encoder", broken), 65, "NaN or infinity", "apple/0.png")
    shoot(Path("photos"), {"apple": 1}, first=77)
    assert told(mixtura("fit", "photos", "-o", "shop", "--encoder", broken), 65, "NaN or infinity", "apple/77.png")
    assert state(shop) == before


def test_a_photo_whose_features_are_no_numbers_is_told(shop, mixtura, broken):
    assert told(mixtura("predict", "shop", "photos/apple/0.png"), 65, "1 of 1 rows", "NaN or infinity")


def test_another_encoder_is_told(shop, mixtura):
    before = state(shop)
    for options in (("--encoder", "pixels"), (*TINY, "--size", "48")):
        answer = mixtura("extract", "photos", "-o", "shop/features", *options)
        assert told(answer, 65, "shop/features holds features of encoder 'tiny'", "extract into a new folder")
        assert len(answer.err) < 250
    assert mixtura("extract", "photos", "-o", "p", "--encoder", "pixels").code == 0
    assert told(mixtura("evaluate", "shop", "p"), 65, "'tiny'", "'pixels'")
    assert state(shop) == before


def test_an_encoder_that_has_changed_since_is_told(shop, mixtura, monkeypatch):
    from mixtura.encoders.tiny import Tiny

    start = Tiny.__init__
    monkeypatch.setattr(Tiny, "__init__", lambda self, *a, **k: start(self, *a, **(k | {"seed": 1})))
    assert told(mixtura("predict", "shop", "photos/apple/0.png"), 65, "'tiny' is not the one", "weights is")
    assert told(mixtura("evaluate", "shop", "photos"), 65, "weights is")


def test_a_store_of_another_width_is_told(shop, mixtura, here):
    features = FeatureStore.open(shop / "features").read()
    store = FeatureStore.create(here / "wide", features.identity, 5)
    rows = features.select(np.arange(10))
    store.append(replace(rows, embedding=np.ones((10, 5), np.float32)))
    assert told(mixtura("evaluate", "shop", "wide"), 65, "5 dimensions and the model takes 32")


def test_missing_labels_are_left_out_and_counted(here, mixtura):
    shoot(here / "photos", {"apple": 12, "pear": 12})
    names = [f"{label}/{number}.png" for label in ("apple", "pear") for number in range(12)]
    rows = [f"{name},{name.split('/')[0] if i % 6 else ''}" for i, name in enumerate(names)]
    (here / "photos" / "list.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    answer = mixtura("fit", "photos/list.csv", "-o", "shop", *TINY)
    assert answer.code == 0, answer.err
    assert "Items without a label were left out: 4." in answer.out
    found = json.loads(mixtura("evaluate", "shop", "photos/list.csv", "--json").out)
    assert found["items"] == 20
    assert "auroc_unknown" not in found["metrics"]
    (here / "photos" / "list.csv").write_text("file_name,label\n" + "\n".join(f"{name}," for name in names) + "\n")
    assert told(mixtura("fit", "photos/list.csv", "-o", "none", *TINY), 65, "no class")


def test_labels_of_photos_that_are_not_there_are_told(here, mixtura):
    shoot(here / "photos", {"apple": 6, "pear": 6})
    names = [f"{label}/{number}.png" for label in ("apple", "pear") for number in range(8)]
    rows = "\n".join(f"{name},{name.split('/')[0]}" for name in names)
    (here / "photos" / "list.csv").write_text(f"file_name,label\n{rows}\n")
    answer = mixtura("fit", "photos/list.csv", "-o", "shop", *TINY)
    assert answer.code == 0, answer.err
    assert "4 could not be used and were left out:" in answer.out
    assert "apple/6.png" in answer.out


def test_test_photos_of_unknown_classes_only_are_told(shop, mixtura, here):
    shoot(here / "plums", {"plum": 3})
    assert told(mixtura("evaluate", "shop", "plums"), 65, "None of the 3 test items", "'apple', 'kiwi', 'pear'")


@pytest.mark.parametrize(
    "text", ["garbage", "id,split\napple/0.png,tomorrow\n", "id,split\na,train\na,train\n", "\x00\x01", 'id,split\n"']
)
def test_a_split_file_with_garbage_is_told(shop, mixtura, text):
    (shop / "split.csv").write_text(text)
    before = state(shop)
    assert told(mixtura("fit", "photos", "-o", "shop", *TINY), 65, "shop/split.csv")
    assert state(shop) == before


# Bad photos


HOSTILE = {
    "text.jpg": b"not a photo at all",
    "empty.png": b"",
    "bomb.png": None,
    "cut.png": None,
    "script.jpg": b"<svg onload=alert(1)>",
}


@pytest.fixture
def hostile(here):
    """Good photos with bad ones among them."""
    root = shoot(here / "photos", {"apple": 12, "pear": 12})
    for name, data in HOSTILE.items():
        (root / "apple" / name).write_bytes(data or b"")
    Image.new("1", (30_000, 30_000)).save(root / "apple" / "bomb.png")
    whole = (root / "apple" / "0.png").read_bytes()
    (root / "apple" / "cut.png").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(root / "pear" / "pipe.png")
    (root / "pear" / "loop.png").symlink_to("loop.png")
    (root / "pear" / "out.png").symlink_to("/etc/passwd")
    return root


def test_bad_photos_among_good_ones_are_listed_and_left_out(hostile, mixtura, here):
    answer = mixtura("fit", "photos", "-o", "shop", *TINY, "--json")
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    named = {Path(problem["source"]).name: problem["message"] for problem in record["problems"]}
    assert set(named) == set(HOSTILE) | {"pipe.png", "loop.png", "out.png"}
    assert all(message.endswith(".") and "Traceback" not in message for message in named.values())
    assert record["facts"]["left_out"] == len(named)
    words = mixtura("fit", "photos", "-o", "shop", *TINY).out
    assert f"{len(named)} could not be used and were left out:" in words


def test_bad_photos_get_a_row_each_and_the_others_their_answers(hostile, mixtura, here):
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0
    names = [
        "photos/apple/text.jpg",
        "photos/apple/0.png",
        "photos/apple/bomb.png",
        "photos/pear/pipe.png",
        "nowhere.jpg",
    ]
    answer = mixtura("predict", "shop", *names, "--json")
    assert answer.code == 66
    records = json.loads(answer.out)
    assert [record["id"] for record in records] == names
    assert ["error" in record for record in records] == [True, False, True, True, True]
    assert records[1]["label"] == "apple"


def test_no_photo_that_can_be_read_is_one_sentence(here, mixtura):
    for label in ("apple", "pear"):
        (here / "photos" / label).mkdir(parents=True)
        (here / "photos" / label / "1.jpg").write_bytes(b"no photo")
    assert told(mixtura("fit", "photos", "-o", "shop", *TINY), 66, "None of the 2 files could be read", "1.jpg")


# Disks, folders and signals


@pytest.mark.parametrize(("error", "code"), [(errno.ENOSPC, 74), (errno.EROFS, 73), (errno.EACCES, 73)])
def test_a_disk_that_fails_while_saving_leaves_the_earlier_model(shop, mixtura, here, monkeypatch, error, code):
    shoot(here / "photos", {"plum": 10})
    assert mixtura("extract", "photos", "-o", "shop/features", *TINY).code == 0
    before = {name: digest for name, digest in state(shop).items() if name != "split.csv"}

    def fail(path, data, write=files._write_through):
        if b"plum" in data and b"layout" in data:
            path.write_bytes(data[:10])
            raise OSError(error, os.strerror(error))
        write(path, data)

    monkeypatch.setattr(files, "_write_through", fail)
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert told(answer, code, "Cannot write shop/config.json", "what was saved before is intact")
    assert {name: digest for name, digest in state(shop).items() if name != "split.csv"} == before
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert json.loads(mixtura("predict", "shop", "photos/apple/0.png", "--json").out)[0]["label"] == "apple"


def test_a_file_in_the_way_of_the_output_is_told(here, mixtura):
    shoot(here / "photos", {"apple": 5, "pear": 5})
    (here / "shop").write_text("mine")
    assert told(mixtura("fit", "photos", "-o", "shop", *TINY), 73, "Cannot write shop", "Choose a folder")
    assert told(mixtura("fit", "photos", "-o", "shop/deeper", *TINY), 73, "shop/deeper")
    assert (here / "shop").read_text() == "mine"


def test_a_damaged_model_is_told(shop, mixtura):
    (shop / "model.safetensors").write_bytes((shop / "model.safetensors").read_bytes()[:-3])
    answer = mixtura("predict", "shop", "photos/apple/0.png")
    assert told(answer, 65, "model.safetensors is not the file", "Run mixtura fit again; the features are kept.")
    (shop / "config.json").unlink()
    assert told(mixtura("predict", "shop", "photos/apple/0.png"), 66, "shop is no model: config.json is missing")
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0
    assert mixtura("predict", "shop", "photos/apple/0.png").code == 0


def test_a_damaged_store_is_told(shop, mixtura):
    part = next((shop / "features").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    assert told(mixtura("fit", "photos", "-o", "shop", *TINY), 65, part.name, "damaged")
    assert mixtura("predict", "shop", "photos/apple/0.png").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_extraction_goes_on_where_it_stopped(here, mixtura, monkeypatch, number, code):
    shoot(here / "photos", {"apple": 30, "pear": 30})
    (here / "slow.py").write_text(
        "import pathlib, time\n"
        "from mixtura.encoders.tiny import Tiny\n"
        "class Slow(Tiny):\n"
        "    def __init__(self, *given, **options):\n"
        "        super().__init__(*given, **options)\n"
        "        self.identity = self.identity | {'name': 'slow:Slow'}\n"
        "    def encode(self, batch):\n"
        "        pathlib.Path('started').touch()\n"
        "        time.sleep(0.25)\n"
        "        return super().encode(batch)\n"
    )
    command = [
        sys.executable,
        "-m",
        "mixtura",
        "fit",
        "photos",
        "-o",
        "shop",
        "--encoder",
        "slow:Slow",
        "--batch-size",
        "4",
    ]
    environment = os.environ | {"PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (here / "started").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert err.startswith("mixtura: ")
    assert "Run the same command again to continue." in err
    assert not (here / "shop" / "config.json").exists()
    kept = len(FeatureStore.open(here / "shop" / "features").read())
    assert 0 < kept < 60
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("MIXTURA_EXTENSIONS", "slow")
    answer = mixtura("extract", "photos", "-o", "shop/features", "--encoder", "slow:Slow", "--json")
    assert answer.code == 0, answer.err
    assert (json.loads(answer.out)["done"], json.loads(answer.out)["skipped"]) == (60 - kept, kept)
    assert mixtura("fit", "photos", "-o", "shop", "--encoder", "slow:Slow").code == 0
    sys.modules.pop("slow", None)


def test_an_empty_word_is_not_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "", "-o", "model", "--encoder", "pixels"]) == 2
    assert "should not be empty" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_model_does_not_go_among_the_photos(tmp_path, capsys):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    assert run(["fit", str(tmp_path / "photos"), "-o", str(tmp_path / "photos" / "..") + "/photos"]) == 2
    assert "a folder of its own" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a"]


def test_imported_features_do_not_promise_to_read_photos(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 4)), rng.normal(size=(20, 4)) + 6]).astype(np.float32)
    np.savez(tmp_path / "f.npz", embedding=x, label=np.repeat(["a", "b"], 20))
    source = ["data", "import", str(tmp_path / "f.npz")]
    assert run([*source, "-o", str(tmp_path / "g"), "--split", "zzz"]) == 2
    assert "train" in capsys.readouterr().err
    assert run([*source, "-o", str(tmp_path / "store")]) == 0
    assert run(["fit", str(tmp_path / "store"), "-o", str(tmp_path / "model")]) == 0
    capsys.readouterr()
    assert run(["predict", str(tmp_path / "model"), str(tmp_path / "a.jpg")]) == 2
    assert "were imported" in capsys.readouterr().err


def test_a_damaged_recipe_is_a_damaged_model(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 4)), rng.normal(size=(20, 4)) + 6]).astype(np.float32)
    np.savez(tmp_path / "f.npz", embedding=x, label=np.repeat(["a", "b"], 20))
    assert run(["data", "import", str(tmp_path / "f.npz"), "-o", str(tmp_path / "store")]) == 0
    assert run(["fit", str(tmp_path / "store"), "-o", str(tmp_path / "model")]) == 0
    (tmp_path / "model" / "recipe.yaml").write_text("encoder: n\n")
    assert run(["evaluate", str(tmp_path / "model")]) == 65
    assert "recipe.yaml is damaged" in capsys.readouterr().err
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"b"', '"a"'))
    assert run(["predict", str(tmp_path / "model"), str(tmp_path / "a.jpg")]) == 65


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_the_null_device(closed, tmp_path):
    """Also for the next file: it must not get the number of the stream, or libraries would print into it."""
    code = (
        "import sys; from mixtura.cli.app import run; code = run(['--version']); "
        "sys.exit(code or open('file', 'w').fileno() < 3 or run(['predict', 'none', '-']) not in (64, 66))"
    )
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "fault" not in done.stderr and "Traceback" not in done.stderr


# Names and files that are not what they seem


def test_a_class_named_like_a_verdict_is_told_and_can_be_left_out(here, mixtura):
    shoot(here / "photos", {"apple": 6, "pear": 6, "plum": 6})
    (here / "photos" / "plum").rename(here / "photos" / "Unknown")
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert answer.code == 0, answer.err
    said = " ".join(answer.out.split())
    assert "The class 'Unknown' is named like the verdict unknown" in said and "fit with --unknown Unknown" in said
    answer = mixtura("fit", "photos", "-o", "other", *TINY, "--unknown", "Unknown")
    assert answer.code == 0 and "is named like the verdict" not in answer.out
    shoot(here / "more", {"plum": 8})
    (here / "more" / "plum" / "7.png").rename(here / "new.png")
    for command in (("enroll", "other", "unknown", "new.png"), ("rename", "other", "apple", "unsure")):
        answer = mixtura(*command)
        assert answer.code == 2 and "could not be told from the verdict" in answer.err
    assert mixtura("enroll", "shop", "unknown", "new.png").code == 0  # photos for the class that is there


def test_extract_of_unreadable_files_leaves_no_store(here, mixtura):
    (here / "photos" / "apple").mkdir(parents=True)
    for name in ("a.jpg", "b.png"):
        (here / "photos" / "apple" / name).write_text("no photo")
    answer = mixtura("extract", "photos", "-o", "new/store", *TINY)
    assert answer.code == 66 and "None of the 2 files could be read." in answer.err
    assert not (here / "new").exists()
    shoot(here / "good", {"apple": 3})
    assert mixtura("extract", "good", "-o", "store", *TINY).code == 0
    before = sorted((here / "store").rglob("*"))
    assert mixtura("extract", "photos", "-o", "store", *TINY).code == 66
    assert sorted((here / "store").rglob("*")) == before


def test_a_fit_that_fails_late_keeps_features_only_and_says_so(here, mixtura):
    shoot(here / "photos", {"apple": 1, "pear": 1})
    answer = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert answer.code == 65
    assert "No photo is left to test with" in answer.err and "The features in shop/features are kept" in answer.err
    assert answer.err.count("\n") == 1
    assert {one.name for one in (here / "shop").iterdir()} <= {"features", ".lock"}
    again = mixtura("fit", "photos", "-o", "shop", *TINY)
    assert again.code == 65 and "are kept" not in again.err
    shoot(here / "photos", {"apple": 6, "pear": 6})
    assert mixtura("fit", "photos", "-o", "shop", *TINY).code == 0


def test_a_model_and_a_feature_store_never_share_a_folder(shop, mixtura):
    before = state(shop)
    np.save("rows.npy", np.zeros((3, 4), dtype=np.float32))
    for answer in (
        mixtura("extract", "photos", "-o", "shop", *TINY),
        mixtura("data", "import", "rows.npy", "-o", "shop"),
        mixtura("fit", "photos", "-o", "shop", *TINY, "--set", "extract.store=shop"),
        mixtura("fit", "photos", "-o", "shop/features", *TINY),
    ):
        assert answer.code == 73, answer.err
    assert state(shop) == before


def test_the_cause_is_named_where_too_little_is_left_to_learn_or_test_with(shop, here, mixtura):
    answer = mixtura("fit", "photos", "-o", "new", *TINY, "--unknown", "apple", "--unknown", "pear")
    assert told(answer, 65, "only one class, 'kiwi',", "beside the 2 that --unknown (data.unknown) keeps out")
    answer = mixtura("fit", "photos", "-o", "new", *TINY, "--set", "split.fractions=[1,0,0]")
    assert told(answer, 65, "split.fractions (1, 0, 0) leave none to the test part")
    for label, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (here / "copies" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (20, 20), color).save(here / "copies" / label / f"{number}.png")
    answer = mixtura("fit", "copies", "-o", "new", *TINY)
    assert told(answer, 65, "all 8 are needed to learn from. They are 2 and copies or groups of these.")
