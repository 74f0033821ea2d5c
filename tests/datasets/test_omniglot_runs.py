"""The official runs of Omniglot: a small archive of the same layout, whole and damaged."""

import io
import zipfile

import pytest
from PIL import Image

from mixtura.datasets import omniglot_runs
from mixtura.datasets.episodes import Design, Pool, draw
from mixtura.datasets.omniglot_runs import load
from mixtura.errors import DataError, NoInput
from mixtura.pipeline.data_source import data_keys

PAIRS = {1: 3, 2: 1, 3: 2}  # test item -> training class


def picture(shade):
    file = io.BytesIO()
    Image.new("L", (9, 9), shade).save(file, "png")
    return file.getvalue()


def members():
    made = {}
    for run in ("run01", "run02"):
        lines = [f"{run}/test/item{i:02d}.png {run}/training/class{c:02d}.png" for i, c in PAIRS.items()]
        made[f"{run}/class_labels.txt"] = "\n".join([*lines, ""]).encode()
        for number in PAIRS:
            made[f"{run}/test/item{number:02d}.png"] = picture(10 * number)
            made[f"{run}/training/class{number:02d}.png"] = picture(100 + 10 * number)
    return made


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(omniglot_runs, "RUNS", 2)
    monkeypatch.setattr(omniglot_runs, "CHARACTERS", 3)


@pytest.fixture
def packed(tmp_path):
    def make(change=None):
        path = tmp_path / "all_runs.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (members() | (change or {})).items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    return make


def test_archive_and_folder_hold_the_same(packed, tmp_path):
    whole = load(packed())
    with zipfile.ZipFile(packed()) as archive:
        archive.extractall(tmp_path / "runs")
    assert load(tmp_path / "runs").items == whole.items and len(whole) == 12
    assert whole.superclasses == ("run01", "run02") and len(whole.classes) == 6
    assert data_keys(str(packed()))["data.kind"] == data_keys(str(tmp_path / "runs"))["data.kind"] == "omniglot-runs"
    assert whole.image(0).size == (9, 9)


def test_a_run_is_one_episode(packed):
    items = load(packed()).items
    pool = Pool.of(*([getattr(one, name) for one in items] for name in ("id", "label", "superlabel", "split")))
    listed = draw("omniglot-runs", pool, Design())
    assert len(listed) == 2 and (listed.design.way, listed.design.shot, listed.design.query) == (3, 1, 1)
    pairs = {
        (listed.ids[q], listed.ids[s])
        for episode in listed.episodes
        for q, s in zip(episode.query[:, 0], episode.support[:, 0], strict=True)
    }
    lines = {
        tuple(line.split())
        for name, text in members().items()
        if name.endswith("txt")
        for line in text.decode().splitlines()
    }
    assert pairs == lines


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"run02/test/item03.png": None}, DataError, "line 3 of run02/class_labels.txt"),
        ({"run01/class_labels.txt": None}, DataError, "all_runs.zip: the number of runs is 1, and 2 were published"),
        ({"run02/class_labels.txt": b""}, DataError, "run02/class_labels.txt: the number of pictures is 0, and 6 were"),
        ({"run01/class_labels.txt": b"one"}, DataError, "'one' is no pair"),
        ({"run01/class_labels.txt": None, "run02/class_labels.txt": None}, NoInput, "holds no run01/class_labels.txt"),
    ],
)
def test_a_damaged_archive_is_one_sentence(packed, change, error, said):
    with pytest.raises(error, match=said):
        load(packed(change))


def test_no_archive_is_one_sentence(tmp_path):
    (tmp_path / "all_runs.zip").write_bytes(b"PK broken")
    with pytest.raises(DataError, match="is not a readable archive"):
        load(tmp_path / "all_runs.zip")
    with pytest.raises(NoInput, match="there is no such archive or folder"):
        load(tmp_path / "nowhere")
