"""Read tieredImageNet as its authors published it: 608 classes of ImageNet in 34 categories, at 84 x 84 pixels.

::

    root/train_images_png.pkl         a list of PNG files, or train_images.npz with the array images, N 84 84 3
    root/train_labels.pkl             label_specific and label_general with the index of each picture's class and
                                      category; label_specific_str and label_general_str with their names
    root/val_..., root/test_...       the same of the other parts

The parts share neither classes nor categories, for few-shot learning. Each may be read alone; it then has no part. The
files are pickles and are read as data, see :mod:`mixtura.datasets.plain_pickle`. They are read whole: they take as much
memory as they have bytes, about 13 GB for all parts as PNG and 16 GB as arrays.

Source: Ren et al., Meta-learning for semi-supervised few-shot classification (ICLR 2018).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.datasets import PUBLIC
from mixtura.datasets.decode import Payload
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable, to_label
from mixtura.datasets.plain_pickle import Stored, as_array, as_text, read_plain
from mixtura.datasets.published import require_count, unreadable_as_error
from mixtura.errors import DataError, NoInput
from mixtura.files import cache_folder, is_file_at

LEVELS = {"label_specific": "classes", "label_general": "categories"}


@dataclass(frozen=True)
class Part:
    """How many pictures, classes and categories of a part were published."""

    pictures: int
    classes: int
    categories: int


PARTS = {"train": Part(448_695, 351, 20), "val": Part(124_261, 97, 6), "test": Part(206_209, 160, 8)}


def load(root: Path | None = None, *, label: str = "fine") -> Dataset:
    """tieredImageNet: 779,165 pictures of 608 classes in 34 categories; 351 classes to train on, others to test on.

    Args:
        root: the folder of the files, or one of them, for its part alone; the cache folder by default.
        label: ``fine`` for the classes, ``coarse`` for their categories.

    Raises:
        NoInput: a file is missing.
        DataError: a file is damaged, or not the published one.
    """
    start = root if root is not None else cache_folder("tieredimagenet")
    alone = start.name.partition("_")[0] if is_file_at(start) else None
    if alone is not None and alone not in PARTS:
        raise NoInput(f"{readable(str(start))}: is no file of tieredImageNet such as test_images_png.pkl. Give one.")
    folder = start if alone is None else start.parent
    files = {split: _files(folder, split) for split in (PARTS if alone is None else (alone,))}
    rows = [(split, *row) for split, (images, labels) in files.items() for row in _rows(split, images, labels)]
    owners = Counter({(split, index): name for split, _, (index, name), _ in rows}.values())
    items = [
        Item(
            id := f"{split}/{place:06d}",
            id,
            payload,
            name if owners[name] == 1 else f"{name} ({split} {index})",
            category,
            split=None if alone else split,
        )
        for split, (place, payload), (index, name), (_, category) in rows
    ]
    return Dataset("tieredimagenet", tuple(items)).at_level(label)


def _files(folder: Path, split: str) -> tuple[Path, Path]:
    """Return the files with the pictures and with the labels of a part.

    Raises:
        NoInput: one is missing.
    """
    pictures = [folder / f"{split}_images{ending}" for ending in ("_png.pkl", ".npz")]
    found = next((path for path in pictures if is_file_at(path)), None)
    labels = folder / f"{split}_labels.pkl"
    if found is None or not is_file_at(labels):
        raise NoInput(
            f"{readable(str(folder))}: holds no {(pictures[0] if found is None else labels).name}. Give the folder of "
            f"tieredImageNet's files, or the file of one part alone ({PUBLIC['tieredimagenet'].get})."
        )
    return found, labels


Row = tuple[tuple[int, Payload], tuple[int, str], tuple[int, str]]


def _rows(split: str, images: Path, labels: Path) -> list[Row]:
    """Return number and content, number and name of the class, and of the category, of each picture of a part."""
    advice = f"Download tieredImageNet again ({PUBLIC['tieredimagenet'].get})."
    pictures = _pictures(images, advice)
    require_count(images, "pictures", len(pictures), PARTS[split].pictures, advice)
    table = read_plain(labels, advice)
    columns = []
    for name, things in LEVELS.items():
        with unreadable_as_error(labels, advice):
            column = _named(table, name)
        require_count(labels, f"labels in {name}", len(column), len(pictures), advice)
        require_count(labels, things, len(set(column)), getattr(PARTS[split], things), advice)
        columns.append(column)
    return list(zip(enumerate(pictures), *columns, strict=True))


def _pictures(path: Path, advice: str) -> Sequence[Payload]:
    """Return the PNG files, or the pixels, in a file of pictures.

    Raises:
        DataError: it is damaged or holds something else.
    """
    if path.suffix == ".npz":
        with unreadable_as_error(path, advice), np.load(path, allow_pickle=False) as arrays:
            pixels = arrays["images"]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise DataError(f"{readable(str(path))}: 'images' is {pixels.dtype} {pixels.shape}. {advice}")
        return list(pixels)
    content = read_plain(path, advice)
    with unreadable_as_error(path, advice):
        return [_encoded(one) for one in as_array(content)]


def _encoded(value: Any) -> bytes:
    """Return the bytes of a PNG file, which OpenCV keeps in an array."""
    if isinstance(value, Stored):
        if value.array().dtype != np.uint8:
            raise ValueError("an array of other numbers than bytes in place of a picture")
        value = bytes(value.parts()[-1])  # no copy, where these are bytes already
    if not isinstance(value, bytes):
        raise ValueError(f"{type(value).__name__} in place of a picture")
    return value


def _named(table: Any, name: str) -> list[tuple[int, str]]:
    """Return the index and the name of each picture's class.

    Raises:
        ValueError, KeyError: the table is another, or an index has no name.
    """
    known = {as_text(key): value for key, value in dict(table).items()}
    names = [to_label(as_text(one)) for one in as_array(known[f"{name}_str"]).tolist()]
    index = as_array(known[name]).astype(np.int64)
    if index.ndim != 1 or not 0 <= int(index.min()) <= int(index.max()) < len(names):
        raise ValueError(f"{name} holds an index without a name")
    return [(one, names[one]) for one in index.tolist()]
