"""tieredImageNet from small files of the published layout, whole, damaged and hostile."""

import io
import os
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mixtura.datasets import tieredimagenet
from mixtura.datasets.episodes import classes_of_split
from mixtura.datasets.plain_pickle import Stored, read_plain
from mixtura.datasets.tieredimagenet import Part
from mixtura.errors import DataError, NoInput
from mixtura.pipeline.data_source import data_keys

NAMES = {
    "train": {"dog": ["beagle", "pug"], "boat": ["yawl"]},
    "val": {"garment": ["maillot", "maillot", "apron"]},
    "test": {"clock": ["sundial", "hourglass"]},
}
EACH = 2


def picture(shade):
    return np.full((84, 84, 3), (shade, 10, 20), np.uint8)


def png(shade):
    """A PNG file as OpenCV keeps it: an array of one column."""
    file = io.BytesIO()
    Image.fromarray(picture(shade)).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)[:, None]


def table(part):
    specific = [(name, place) for place, names in enumerate(NAMES[part].values()) for name in names]
    return {
        "label_specific": np.repeat(np.arange(len(specific)), EACH),
        "label_specific_str": [name for name, _ in specific],
        "label_general": np.repeat([place for _, place in specific], EACH),
        "label_general_str": [*NAMES[part]],
    }


@pytest.fixture(params=[2, 5], ids=["protocol 2", "protocol 5"])
def tiered(request, tmp_path, monkeypatch):
    parts = {}
    for part, kinds in NAMES.items():
        classes = sum(map(len, kinds.values()))
        parts[part] = Part(classes * EACH, classes, len(kinds))
        pictures = [png(30 * place) for place in range(classes * EACH)]
        for name, content in ((f"{part}_images_png.pkl", pictures), (f"{part}_labels.pkl", table(part))):
            (tmp_path / name).write_bytes(pickle.dumps(content, request.param))
    monkeypatch.setattr(tieredimagenet, "PARTS", parts)
    return tmp_path


def test_parts_share_neither_classes_nor_categories(tiered):
    data = tieredimagenet.load(tiered)
    assert Counter((item.split, item.superlabel, item.label) for item in data.items) == {
        ("train", "dog", "beagle"): 2, ("train", "dog", "pug"): 2, ("train", "boat", "yawl"): 2,
        ("val", "garment", "maillot (val 0)"): 2, ("val", "garment", "maillot (val 1)"): 2,
        ("val", "garment", "apron"): 2, ("test", "clock", "sundial"): 2, ("test", "clock", "hourglass"): 2,
    }  # fmt: skip
    base, novel = classes_of_split([item.label for item in data.items], [item.split for item in data.items])
    assert base == ("beagle", "pug", "yawl") and novel == ("hourglass", "sundial")
    np.testing.assert_array_equal(np.asarray(data.image(3)), picture(90))
    assert [item.id for item in data.items[5:7]] == ["train/000005", "val/000000"]
    assert tieredimagenet.load(tiered, label="coarse").classes == ("boat", "clock", "dog", "garment")
    assert data_keys(str(tiered))["data.kind"] == "tieredimagenet"


def test_one_part_alone(tiered):
    data = tieredimagenet.load(tiered / "test_images_png.pkl")
    assert data.classes == ("hourglass", "sundial") and {item.split for item in data.items} == {None}
    assert data_keys(str(tiered / "test_images_png.pkl"))["data.kind"] == "tieredimagenet"


