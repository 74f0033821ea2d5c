"""CIFAR and ImageNet from small files of the official layouts, which the tests write."""

import gzip
import io
import json
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mixtura import FeatureStore
from mixtura.cli.app import run
from mixtura.datasets import cifar, imagenet
from mixtura.datasets.cifar import load_cifar10, load_cifar100
from mixtura.errors import DataError, LabelError, NoInput
from mixtura.pipeline import factory
from mixtura.pipeline.data_source import data_keys
from mixtura.recipe import resolve

FINE, COARSE = ["apple", "bear", "chair", "maple_tree"], ["fruit", "large_carnivores"]
TEN = ["airplane", "automobile", "bird"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """CIFAR with as many pictures and names as the files below have."""
    train = {"train": 3, "test": 6, "batches.meta.txt": 3}
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, published=train))
    counts = {"train": 8, "test": 4, "fine_label_names.txt": 4, "coarse_label_names.txt": 2}
    monkeypatch.setattr(cifar, "CIFAR100", replace(cifar.CIFAR100, published=counts))


def records(count, names, seed):
    """Records as the official files hold them: label bytes, then red, green and blue planes."""
    rng = np.random.default_rng(seed)
    labels = np.stack([np.arange(count) % len(known) for known in names], axis=1).astype(np.uint8)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    flat = pixels.transpose(0, 3, 1, 2).reshape(count, -1)
    return np.concatenate([labels, flat], axis=1).tobytes(), labels, pixels


@pytest.fixture
def hundred():
    """The files of a small CIFAR-100, and the pictures of its training part."""
    train, _, pixels = records(8, [COARSE, FINE], 0)
    files = {"train.bin": train, "test.bin": records(4, [COARSE, FINE], 1)[0]}
    files["fine_label_names.txt"] = "\n".join([*FINE, "", ""]).encode()
    files["coarse_label_names.txt"] = "\n".join([*COARSE, ""]).encode()
    return files, pixels


@pytest.fixture
def ten():
    files = {f"data_batch_{i}.bin": records(3, [TEN], i)[0] for i in range(1, 6)}
    return files | {"test_batch.bin": records(6, [TEN], 9)[0], "batches.meta.txt": "\n".join([*TEN, ""]).encode()}


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path, files, prefix=""):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_cifar_100_fine_and_coarse(tmp_path, hundred):
    files, pixels = hundred
    data = load_cifar100(put(tmp_path / "any", files))
    assert Counter(item.split for item in data.items) == {"train": 8, "test": 4}
    assert [item.label for item in data.items[:5]] == [*FINE, "apple"]
    assert [item.superlabel for item in data.items[:3]] == ["fruit", "large_carnivores", "fruit"]
    for index in range(8):
        np.testing.assert_array_equal(np.asarray(data.image(index)), pixels[index])
    coarse = load_cifar100(tmp_path / "any", label="coarse")
    assert coarse.classes == tuple(sorted(COARSE)) and len(coarse) == 12


def test_cifar_10_in_the_order_of_its_batches(tmp_path, ten):
    data = load_cifar10(put(tmp_path / "cifar-10-batches-bin", ten))
    assert Counter(item.split for item in data.items) == {"train": 15, "test": 6}
    assert [item.id for item in data.items[:2]] == ["train/00000", "train/00001"] and data.items[15].id == "test/00000"
    assert data.classes == tuple(sorted(TEN))
    last = np.frombuffer(ten["data_batch_5.bin"], np.uint8).reshape(3, -1)[2]
    np.testing.assert_array_equal(np.asarray(data.image(14))[..., 0], last[1 : 1 + 1024].reshape(32, 32))
    with pytest.raises(LabelError, match="no superclass"):
        load_cifar10(tmp_path, label="coarse")


@pytest.mark.parametrize("root", ["archive", "beside", "parent", "cache"])
def test_archives_and_folders_hold_the_same(tmp_path, hundred, root, monkeypatch):
    files, _ = hundred
    wanted = load_cifar100(put(tmp_path / "plain", files))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "mixtura" / "cifar100"
    place.mkdir(parents=True)
    archive = pack(tmp_path / "cifar-100-binary.tar.gz", files, "cifar-100-binary/")
    given = {"archive": archive, "beside": tmp_path, "parent": tmp_path / "p", "cache": None}[root]
    put(tmp_path / "p" / "cifar-100-binary", files)
    archive.replace(place / archive.name) if root == "cache" else None
    data = load_cifar100(given)
    assert data.items == wanted.items
    assert [data.digest(i) for i in range(12)] == [wanted.digest(i) for i in range(12)]


