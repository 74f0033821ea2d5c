"""SVHN, Flowers 102, Office-31 and Omniglot from small files of the official layouts, whole and damaged."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mixtura.datasets import DATASETS, OFFICIAL, PUBLIC, flowers102, office31, omniglot, svhn
from mixtura.datasets.split import make_split
from mixtura.errors import DataError, LabelError, NoInput, UsageError
from mixtura.pipeline.data_source import data_keys


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pin(monkeypatch, name: str, folder: Path, *names: str) -> None:
    """Let the small files of a set be the published ones."""
    md5 = {**PUBLIC[name].md5, **{file: md5_of(folder / file) for file in names}}
    monkeypatch.setitem(PUBLIC, name, replace(PUBLIC[name], md5=md5))


def photo(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), shade).save(path)


# SVHN

DIGITS = {"train": [10, 1, 9, 10], "test": [2, 10]}


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(svhn, "PUBLISHED", {split: len(y) for split, y in DIGITS.items()})
    for split, y in DIGITS.items():
        pixels = rng.integers(0, 256, (32, 32, 3, len(y)), dtype=np.uint8)
        savemat(tmp_path / svhn.FILES[split], {"X": pixels, "y": np.array(y, np.uint8)[:, None]}, do_compression=True)
    pin(monkeypatch, "svhn", tmp_path, *svhn.FILES.values())
    return tmp_path


def test_svhn_reads_label_10_as_digit_0(numbers):
    data = svhn.load(numbers)
    assert [(item.id, item.label) for item in data.items] == [
        ("train/00000", "0"), ("train/00001", "1"), ("train/00002", "9"), ("train/00003", "0"),
        ("test/00000", "2"), ("test/00001", "0"),
    ]  # fmt: skip
    expected = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(data.image(2)), expected[..., 2])
    assert svhn.load(numbers / "test_32x32.mat").items == data.items
    with pytest.raises(LabelError, match="no superclass"):
        svhn.load(numbers, label="coarse")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"X": np.zeros((32, 32, 3, 1), np.uint8), "y": [[1]]}, "the number of pictures is 1, and 2 were published"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [2]]}, "is not the published file"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[0], [2]]}, "is not the published file"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1]]}, "the number of pictures is 1, and 2 were published"),
        ({"X": np.zeros((2, 3072), np.uint8), "y": [[1], [2]]}, "is not the published file"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "holds no array 'y'"),
    ],
)
def test_a_damaged_svhn_is_one_sentence(numbers, arrays, said):
    savemat(numbers / "test_32x32.mat", arrays)
    with pytest.raises(DataError, match=rf"test_32x32\.mat: .*{said}.* Download it again"):
        svhn.load(numbers)


@pytest.mark.parametrize("cut", [0, 100, -20])
def test_a_matlab_file_that_ends_early_is_one_sentence(numbers, cut):
    path = numbers / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"train_32x32\.mat: cannot be read") as caught:
        svhn.load(numbers)
    assert "\n" not in str(caught.value)


# Flowers 102

PARTS = {"trnid": [6, 1], "valid": [2, 5], "tstid": [3, 4, 7]}
LABELS = [1, 102, 1, 77, 102, 77, 2]


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    monkeypatch.setattr(flowers102, "PUBLISHED", {"train": 2, "val": 2, "test": 3})
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([LABELS], np.uint8)})
    savemat(tmp_path / "setid.mat", {name: np.array([own], np.uint16) for name, own in PARTS.items()})
    for number in range(1, 8):
        photo(tmp_path / "jpg" / f"image_{number:05d}.jpg", 30 * number)
    pin(monkeypatch, "flowers102", tmp_path, "imagelabels.mat", "setid.mat")
    return tmp_path


def test_flowers_with_the_official_split(flowers):
    data = flowers102.load(flowers)
    assert {item.id: (item.split, item.label) for item in data.items} == {
        "jpg/image_00001.jpg": ("train", "pink primrose"),
        "jpg/image_00002.jpg": ("val", "blackberry lily"),
        "jpg/image_00003.jpg": ("test", "pink primrose"),
        "jpg/image_00004.jpg": ("test", "passion flower"),
        "jpg/image_00005.jpg": ("val", "blackberry lily"),
        "jpg/image_00006.jpg": ("train", "passion flower"),
        "jpg/image_00007.jpg": ("test", "hard-leaved pocket orchid"),
    }
    assert abs(np.asarray(data.image(3)).mean() - 120) < 2
    assert len(set(flowers102.CLASSES)) == 102


@pytest.mark.parametrize(
    ("file", "arrays", "said"),
    [
        ("imagelabels.mat", {"labels": [LABELS[:6]]}, "the number of labels is 6, and 7 were published"),
        ("imagelabels.mat", {"labels": [[0, *LABELS[1:]]]}, "is not the published file"),
        ("imagelabels.mat", {"labels": [[0.5] * 7]}, "is not the published file"),
        ("imagelabels.mat", {"labels": [[1] * 7]}, "is not the published file"),
        ("setid.mat", PARTS | {"valid": [2]}, "the number of photos in valid is 1, and 2 were published"),
        ("setid.mat", PARTS | {"valid": [2, 1]}, "is not the published file"),
        ("setid.mat", {"trnid": [6, 1]}, "holds no array 'valid'"),
    ],
)
def test_a_damaged_list_of_flowers_is_one_sentence(flowers, file, arrays, said):
    savemat(flowers / file, {name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(DataError, match=rf"{file}: {said}\. Download {file} again|{file}: {said}.*Download {file}"):
        flowers102.load(flowers)


def test_a_missing_flower_is_named(flowers):
    (flowers / "jpg" / "image_00004.jpg").unlink()
    with pytest.raises(DataError, match=r"photos is 6, and 7 were published; jpg/image_00004\.jpg is missing"):
        flowers102.load(flowers)


# Office-31


@pytest.fixture
def office(tmp_path, monkeypatch):
    monkeypatch.setattr(office31, "CLASSES", 2)
    monkeypatch.setattr(office31, "PUBLISHED", {"amazon": 5, "dslr": 4, "webcam": 3})
    for domain, numbers in {"amazon": (3, 2), "dslr": (2, 2), "webcam": (2, 1)}.items():
        for label, number in zip(("back_pack", "mug"), numbers, strict=True):
            for place in range(number):
                photo(tmp_path / domain / "images" / label / f"frame_{place + 1:04d}.jpg")
    return tmp_path


def test_office_reads_one_domain(office):
    data = office31.load(office, domain="webcam")
    assert [(item.id, item.label, item.split) for item in data.items] == [
        ("webcam/images/back_pack/frame_0001.jpg", "back_pack", None),
        ("webcam/images/back_pack/frame_0002.jpg", "back_pack", None),
        ("webcam/images/mug/frame_0001.jpg", "mug", None),
    ]
    assert len(office31.load(office, domain="amazon")) == 5


def test_office_is_read_without_its_folders_of_images_too(office):
    whole = office31.load(office, domain="webcam")
    for domain in office31.PUBLISHED:
        (office / domain / "images").rename(office / "classes")
        (office / domain).rmdir()
        (office / "classes").rename(office / domain)
    data = office31.load(office, domain="webcam")
    assert [item.id for item in data.items] == [item.id.replace("images/", "") for item in whole.items]
    assert [item.label for item in data.items] == [item.label for item in whole.items]
    assert data_keys(str(office))["data.kind"] == "office31"
    (office / "webcam" / "mug" / "frame_0001.jpg").unlink()
    with pytest.raises(DataError, match="webcam: the number of classes is 1, and 2 were published"):
        office31.load(office, domain="webcam")


def test_a_damaged_office_is_one_sentence(office):
    (office / "amazon" / "images" / "mug" / "frame_0002.jpg").unlink()
    with pytest.raises(DataError, match=r"amazon/images: the number of photos is 4, and 5 were published\. Unpack"):
        office31.load(office, domain="amazon")
    (office / "amazon" / "images" / "mug" / "frame_0001.jpg").unlink()
    with pytest.raises(DataError, match="the number of classes is 1, and 2 were published"):
        office31.load(office, domain="amazon")
    (office / "webcam").rename(office / "elsewhere")
    with pytest.raises(NoInput, match="holds no folder webcam, the domain 'webcam'"):
        office31.load(office, domain="webcam")
    with pytest.raises(UsageError, match=r"no domain 'dsl'\. Did you mean 'dslr'"):
        office31.load(office, domain="dsl")
    with pytest.raises(UsageError, match=r"Give the folder of one, as in "):
        office31.load(office)


# Omniglot

SMALL = (omniglot.Part("images_background", "train", 2, 3, 12), omniglot.Part("images_evaluation", "test", 1, 2, 8))
TREE = {
    "images_background": {"Greek": (1, 2), "Latin": (1,)},
    "images_evaluation": {"Tibetan": (1, 2)},
}
DRAWERS = 4


@pytest.fixture
def characters(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "PARTS", SMALL)
    for folder, alphabets in TREE.items():
        for alphabet, numbers in alphabets.items():
            for number in numbers:
                for drawer in range(1, DRAWERS + 1):
                    name = f"{number:04d}_{drawer:02d}.png"
                    photo(tmp_path / folder / alphabet / f"character{number:02d}" / name, 20 * drawer)
    return tmp_path


def test_omniglot_trains_on_some_alphabets_and_tests_on_others(characters):
    data = omniglot.load(characters)
    assert Counter((item.split, item.label) for item in data.items) == {
        ("train", "Greek/character01"): 4, ("train", "Greek/character02"): 4, ("train", "Latin/character01"): 4,
        ("test", "Tibetan/character01"): 4, ("test", "Tibetan/character02"): 4,
    }  # fmt: skip
    first = data.items[1]
    assert first.id == "images_background/Greek/character01/0001_02.png"
    assert (first.superlabel, first.group) == ("Greek", "Greek drawer 2")
    assert omniglot.load(characters, label="coarse").classes == ("Greek", "Latin", "Tibetan")


def test_a_part_of_omniglot_alone_is_split_by_drawers(characters):
    data = omniglot.load(characters / "images_background")
    assert len(data) == 12 and not any(item.split for item in data.items)
    split = make_split(data, (0.5, 0.0, 0.5))
    sides = {group: {split[i.id] for i in data.items if i.group == group} for group in {i.group for i in data.items}}
    assert all(len(parts) == 1 for parts in sides.values())
    assert {split[item.id] for item in data.items if item.label == "Greek/character02"} == {"train", "test"}


def test_a_damaged_omniglot_is_one_sentence(characters):
    greek = characters / "images_background" / "Greek"
    first = greek / "character02" / "0002_01.png"
    first.rename(greek / "character02" / "copy.png")
    with pytest.raises(DataError, match=r"character02/copy\.png: is no picture such as 0394_01\.png"):
        omniglot.load(characters)
    (greek / "character02" / "copy.png").unlink()
    with pytest.raises(DataError, match=r"images_background: the number of pictures is 11, and 12 were published"):
        omniglot.load(characters)
    (greek / "character02").rename(characters / "elsewhere")
    with pytest.raises(DataError, match=r"characters is 2, and 3 were published\. Unpack images_background\.zip again"):
        omniglot.load(characters)
    (characters / "images_evaluation").rename(characters / "images")
    with pytest.raises(NoInput, match=r"holds no folder images_evaluation\. Unpack images_evaluation\.zip"):
        omniglot.load(characters)


# All


@pytest.mark.parametrize(
    ("fixture", "kind", "inside"),
    [
        ("numbers", "svhn", "test_32x32.mat"),
        ("flowers", "flowers102", "setid.mat"),
        ("office", "office31", None),
        ("characters", "omniglot", "images_background"),
    ],
)
def test_a_layout_is_noticed(request, fixture, kind, inside):
    folder = request.getfixturevalue(fixture)
    assert data_keys(str(folder))["data.kind"] == kind
    if inside:
        assert data_keys(str(folder / inside))["data.kind"] == kind


def test_folders_of_a_shop_that_are_called_like_domains_are_classes(tmp_path):
    photo(tmp_path / "amazon" / "1.png")
    photo(tmp_path / "webcam" / "images" / "1.png")
    assert data_keys(str(tmp_path))["data.kind"] == "folder"


@pytest.mark.parametrize(
    "load", [svhn.load, flowers102.load, omniglot.load, lambda root: office31.load(root, domain="dslr")]
)
def test_without_a_place_the_cache_folder_is_looked_in(load, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for root in (None, tmp_path / "nowhere"):
        with pytest.raises(NoInput, match=r"holds no .* Give the folder|Unpack") as caught:
            load(root)
        assert str(tmp_path / ("cache" if root is None else "nowhere")) in str(caught.value)


def test_the_published_counts_are_those_of_the_papers():
    assert sum(office31.PUBLISHED.values()) == 4110 and office31.CLASSES == 31
    assert sum(flowers102.PUBLISHED.values()) == 8189 and sum(svhn.PUBLISHED.values()) == 99_289
    drawn = [(part.alphabets, part.characters, part.pictures) for part in omniglot.PARTS]
    assert all(pictures == 20 * characters for _, characters, pictures in drawn)
    assert tuple(map(sum, zip(*drawn, strict=True))) == (50, 1623, 32_460)


def test_every_set_says_where_it_is_to_be_had():
    own = {"folder", "nested", "csv", "npz", "audio"}
    assert set(PUBLIC) == set(DATASETS) - own and set(OFFICIAL) < set(PUBLIC)
    for one in PUBLIC.values():
        assert one.get and one.layout and all(len(bytes.fromhex(md5)) == 16 for md5 in one.md5.values())
