"""Read ESC-50 and ESC-10, environmental sounds, from the official files.

::

    root/meta/esc50.csv               filename,fold,target,category,esc10,src_file,take
    root/audio/1-100032-A-0.wav       5 s each

The folds are the groups, so a split never cuts one: all clips of a recording are in one fold.

Source: K. J. Piczak, ESC: Dataset for Environmental Sound Classification (ACM Multimedia 2015).
"""

import csv
from collections.abc import Callable
from pathlib import Path

from mixtura.datasets.items import Dataset, Item, Problem
from mixtura.datasets.paths import readable, to_id, to_label
from mixtura.errors import DataError, NoInput
from mixtura.files import is_file_at

LIST_FILE, SOUND_FOLDER = Path("meta", "esc50.csv"), "audio"
LIST_COLUMNS = ("filename", "fold", "target", "category", "esc10")
SUPERCLASSES = ("animals", "nature and water", "people", "indoors", "outdoors")  # ten targets each, in this order

Row = dict[str, str]


def load_esc50(root: Path | None, *, label: str = "fine") -> Dataset:
    """ESC-50: 2,000 sounds of 50 classes in 5 folds, from its official folder; coarse labels are its 5 groups.

    Raises:
        NoInput: the folder or its list is missing. DataError: the list is wrong.
    """
    return _load("ESC-50", root, lambda row: True).at_level(label)


def load_esc10(root: Path | None, *, label: str = "fine") -> Dataset:
    """ESC-10: the 400 sounds in 10 classes of ESC-50 marked as such, from the same folder.

    Raises:
        NoInput: the folder or its list is missing. DataError: the list is wrong.
    """
    return _load("ESC-10", root, lambda row: row["esc10"].strip().lower() == "true").at_level(label)


def _load(name: str, root: Path | None, wanted: Callable[[Row], bool]) -> Dataset:
    if root is None or not is_file_at(root / LIST_FILE):
        place = readable(str(root)) if root is not None else name
        raise NoInput(
            f"{place}: holds no {LIST_FILE.as_posix()}. Unpack the official archive ESC-50-master.zip "
            "(github.com/karolpiczak/ESC-50) and give its folder."
        )
    items: list[Item] = []
    problems: list[Problem] = []
    base = (root / SOUND_FOLDER).resolve()
    for line, row in _rows(root / LIST_FILE):
        if not wanted(row):
            continue
        path = base / row["filename"]
        if _is_plain(row["filename"]) and is_file_at(path) and path.resolve().parent == base:
            items.append(_item(root / LIST_FILE, line, row, path))
        else:
            source = readable(f"{SOUND_FOLDER}/{row['filename']}")
            message = f"{source}: is listed, but there is no such file (line {line} of {LIST_FILE.name})."
            problems.append(Problem(source, "not_a_file", message))
    if not items:
        raise NoInput(
            f"{readable(str(root))}: none of the listed sounds is in its folder {SOUND_FOLDER!r}. Unpack it again."
        )
    return Dataset(name, tuple(items), problems, "audio")


def _is_plain(name: str) -> bool:
    """Whether a file name stays inside its folder."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _rows(path: Path) -> list[tuple[int, Row]]:
    """Return the rows of the list with their line numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in LIST_COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{readable(str(path))}: has no column {missing[0]!r} in its first line.")
            return [(reader.line_num, {name: row[name] or "" for name in LIST_COLUMNS}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{readable(str(path))}: is not a CSV file ({error}). Unpack the archive again.") from error
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check the path.") from error


def _item(path: Path, line: int, row: Row, sound: Path) -> Item:
    fold, target = row["fold"], row["target"]
    if not (fold.isdecimal() and target.isdecimal() and int(target) < 10 * len(SUPERCLASSES) and row["category"]):
        raise DataError(
            f"{readable(str(path))}, line {line}: fold {readable(fold)!r}, target {readable(target)!r} and category "
            f"{readable(row['category'])!r} should be a number, a number from 0 to 49, and a name."
        )
    return Item(
        id=to_id(row["filename"]),
        source=readable(f"{SOUND_FOLDER}/{row['filename']}"),
        payload=sound,
        label=to_label(row["category"]),
        superlabel=SUPERCLASSES[int(target) // 10],
        group=f"fold {int(fold)}",
    )
