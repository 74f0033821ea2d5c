"""Read CIFAR-10 and CIFAR-100 in the official binary version, unpacked or not.

::

    cifar-10-binary.tar.gz            or what it unpacks to:
    cifar-10-batches-bin/             data_batch_1.bin ... data_batch_5.bin, test_batch.bin, batches.meta.txt
    cifar-100-binary.tar.gz           or what it unpacks to:
    cifar-100-binary/                 train.bin, test.bin, fine_label_names.txt, coarse_label_names.txt

A record is its label (CIFAR-100: coarse, then fine), one byte each, and 3,072 bytes of pixels: red, green and blue,
32 x 32 each.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

import gzip
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mixtura.datasets.idx import cache_folder
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable, to_label
from mixtura.datasets.published import require_count
from mixtura.errors import DataError, NoInput
from mixtura.files import is_file_at, is_there

CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXEL_BYTES = 3 * 32 * 32
MAX_FILE = 256 * 2**20  # bytes; the largest of the official files has 154 million
MAX_MEMBERS = 100


@dataclass(frozen=True)
class Source:
    """The files of a data set: its binary and Python archives and folders, files by split, name lists by label byte.

    ``published`` is the number of pictures in each file of a split, and the number of names in each list.
    """

    name: str
    title: str
    archive: str
    folder: str
    python: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    published: dict[str, int]

    @property
    def needed(self) -> tuple[str, ...]:
        """All file names."""
        return (*self.names, *(name for files in self.files.values() for name in files))


CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    python=("cifar-10-python.tar.gz", "cifar-10-batches-py", "batches.meta"),
    files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    names=("batches.meta.txt",),
    published={"train": 10_000, "test": 10_000, "batches.meta.txt": 10},
)
CIFAR100 = Source(
    name="cifar100",
    title="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    python=("cifar-100-python.tar.gz", "cifar-100-python", "meta"),
    files={"train": ("train.bin",), "test": ("test.bin",)},
    names=("coarse_label_names.txt", "fine_label_names.txt"),
    published={"train": 50_000, "test": 10_000, "coarse_label_names.txt": 20, "fine_label_names.txt": 100},
)


def load_cifar10(root: Path | None = None, *, label: str = "fine") -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test pictures of 10 classes (binary version, downloaded by hand).

    Args:
        root: the archive, the folder it unpacks to, or a folder that holds one of them; the cache folder by default.
        label: ``fine``; there is no other.

    Raises:
        NoInput: the files are not there. DataError: they are the Python version, damaged or incomplete.
    """
    return _load(CIFAR10, root).at_level(label)


