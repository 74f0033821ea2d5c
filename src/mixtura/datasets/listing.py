"""Read lists of photos or sounds: a CSV file with the columns ``file_name, label`` and optional others.

The first line shows whether commas, semicolons or tabs are between the columns, as spreadsheets of different countries
write them. Blanks around values do not count, nor do rows without any value. The text is UTF-8, or UTF-16 with a mark.

Optional columns: ``superclass``, ``group`` (must stay in one split, such as a product or a person), ``split`` (train,
val or test) and ``weight``. Other columns are ignored. Paths are relative to the photos' folder and must stay in it.
A name may have backslashes, or its accents in another Unicode form than the file's.
It is a list of sounds if the first file has a sound extension (``.wav``, ``.flac``, ``.ogg``, ``.mp3``).
"""

import csv
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixtura.datasets.items import SPLITS, Dataset, Item, Problem, to_split
from mixtura.datasets.paths import SOUND_SUFFIXES, label_or_none, readable, to_id, to_label
from mixtura.errors import DataError, NoInput
from mixtura.names import nearest, text_or_none
from mixtura.tables import begun, encoding_of

MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6  # item weights; a wider range would lose the small ones in sums
REQUIRED = ("file_name", "label")
MAX_NAMED = 20  # columns named in one sentence
LIST_COLUMNS = ("file_name", "label", "superclass", "group", "split", "weight")


def load(root: Path, *, photos: Path | None = None, label: str = "fine", follow_links: bool = False) -> Dataset:
    """Return the photos or sounds in a CSV list.

    Args:
        root: the list.
        photos: the folder its paths are relative to; the list's own folder by default.
        label: ``fine`` for the column ``label``, ``coarse`` for ``superclass``.
        follow_links: also follow links that lead out of that folder.

    Raises:
        NoInput: the list is missing, or none of its files exist.
        DataError: a column is missing, or a line is wrong; the message gives its number.
    """
    folder = photos or root.parent
    items, problems = read_list(root, folder, follow_links=follow_links)
    if not items:
        first = f" {problems[0].message}" if problems else ""
        raise NoInput(
            f"{readable(str(root))}: none of its files is in the folder {readable(str(folder.resolve()))}. Check "
            f"'file_name'.{first}"
        )
    modality = "audio" if PurePosixPath(items[0].source).suffix.lower() in SOUND_SUFFIXES else "image"
    return Dataset(to_label(root.stem), tuple(items), problems, modality).at_level(label)


def read_list(
    path: Path, folder: Path, *, prefix: str = "", split: str | None = None, follow_links: bool = False
) -> tuple[list[Item], list[Problem]]:
    """Return the items and problems of a list with paths relative to ``folder``.

    ``prefix`` is prepended to ids and sources; ``split`` applies to lines without one.
    """
    items: list[Item] = []
    problems: list[Problem] = []
    base = folder.resolve()
    for row in _rows(path):
        name, found = _locate(base, row.values["file_name"], follow_links)
        if isinstance(found, Path):
            items.append(_item(row, prefix + name, found, split))
        else:
            source = readable(prefix + name)
            problems.append(Problem(source, found, f"{source}: {_SENTENCES[found]} (line {row.line} of {path.name})."))
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DataError(f"{readable(str(path))}: {twice[0]!r} is listed twice, in two spellings. Keep one of them.")
    return items, problems


_SENTENCES = {
    "not_a_file": "is listed, but there is no such file",
    "outside_root": "leaves the folder of the photos and is not followed; for links, --follow-links "
    "(data.follow_links) allows it",
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
        with path.open(encoding=encoding_of(path), newline="") as file:
            lines, delimiter, skipped = begun(file, REQUIRED)
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, [name for name in header if name])
            for values in reader:
                trimmed = [value.strip() for value in values]
                if not any(trimmed):  # spreadsheets end with rows of separators
                    continue
                named = {k: v for k, v in zip(header, trimmed, strict=False) if k and v}
                row = _Row(path, reader.line_num + skipped, named)
                _check_row(row, surplus=any(trimmed[len(header) :]), seen=seen)
                yield row
    except UnicodeError as error:
        raise DataError(f"{readable(str(path))}: is not UTF-8 text. Save the list as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(
            f"{readable(str(path))}: is not a CSV file ({error}). Save the list as CSV in UTF-8."
        ) from error
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check the path.") from error


def _check_header(path: Path, names: list[str]) -> None:
    numbers = sum(map(_is_number, names))
    if numbers and (numbers == len(names) or numbers == len(names) - 1 > 1):  # or one column is a label
        raise DataError(
            f"{readable(str(path))}: is a table of numbers, not a list of photos. Features are read from .npy, .npz "
            "and .parquet files. Save it as one, for example with numpy.save; mixtura predict takes that as it is, and "
            "mixtura fit after mixtura data import."
        )
    for column in REQUIRED:
        if column not in names:
            hint = nearest(column, names) if names else "The file is empty."
            alike = [name for name in names if "_".join(name.lower().split()) == column]
            if alike:
                hint = f"Rename the column {alike[0]!r} to {column}."
            elif len(names) == 1 and column in names[0].split():
                hint = "Put commas, semicolons or tabs between the columns, not blanks."
            elif len(names) > MAX_NAMED:
                hint = f"It has {len(names):,} columns, the first is {readable(names[0])!r}."
            raise DataError(f"{readable(str(path))}: has no column {column!r} in its first line. {hint}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{readable(str(path))}: a column occurs twice in its first line ({twice[0]!r}). Keep one of them."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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


def _locate(base: Path, name: str, follow_links: bool) -> tuple[str, Path | str]:
    """Return a name as the file has it, and the file, or the reason there is none.

    Names must not leave ``base``; links may, with ``follow_links``.
    """
    for own in _spellings(name):
        found = _file_of(base, own, follow_links)
        if found != "not_a_file":
            return own, found
    return name, "not_a_file"


def _spellings(name: str) -> Iterator[str]:
    """Yield a name as it stands, with the slashes of other systems, and with its accents in both Unicode forms."""
    yield name
    slashes = name.replace("\\", "/")
    yield from (one for form in ("NFC", "NFD") if (one := unicodedata.normalize(form, slashes)) != name)


def _file_of(base: Path, name: str, follow_links: bool) -> Path | str:
    try:
        path = (base / name).resolve()
        inside = follow_links and Path(os.path.normpath(base / name)).is_relative_to(base)
        if not inside and not path.is_relative_to(base):
            return "outside_root"
        return path if path.exists() else "not_a_file"
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        return "not_a_file"


def _item(row: _Row, name: str, path: Path, split: str | None) -> Item:
    values = row.values
    group = text_or_none(values.get("group"))
    return Item(
        id=to_id(name),
        source=readable(name),
        payload=path,
        label=label_or_none(values.get("label")),
        superlabel=label_or_none(values.get("superclass")),
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
