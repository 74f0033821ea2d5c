"""Names that no file can have, and what may not be read: a sentence, a code, and the other answers."""

import io
import os
import sys

import numpy as np
import pytest
from PIL import Image

from mixtura.cli.app import run
from mixtura.files import is_file_at, is_folder_at, is_there

LONG = "a" * 256  # a byte more than file systems take in one part of a path
TINY = ("--encoder", "tiny", "--size", "20")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photos of two colors, and a model of them."""
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for label, color in (("apple", (200, 40, 40)), ("kiwi", (40, 160, 40))):
        (root / "photos" / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.array(color) + rng.normal(0, 12, 3) + rng.normal(0, 25, (20, 20, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "photos" / label / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run(["fit", "photos", "-o", "shop", *TINY, "-q"]) == 0
    return root


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def test_no_name_is_too_long_to_ask_about(tmp_path):
    for path in (tmp_path / LONG, tmp_path / LONG / "b", tmp_path / ("b/" * 3000)):
        assert not (is_there(path) or is_file_at(path) or is_folder_at(path))
    (tmp_path / "a").touch()
    assert is_there(tmp_path / "a")
    assert is_file_at(tmp_path / "a")
    assert not is_folder_at(tmp_path / "a")
    assert is_folder_at(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("serve", LONG), 66),
        (("predict", LONG, "photos/apple/0.png"), 66),
        (("predict", "shop", f"{LONG}.npy"), 66),
        (("predict", "shop", "photos/apple/0.png", "--csv", f"{LONG}.csv"), 73),
        (("fit", LONG, "-o", "new"), 66),
        (("fit", f"{LONG}.csv", "-o", "new"), 66),
        (("fit", "-r", f"{LONG}.yaml", "-o", "new"), 66),
        (("fit", "photos", "-o", "new", *TINY, "--set", f"split.file={LONG}"), 66),
        (("fit", "photos", "-o", LONG, *TINY), 73),
        (("extract", LONG, "-o", "new"), 66),
        (("extract", "photos", "-o", LONG, *TINY), 73),
        (("cluster", LONG, "-o", "new"), 66),
        (("data", "import", f"{LONG}.npy", "-o", "new"), 66),
        (("data", "import", f"{LONG}.parquet", "-o", "new"), 66),
        (("enroll", "shop", "fig", f"{LONG}.png"), 66),
        (("search", "shop", f"{LONG}.png"), 66),
        (("recalibrate", "shop", "--confirmed", LONG), 66),
        (("export", "shop", "-o", LONG), 73),
    ],
)
def test_a_name_too_long_ends_like_any_missing_or_unwritable_file(here, mixtura, arguments, code):
    answer = mixtura(*arguments)
    assert answer.code == code, answer.err
    assert "--debug" not in answer.err


def test_predict_answers_beside_a_name_too_long(here, mixtura):
    answer = mixtura("predict", "shop", f"{LONG}.png", "photos/apple/0.png", "-q")
    assert answer.code == 66
    assert [line.split("\t")[1] for line in answer.out.splitlines()] == ["error", "match"]


def test_predict_answers_beside_what_may_not_be_read(here, mixtura, monkeypatch):
    (here / "closed").mkdir(exist_ok=True)
    stat, scandir = os.stat, os.scandir

    def refused(path, *arguments, original=stat, **options):
        if isinstance(path, str | os.PathLike) and "/closed/" in f"/{os.fspath(path)}":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path, *arguments, **options)

    def unlisted(path="."):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(os, "scandir", unlisted)
    answer = mixtura("predict", "shop", "closed/a.png", "closed/list.csv", "closed", "photos/apple/0.png", "-q")
    assert answer.code == 66
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert sorted(row[0] for row in rows if row[1] == "error") == ["closed", "closed/a.png", "closed/list.csv"]
    assert [row[1] for row in rows if row[0] == "photos/apple/0.png"] == ["match"]
    assert "free space" not in answer.out + answer.err


def test_free_space_is_named_only_where_it_may_be_short(mixtura, task):
    def fail(*arguments):
        raise PermissionError(13, "Permission denied", "a.jpg")

    task("mixtura.tasks.evaluate", run=fail)
    assert "free space" not in mixtura("evaluate", "shop").err


def test_vectors_on_standard_input_are_no_names(here, mixtura, monkeypatch):
    file = io.BytesIO()
    np.save(file, np.zeros((2, 3), dtype=np.float32))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))
    answer = mixtura("predict", "shop", "-", "-q")
    assert answer.code == 2
    assert answer.err.startswith("mixtura: Standard input holds vectors")