def test_nothing_of_an_archive_is_written(tmp_path, hundred):
    files, _ = hundred
    hostile = {"../../escape.txt": b"x", "/etc/escape": b"x"} | files
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    assert len(load_cifar100(pack(folder / "c.tar.gz", hostile))) == 12
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["c.tar.gz"]
    link = tarfile.TarInfo("train.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(folder / "link.tar.gz", "w:gz") as archive:
        archive.addfile(link)
    with pytest.raises(DataError, match=r"holds no coarse_label_names\.txt"):
        load_cifar100(folder / "link.tar.gz")


@pytest.mark.parametrize("how", ["half", "text", "flipped"])
def test_a_damaged_archive_is_one_sentence(tmp_path, hundred, how):
    data = bytearray(pack(tmp_path / "a.tar.gz", hundred[0]).read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 0xFF
    content = {"half": data[: len(data) // 2], "text": b"no archive", "flipped": data}[how]
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar\.gz: is ") as caught:
        load_cifar100(tmp_path / "a.tar.gz")
    assert "\n" not in str(caught.value)


def test_an_archive_of_other_things_is_refused(tmp_path, hundred, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_FILE", 10_000)
    with pytest.raises(DataError, match=r"is not cifar-100-binary\.tar\.gz"):
        load_cifar100(pack(tmp_path / "large.tar.gz", hundred[0]))
    with pytest.raises(DataError, match="more than 0 MiB"):
        load_cifar100(put(tmp_path / "large", hundred[0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train.bin": b"x" * 100}, "not whole records of 3,074"),
        ({"train.bin": b""}, "not whole records"),
        ({"train.bin": b"\xff" * 3074}, "holds label 255, and there are 2 names"),
        ({"fine_label_names.txt": b"\xff\xfe"}, "is no text"),
        ({"fine_label_names.txt": b"a\na\nb\nc\n"}, "one twice"),
        (
            {"fine_label_names.txt": b"a\nb\nc\n"},
            "the number of names is 3, and 4 were published. Download cifar-100-binary",
        ),
        ({"test.bin": b"\0" * 3074}, "the number of pictures is 1, and 4 were published. Download cifar-100-binary"),
    ],
)
def test_damaged_files_are_told_with_their_place(tmp_path, hundred, change, said):
    folder = put(tmp_path / "c", hundred[0] | change)
    with pytest.raises(DataError, match=said) as caught:
        load_cifar100(folder)
    assert next(iter(change)) in str(caught.value)


def test_what_is_missing_is_named(tmp_path, ten, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    with pytest.raises(NoInput, match=r"holds no binary version of CIFAR-10\. Download cifar-10-binary\.tar\.gz"):
        load_cifar10(None)
    del ten["data_batch_3.bin"]
    with pytest.raises(NoInput, match=r"data_batch_3\.bin is missing"):
        load_cifar10(put(tmp_path / "c", ten))


@pytest.mark.parametrize(
    ("load", "place", "inside"),
    [
        (load_cifar10, "cifar-10-batches-py", "batches.meta"),
        (load_cifar100, "cifar-100-python", "meta"),
        (load_cifar100, "cifar-100-python", None),
    ],
)
def test_pickles_are_not_read_and_the_right_file_is_named(tmp_path, load, place, inside):
    folder = tmp_path / place
    folder.mkdir()
    if inside:
        (folder / inside).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"pickles.*Download cifar-100?-binary\.tar\.gz"):
        load(folder if inside else tmp_path)
    archive = tmp_path / ("cifar-10-python.tar.gz" if load is load_cifar10 else "cifar-100-python.tar.gz")
    archive.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="pickles"):
        load(archive)


def synset_table(rows):
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    table = np.empty((len(rows), 1), dtype=kinds)
    for place, (number, synset, words, children) in enumerate(rows):
        table[place, 0] = (np.array([[number]]), synset, words, "a gloss", np.array([[children]]))
    return table


SYNSETS = [
    (1, "n01440764", "tench, Tinca tinca", 0),
    (2, "n01443537", "goldfish, Carassius auratus", 0),
    (1001, "n00001740", "entity", 2),
]


@pytest.fixture
def layout(tmp_path):
    """A small ImageNet with a flat validation folder and the devkit."""
    rng = np.random.default_rng(0)

    def photo(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path, format="JPEG")

    for synset in ("n01440764", "n01443537"):
        for number in range(3):
            photo(tmp_path / "train" / synset / f"{synset}_{number}.JPEG")
    for number in range(1, 5):
        photo(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    kit = tmp_path / imagenet.DEVKIT / "data"
    kit.mkdir(parents=True)
    savemat(kit / "meta.mat", {"synsets": synset_table(SYNSETS)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n1\n2\n")
    return tmp_path


def test_imagenet_with_the_devkit(layout):
    data = imagenet.load(layout)
    assert data.classes == ("n01440764 tench", "n01443537 goldfish") and not data.problems
    assert Counter((item.split, item.label[10:]) for item in data.items) == {
        ("train", "tench"): 3,
        ("train", "goldfish"): 3,
        ("test", "tench"): 2,
        ("test", "goldfish"): 2,
    }
    test = [item for item in data.items if item.split == "test"]
    assert [item.label[10:] for item in test] == ["goldfish", "tench", "tench", "goldfish"]
    assert data.image(0).size == (30, 20)


def test_imagenet_with_val_in_class_folders_and_no_devkit(layout):
    for number, synset in ((1, "n01443537"), (2, "n01440764"), (3, "n01440764"), (4, "n01443537")):
        photo = layout / "val" / f"ILSVRC2012_val_{number:08d}.JPEG"
        (layout / "val" / synset).mkdir(exist_ok=True)
        photo.rename(layout / "val" / synset / photo.name)
    labeled = imagenet.load(layout)
    (layout / imagenet.DEVKIT).rename(layout / "elsewhere")
    bare = imagenet.load(layout)
    assert labeled.classes == ("n01440764 tench", "n01443537 goldfish")
    assert bare.classes == ("n01440764", "n01443537")
    assert [item.id for item in bare.items] == [item.id for item in labeled.items]


def test_what_imagenet_lacks_is_told(layout, tmp_path):
    truth = layout / imagenet.DEVKIT / imagenet.TRUTH_FILE
    for text, error, said in (("1\n", DataError, "holds no label for val/"), ("a b", DataError, "no list of numbers")):
        truth.write_text(text)
        with pytest.raises(error, match=said):
            imagenet.load(layout)
    truth.unlink()
    with pytest.raises(NoInput, match=r"Unpack ILSVRC2012_devkit_t12\.tar\.gz"):
        imagenet.load(layout)
    (layout / imagenet.DEVKIT / imagenet.META_FILE).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"meta\.mat: cannot be read"):
        imagenet.load(layout)
    with pytest.raises(NoInput, match="neither train nor val"):
        imagenet.load(tmp_path / "train")
    with pytest.raises(NoInput, match="neither train nor val"):
        imagenet.load(None)


def test_folders_and_files_that_are_no_synset_are_problems(layout):
    (layout / "train" / "cats").mkdir()
    source = next((layout / "train" / "n01440764").iterdir())
    (layout / "train" / "cats" / "1.JPEG").write_bytes(source.read_bytes())
    (layout / "val" / "holiday.jpg").write_bytes(source.read_bytes())
    data = imagenet.load(layout)
    assert len(data) == 10
    assert sorted(problem.source for problem in data.problems) == ["train/cats/1.JPEG", "val/holiday.jpg"]


def test_the_command_line_knows_the_layouts(tmp_path, hundred, ten, layout):
    folder = put(tmp_path / "renamed", hundred[0])
    archive = pack(tmp_path / "cifar-10-binary.tar.gz", ten)
    assert data_keys(str(folder))["data.kind"] == "cifar100"
    assert data_keys(str(archive))["data.kind"] == "cifar10"
    (tmp_path / "cifar-100-python").mkdir()
    assert data_keys(str(tmp_path / "cifar-100-python"))["data.kind"] == "cifar100"
    archive.unlink()
    (tmp_path / "cifar-100-python").rmdir()
    assert data_keys(str(layout))["data.kind"] == "imagenet"


@pytest.mark.parametrize("setting", [[], ["--set", "data.kind=cifar100"]])
def test_extract_reads_the_set_whether_it_is_named_or_noticed(tmp_path, hundred, setting, capsys):
    folder = put(tmp_path / "c", hundred[0])
    words = [
        "extract",
        str(folder),
        "-o",
        str(tmp_path / "store"),
        "--encoder",
        "pixels",
        "--label",
        "coarse",
        "--json",
    ]
    assert run([*words, *setting]) == 0
    assert json.loads(capsys.readouterr().out)
    assert set(FeatureStore.open(tmp_path / "store").read().label) == set(COARSE)
    assert run(["extract", str(tmp_path), "-o", str(tmp_path / "s2"), "--set", "data.kind=cifar10"]) == 66
    assert "holds no binary version of CIFAR-10" in capsys.readouterr().err


def test_a_kind_that_is_set_twice_is_still_refused(tmp_path, hundred, capsys):
    folder = put(tmp_path / "c", hundred[0])
    twice = ["--set", "data.kind=cifar100", "--set", "data.kind=folder"]
    assert run(["extract", str(folder), "-o", str(tmp_path / "s"), *twice]) == 2
    assert "set twice" in capsys.readouterr().err


def test_sets_are_listed_and_made_by_name(capsys, tmp_path, hundred):
    assert run(["data", "list", "-q"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("cifar10\t", "cifar100\t", "imagenet\t"))
    assert run(["data", "get", "imagenet"]) == 2
    assert "Where to get it: image-net.org" in capsys.readouterr().err
    folder = put(tmp_path / "c", hundred[0])
    section = resolve({"data.kind": "cifar100", "data.root": str(folder), "data.label": "coarse"}).data
    assert factory.dataset_of(section).classes == tuple(sorted(COARSE))
