"""Sounds in folders, lists, packs, and in the layout of ESC-50."""

import csv

import numpy as np
import pytest

from mixtura.datasets import audio_folder, duplicates, esc, folder, listing, npz
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.split import make_split
from mixtura.errors import BadImage, BadSound, DataError, NoInput


@pytest.fixture
def put(written, tone):
    def make(root, *names):
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(written(tone(0.1, hertz=200 + 50 * number)))

    return make


@pytest.fixture
def esc50(tmp_path, put):
    """A function from further lines of the list: one clip in each of two folds of three classes, two of ESC-10."""

    def make(*changes):
        rows = []
        kinds = [(0, "dog", "True"), (1, "rooster", "True"), (49, "hand_saw", "False")]
        for number, (target, category, ten) in enumerate(kinds):
            for fold in (1, 2):
                name = f"{fold}-{number}-A-{target}.wav"
                put(tmp_path / "audio", name)
                rows.append([name, fold, target, category, ten, number, "A"])
        (tmp_path / "meta").mkdir(exist_ok=True)
        with (tmp_path / "meta" / "esc50.csv").open("w", newline="") as file:
            header = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
            csv.writer(file).writerows([header, *rows, *changes])
        return tmp_path

    return make


def test_folders_of_sounds(tmp_path, put):
    put(tmp_path, "train/rain/1.wav", "train/dog/2.WAV", "test/rain/3.flac")
    (tmp_path / "train" / "dog" / "cover.jpg").touch()
    (tmp_path / "train" / "dog" / "song.m4a").touch()
    data = audio_folder.load(tmp_path)
    assert data.modality == "audio"
    assert [(item.id, item.label, item.split) for item in data.items] == [
        ("test/rain/3.flac", "rain", "test"),
        ("train/dog/2.WAV", "dog", "train"),
        ("train/rain/1.wav", "rain", "train"),
    ]
    assert [(problem.source, problem.reason) for problem in data.problems] == [
        ("train/dog/song.m4a", "format_not_allowed")
    ]
    wave = data.sound(0, 16_000)
    assert (wave.shape, wave.dtype) == ((1600,), np.float32)
    assert len(data.digest(0)) == 64
    with pytest.raises(NoInput, match=r"holds no photos"):
        folder.load(tmp_path / "train" / "rain")
    (tmp_path / "none").mkdir()
    with pytest.raises(NoInput, match=r"holds no sounds \(.flac"):
        audio_folder.load(tmp_path / "none")


def test_the_wrong_reader_says_so(tmp_path, put):
    put(tmp_path, "a.wav")
    data = audio_folder.load(tmp_path)
    with pytest.raises(BadImage, match="is not an image"):
        data.image(0)
    photos = Dataset("photos", (Item("a", "a", b"\xff\xd8\xff\xe0", None),))
    with pytest.raises(BadSound, match="is not a sound"):
        photos.sound(0, 8000)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(BadSound, match="cannot be read"):
        data.digest(0)


def test_lists_of_sounds(tmp_path, put):
    put(tmp_path, "1.wav", "2.wav")
    (tmp_path / "list.csv").write_text("file_name,label\n1.wav,rain\n2.wav,dog\n")
    data = listing.load(tmp_path / "list.csv")
    assert (data.modality, data.classes) == ("audio", ("dog", "rain"))
    assert data.subset([1]).modality == "audio"


def packed(path, files, **more):
    offset = np.cumsum([0, *map(len, files)])
    data = np.frombuffer(b"".join(files), np.uint8)
    common = {"y": np.zeros(len(files), np.int32), "classes": np.array(["rain"])}
    np.savez(path, data=data, offset=offset, **(common | more))
    return path


def test_packs_of_sounds_keep_their_folds(tmp_path, written):
    path = packed(tmp_path / "p.npz", [written(format="OGG"), written()], fold=np.array([1, 5]), source=np.array("x"))
    data = npz.load(path)
    assert data.modality == "audio"
    assert [item.group for item in data.items] == ["fold 1", "fold 5"]
    assert len(data.sound(1, 8000)) == 4000


def test_a_group_wins_over_a_fold(tmp_path, written):
    more = {"fold": np.array([1, 5]), "group": np.array(["a", "b"])}
    assert [item.group for item in npz.load(packed(tmp_path / "p.npz", [written()] * 2, **more)).items] == ["a", "b"]
    with pytest.raises(DataError, match="'fold' is <U1; it must hold integers"):
        npz.load(packed(tmp_path / "q.npz", [written()], fold=np.array(["1"])))


def test_equal_sounds_are_one_group(tmp_path, written, tone):
    other = written(tone(hertz=300))
    data = npz.load(packed(tmp_path / "p.npz", [written(), other, written(), b""]))
    numbers = duplicates.find_groups(data)
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 3


def test_esc50(esc50):
    data = esc.load_esc50(esc50())
    assert (data.name, data.modality, len(data), data.problems) == ("ESC-50", "audio", 6, [])
    assert data.classes == ("dog", "hand_saw", "rooster")
    assert data.at_level("coarse").classes == ("animals", "outdoors")
    assert {item.group for item in data.items} == {"fold 1", "fold 2"}
    assert len(data.sound(0, 8000)) == 800
    split = make_split(data, (0.5, 0.0, 0.5))
    sides = {(item.group, split[item.id]) for item in data.items}
    assert len(sides) == 2  # a fold is never cut


def test_esc10_is_a_part_of_it(esc50):
    data = esc.load_esc10(esc50())
    assert (data.name, data.classes, len(data)) == ("ESC-10", ("dog", "rooster"), 4)
    assert esc.load_esc10(esc50(), label="coarse").classes == ("animals",)


@pytest.mark.parametrize("name", ["none.wav", "../meta/esc50.csv", "..", "/etc/passwd", "a\\b.wav"])
def test_esc50_names_files_in_its_folder_only(esc50, name):
    data = esc.load_esc50(esc50([name, 1, 2, "pig", "False", 1, "A"]))
    assert len(data) == 6
    assert [problem.reason for problem in data.problems] == ["not_a_file"]
    assert "line 8 of esc50.csv" in data.problems[0].message


@pytest.mark.parametrize("change", [{1: "one"}, {2: "50"}, {2: "-1"}, {3: ""}])
def test_lines_of_esc50_that_make_no_sense(esc50, put, change):
    row = ["x.wav", 1, 2, "pig", "False", 1, "A"]
    for place, value in change.items():
        row[place] = value
    root = esc50(row)
    put(root / "audio", "x.wav")
    with pytest.raises(DataError, match="line 8: fold"):
        esc.load_esc50(root)


def test_esc50_that_is_not_there(tmp_path, esc50):
    with pytest.raises(NoInput, match=r"holds no meta/esc50.csv. Unpack the official archive"):
        esc.load_esc50(tmp_path)
    with pytest.raises(NoInput, match="ESC-10: holds no"):
        esc.load_esc10(None)
    root = esc50()
    (root / "meta" / "esc50.csv").write_text("filename,label\n")
    with pytest.raises(DataError, match="has no column 'fold'"):
        esc.load_esc50(root)
    (root / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not a CSV file"):
        esc.load_esc50(root)


def test_esc50_without_its_sounds(esc50):
    root = esc50()
    for path in (root / "audio").iterdir():
        path.unlink()
    with pytest.raises(NoInput, match="none of the listed sounds"):
        esc.load_esc50(root)
