"""The sets with a name: what ships works, and what does not ship is found, checked and fetched."""

import gzip
import hashlib
import struct
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mixtura.datasets import DATASETS, demo, digits, download, idx
from mixtura.errors import CannotWrite, DataError, NoInput, UsageError
from mixtura.names import find

PIXELS = {"train": (6, 28, 28), "test": (4, 28, 28)}


def encode(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def small(monkeypatch):
    """Fashion-MNIST with ten random pictures, pinned as the real one is; and the content of its files."""
    rng = np.random.default_rng(0)
    contents, pinned = {}, {}
    for split, pair in idx.FASHION_MNIST.files.items():
        count = PIXELS[split][0]
        made = rng.integers(0, 256, PIXELS[split], dtype=np.uint8), np.arange(count, dtype=np.uint8)
        data = [encode(array) for array in made]
        pinned[split] = tuple(
            idx.IdxFile(file.name, array.shape, hashlib.sha256(content).hexdigest())
            for file, array, content in zip(pair, made, data, strict=True)
        )
        contents |= {file.name: content for file, content in zip(pair, data, strict=True)}
    source = replace(idx.FASHION_MNIST, files=pinned)
    monkeypatch.setattr(idx, "FASHION_MNIST", source)
    monkeypatch.setitem(idx.SOURCES, "fashion-mnist", source)
    return contents


def put(folder: Path, contents: dict[str, bytes], *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return folder


def test_every_entry_of_the_table_is_a_function():
    assert all(callable(find(DATASETS, name)) for name in DATASETS)


def test_the_demo_ships_small_balanced_and_licensed():
    data = demo.load()
    counts = Counter((item.label, item.split) for item in data.items)
    assert set(counts.values()) == {130, 70}
    assert data.classes == tuple(sorted(idx.FASHION_MNIST.classes))
    assert data.image(0).size == (28, 28)
    folder = files("mixtura.datasets") / "demo_fashion"
    assert "MIT License" in (folder / "LICENSE").read_text()
    assert len((folder / "demo_fashion.npz").read_bytes()) <= 2_000_000


def test_no_picture_of_the_demo_is_there_twice():
    data = demo.load()
    assert len({data.digest(i) for i in range(len(data))}) == len(data)


def test_digits_span_the_grays():
    data = digits.load()
    assert len(data) == 1797
    assert data.classes == tuple("0123456789")
    assert (data.items[0].payload.min(), data.items[0].payload.max()) == (0, 240)
    assert max(item.payload.max() for item in data.items) == 255


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("home", ["", "usr/share/datasets/fashion-mnist"])
def test_idx_files_are_found_and_read(tmp_path, small, packed, home):
    put(tmp_path / home, small, packed=packed)
    data = idx.load_fashion_mnist(tmp_path)
    assert Counter(item.split for item in data.items) == {"train": 6, "test": 4}
    assert data.items[2].id == "train/00002"
    assert data.items[2].label == "Pullover"
    expected = np.frombuffer(small["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(6, 28, 28)[2]
    assert np.array_equal(np.array(data.image(2))[:, :, 0], expected)


def test_the_download_folder_is_looked_in_by_default(tmp_path, small, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(idx, "FASHION_MNIST", replace(idx.FASHION_MNIST, homes=()))
    with pytest.raises(NoInput, match="mixtura data get fashion-mnist"):
        idx.load_fashion_mnist()
    put(tmp_path / "mixtura" / "fashion-mnist", small)
    assert len(idx.load_fashion_mnist()) == 10


@pytest.mark.parametrize("packed", [True, False])
def test_another_file_is_refused(tmp_path, small, packed):
    name = "train-images-idx3-ubyte"
    for content in (small[name][:-1], small[name] + b"\0", small[name][:-1] + b"\xff", b""):
        put(tmp_path, small | {name: content}, packed=packed)
        with pytest.raises(DataError, match="is not the published file"):
            idx.load_fashion_mnist(tmp_path)


def test_a_damaged_packed_file_is_refused(tmp_path, small):
    put(tmp_path, small)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:100], b"no gzip", whole[:50] + b"\0" * 50 + whole[100:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="train-images"):
            idx.load_fashion_mnist(tmp_path)


def test_the_pins_are_those_of_files_of_the_right_size():
    for source in (idx.FASHION_MNIST, idx.MNIST):
        assert [file.size for pair in source.files.values() for file in pair] == [47_040_016, 60_008, 7_840_016, 10_008]
        assert source.url.startswith("https://")
        assert source.url.endswith("/")


def test_downloads_are_kept_once_checked(tmp_path, small):
    shop = put(tmp_path / "shop", small)
    told = []
    folder = download.download("fashion-mnist", tmp_path / "kept", url=shop.as_uri() + "/", report=told.append)
    assert len(idx.load_fashion_mnist(folder)) == 10
    assert sorted(told) == sorted(small)
    download.download("fashion-mnist", folder, url="file:///nowhere/", report=told.append)
    assert len(told) == 4  # nothing is fetched twice


@pytest.mark.parametrize("spoil", [lambda b: b[:-20], lambda b: b"<html>", lambda b: gzip.compress(b"x" * 10_000_000)])
def test_a_wrong_download_is_not_kept(tmp_path, small, spoil):
    shop = put(tmp_path / "shop", small)
    first = shop / "train-images-idx3-ubyte.gz"
    first.write_bytes(spoil(first.read_bytes()))
    with pytest.raises(DataError, match="nothing was kept"):
        download.download("fashion-mnist", tmp_path / "kept", url=shop.as_uri() + "/")
    assert not (tmp_path / "kept").exists()


def test_what_cannot_be_fetched(tmp_path, small):
    with pytest.raises(NoInput, match="cannot be fetched"):
        download.download("fashion-mnist", tmp_path / "kept", url=tmp_path.as_uri() + "/")
    assert not (tmp_path / "kept").exists()
    with pytest.raises(UsageError, match="only https: and file:"):
        download.download("fashion-mnist", tmp_path, url="http://example.org/")
    with pytest.raises(UsageError, match="Did you mean 'fashion-mnist'"):
        download.download("fashion-minst", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="Cannot write"):
        download.download("fashion-mnist", tmp_path / "file" / "x")
