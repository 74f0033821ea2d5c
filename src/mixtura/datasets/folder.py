"""Read ordinary folders of photos.

::

    root/pin/1.jpg                    the folder name is the label, for all folders below it too
    root/train/pin/1.jpg              if every folder in root is named train, val or test
    root/1.jpg                        no folders: photos without labels
    root/metadata.csv                 a list next to the photos wins (see :mod:`mixtura.datasets.listing`)

Links are followed inside the root and never out of it. Hidden files are ignored.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from mixtura.datasets.items import Dataset, Item, Problem, to_split
from mixtura.datasets.listing import read_list
from mixtura.datasets.paths import readable, to_id, to_label
from mixtura.errors import NoInput

LIST_FILE = "metadata.csv"
MAX_DEPTH = 64
PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# Photo formats that are not supported: reported, unlike unrelated files.
REFUSED_SUFFIXES = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".dng", ".cr2", ".nef", ".arw"}
)


@dataclass(frozen=True)
class Files:
    """Which files are items: the modality, the word for them, the supported extensions and the unsupported ones."""

    modality: str
    word: str
    read: frozenset[str]
    refused: frozenset[str]
    advice: str


PHOTO_FILES = Files("image", "photos", PHOTO_SUFFIXES, REFUSED_SUFFIXES, "Save it as JPEG or PNG")


def load(root: Path, *, label: str = "fine") -> Dataset:
    """Return the photos below a folder.

    Args:
        root: the folder.
        label: ``fine``, or ``coarse`` for the column ``superclass`` of ``metadata.csv``.

    Raises:
        NoInput: the folder does not exist or has no photos.
        DataError: ``metadata.csv`` is wrong; the message gives the line.
    """
    return load_files(root, PHOTO_FILES, label)


def load_files(root: Path, files: Files, label: str) -> Dataset:
    """Return the files of one kind below a folder; see :func:`load`."""
    shown = readable(str(root))
    if not root.is_dir():
        raise NoInput(
            f"{shown}: there is no such folder. Give a folder with one subfolder of {files.word} for each class."
        )
    scan = Scan(root.resolve(), files)
    try:
        parts = _split_folders(scan.root)
    except OSError as error:
        raise NoInput(f"{shown}: cannot be listed ({error.strerror}). Check its permissions.") from error
    for folder, split in parts.items():
        scan.part(folder, split)
    if not scan.items:
        why = f" {len(scan.problems)} files were left out; {scan.problems[0].message}" if scan.problems else ""
        raise NoInput(f"{shown}: holds no {files.word} ({', '.join(sorted(files.read))}).{why}")
    return Dataset(to_label(scan.root.name), tuple(scan.items), scan.problems, files.modality).at_level(label)


def _split_folders(root: Path) -> dict[Path, str | None]:
    """Return the folders with classes, each with its split: the root, unless all folders in it are splits."""
    if (root / LIST_FILE).is_file():
        return {root: None}
    folders = [entry for entry in _entries(root) if _is_dir(entry)]
    parts = {Path(entry.path): to_split(entry.name) for entry in folders}
    return parts if parts and all(parts.values()) else {root: None}


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, except hidden ones, in the same order on every machine."""
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda e: os.fsencode(e.name))


@dataclass
class Scan:
    """One walk below ``root``, collecting items and problems."""

    root: Path
    files: Files
    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def part(self, folder: Path, split: str | None) -> None:
        """Read a folder of classes, or its list."""
        if not self._inside(str(folder)):
            return
        if (folder / LIST_FILE).is_file() and self._inside(str(folder / LIST_FILE)):
            prefix = f"{folder.name}/" if folder != self.root else ""
            items, problems = read_list(folder / LIST_FILE, folder, prefix=prefix, split=split)
            self.items += items
            self.problems += problems
            return
        entries = self._list(str(folder))
        classes = [entry for entry in entries if _is_dir(entry)]
        for entry in sorted(classes, key=os.DirEntry.is_symlink):  # a real folder comes before a link to it
            self._class(entry, split)
        for entry in entries:
            if _is_dir(entry):
                continue
            if not classes:
                self._file(entry, None, split)
            elif _suffix(entry.name) in self.files.read:
                self._problem(entry.path, "no_class", "lies in no class folder. Move it into one")

    def _class(self, entry: os.DirEntry[str], split: str | None) -> None:
        items, problems = len(self.items), len(self.problems)
        self._walk(entry.path, to_label(entry.name), split)
        if (items, problems) == (len(self.items), len(self.problems)):
            self._problem(entry.path, "empty_class", f"holds no {self.files.word}, so this class cannot be learned")

    def _walk(self, folder: str, label: str, split: str | None) -> None:
        for entry in self._enter(folder):
            if _is_dir(entry):
                self._walk(entry.path, label, split)
            else:
                self._file(entry, label, split)

    def _enter(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the entries of a folder, unless it is outside the root or too deep."""
        if not self._inside(folder):
            return []
        if self._relative(folder).count("/") >= MAX_DEPTH:
            self._problem(folder, "not_a_file", f"lies more than {MAX_DEPTH} folders deep and is not read")
            return []
        return self._list(folder)

    def _list(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the entries of a folder on its first visit; links can lead to it again, without end."""
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in self.seen:
                self._problem(folder, "not_a_file", "is a link to a folder that is read already")
                return []
            self.seen.add((status.st_dev, status.st_ino))
            return _entries(folder)
        except OSError as error:
            self._problem(folder, "unreadable", f"cannot be listed ({str(error.strerror).lower()})")
            return []

    def _file(self, entry: os.DirEntry[str], label: str | None, split: str | None) -> None:
        suffix = _suffix(entry.name)
        if suffix in self.files.refused:
            what = f"is a {suffix} file, which is not read. {self.files.advice}"
            self._problem(entry.path, "format_not_allowed", what)
        if suffix not in self.files.read or (entry.is_symlink() and not self._inside(entry.path)):
            return
        if not _is_file(entry):
            self._problem(entry.path, "not_a_file", "is a pipe, socket, device or broken link")
            return
        name = self._relative(entry.path)
        self.items.append(Item(to_id(name), readable(name), Path(entry.path), label, split=split))

    def _inside(self, path: str) -> bool:
        """Whether a path is below the root after resolving links; if not, a problem is recorded."""
        real = Path(os.path.realpath(path))
        if real.is_relative_to(self.root):
            return True
        self._problem(path, "outside_root", "is a link out of the folder and is not followed")
        return False

    def _relative(self, path: str) -> str:
        return Path(path).relative_to(self.root).as_posix()

    def _problem(self, path: str, reason: str, what: str) -> None:
        source = readable(self._relative(path))
        self.problems.append(Problem(source, reason, f"{source}: {what}."))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a million names: no objects


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a loop of links
        return False
