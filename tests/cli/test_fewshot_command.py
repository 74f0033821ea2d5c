"""``mixtura fewshot`` as people type it, on features and on photos."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixtura.features import imports
from mixtura.recipe import resolve
from mixtura.records.few_shot import FewShot, FewShotResult
from mixtura.report.few_shot import few_shot_page
from mixtura.tasks import fit
from mixtura.tasks.fewshot import CLASSIFIERS, ONLY_BY_NAME


@pytest.fixture
def store(cloud, tmp_path, monkeypatch):
    """A feature store of eight classes with 20 rows each, in the working directory."""
    monkeypatch.chdir(tmp_path)
    features = cloud(n=160, classes=8, dimension=6, separation=1.5)
    imports.save(features, tmp_path / "store")
    return tmp_path / "store"


SMALL = ("--way", 3, "--query", 4, "--episodes", 20)


def test_it_prints_a_table_and_leaves_a_page_a_table_and_the_episodes(mixtura, store):
    said = mixtura("fewshot", store, *SMALL, "-o", "few")
    assert said.code == 0 and "3-way 1-shot, 20 episodes of 4 new classes (80 items), 4 queries a class" in said.out
    chosen = [name for name in CLASSIFIERS if name not in ONLY_BY_NAME]
    for name in chosen:
        assert name in said.out
    folder = store.parent / "few"
    assert {path.name for path in folder.iterdir()} == {"fewshot.csv", "episodes.json", "fewshot.html"}
    rows = list(csv.DictReader((folder / "fewshot.csv").open()))
    assert len(rows) == len(chosen) * 20 and {row["way"] for row in rows} == {"3"}
    page = (folder / "fewshot.html").read_text()
    assert "<script" not in page and page.count("<svg") == 1 + len(chosen)


def test_a_list_gives_the_same_figures_again(mixtura, store):
    options = ("--classifier", "prototype,gaussian", "--json")
    first = json.loads(mixtura("fewshot", store, *SMALL, "--seed", 3, "-o", "few", *options).out)
    again = json.loads(mixtura("fewshot", store, "--list", "few/episodes.json", *options).out)
    assert [one["mean"] for one in first["results"]] == [one["mean"] for one in again["results"]]
    assert first["seed"] == again["seed"] == 3 and again["way"] == [3, 3] and again["setting"] == "inductive"
    rows = list(csv.DictReader((store.parent / "few" / "fewshot.csv").open()))
    mine = [float(row["accuracy"]) for row in rows if row["classifier"] == "prototype"]
    assert first["results"][0]["mean"] == pytest.approx(np.mean(mine), abs=1e-6)


def test_transductive_results_are_apart(mixtura, store):
    known = json.loads(mixtura("fewshot", store, *SMALL, "-o", "alone", "--json").out)
    given = ("--list", "alone/episodes.json", "--transductive", "-o", "together")
    record = json.loads(mixtura("fewshot", store, *given, "--json").out)
    assert record["setting"] == "transductive" and known["setting"] == "inductive"
    assert [one["classifier"] for one in record["results"]] == ["prototype", "gaussian"]
    before = {one["classifier"]: one["mean"] for one in known["results"]}
    assert all(one["mean"] != before[one["classifier"]] for one in record["results"])
    rows = list(csv.DictReader((store.parent / "together" / "fewshot.csv").open()))
    assert {row["setting"] for row in rows} == {"transductive"}
    assert "classified together (transductive)" in (store.parent / "together" / "fewshot.html").read_text()
    assert "Transductive." in mixtura("fewshot", store, *given).out
    answer = mixtura("fewshot", store, *SMALL, "--transductive", "--classifier", "nearest")
    assert answer.code == 2 and "nearest classifies each query alone. Together, these do: prototype, g" in answer.err


def test_brief_lines_name_each_classifier(mixtura, store):
    lines = mixtura("fewshot", store, *SMALL, "--classifier", "cosine, nearest", "-q").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["cosine", "nearest"]


@pytest.mark.parametrize(("names", "told"), [("calibration", False), ("gaussian", True)])
def test_a_fit_to_the_base_classes_is_told_where_there_is_one(mixtura, store, names, told):
    said = mixtura("fewshot", store, *SMALL, "--classifier", names)
    assert said.code == 0 and ("Fitting a model to the base classes" in said.err) == told


def test_a_model_knows_the_base_classes(mixtura, store):
    keys = {"data.kind": "features", "data.root": store, "output": store.parent / "shop"}
    fit.run(resolve(keys | {"data.unknown": ("c0", "c1", "c2")}))
    record = json.loads(mixtura("fewshot", "shop", *SMALL, "--json").out)
    assert (record["base"], record["classes"]) == (5, 3)
    said = mixtura("fewshot", "shop", *SMALL, "--base", 3)
    assert said.code == 2 and "the base classes of a model are the classes that it knows" in said.err
    said = mixtura("fewshot", "shop", store, *SMALL)
    assert said.code == 65 and "5 classes are among those to learn from" in said.err


def test_photos_are_read_once(mixtura, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in "abcd":
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, 3) + rng.integers(-20, 20, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / kind / f"{number}.png")
    call = ("fewshot", "photos", "--encoder", "tiny", "--way", 2, "--query", 2, "--episodes", 3, "--base", 0)
    said = mixtura(*call)
    assert said.code == 2 and "Photos need a folder for their features." in said.err
    for place in ("fotos", "photos/a/b"):
        said = mixtura("fewshot", place)
        assert said.code == 66 and place in said.err and "-o" not in said.err
    said = mixtura(*call, "-o", "few")
    assert said.code == 0 and "4 new classes (16 items)" in said.out and "no base classes" in said.out
    assert "gaussian" not in said.out and (tmp_path / "few" / "features").is_dir()
    assert mixtura(*call, "-o", "few").out.splitlines()[0] == said.out.splitlines()[0]


def noise(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(list(path.parent.iterdir())) + color)
    Image.fromarray(rng.integers(color, color + 60, (16, 16, 3)).astype(np.uint8)).save(path)


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A list of four classes, two of them in the test part only, and of a file that is not there."""
    monkeypatch.chdir(tmp_path)
    rows = [("file_name", "label", "split"), ("gone.png", "a", "train")]
    for color, (label, part) in enumerate((("a", "train"), ("b", "train"), ("c", "test"), ("d", "test"))):
        for number in range(6):
            noise(tmp_path / label / f"{number}.png", 40 * color)
            rows.append((f"{label}/{number}.png", label, part))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return "list.csv"


