"""A refused command leaves no folder that it has created, and nothing in the working directory."""

import numpy as np
import pytest

from mixtura import files
from mixtura.features.imports import from_npz, save

REFUSED = {
    "fit broken -o new/a/m --encoder pixels": 66,
    "fit single -o new/m --encoder pixels": 65,
    "fit nowhere/x -o new/m": 66,
    "fit store -o new/m --unknown nobody": 65,
    "fit store -o new/m --set split.file=splt.csv": 66,
    "sweep broken -o new/s --encoder pixels": 66,
    "sweep store -o new/s --heads nobody": 2,
    "sweep store -o new/s --set projection=[pca]": 2,
    "sweep store -o new/s --folds": 65,
    "sweep store -o new/s --save new/s": 2,
    "cluster broken -o new/c --encoder pixels": 66,
    "cluster store -o new/c --clusters 1000": 2,
    "extract single -o new/f --encoder logmel": 2,
    "extract nowhere -o new/f": 66,
    "export nowhere -o new/o": 66,
    "data import x.npz -o new/i --layout npz --split tset": 2,
    "data import broken -o new/i --layout dgmmc --labels x.npz": 65,
    "report nowhere -o new/r.html": 66,
    "predict nowhere broken --csv a.csv": 66,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", embedding=rng.standard_normal((30, 3)), label=np.array(list("abc") * 10))
    save(from_npz(tmp_path / "x.npz", encoder="net"), tmp_path / "store")
    for name in ("broken/a", "broken/b", "single/a"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(b"no photo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", REFUSED)
def test_a_refused_command_leaves_nothing(mixtura, place, line):
    before = sorted(place.rglob("*"))
    answer = mixtura(*line.split())
    assert answer.code == REFUSED[line], answer.err
    assert answer.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_a_folder_goes_again_only_if_it_was_made_here_and_holds_nothing(tmp_path):
    def fail(path, leave=None, undone="split.csv", results=None):
        done = files.kept_if_done(path / undone, results)
        with pytest.raises(RuntimeError), files.new_folder(path), files.only_writer(path), done:
            if leave is not None:
                (path / leave).write_text("x")
            raise RuntimeError

    fail(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "own").mkdir()
    fail(tmp_path / "own")
    assert (tmp_path / "own").is_dir()
    fail(tmp_path / "c" / "d", leave="work")
    assert (tmp_path / "c" / "d" / "work").exists()
    fail(tmp_path / "e", leave="split.csv")
    assert not (tmp_path / "e").exists()
    fail(tmp_path / "f", leave="split.csv", results=tmp_path / "own")
    fail(tmp_path / "f", leave="split.csv")  # there before
    assert (tmp_path / "f" / "split.csv").exists()


@pytest.mark.parametrize(
    "words",
    [
        "fit store -o new --label coarse",
        "fit store -o new --batch-size 8",
        "fit store -o new --workers 2",
        "fit store -o new --follow-links",
        "fit store -o new --set extract.dtype=float32",
        "sweep store -o new --label coarse",
        "extract store -o new --workers 2",
        "evaluate new store --label coarse",
        "report new store --follow-links",
        "cluster store -o new --batch-size 8",
        "cluster store -o new --encoder tiny",
    ],
)
def test_an_option_for_photos_is_refused_where_their_features_are_given(mixtura, place, words):
    before = sorted(place.rglob("*"))
    answer = mixtura(*words.split())
    assert answer.code == 2 and "has no effect" in answer.err and answer.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_a_recipe_for_photos_is_used_for_features_and_says_what_is_without_effect(mixtura, place):
    (place / "r.yaml").write_text("extract: {batch_size: 64}\nencoder: {runtime: onnx}\nhead: {family: tied}\n")
    answer = mixtura("fit", "store", "-o", "new", "-r", "r.yaml")
    assert answer.code == 0
    assert "extract.batch_size, encoder.runtime without effect here" in answer.out
