"""Packs: what they say is believed only where it agrees with what they hold."""

import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from mixtura.datasets.npz import load, read_arrays
from mixtura.errors import DataError, LabelError, NoInput


def png(color) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def arrays(**changes) -> dict[str, np.ndarray]:
    files = [png(color) for color in ("red", "lime", "blue")]
    made = {
        "data": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "y": np.array([1, 0, 1], np.int16),
        "classes": np.array(["pin", "badge"]),
        "coarse": np.array([0, 0, 1]),
        "coarse_classes": np.array(["metal", "cloth"]),
        "split": np.array(["train", "fold1", "Valid"]),
        "source": np.array("somewhere"),
        "fold": np.array([1, 2, 3]),
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def test_encoded_images(tmp_path):
    np.savez_compressed(tmp_path / "pack.npz", **arrays())
    data = load(tmp_path / "pack.npz")
    assert [data.image(i).getpixel((0, 0)) for i in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert [(i.id, i.source, i.label, i.superlabel, i.split) for i in data.items] == [
        ("pack.npz#0", "pack.npz#0", "badge", "metal", "train"),
        ("pack.npz#1", "pack.npz#1", "pin", "metal", None),
        ("pack.npz#2", "pack.npz#2", "badge", "cloth", "val"),
    ]
    assert load(tmp_path / "pack.npz", label="coarse").classes == ("cloth", "metal")


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 5, 4, 3)])
def test_pixels(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "pack.npz", image=image, y=[0, 0, 1], classes=["a", "b"])
    data = load(tmp_path / "pack.npz")
    assert np.array_equal(np.array(data.image(1))[:, :, 0], image[1] if len(shape) == 3 else image[1, :, :, 0])
    with pytest.raises(LabelError):
        load(tmp_path / "pack.npz", label="coarse")


def test_missing_names_are_no_class_and_no_group(tmp_path):
    missing = arrays(classes=np.array(["", "badge"]), group=np.array([np.nan, np.nan, 1.0]), fold=None)
    np.savez(tmp_path / "pack.npz", **missing)
    assert [(item.label, item.group) for item in load(tmp_path / "pack.npz").items] == [
        ("badge", None),
        (None, None),
        ("badge", "1.0"),
    ]


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ({"fold": None, "drawer": np.array([7, 7, 12])}, ["drawer 7", "drawer 7", "drawer 12"]),
        ({"drawer": np.array([7, 7, 12])}, ["fold 1", "fold 2", "fold 3"]),
        ({"drawer": np.array([7, 7, 12]), "group": np.array(["a", "b", "b"])}, ["a", "b", "b"]),
        ({"fold": None}, [None, None, None]),
    ],
)
def test_who_drew_a_character_is_its_group(tmp_path, given, groups):
    np.savez(tmp_path / "pack.npz", **arrays(**given))
    assert [item.group for item in load(tmp_path / "pack.npz").items] == groups


def test_parts_become_splits(tmp_path):
    np.savez(tmp_path / "set_train.npz", **arrays(split=None))
    np.savez(tmp_path / "set_test.npz", **arrays(split=None))
    data = load(tmp_path / "set")
    assert [item.split for item in data.items] == ["train"] * 3 + ["test"] * 3
    assert data.items[3].id == "set_test.npz#0"


def test_missing(tmp_path):
    with pytest.raises(NoInput, match="there is no such pack"):
        load(tmp_path / "pack.npz")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": None}, "holds no array 'y'"),
        ({"data": None}, "holds no array 'data'"),
        ({"offset": np.array([0, 5, 3, 9])}, "'offset' must rise"),
        ({"offset": np.array([0, 5, 7, 10**9])}, "'offset' must rise"),
        ({"offset": np.array([-5, 5, 7, 9])}, "'offset' must rise"),
        ({"offset": np.array([0.0, 1.0])}, "'offset' integers"),
        ({"offset": np.array([], np.int64)}, "'offset' integers"),
        ({"data": np.zeros((3, 4), np.uint8)}, "one dimension"),
        ({"y": np.array([0, 1, 2])}, "'y' runs from 0 to 2; there are 2 names"),
        ({"y": np.array([0, 1, -1])}, "'y' runs from -1 to 1"),
        ({"y": np.array([0, 1])}, "must hold 3 integers"),
        ({"classes": np.array(["pin", "pin "])}, "holds a name twice"),
        ({"classes": np.array([1, 2])}, "must be a list of texts"),
        ({"fold": None, "drawer": np.array(["a", "b", "c"])}, "'drawer' is <U1; it must hold integers"),
        ({"split": np.array(["train"])}, "'split' has shape"),
        ({"image": np.zeros((3, 4, 4), np.float32)}, "'image' is float32"),
        ({"image": np.zeros((3, 4, 4, 4), np.uint8)}, "'image' is uint8"),
    ],
)
def test_contradictions_are_errors(tmp_path, changes, said):
    np.savez(tmp_path / "pack.npz", **arrays(**changes))
    with pytest.raises(DataError, match=said):
        load(tmp_path / "pack.npz")


def forged(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    "member",
    [
        forged("{'descr': '<f8', 'fortran_order': False, 'shape': (65536, 65536)}"),
        forged("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 5)}", bytes(5)),
        forged("{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", bytes(4)),
        forged("{'descr': '|u1', 'fortran_order': False, 'shape': (5,)}", bytes(4)),
        forged("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        forged("{'descr': '|u1', 'fortran_order': False}"),
        forged("__import__('os').getpid()"),
        b"\x93NUMPY\x09\x00",
        b"not an array",
        b"",
    ],
)
def test_forged_arrays_are_errors_before_any_memory_is_taken(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "pack.npz", "w") as archive:
        archive.writestr("data.npy", member)
    with pytest.raises(DataError, match="is not a readable"):
        read_arrays(tmp_path / "pack.npz")


def test_python_objects_are_refused(tmp_path):
    np.savez(tmp_path / "pack.npz", **arrays(classes=np.array(["pin", None], object)))
    with pytest.raises(DataError, match="is not a readable"):
        load(tmp_path / "pack.npz")


def test_a_damaged_archive_is_an_error(tmp_path):
    np.savez_compressed(tmp_path / "pack.npz", **arrays())
    whole = (tmp_path / "pack.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 255
    for damaged in (b"", b"PK\x05\x06", whole[: len(whole) // 2], bytes(flipped)):
        (tmp_path / "pack.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"pack\.npz"):
            load(tmp_path / "pack.npz")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mixtura.datasets.npz.MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "pack.npz", data=np.zeros(1 << 21, np.uint8))
    with pytest.raises(DataError, match="unpacks to more than"):
        read_arrays(tmp_path / "pack.npz")