def test_files_of_a_list_that_are_not_there_are_named(mixtura, listed):
    options = (
        "--way",
        2,
        "--query",
        2,
        "--episodes",
        3,
        "--classifier",
        "prototype",
        "--encoder",
        "pixels",
        "-o",
        "few",
    )
    said = mixtura("fewshot", listed, *options)
    missing = "gone.png: is listed, but there is no such file (line 2 of list.csv)."
    assert said.code == 0 and "1 could not be used and were left out:" in said.out and "2 base classes" in said.out
    assert "is listed, but there is no such file (line 2 of list.csv)." in " ".join(said.out.split())
    record = json.loads(mixtura("fewshot", listed, *options, "--json").out)
    assert [one["message"] for one in record["problems"]] == [missing]


def test_a_model_is_told_of_files_that_are_not_there(mixtura, listed):
    lines = Path(listed).read_text().splitlines()
    known = [line for line in lines if line.startswith(("file", "a/", "b/"))]
    Path("known.csv").write_text("\n".join(known).replace(",train", ","))
    Path("new.csv").write_text("\n".join([*(line for line in lines if line[0] in "fcdg")]))
    assert mixtura("fit", "known.csv", "-o", "shop", "--encoder", "pixels").code == 0
    options = ("--way", 2, "--query", 2, "--episodes", 3, "--classifier", "prototype", "--json")
    record = json.loads(mixtura("fewshot", "shop", "new.csv", *options).out)
    assert [one["source"] for one in record["problems"]] == ["gone.png"] and record["classes"] == 2


