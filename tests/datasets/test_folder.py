"""Folders as people keep them, and as nobody should."""

import os
import shutil

import pytest
from PIL import Image

from mixtura.datasets.folder import load
from mixtura.datasets.items import to_split
from mixtura.datasets.walk import MAX_DEPTH, files_below
from mixtura.errors import DataError, NoInput


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path, "PNG")


def lock(monkeypatch, name):
    """Have the system refuse to list the folders of a name."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def told(data) -> dict[str, str]:
    return {problem.source: problem.reason for problem in data.problems}


def labels(data) -> dict[str, str | None]:
    return {item.id: item.label for item in data.items}


def test_folders_are_labels(tmp_path):
    put(tmp_path, "pin/1.jpg", "pin/b/2.PNG", "badge/3.jpeg")
    data = load(tmp_path)
    assert labels(data) == {"badge/3.jpeg": "badge", "pin/1.jpg": "pin", "pin/b/2.PNG": "pin"}
    assert data.classes == ("badge", "pin")
    assert data.problems == []
    assert data.image(0).size == (4, 4)
    assert {item.split for item in data.items} == {None}


def test_folders_of_splits(tmp_path):
    put(tmp_path, "train/pin/1.jpg", "Valid/pin/2.jpg", "test/badge/3.jpg")
    assert {item.id: (item.label, item.split) for item in load(tmp_path).items} == {
        "Valid/pin/2.jpg": ("pin", "val"),
        "test/badge/3.jpg": ("badge", "test"),
        "train/pin/1.jpg": ("pin", "train"),
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_set", "train"),
        ("Training-Set", "train"),
        ("train2017", "train"),
        ("trainval", "train"),
        ("01_train", "train"),
        ("images_train", "train"),
        ("DEV", "val"),
        ("valid images", "val"),
        ("testset", "test"),
        ("eval", "test"),
        ("trainers", None),
        ("train station", None),
        ("contest", None),
        ("model train", None),
        ("train поезд", None),
        ("dataset", None),
        ("2017", None),
    ],
)
def test_names_of_splits(name, split):
    assert to_split(name) == split


@pytest.mark.parametrize("other", ["annotations/a.xml", "docs/figure.jpg", "unlabeled/x/1.jpg", "loose.jpg"])
def test_what_lies_beside_splits_is_left_out_in_words(tmp_path, other):
    put(tmp_path, "train_images/pin/1.jpg", "train_images/badge/2.jpg", "dev/pin/3.jpg", other)
    data = load(tmp_path)
    assert {item.id: (item.label, item.split) for item in data.items} == {
        "dev/pin/3.jpg": ("pin", "val"),
        "train_images/badge/2.jpg": ("badge", "train"),
        "train_images/pin/1.jpg": ("pin", "train"),
    }
    assert told(data) == {other.split("/")[0]: "no_split"}


def test_a_test_split_without_class_folders_is_one_beside_others(tmp_path):
    put(tmp_path, "train/pin/1.jpg", "test/2.jpg", "docs/figure.jpg")
    assert [(item.label, item.split) for item in load(tmp_path).items] == [(None, "test"), ("pin", "train")]


def test_a_shop_may_sell_trains(tmp_path):
    put(tmp_path, "train/steam/1.jpg", "train/diesel/2.jpg", "car/3.jpg", "plane/4.jpg")
    assert load(tmp_path).classes == ("car", "plane", "train")


def test_a_class_beside_the_splits_makes_them_classes(tmp_path):
    put(tmp_path, "train/1.jpg", "test/2.jpg", "bus/3.jpg")
    assert load(tmp_path).classes == ("bus", "test", "train")


@pytest.mark.parametrize("wrap", ["fruit/", "photos/fruit/", "a/b/c/"])
def test_a_folder_that_only_wraps_others_is_entered(tmp_path, wrap):
    put(tmp_path, f"{wrap}apple/1.jpg", f"{wrap}pear/2.jpg", "__MACOSX/fruit/apple/1.jpg")
    (tmp_path / "README.txt").touch()
    assert labels(load(tmp_path)) == {f"{wrap}apple/1.jpg": "apple", f"{wrap}pear/2.jpg": "pear"}


def test_splits_and_lists_are_found_in_a_wrapping_folder(tmp_path):
    put(tmp_path / "a", "fruit/train/apple/1.jpg", "fruit/test/apple/2.jpg")
    assert [(item.id, item.split) for item in load(tmp_path / "a").items] == [
        ("fruit/test/apple/2.jpg", "test"),
        ("fruit/train/apple/1.jpg", "train"),
    ]
    put(tmp_path / "b", "fruit/1.jpg")
    (tmp_path / "b" / "fruit" / "metadata.csv").write_text("file_name,label\n1.jpg,apple\n")
    assert labels(load(tmp_path / "b")) == {"fruit/1.jpg": "apple"}


@pytest.mark.parametrize("name", ["apple/1.jpg", "apple/2023/1.jpg", "train/apple/1.jpg"])
def test_one_class_is_no_wrapping_folder(tmp_path, name):
    put(tmp_path, name)
    assert load(tmp_path).classes == ("apple",)


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "#snapshot", "@Recycle", "@tmp", "$RECYCLE.BIN", "System Volume Information", "lost+found",
     "__MACOSX", ".Trashes", ".ipynb_checkpoints", "$Recycle.Bin"],
)  # fmt: skip
def test_folders_of_devices_and_systems_are_left_alone_without_a_word(tmp_path, name):
    put(tmp_path, "pin/1.jpg", "badge/2.jpg", f"{name}/3.jpg", f"pin/{name}/1.jpg/small.jpg")
    data = load(tmp_path)
    assert list(labels(data)) == ["badge/2.jpg", "pin/1.jpg"]
    assert data.problems == []
    assert [path.name for path in files_below(tmp_path)[0]] == ["2.jpg", "1.jpg"]


def test_a_class_of_sounds_beside_photos_is_named(tmp_path):
    put(tmp_path, "pin/1.jpg")
    (tmp_path / "rain").mkdir()
    (tmp_path / "rain" / "1.wav").touch()
    assert [problem.message for problem in load(tmp_path).problems] == [
        "rain: holds sounds and no photos, so this class cannot be learned."
    ]


def test_a_name_that_nobody_can_see_is_no_label(tmp_path):
    put(tmp_path, "pin/1.jpg", " /2.jpg")
    assert labels(load(tmp_path)) == {" /2.jpg": None, "pin/1.jpg": "pin"}


def test_queries_are_the_files_that_a_data_set_reads_and_those_it_refuses(tmp_path):
    put(tmp_path, "b/2.jfif", "a.jpg", "b/.hidden.jpg", "z.PNM", "c.heic", "notes.txt")
    (tmp_path / "d.wav").touch()
    (tmp_path / "b" / "up").symlink_to("..")
    put(tmp_path.with_name("far"), "3.jpg")
    (tmp_path / "far").symlink_to(tmp_path.with_name("far"))
    found, problems = files_below(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a.jpg", "b/2.jfif", "c.heic", "d.wav", "far/3.jpg", "z.PNM",
    ]  # fmt: skip
    assert problems == []
    read = {item.payload.name for item in load(tmp_path, follow_links=True).items}
    assert read == {path.name for path in found} - {"c.heic", "d.wav"}


def test_a_folder_of_queries_that_cannot_be_listed_is_a_problem(tmp_path, monkeypatch):
    put(tmp_path, "a.jpg", "locked/b.jpg")
    lock(monkeypatch, "locked")
    found, problems = files_below(tmp_path)
    assert [path.name for path in found] == ["a.jpg"]
    assert [(one.source, one.reason) for one in problems] == [(f"{tmp_path}/locked", "unreadable")]


def test_photos_without_folders_have_no_label(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg")
    assert labels(load(tmp_path)) == {"1.jpg": None, "2.jpg": None}


def test_what_is_left_out_is_listed(tmp_path):
    put(tmp_path, "pin/1.jpg", "loose.jpg", "pin/.hidden.jpg", ".thumbnails/x.jpg", "pin/photo.heic")
    (tmp_path / "pin" / "notes.txt").touch()
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pin" / "pipe.jpg")
    data = load(tmp_path)
    assert labels(data) == {"loose.jpg": None, "pin/1.jpg": "pin"}
    assert told(data) == {
        "pin/photo.heic": "format_not_allowed",
        "empty": "empty_class",
        "pin/pipe.jpg": "not_a_file",
    }
    assert all(problem.message.startswith(f"{problem.source}: ") for problem in data.problems)


def test_links_stay_inside_and_end(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root, "pin/1.jpg")
    put(outside, "secret.jpg")
    (root / "pin" / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "pin" / "broken.jpg").symlink_to("nowhere.jpg")
    (root / "pin" / "self.jpg").symlink_to("self.jpg")
    (root / "pin" / "same.jpg").symlink_to("1.jpg")
    (root / "pin" / "up").symlink_to("..")
    (root / "pin" / "again").symlink_to(root / "pin")
    (root / "all").symlink_to(outside)
    (root / "alias").symlink_to("pin")
    data = load(root)
    assert list(labels(data)) == ["pin/1.jpg", "pin/same.jpg"]
    assert told(data) == {
        "pin/out.jpg": "outside_root",
        "pin/broken.jpg": "not_a_file",
        "pin/self.jpg": "not_a_file",
        "pin/up": "read_already",
        "pin/again": "read_already",
        "all": "outside_root",
        "alias": "read_already",
    }
    assert all("--follow-links" in p.message for p in data.problems if p.reason == "outside_root")


def test_links_out_of_the_folder_are_followed_if_asked_to(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root, "pin/1.jpg")
    put(outside, "a/2.jpg")
    (root / "pin" / "2.jpg").symlink_to(outside / "a" / "2.jpg")
    (root / "badge").symlink_to(outside / "a")
    (root / "pin" / "up").symlink_to("..")
    data = load(root, follow_links=True)
    assert labels(data) == {"badge/2.jpg": "badge", "pin/1.jpg": "pin", "pin/2.jpg": "pin"}
    assert told(data) == {"pin/up": "read_already"}


def test_a_root_that_is_a_link_is_followed(tmp_path):
    put(tmp_path / "real", "pin/1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert list(labels(load(tmp_path / "link"))) == ["pin/1.jpg"]


def test_split_folders_that_leave_the_root_are_not_followed(tmp_path):
    put(tmp_path / "root", "train/pin/1.jpg")
    put(tmp_path / "outside", "pin/2.jpg")
    (tmp_path / "root" / "test").symlink_to(tmp_path / "outside")
    data = load(tmp_path / "root")
    assert list(labels(data)) == ["train/pin/1.jpg"]
    assert told(data) == {"test": "outside_root"}


def test_folders_that_are_too_deep_are_left_out(tmp_path):
    put(tmp_path, "pin/1.jpg", "pin/" + "d/" * (MAX_DEPTH + 2) + "2.jpg")
    data = load(tmp_path)
    assert list(labels(data)) == ["pin/1.jpg"]
    assert list(told(data).values()) == ["not_a_file"]


def test_names_of_any_kind_are_kept_apart_and_come_back(tmp_path):
    raw = [b"caf\xe9.jpg", b"two\nlines.jpg", b"50%.jpg", "é.jpg".encode(), "e\u0301.jpg".encode()]
    raw += [b"A.jpg", b"a.jpg", b"x" * 251 + b".jpg", b"-rf.jpg", b"'; drop.jpg"]
    put(tmp_path, *(os.path.join("pin", os.fsdecode(name)) for name in raw))
    data = load(tmp_path)
    assert sorted(os.fsencode(item.payload.name) for item in data.items) == sorted(raw)
    assert len({item.id for item in data.items}) == len(raw)
    for index, item in enumerate(data.items):
        item.id.encode("utf-8")
        assert data.image(index).size == (4, 4)


def test_class_names_are_equal_when_they_look_equal(tmp_path):
    put(tmp_path, "caf\u00e9/1.jpg", "cafe\u0301/2.jpg")
    assert load(tmp_path).classes == ("caf\u00e9",)


def test_a_list_beside_the_photos_wins(tmp_path):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,label,superclass\na/1.jpg,pin,metal\n")
    data = load(tmp_path)
    assert labels(data) == {"a/1.jpg": "pin"}
    assert load(tmp_path, label="coarse").classes == ("metal",)


def test_a_list_in_each_split(tmp_path):
    put(tmp_path, "train/1.jpg", "test/1.jpg")
    for part in ("train", "test"):
        (tmp_path / part / "metadata.csv").write_text("file_name,label\n1.jpg,pin\n")
    assert [(item.id, item.split) for item in load(tmp_path).items] == [
        ("test/1.jpg", "test"),
        ("train/1.jpg", "train"),
    ]


def test_a_folder_that_cannot_be_listed_is_a_problem(tmp_path, monkeypatch):
    put(tmp_path, "pin/1.jpg", "badge/2.jpg")
    lock(monkeypatch, "badge")
    assert told(load(tmp_path)) == {"badge": "unreadable"}


def test_a_list_outside_the_root_is_not_read(tmp_path):
    put(tmp_path / "root", "a/1.jpg")
    (tmp_path / "list.csv").write_text("file_name,label\na/1.jpg,pin\n")
    (tmp_path / "root" / "metadata.csv").symlink_to(tmp_path / "list.csv")
    data = load(tmp_path / "root")
    assert labels(data) == {"a/1.jpg": "a"}
    assert told(data) == {"metadata.csv": "outside_root"}


def test_nothing_to_read(tmp_path):
    with pytest.raises(NoInput, match="there is no such folder"):
        load(tmp_path / "missing")
    with pytest.raises(NoInput, match="holds no photos"):
        load(tmp_path)
    put(tmp_path, "pin/a.heic")
    with pytest.raises(NoInput, match=r"1 file was left out; pin/a\.heic: is a \.heic file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos.zip", "is an archive, not a folder. Unpack it"),
        ("photos.tar.gz", "is an archive"),
        ("PHOTOS.RAR", "is an archive"),
        ("1.JPEG", "is a photo, not a folder"),
        ("1.mp3", "is a sound, not a folder"),
        ("list.xlsx", "is a spreadsheet. Save the list as CSV"),
        ("file.txt", "is a file, not a folder"),
    ],
)
def test_a_file_in_place_of_a_folder_is_named(tmp_path, name, said):
    (tmp_path / name).touch()
    with pytest.raises(NoInput, match=said):
        load(tmp_path / name)


def test_order_is_that_of_the_names(tmp_path):
    names = [f"{label}/{n}.jpg" for label in "abc" for n in range(5)]
    put(tmp_path, *reversed(names))
    first = [item.id for item in load(tmp_path).items]
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    assert first == names == [item.id for item in load(tmp_path.with_name("copy")).items]


def test_a_broken_list_is_an_error_with_its_line(tmp_path):
    put(tmp_path, "1.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,label,weight\n1.jpg,pin,heavy\n")
    with pytest.raises(DataError, match="line 2: weight 'heavy'"):
        load(tmp_path)


def test_left_out_folders_are_not_called_files(tmp_path):
    (tmp_path / "apple").mkdir()
    (tmp_path / "pear").mkdir()
    with pytest.raises(NoInput, match="2 folders were left out"):
        load(tmp_path)
    (tmp_path / "apple" / "a.heic").write_bytes(b"x")
    with pytest.raises(NoInput, match="1 file and 1 folder were left out"):
        load(tmp_path)
