"""Read ordinary folders of photos.

::

    root/pin/1.jpg                    the folder name is the label, for all folders below it too
    root/train/pin/1.jpg              splits: folders such as train, val_set, test2017; see :func:`_splits`
    root/1.jpg                        photos without labels, where there are no folders or beside them
    root/fruit/...                    a single folder that wraps one of these, as in an unpacked archive, is entered
    root/metadata.csv                 a list next to the photos wins (see :mod:`mixtura.datasets.listing`)
    root/pin/brass/1.jpg              the kind ``nested``: superclass pin, class pin/brass

Links are followed inside the root, and out of it only if asked to. What is left alone: :mod:`mixtura.datasets.walk`.
"""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from mixtura.datasets.items import Dataset, Item, Problem, to_split
from mixtura.datasets.listing import read_list
from mixtura.datasets.paths import SOUND_SUFFIXES, readable, to_id, to_label
from mixtura.datasets.walk import (
    ITEM_SUFFIXES,
    PHOTO_FILES,
    PHOTO_SUFFIXES,
    Files,
    Walk,
    entries,
    is_dir,
    is_file,
    suffix_of,
)
from mixtura.errors import NoInput
from mixtura.files import is_file_at, is_folder_at
from mixtura.formats import count, with_article

LIST_FILE = "metadata.csv"
ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
EMPTY_CLASS = "empty_class"
SHEET_SUFFIXES = frozenset({".xlsx", ".xls", ".ods", ".numbers"})


def load(root: Path, *, label: str = "fine", follow_links: bool = False) -> Dataset:
    """Return the photos below a folder.

    Args:
        root: the folder.
        label: ``fine``, or ``coarse`` for the column ``superclass`` of ``metadata.csv``.
        follow_links: also follow links that lead out of the folder.

    Raises:
        NoInput: the folder does not exist or has no photos.
        DataError: ``metadata.csv`` is wrong; the message gives the line.
    """
    return load_files(root, PHOTO_FILES, label, follow_links)


def load_files(root: Path, files: Files, label: str, follow_links: bool = False, *, nested: bool = False) -> Dataset:
    """Return the files of one kind below a folder; see :func:`load`. ``nested``: the folders have two levels."""
    shown = readable(str(root))
    if not is_folder_at(root):
        raise NoInput(f"{shown}: {_no_folder(root, files)}")
    scan = Scan(root.resolve(), files, follow_links, nested)
    try:
        scan.all()
    except OSError as error:
        raise NoInput(f"{shown}: cannot be listed ({error.strerror}). Check its permissions.") from error
    if not scan.items:
        raise NoInput(f"{shown}: holds no {files.word} ({', '.join(sorted(files.read))}).{_first_of(scan.problems)}")
    return Dataset(to_label(scan.root.name), tuple(scan.items), scan.problems, files.modality).at_level(label)


def _no_folder(path: Path, files: Files) -> str:
    """Return what is there in place of a folder, and what to give."""
    wanted = f"a folder with one subfolder of {files.word} for each class"
    suffix = path.suffix.lower()
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return f"there is no such folder. Give {wanted}."
        return f"cannot be opened ({str(error.strerror).lower()}). Check the path and its permissions."
    if suffix in ARCHIVE_SUFFIXES:
        return f"is an archive, not a folder. Unpack it, and give the folder: {wanted}."
    if suffix in SHEET_SUFFIXES:
        return "is a spreadsheet. Save the list as CSV with the columns file_name and label, and give that."
    what = "a photo" if suffix in PHOTO_SUFFIXES else "a sound" if suffix in SOUND_SUFFIXES else "a file"
    return f"is {what}, not a folder. Give {wanted}."


def _first_of(problems: list[Problem]) -> str:
    """Return how many files were left out, and why the first was; empty where none was."""
    if not problems:
        return ""
    were = "was" if len(problems) == 1 else "were"
    folders = sum(one.reason == EMPTY_CLASS for one in problems)
    counts = ((len(problems) - folders, "file"), (folders, "folder"))
    what = " and ".join(count(number, word) for number, word in counts if number)
    return f" {what} {were} left out; {problems[0].message}"


