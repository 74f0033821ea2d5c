"""Folders as people keep them, and as nobody should."""

import os
import shutil

import pytest
from PIL import Image

from mixtura.datasets.folder import load
from mixtura.datasets.walk import MAX_DEPTH
from mixtura.errors import DataError, NoInput


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path, "PNG")


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


def test_a_class_beside_the_splits_makes_them_classes(tmp_path):
    put(tmp_path, "train/1.jpg", "test/2.jpg", "bus/3.jpg")
    assert load(tmp_path).classes == ("bus", "test", "train")


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
    assert list(labels(data)) == ["pin/1.jpg"]
    assert told(data) == {
        "loose.jpg": "no_class",
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
        "pin/up": "not_a_file",
        "pin/again": "not_a_file",
        "all": "outside_root",
        "alias": "not_a_file",
    }


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
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("badge"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
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
    with pytest.raises(NoInput, match=r"1 files were left out; pin/a\.heic: is a \.heic file"):
        load(tmp_path)
    (tmp_path / "file.txt").touch()
    with pytest.raises(NoInput, match="there is no such folder"):
        load(tmp_path / "file.txt")


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
