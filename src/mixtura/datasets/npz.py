"""Read packs of pictures or sounds: ``.npz`` files, read without pickle and without trusting their headers.

A pack has either ``data`` (concatenated encoded files) with ``offset`` (file i is
``data[offset[i]:offset[i + 1]]``), or ``image`` (pixels, N H W or N H W 3, uint8). It also has ``y`` and ``classes``
and optionally ``split``, ``coarse`` with ``coarse_classes``, and ``group``. Without ``group``, the integers in ``fold``
or ``drawer`` (who drew a character) are the groups, so those of one fold or person stay on one side of a split. It is
a pack of sounds if its first file is one.
"""

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from io import BufferedIOBase
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from mixtura.datasets.items import SPLITS, Dataset, Item, to_split
from mixtura.datasets.paths import label_or_none, readable, to_id, to_label
from mixtura.datasets.sound import is_sound
from mixtura.errors import DataError, NoInput
from mixtura.files import is_file_at
from mixtura.names import text_or_none

MAX_BYTES = 4 * 2**30
GROUPED_BY = ("fold", "drawer")
"""Columns of integers that are the groups where there is no ``group``; the first that a pack has."""

_ARRAY_NAMES = frozenset(
    {"data", "offset", "image", "y", "classes", "split", "coarse", "coarse_classes", "group", "fold", "drawer"}
)
Arrays = dict[str, np.ndarray]


def load(root: Path, *, label: str = "fine") -> Dataset:
    """Return the pictures or sounds of a pack, or of its parts ``root_train.npz``, ``root_val.npz``, ``root_test.npz``.

    Args:
        root: the pack, or the common prefix of its parts.
        label: ``fine`` for ``classes``, ``coarse`` for ``coarse_classes``.

    Raises:
        NoInput: the pack does not exist.
        DataError: it is not a pack, or its arrays contradict each other.
    """
    parts = {root: None} if is_file_at(root) else _parts(root)
    if not parts:
        raise NoInput(f"{readable(str(root))}: there is no such pack. Give a .npz file.")
    items = [item for path, split in parts.items() for item in _items(path, split)]
    modality = "audio" if items and is_sound(_beginning(items[0])) else "image"
    return Dataset(to_label(root.name.removesuffix(".npz")), tuple(items), modality=modality).at_level(label)


def _beginning(item: Item) -> bytes:
    return item.payload[:16] if isinstance(item.payload, bytes) else b""


def _parts(root: Path) -> dict[Path, str | None]:
    named = {root.with_name(f"{root.name}_{split}.npz"): split for split in SPLITS}
    return {path: split for path, split in named.items() if is_file_at(path)}


def _items(path: Path, split: str | None) -> list[Item]:
    arrays = read_arrays(path)
    payloads = _payloads(path, arrays)
    count = len(payloads)
    labels = _named(path, arrays, "y", "classes", count)
    coarse = _named(path, arrays, "coarse", "coarse_classes", count) if "coarse" in arrays else [None] * count
    groups = _column(path, arrays, "group", count) if "group" in arrays else _numbered(path, arrays, count)
    splits = [(given and to_split(given)) or split for given in _column(path, arrays, "split", count)]
    common = Item(id="", source="", payload=b"", label=None)
    return [
        replace(
            common,
            id=to_id(f"{path.name}#{i}"),
            source=readable(f"{path.name}#{i}"),
            payload=payloads[i],
            label=labels[i],
            superlabel=coarse[i],
            group=groups[i],
            split=splits[i],
        )
        for i in range(count)
    ]


def _payloads(path: Path, arrays: Arrays) -> Sequence[bytes] | np.ndarray:
    if "image" in arrays:
        image = arrays["image"]
        if image.dtype != np.uint8 or not (image.ndim == 3 or (image.ndim == 4 and image.shape[3] == 3)):
            raise _wrong(path, f"'image' is {image.dtype} {image.shape}; it must be uint8, N H W or N H W 3")
        return image
    data, offset = _get(path, arrays, "data"), _get(path, arrays, "offset")
    if data.dtype != np.uint8 or data.ndim != 1 or offset.ndim != 1 or offset.dtype.kind not in "iu" or not len(offset):
        raise _wrong(path, "'data' must be uint8 and 'offset' integers, both of one dimension")
    if offset[0] < 0 or offset[-1] > len(data) or (np.diff(offset.astype(np.int64)) < 0).any():
        raise _wrong(path, "'offset' must rise and stay inside 'data'")
    return [data[start:end].tobytes() for start, end in pairwise(offset.tolist())]


def _named(path: Path, arrays: Arrays, index: str, names: str, count: int) -> list[str | None]:
    """Look up names by index, such as classes by ``y``."""
    y, known = _get(path, arrays, index), _get(path, arrays, names)
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise _wrong(path, f"{index!r} is {y.dtype} {y.shape}; it must hold {count} integers")
    if known.ndim != 1 or known.dtype.kind != "U":
        raise _wrong(path, f"{names!r} must be a list of texts")
    labels = [label_or_none(name) for name in known.tolist()]
    if len(set(labels)) < len(labels):
        raise _wrong(path, f"{names!r} holds a name twice")
    if count and not 0 <= y.min() <= y.max() < len(labels):
        raise _wrong(path, f"{index!r} runs from {y.min()} to {y.max()}; there are {len(labels)} names")
    return [labels[i] for i in y.tolist()]


def _column(path: Path, arrays: Arrays, name: str, count: int) -> list[str | None]:
    if name not in arrays:
        return [None] * count
    if arrays[name].shape != (count,):
        raise _wrong(path, f"{name!r} has shape {arrays[name].shape}; it must hold {count} values")
    texts = map(text_or_none, arrays[name].tolist())
    return [None if text is None else readable(text) for text in texts]


def _numbered(path: Path, arrays: Arrays, count: int) -> list[str | None]:
    """Return the folds or drawers as groups, such as ``fold 1``."""
    name = next((name for name in GROUPED_BY if name in arrays), None)
    if name is None:
        return [None] * count
    if arrays[name].dtype.kind not in "iu":
        raise _wrong(path, f"{name!r} is {arrays[name].dtype}; it must hold integers")
    return [f"{name} {number}" for number in _column(path, arrays, name, count)]


def _get(path: Path, arrays: Arrays, name: str) -> np.ndarray:
    if name not in arrays:
        raise _wrong(path, f"holds no array {name!r}")
    return arrays[name]


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of a pack; each is read only if its header matches its size in the archive.

    Raises:
        DataError: the file is not a pack, is damaged, has Python objects, or claims more data than it has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = {name: info for name, info in members.items() if name in _ARRAY_NAMES}
            if sum(info.file_size for info in wanted.values()) > MAX_BYTES:
                raise _wrong(path, f"unpacks to more than {MAX_BYTES >> 30} GiB")
            return {name: _read_array(archive.open(info), info.file_size) for name, info in wanted.items()}
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _wrong(path, f"is not a readable .npz pack ({error})") from error


def _read_array(file: BufferedIOBase | IO[bytes], size: int) -> np.ndarray:
    with file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if header is None:
            raise ValueError(f"unknown version {version}")
        shape, fortran, dtype = header(file)
        body = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or body != size - file.tell():
            raise ValueError(f"a header asks for {body:,} bytes of {dtype}, the file holds {size - file.tell():,}")
        data = file.read(body)
        if len(data) != body:
            raise ValueError("an array ends early")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _wrong(path: Path, what: str) -> DataError:
    return DataError(f"{readable(str(path))}: {what}.")