@dataclass
class Scan:
    """One walk below ``root``, collecting items and problems.

    Where the folders are ``nested``, one that holds a class lies in that of its superclass.
    """

    root: Path
    files: Files
    follow_links: bool = False
    nested: bool = False
    items: list[Item] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.walk = Walk(self.root, self.follow_links)

    @property
    def problems(self) -> list[Problem]:
        """What was left out, and why."""
        return self.walk.problems

    def all(self) -> None:
        """Read the folder of classes, or of splits, that the root is or wraps.

        Raises:
            OSError: it cannot be listed.
        """
        place = self._wrapped()
        parts = _splits(place)
        if place not in parts:
            for entry in entries(place):
                self._beside(entry, parts)
        for folder, split in parts.items():
            self.part(folder, split)

    def part(self, folder: Path, split: str | None) -> None:
        """Read a folder of classes, or its list."""
        if not self.walk.inside(str(folder)):
            return
        if is_file_at(folder / LIST_FILE) and self.walk.inside(str(folder / LIST_FILE)):
            self._list(folder, split)
            return
        found = self.walk.enter(str(folder))
        classes = [entry for entry in found if is_dir(entry)]
        for entry in sorted(classes, key=os.DirEntry.is_symlink):  # a real folder comes before a link to it
            self._class(entry, split)
        for entry in found:
            if not is_dir(entry):
                self._file(entry, None, split)

    def _wrapped(self) -> Path:
        """Return the folder of classes or splits that single folders wrap; the root, unless there is one."""
        place = self.root
        while not is_file_at(place / LIST_FILE):
            found = entries(place) if place == self.root else _entries_or_none(place)
            folders = [entry for entry in found if is_dir(entry)]
            loose = any(suffix_of(entry.name) in self.files.read for entry in found if not is_dir(entry))
            if loose or not folders:
                return self.root
            if len(folders) > 1 or to_split(folders[0].name) or folders[0].is_symlink():
                return place
            place = Path(folders[0].path)
        return place

    def _beside(self, entry: os.DirEntry[str], parts: dict[Path, str | None]) -> None:
        """Say that a folder or file beside the splits is left out."""
        names = ", ".join(readable(folder.name) for folder in parts)
        if is_dir(entry) and Path(entry.path) not in parts:
            self.walk.problem(entry.path, "no_split", f"lies beside the splits {names} and is left out")
        elif suffix_of(entry.name) in self.files.read | self.files.refused and not is_dir(entry):
            self.walk.problem(entry.path, "no_split", f"lies in none of the splits {names}. Move it into one")

    def _list(self, folder: Path, split: str | None) -> None:
        prefix = f"{self.walk.relative(str(folder))}/" if folder != self.root else ""
        items, problems = read_list(
            folder / LIST_FILE, folder, prefix=prefix, split=split, follow_links=self.follow_links
        )
        self.items += items
        self.problems.extend(problems)

    def _class(self, entry: os.DirEntry[str], split: str | None) -> None:
        items, problems = len(self.items), len(self.problems)
        label, others = to_label(entry.name) or None, ITEM_SUFFIXES - self.files.read
        strange = False
        for file in self.walk.below(entry.path):
            strange |= suffix_of(file.name) in others
            if self.nested:
                self._nested_file(file, entry.path, split)
            else:
                self._file(file, label, split)
        if (items, problems) == (len(self.items), len(self.problems)):
            other = "sounds" if self.files is PHOTO_FILES else "photos"
            held = f"holds {other} and no {self.files.word}" if strange else f"holds no {self.files.word}"
            self.walk.problem(entry.path, EMPTY_CLASS, f"{held}, so this class cannot be learned")

    def _nested_file(self, entry: os.DirEntry[str], superclass: str, split: str | None) -> None:
        """Add a file of a class inside the folder of its superclass; of neither, if it lies beside the classes."""
        folder, *inside = Path(entry.path).relative_to(superclass).parts
        owner = to_label(Path(superclass).name)
        if inside:
            self._file(entry, f"{owner}/{to_label(folder)}", split, owner)
        elif suffix_of(entry.name) in self.files.read:
            what = f"lies in the folder of the superclass {owner}, and in none of its classes. Move it into one"
            self.walk.problem(entry.path, "no_class", what)

    def _file(
        self, entry: os.DirEntry[str], label: str | None, split: str | None, superlabel: str | None = None
    ) -> None:
        suffix = suffix_of(entry.name)
        if suffix in self.files.refused:
            what = f"is {with_article(suffix)} file, which is not read. {self.files.advice}"
            self.walk.problem(entry.path, "format_not_allowed", what)
        if suffix not in self.files.read or (entry.is_symlink() and not self.walk.inside(entry.path)):
            return
        if not is_file(entry):
            self.walk.problem(entry.path, "not_a_file", "is a pipe, socket, device or broken link")
            return
        name = self.walk.relative(entry.path)
        self.items.append(Item(to_id(name), readable(name), Path(entry.path), label, superlabel, split=split))


def _splits(place: Path) -> dict[Path, str | None]:
    """Return the folders that hold classes, each with its split: the splits of a folder, or the folder itself.

    Its folders are splits if all are named so; beside others, if two or more are, for different splits, and one of
    them holds class folders. A shop may sell cars, planes and a train.
    """
    if is_file_at(place / LIST_FILE):
        return {place: None}
    folders = [entry for entry in entries(place) if is_dir(entry)]
    named = {Path(entry.path): split for entry in folders if (split := to_split(entry.name))}
    several = len(set(named.values())) > 1 and any(map(_holds_classes, named))
    return dict(named) if named and (several or len(named) == len(folders)) else {place: None}


def _holds_classes(folder: Path) -> bool:
    return is_file_at(folder / LIST_FILE) or any(map(is_dir, _entries_or_none(folder)))


def _entries_or_none(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder below the root; the walk will say if it cannot be listed."""
    try:
        return entries(folder)
    except OSError:
        return []