def test_arrays_of_pixels_are_read_too(tiered):
    whole = tieredimagenet.load(tiered)
    for part in NAMES:
        (tiered / f"{part}_images_png.pkl").unlink()
        pixels = np.stack([picture(30 * place) for place in range(tieredimagenet.PARTS[part].pictures)])
        np.savez(tiered / f"{part}_images.npz", images=pixels)
    data = tieredimagenet.load(tiered)
    assert data.items == whole.items
    np.testing.assert_array_equal(np.asarray(data.image(3)), np.asarray(whole.image(3)))
    np.savez(tiered / "val_images.npz", images=np.zeros((6, 84, 84)))
    with pytest.raises(DataError, match=r"val_images\.npz: 'images' is float64 \(6, 84, 84\)\. Download"):
        tieredimagenet.load(tiered)
    (tiered / "val_images.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"val_images\.npz: cannot be read"):
        tieredimagenet.load(tiered)


class Hostile:
    """What a pickle may do: call anything."""

    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE_FOLDER"],)


@pytest.mark.parametrize("name", ["train_images_png.pkl", "test_labels.pkl"])
def test_nothing_in_a_file_is_run(tiered, monkeypatch, name):
    monkeypatch.setenv("HOSTILE_FOLDER", str(tiered / "made"))
    content = pickle.loads((tiered / name).read_bytes())
    wrapped = [*content[:-1], Hostile()] if isinstance(content, list) else content | {"label_general": Hostile()}
    (tiered / name).write_bytes(pickle.dumps(wrapped))
    with pytest.raises(DataError, match=rf"{name}: cannot be read \(it asks for (posix|nt)\.mkdir, which is refused\)"):
        tieredimagenet.load(tiered)
    assert not (tiered / "made").exists()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("val_images_png.pkl", lambda found: found[:-1], "number of pictures is 5, and 6 were published"),
        ("val_images_png.pkl", lambda found: [*found[:-1], np.zeros(3)], "other numbers than bytes"),
        ("val_images_png.pkl", lambda found: [*found[:-1], 7], "int in place of a picture"),
        ("val_images_png.pkl", lambda _: {"a": 1}, "dict in place of a list"),
        ("val_labels.pkl", lambda found: found | {"label_general": np.zeros(5, int)}, "label_general is 5, and 6 were"),
        ("val_labels.pkl", lambda found: found | {"label_specific": np.zeros(6, int)}, "classes is 1, and 3 were"),
        ("val_labels.pkl", lambda found: found | {"label_specific": np.full(6, -1)}, "an index without a name"),
        ("val_labels.pkl", lambda found: found | {"label_general_str": []}, "an index without a name"),
        ("val_labels.pkl", lambda found: [found], "cannot be read"),
        ("val_labels.pkl", lambda found: {"label_specific": found["label_specific"]}, "label_specific_str"),
    ],
)
def test_a_damaged_file_is_one_sentence(tiered, name, change, said):
    (tiered / name).write_bytes(pickle.dumps(change(pickle.loads((tiered / name).read_bytes()))))
    with pytest.raises(DataError, match=rf"{name}: .*{said}.*Download tieredImageNet again") as caught:
        tieredimagenet.load(tiered)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 3, 60, -5])
def test_a_file_that_ends_early_is_one_sentence(tiered, cut):
    path = tiered / "train_images_png.pkl"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"train_images_png\.pkl: cannot be read"):
        tieredimagenet.load(tiered)


def test_what_is_missing_is_named(tiered, tmp_path, monkeypatch):
    (tiered / "val_labels.pkl").unlink()
    with pytest.raises(NoInput, match=r"holds no val_labels\.pkl"):
        tieredimagenet.load(tiered)
    with pytest.raises(NoInput, match="is no file of tieredImageNet"):
        (tmp_path / "other.pkl").write_bytes(b"")
        tieredimagenet.load(tmp_path / "other.pkl")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(NoInput, match=r"cache.*holds no train_images_png\.pkl"):
        tieredimagenet.load()


def test_an_array_of_python_2_is_read(tmp_path):
    """Its instructions as Python 2 wrote them, with texts of bytes and the old name of NumPy's module."""
    kind = b"cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    (tmp_path / "a.pkl").write_bytes(
        b"\x80\x02}U\x01x" + made + b"(K\x01K\x02K\x01\x86" + kind + b"\x89U\x04\x00\x01\x01\x00tbs."
    )
    (stored,) = read_plain(tmp_path / "a.pkl", "Mend it.").values()
    assert isinstance(stored, Stored)
    np.testing.assert_array_equal(stored.array(), [[1], [256]])


def test_the_published_counts_are_those_of_the_paper():
    parts = [(one.pictures, one.classes, one.categories) for one in tieredimagenet.PARTS.values()]
    assert tuple(map(sum, zip(*parts, strict=True))) == (779_165, 608, 34)