def load_cifar100(root: Path | None = None, *, label: str = "fine") -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test pictures of 100 classes (binary version, downloaded by hand).

    Args:
        root: the archive, the folder it unpacks to, or a folder that holds one of them; the cache folder by default.
        label: ``fine``, the 100 classes; ``coarse``, the 20 groups.

    Raises:
        NoInput: the files are not there. DataError: they are the Python version, damaged or incomplete.
    """
    return _load(CIFAR100, root).at_level(label)


def _load(source: Source, root: Path | None) -> Dataset:
    place = find(source, root)
    read = _unpack(source, place) if is_file_at(place) else {name: _read(place / name) for name in source.needed}
    advice = f"Download {source.archive} again ({CIFAR_PAGE})."
    names = [_names(read[name], f"{place}/{name}") for name in source.names]
    for name, known in zip(source.names, names, strict=True):
        require_count(place / name, "names", len(known), source.published[name], advice)
    items: list[Item] = []
    for split, files in source.files.items():
        count = 0
        for name in files:
            labels, pixels = _records(read[name], names, readable(f"{place}/{name}"))
            require_count(place / name, "pictures", len(labels), source.published[split], advice)
            for own, picture in zip(labels.tolist(), pixels, strict=True):
                said = [known[index] for known, index in zip(names, own, strict=True)]
                identifier = f"{split}/{count:05d}"
                coarse = said[0] if len(said) > 1 else None
                items.append(Item(identifier, identifier, picture, said[-1], coarse, split=split))
                count += 1
    return Dataset(source.name, tuple(items))


def find(source: Source, root: Path | None) -> Path:
    """Return the folder or the archive of a data set, at ``root`` or directly below it.

    Raises:
        NoInput: neither exists.
        DataError: only the Python version exists.
    """
    start = root if root is not None else cache_folder(source.name)
    fetch = f"Download {source.archive} ({CIFAR_PAGE}) and give its path."
    if is_file_at(start):
        if start.name in source.python:
            raise _pickled(source, start)
        return start
    folders = (start, start / source.folder)
    for folder in folders:
        if is_file_at(folder / source.names[0]):
            missing = [name for name in source.needed if not is_file_at(folder / name)]
            if missing:
                raise NoInput(f"{readable(str(folder))}: {missing[0]} is missing. Unpack {source.archive} again.")
            return folder
    if is_file_at(start / source.archive):
        return start / source.archive
    for name in source.python:
        if is_there(start / name):
            raise _pickled(source, start / name)
    raise NoInput(f"{readable(str(start))}: holds no binary version of {source.title}. {fetch}")


def _pickled(source: Source, path: Path) -> DataError:
    return DataError(
        f"{readable(str(path))}: is the Python version of {source.title}, made of pickles, which can run any program "
        f"when they are read. Download {source.archive} ({CIFAR_PAGE}) instead; it holds the same pictures."
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _within(file.read(MAX_FILE + 1), str(path))
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check its permissions.") from error


def _within(data: bytes, name: str) -> bytes:
    if len(data) > MAX_FILE:
        raise DataError(f"{readable(name)}: has more than {MAX_FILE >> 20} MiB and is none of the official files.")
    return data


def _unpack(source: Source, path: Path) -> dict[str, bytes]:
    """Read the required files of an archive into memory; nothing is written to disk, whatever the member names."""
    found: dict[str, bytes] = {}
    shown = readable(str(path))
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS or member.size > MAX_FILE:
                    raise DataError(f"{shown}: is not {source.archive}: it holds {readable(member.name)!r} and more.")
                name = Path(member.name).name
                file = archive.extractfile(member) if member.isreg() and name in source.needed else None
                if file is not None and name not in found:
                    found[name] = _within(file.read(MAX_FILE + 1), f"{path}/{name}")
            stream.read(MAX_FILE)  # to the end, where the checksum of the archive is
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{shown}: is no whole .tar.gz file ({error}). Download {source.archive} again.") from error
    except OSError as error:  # gzip reports damage this way too, without a number
        if error.errno is None:
            raise DataError(f"{shown}: is damaged ({error}). Download {source.archive} again.") from error
        raise NoInput(f"{shown}: cannot be read ({error.strerror}). Check its permissions.") from error
    missing = [name for name in source.needed if name not in found]
    if missing:
        raise DataError(f"{shown}: holds no {missing[0]}, so it is not {source.archive}. Download that ({CIFAR_PAGE}).")
    return found


def _names(data: bytes, shown: str) -> list[str]:
    """Return the class names in a list.

    Raises:
        DataError: it is not text, is empty, or names a class twice.
    """
    try:
        names = [to_label(line) for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{readable(shown)}: is no text ({error.reason}). Unpack the archive again.") from error
    if not names or len(set(names)) < len(names):
        raise DataError(f"{readable(shown)}: holds no name, or one twice. Unpack the archive again.")
    return names


def _records(
    data: bytes, names: list[list[str]], shown: str
) -> tuple[UInt8[np.ndarray, "N L"], UInt8[np.ndarray, "N 32 32 3"]]:
    """Return the labels and pictures in a file of records.

    Raises:
        DataError: the last record is incomplete, or a label has no name.
    """
    width = len(names) + PIXEL_BYTES
    if not data or len(data) % width:
        raise DataError(f"{shown}: has {len(data):,} bytes, which are not whole records of {width:,}. Unpack it again.")
    table = np.frombuffer(data, np.uint8).reshape(-1, width)
    labels = table[:, : len(names)]
    for column, known in enumerate(names):
        worst = int(labels[:, column].max())
        if worst >= len(known):
            raise DataError(f"{shown}: holds label {worst}, and there are {len(known)} names. Unpack it again.")
    return labels, table[:, len(names) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
