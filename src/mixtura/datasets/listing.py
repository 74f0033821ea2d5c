"""Read lists of photos or sounds: a CSV file with the columns ``file_name, label`` and optional others.

Optional columns: ``superclass``, ``group`` (must stay in one split, such as a product or a person), ``split`` (train,
val or test) and ``weight``. Other columns are ignored. Paths are relative to the photos' folder and must stay in it.
It is a list of sounds if the first file has a sound extension (``.wav``, ``.flac``, ``.ogg``, ``.mp3``).
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixtura.datasets.items import SPLITS, Dataset, Item, Problem, to_split
from mixtura.datasets.paths import SOUND_SUFFIXES, readable, to_id, to_label
from mixtura.errors import DataError, NoInput
from mixtura.names import nearest

MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6  # item weights; a wider range would lose the small ones in sums
LIST_COLUMNS = ("file_name", "label", "superclass", "group", "split", "weight")


def load(root: Path, *, photos: Path | None = None, label: str = "fine") -> Dataset:
    """Return the photos or sounds in a CSV list.

    Args:
        root: the list.
        photos: the folder its paths are relative to; the list's own folder by default.
        label: ``fine`` for the column ``label``, ``coarse`` for ``superclass``.

    Raises:
        NoInput: the list is missing, or none of its files exist.
        DataError: a column is missing, or a line is wrong; the message gives its number.
    """
    folder = photos or root.parent
    items, problems = read_list(root, folder)
    if not items:
        raise NoInput(f"{readable(str(root))}: none of its files is in {readable(str(folder))}. Check 'file_name'.")
    modality = "audio" if PurePosixPath(items[0].source).suffix.lower() in SOUND_SUFFIXES else "image"
    return Dataset(to_label(root.stem), tuple(items), problems, modality).at_level(label)


def read_list(
    path: Path, folder: Path, *, prefix: str = "", split: str | None = None
) -> tuple[list[Item], list[Problem]]:
    """Return the items and problems of a list with paths relative to ``folder``.

    ``prefix`` is prepended to ids and sources; ``split`` applies to lines without one.
    """
    items: list[Item] = []
    problems: list[Problem] = []
    base = folder.resolve()
    for row in _rows(path):
        name = row.values["file_name"]
        found = _locate(base, name)
        if isinstance(found, Path):
            items.append(_item(row, prefix + name, found, split))
        else:
            source = readable(prefix + name)
            problems.append(Problem(source, found, f"{source}: {_SENTENCES[found]} (line {row.line} of {path.name})."))
    return items, problems


_SENTENCES = {
    "not_a_file": "is listed, but there is no such file",
    "outside_root": "leaves the folder of the photos and is not followed",
}


@dataclass(frozen=True)
class _Row:
    path: Path
    line: int
    values: dict[str, str]

    def wrong(self, what: str) -> DataError:
        return DataError(f"{readable(str(self.path))}, line {self.line}: {what}")


def _rows(path: Path) -> Iterator[_Row]:
    seen: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(path, reader.fieldnames)
            for values in reader:
                row = _Row(path, reader.line_num, {k: v for k, v in values.items() if isinstance(k, str) and v})
                _check_row(row, surplus=None in values, seen=seen)
                yield row
    except UnicodeDecodeError as error:
        raise DataError(f"{readable(str(path))}: is not UTF-8 text. Save the list as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(
            f"{readable(str(path))}: is not a CSV file ({error}). Save the list as CSV in UTF-8."
        ) from error
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check the path.") from error


def _check_header(path: Path, fields: object) -> None:
    names = list(fields) if isinstance(fields, list) else []
    for column in ("file_name", "label"):
        if column not in names:
            hint = nearest(column, names) if names else "The file is empty."
            raise DataError(f"{readable(str(path))}: has no column {column!r} in its first line. {hint}")
    if len(set(names)) < len(names):
        raise DataError(f"{readable(str(path))}: a column occurs twice in its first line. Keep one of them.")


def _check_row(row: _Row, *, surplus: bool, seen: dict[str, int]) -> None:
    if surplus:
        raise row.wrong("holds more fields than the first line. Put quotes around fields with commas.")
    name = row.values.get("file_name")
    if not name:
        raise row.wrong("has no file_name. Fill it in or remove the line.")
    key = str(PurePosixPath(name))
    if key in seen:
        raise row.wrong(f"{readable(name)!r} is already on line {seen[key]}. Keep one of them.")
    seen[key] = row.line


def _locate(base: Path, name: str) -> Path | str:
    """Return the file for a name, or the reason there is none. Names must not leave ``base``, not even by a link."""
    try:
        path = (base / name).resolve()
        if not path.is_relative_to(base):
            return "outside_root"
        return path if path.exists() else "not_a_file"
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        return "not_a_file"


def _item(row: _Row, name: str, path: Path, split: str | None) -> Item:
    values = row.values
    superclass, group = values.get("superclass"), values.get("group")
    return Item(
        id=to_id(name),
        source=readable(name),
        payload=path,
        label=to_label(values.get("label", "")) or None,
        superlabel=to_label(superclass) if superclass else None,
        group=readable(group) if group else None,
        split=_split(row) or split,
        weight=_weight(row),
    )


def _split(row: _Row) -> str | None:
    given = row.values.get("split")
    split = to_split(given) if given else None
    if given and split is None:
        raise row.wrong(f"split {readable(given)!r} is unknown. {nearest(given, SPLITS)}")
    return split


def _weight(row: _Row) -> float:
    given = row.values.get("weight", "1")
    try:
        weight = float(given)
    except ValueError:
        weight = math.nan
    if not (weight == 0 or MIN_WEIGHT <= weight <= MAX_WEIGHT):
        raise row.wrong(
            f"weight {readable(given)!r} is not 0 or a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:,.0f}. Correct it."
        )
    return weight