@pytest.mark.parametrize("command", [("fit",), ("train", "--encoder", "cnn", "--epochs", 1)])
def test_a_test_part_of_other_classes_is_for_few_shot_learning(mixtura, listed, command):
    name, *options = command
    said = mixtura(name, listed, "-o", "shop", *(options or ("--encoder", "pixels")))
    assert said.code == 65 and said.err.count("\n") == 1
    assert "All 12 test photos are of classes that are not trained on. Give the train part alone" in said.err
    assert "measure with mixtura fewshot" in said.err and "features" not in said.err  # none were made in vain


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--way 5", 2, "An episode needs 5 classes, and there are 4 to draw from."),
        ("--way 2 --shot 18", 2, "and an episode needs 18 + 15 (--shot + --query) of each class."),
        (
            "--way 2 --shot 18 --skip-small",
            2,
            "--skip-small leaves none of the 4 classes: an episode needs 18 + 15 items",
        ),
        ("--base 7 --way 2", 2, "An episode needs 2 classes, and there is 1 to draw from."),
        ("--way 2 --shot 0", 2, "--shot is 0. Give 1 or more."),
        ("--way 2 --protocol allway", 2, "--way is for episodes of the protocol nway."),
        ("--protocol intra", 65, "need a superclass for each class"),
        ("--protocol omniglot-runs", 65, "These are not the official runs of Omniglot."),
        ("--protocol nways", 2, "nway"),
        ("--way 2 --query 2 --classifier gausian", 2, "gaussian"),
        ("--way 2 --query 2 --base 0 --classifier gaussian", 2, "borrow from base classes, and there are none"),
        ("--base 8", 2, "leaves none of the 8 classes"),
        ("--base split", 65, "Few-shot classes must be new"),
        ("--list other.json --shot 5", 2, "--shot has no effect: the episodes of other.json are drawn already."),
        ("--list other.json --protocol bar", 2, "--protocol has no effect"),
        ("--way 2 --query 2 --part foo", 2, "There is no part 'foo' of the split. Give one of train, val, test"),
        ("--way 2 --query 2 --classifier os:getcwd", 2, "The classifier os:getcwd has failed"),
        ("--way 2 --query 2 --classifier builtins:id", 2, "has returned int and not a Space"),
        ("--list nowhere.json", 66, "cannot be read"),
        ("--list damaged.json", 65, "is no list of episodes"),
        ("--list other.json", 66, "names 3 items that are not in the data"),
        ("--way 2 --part val", 2, "No item to draw episodes from is in the part 'val'"),
        ("--encoder tiny", 2, "--encoder has no effect"),
        ("store", 2, "is no model, so nothing can follow it"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(mixtura, store, options, code, said):
    episode = {"classes": [0], "support": [[0]], "query": [[1, 2]]}
    design = {"way": 2, "shot": 1, "query": 2, "episodes": 1, "seed": 0}
    made = {"layout": 1, "protocol": "nway", "design": design, "classes": ["c"], "ids": ["x", "y", "z"]}
    (store.parent / "other.json").write_text(json.dumps(made | {"episodes": [episode]}))
    (store.parent / "damaged.json").write_text("[]")
    answer = mixtura("fewshot", store, *options.split(), "-o", "few")
    assert (answer.code, answer.out) == (code, "") and said in answer.err
    assert answer.err.splitlines()[-1].startswith("mixtura: ") and not (store.parent / "few").exists()


def test_a_page_of_one_episode_has_no_interval():
    accuracy = np.array([0.5])
    one = FewShotResult("<b>", accuracy, 0.5, np.nan, np.nan, 0.0, np.nan, 0.1, 0.0)
    page = few_shot_page(FewShot("allway", np.array([4]), 1, 2, 0, 4, 9, 0, (one,), {}), "<i>")
    assert "<b>" not in page.split("</style>")[1] and "&lt;b&gt;" in page and "all-way (4-way) 1-shot" in page
