"""Walk folders of photos and sounds: which files are items, in which order, and what is said of the others.

Everything that reads a folder walks it here, so that a file means the same to all commands. Hidden names, and the
folders that NAS devices, Windows and macOS leave behind, are passed over without a word.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mixtura.datasets.items import Problem
from mixtura.datasets.paths import SOUND_SUFFIXES, readable

MAX_DEPTH = 64

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# Formats that are not supported: reported, unlike unrelated files.
REFUSED_PHOTO_SUFFIXES = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
REFUSED_SOUND_SUFFIXES = frozenset(
    {".m4a", ".aac", ".mp4", ".wma", ".aif", ".aiff", ".amr", ".mid", ".midi", ".au", ".caf", ".w64"}
)

# In lower case. Thumbnails, versions and deleted files: copies that nobody put there to be learned.
LEFT_ALONE = frozenset(
    {
        "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@snapshot", "@tmp", "@__thumb", "#recycle",
        "#snapshot", "~snapshot", "$recycle.bin", "system volume information", "lost+found", "__macosx",
        "network trash folder", "temporary items",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Which files are items: the modality, the word for them, the supported extensions and the unsupported ones."""

    modality: str
    word: str
    read: frozenset[str]
    refused: frozenset[str]
    advice: str


PHOTO_FILES = Files("image", "photos", PHOTO_SUFFIXES, REFUSED_PHOTO_SUFFIXES, "Save it as JPEG or PNG")
ITEM_SUFFIXES = PHOTO_SUFFIXES | SOUND_SUFFIXES
REFUSED_SUFFIXES = REFUSED_PHOTO_SUFFIXES | REFUSED_SOUND_SUFFIXES


def files_below(folder: Path) -> tuple[list[Path], list[Problem]]:
    """Return the photos and sounds below a folder of queries, and the folders in it that cannot be read.

    Files of refused formats are among them: decoding says what each is. Links are followed wherever they lead.
    """
    walk = Walk(folder, follow_links=True)
    found = [
        Path(entry.path) for entry in walk.below(folder) if suffix_of(entry.name) in ITEM_SUFFIXES | REFUSED_SUFFIXES
    ]
    missed = [problem for problem in walk.problems if problem.reason != "read_already"]
    shown = readable(str(folder))
    return found, [
        Problem(
            shown if one.source == "." else f"{shown}/{one.source}",
            one.reason,
            f"{shown}{one.message[1:]}" if one.source == "." else f"{shown}/{one.message}",
        )
        for one in missed
    ]


@dataclass
class Walk:
    """One walk below ``root``, collecting problems; sources are relative to it.

    A link out of the root is a problem, unless ``follow_links``.
    """

    root: Path
    follow_links: bool = False
    problems: list[Problem] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.real_root = self.root.resolve()

    def below(self, folder: str | Path) -> Iterator[os.DirEntry[str]]:
        """Yield the files below a folder, in the order of their names."""
        for entry in self.enter(str(folder)):
            if is_dir(entry):
                yield from self.below(entry.path)
            else:
                yield entry

    def enter(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the entries of a folder, unless it is outside the root, too deep, or read already."""
        if not self.inside(folder):
            return []
        if self.relative(folder).count("/") >= MAX_DEPTH:
            self.problem(folder, "not_a_file", f"lies more than {MAX_DEPTH} folders deep and is not read")
            return []
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in self.seen:  # links can lead to it again, without end
                self.problem(folder, "read_already", "is a link to a folder that is read already")
                return []
            self.seen.add((status.st_dev, status.st_ino))
            return entries(folder)
        except OSError as error:
            self.problem(folder, "unreadable", f"cannot be listed ({str(error.strerror).lower()})")
            return []

    def inside(self, path: str) -> bool:
        """Whether a path may be read: below the root after resolving links, or anywhere; else a problem is recorded."""
        if self.follow_links or Path(os.path.realpath(path)).is_relative_to(self.real_root):
            return True
        what = "is a link out of the folder and is not followed; --follow-links (data.follow_links) allows it"
        self.problem(path, "outside_root", what)
        return False

    def relative(self, path: str) -> str:
        """Return a path as people see it: relative to the root, with slashes."""
        return Path(path).relative_to(self.root).as_posix()

    def problem(self, path: str, reason: str, what: str) -> None:
        """Record why a file or folder is left out: a code, and the rest of a sentence that begins with its name."""
        source = readable(self.relative(path))
        self.problems.append(Problem(source, reason, f"{source}: {what}."))


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not left alone, in the same order on every machine.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not _left_alone(entry.name)), key=lambda e: os.fsencode(e.name))


def _left_alone(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_ALONE


def suffix_of(name: str) -> str:
    """Return the extension of a file name, in lower case."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a million names: no objects


def is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a loop of links
        return False
