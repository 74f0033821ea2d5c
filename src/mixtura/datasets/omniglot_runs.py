"""Read the official one-shot runs of Omniglot: 20 tasks of 20 characters, each drawn by two people.

::

    all_runs.zip, or its folder
      run01/class_labels.txt            test/item01.png and the training/class08.png that shows the same character
      run01/training/class01.png        one picture of each character
      run01/test/item01.png             another of each, by another person

A character is a class, such as ``run01/class08``, and its run is the superclass; ``training`` is the part train.

Source: Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic program induction
(Science 2015).
"""

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from mixtura.datasets import PUBLIC
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable, to_id
from mixtura.datasets.published import require_count
from mixtura.errors import DataError, NoInput
from mixtura.files import is_file_at, is_folder_at

PAIRS_FILE = "class_labels.txt"
RUNS, CHARACTERS = 20, 20  # published: runs, and characters in each
ADVICE = f"Get all_runs.zip again from {PUBLIC['omniglot-runs'].get}."
MAX_BYTES = 1 << 26  # of an archive, unpacked; the official one has 220 kB


def load(root: Path | None, *, label: str = "fine") -> Dataset:
    """Omniglot's one-shot runs: 20 tasks of 20 characters each, one picture to learn from and another to classify.

    Args:
        root: the archive, or the folder it unpacks to.
        label: ``fine`` for the characters, ``coarse`` for the runs.

    Raises:
        NoInput: the archive or folder is missing, or holds no runs.
        DataError: it is damaged or incomplete, or its lists name pictures that are not there.
    """
    if root is None or not (is_file_at(root) or is_folder_at(root)):
        raise NoInput(f"{root}: there is no such archive or folder. Give all_runs.zip of Omniglot, or its folder.")
    files = _unpacked(root) if is_file_at(root) else _found(root)
    lists = sorted(name for name in files if PurePosixPath(name).name == PAIRS_FILE)
    if not lists:
        raise NoInput(f"{readable(str(root))}: holds no run01/{PAIRS_FILE}. Give all_runs.zip of Omniglot.")
    require_count(root, "runs", len(lists), RUNS, ADVICE)
    items = [item for name in lists for item in _items(root, name, files)]
    return Dataset("omniglot-runs", tuple(items)).at_level(label)


Files = dict[str, Callable[[], bytes] | bytes]


def _unpacked(path: Path) -> Files:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            if sum(info.file_size for info in members) > MAX_BYTES:
                raise DataError(f"{readable(str(path))}: unpacks to more than {MAX_BYTES >> 20} MiB. {ADVICE}")
            return {info.filename: archive.read(info) for info in members}
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{readable(str(path))}: is not a readable archive ({error}). {ADVICE}") from error


def _found(root: Path) -> Files:
    """The files two and three levels down, as a run has them."""
    paths: Iterable[Path] = sorted({*root.glob(f"*/{PAIRS_FILE}"), *root.glob("*/*/*.png")})
    return {path.relative_to(root).as_posix(): path.read_bytes for path in paths}


def _content(files: Files, name: str) -> bytes:
    found = files[name]
    return found if isinstance(found, bytes) else found()


def _items(root: Path, listed: str, files: Files) -> list[Item]:
    """The pictures of one run."""
    folder = PurePosixPath(listed).parent
    items: dict[str, Item] = {}
    for line, text in enumerate(_content(files, listed).decode("utf-8", "replace").splitlines(), start=1):
        if not text.strip():
            continue
        pair = [str(folder.parent / name) for name in text.split()]
        if len(pair) != 2 or any(name not in files for name in pair):
            raise DataError(
                f"{readable(str(root))}, line {line} of {listed}: {readable(text)!r} is no pair of a test "
                f"picture and a training picture that are there. {ADVICE}"
            )
        name = f"{folder.name}/{PurePosixPath(pair[1]).stem}"
        for path, part in zip(pair, ("test", "train"), strict=True):
            items[path] = Item(to_id(path), readable(path), _content(files, path), name, folder.name, split=part)
    require_count(f"{root}/{listed}", "pictures", len(items), 2 * CHARACTERS, ADVICE)
    return list(items.values())
